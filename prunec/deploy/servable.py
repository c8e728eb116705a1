"""Requests that a form cannot serve, refused before anything runs.

What a form takes stands in the class of its exporter: types of numbers, byte images, the earliest
opset of the file that it is converted from, facts of the network. Without this check, a refusal
would follow minutes of work on the forms before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from prunec.deploy.exporter import Exporter, Lossy
from prunec.errors import NeedsNotMet


def require_servable(
    exporters: Sequence[Exporter],
    *,
    facts: frozenset[str],
    images: bool,
    layout: str = "",
    network: tuple[nn.Module, tuple[Tensor, ...]] | None = None,
) -> None:
    """Refuse what an exporter cannot write, or cannot be converted from.

    Args:
        exporters: exporters of the requested forms; that of a form which another reads is among
            them.
        facts: facts that hold after the recipe's last pass.
        images: whether the recipe names data, which lossy forms are calibrated on.
        layout: layout of uint8 images, if the files take them; empty for float inputs.
        network: the network and its inputs; None if they are not known yet.

    Raises:
        NeedsNotMet: a form cannot be written; names the form and the remedy.
    """
    by_form = {writer.form(): writer for writer in exporters}
    for writer in exporters:
        writer.require_facts(facts)
        _require_opset(writer, by_form)
        if isinstance(writer, Lossy) and not images:
            raise NeedsNotMet(
                f"{writer.exporter_name()} must be given batches to calibrate on",
                remedy="Name a data set: [data] name in a recipe, or --data.",
            )
        if layout and not writer.takes_bytes:
            raise NeedsNotMet(
                f"{writer.exporter_name()} takes float32 inputs, not the bytes of "
                "--with-preprocessing",
                remedy=f"Export {writer.form()} by itself, without --with-preprocessing.",
            )
        if network is not None:
            writer.require_kinds(*network)


def _require_opset(writer: Exporter, by_form: dict[str, Exporter]) -> None:
    root = writer
    while root.reads in by_form:
        root = by_form[root.reads]
    opset = getattr(root, "opset", None)
    if opset is not None and opset < writer.oldest_opset:
        raise NeedsNotMet(
            f"{writer.exporter_name()} needs ONNX of opset {writer.oldest_opset} or later, and "
            f"opset {opset} is asked for",
            remedy=f"Ask for opset {writer.oldest_opset} or later ([[export]] opset, --opset), or "
            f"export {writer.form()} by itself.",
        )
