"""Integer files of device runtimes: written within their bounds, judged by the runtime itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from torch import Tensor, nn

from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.losses import Stored, losses
from prunec.deploy.runner import LoadedFile, Runner
from prunec.errors import PassError, PrunecError
from prunec.exporters._int8_calibration import Values, arrays_of
from prunec.exporters._int8_search import Attempts, Chosen, Errors, Ranges, within_bounds

_BITS = 8  # of a weight

M = TypeVar("M")


def write_within_bounds(
    form: Lossy,
    source: Source,
    path: Path,
    batches: Iterable[tuple[Tensor, ...]],
    *,
    percentiles: Sequence[float],
    network: Values,
    write: Callable[[Ranges, Collection[str], Path], M],
    runner: Runner,
) -> Chosen[M]:
    """Write the first file whose answers on the calibration images are within the bounds.

    Args:
        form: exporter of the form.
        source: network and ONNX file.
        path: path of the file.
        batches: calibration images.
        percentiles: percentiles of the values at which ranges may end.
        network: float network in the form's own graph.
        write: function of the ranges of the network's values, of the kernels whose layers stay
            float, and of a path: writes the file.
        runner: runtime of the form.

    Returns:
        What ``write`` returned for the file.

    Raises:
        PassError: no file is within the bounds, or the runtime does not load one.
    """
    given = arrays_of(batches)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name

        def quantised(ranges: Ranges, left: Errors) -> M:
            return write(ranges, {attempts.layers[node] for node in left}, file)

        def outputs(_: M) -> Iterator[np.ndarray]:
            return (y[0] for y in _opened(runner, file).run(given))

        model = onnx.load(source.files["onnx"])
        attempts: Attempts[M] = Attempts(
            model, given, source.labels, _BITS, network, quantised, outputs
        )
        chosen: Chosen[M] = within_bounds(form, attempts, percentiles)
        path.write_bytes(file.read_bytes())
    return chosen


def layers_told(
    chosen: Chosen[Any],
    integer: int,
    floats: Sequence[str],
    stored: Mapping[str, Stored],
    module: nn.Module,
) -> dict[str, object]:
    """Return data on the layers of a file and its weights, with sentences under ``remarks``.

    Args:
        chosen: the file.
        integer: number of its integer layers.
        floats: kernels of its other layers, or what the runtime calls them.
        stored: kernel of the network → its values as integers represent them.
        module: the network.
    """
    unknown = sum(kernel not in chosen.left for kernel in floats)
    remark = f"{unknown} layers are float: the runtime's quantiser knows no integers for them"
    return {
        "integer layers": integer,
        "layers": integer + len(floats),
        "float layers": chosen.left,
        "percentile": chosen.percentile,
        "losses": [asdict(loss) for loss in losses(stored, module)],
        "remarks": [*chosen.remarks, *([remark] if unknown else [])],
    }


def _opened(runner: Runner, file: Path) -> LoadedFile:
    try:
        return runner.open(file)
    except PrunecError as error:
        raise PassError(
            f"{runner.runner_name()} does not load the integers: the scales of a layer's input, "
            "kernel and output lie too far apart",
            remedy="Ship another form, or clip the values of the network.",
        ) from error
