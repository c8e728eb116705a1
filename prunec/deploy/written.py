"""What a written file holds, whatever its form: what the checks of a file compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prunec.cost import Cost


@dataclass(frozen=True)
class Written:
    """A file as it was read back; None stands for what its form does not keep.

    Attributes:
        inputs: name → sizes of each input, in order; a dynamic size is its name.
        outputs: names of the outputs, in order.
        metadata: what the file says of itself.
        weights: tensor name of the network → its values.
        cost: of one sample, counted over the file's own graph.
        uncounted: why ``cost`` is None although the form can be counted.
        graph_digest: sha256 of everything that computes but is no weight.
        flaw: what is wrong with a file that can be read in part; empty where nothing is.
    """

    inputs: Mapping[str, tuple[str | int, ...]] | None = None
    outputs: tuple[str, ...] | None = None
    metadata: Mapping[str, str] | None = None
    weights: Mapping[str, np.ndarray] | None = None
    cost: Cost | None = None
    uncounted: str = ""
    graph_digest: str | None = None
    flaw: str = ""
