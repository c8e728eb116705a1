"""Channel counts by what layers take under a runner that a recipe names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from prunec.catalogue import runner, runner_by
from prunec.deploy.layer_times import LayerTimes
from prunec.errors import PassError
from prunec.graph.removal.counts import Measured, Rounding

MEASURED = "measured"
RoundTo = Annotated[int, Field(ge=1)] | Literal["measured"]
"""A multiple, or what takes the least time."""


def require_timed(name: str, asked: bool) -> None:
    """Refuse a runner whose times say nothing, where they are asked for; it is not reached yet.

    Raises:
        PassError: it is emulated.
        RecipeError: there is no such runner.
    """
    reason = runner(name.partition("://")[0]).timeless if asked else ""
    if reason:
        raise PassError(
            f"runner {name!r} cannot be measured: {reason}",
            remedy='Name this machine\'s runner = "onnxruntime", or a board: "ssh://user@board".',
        )


def layer_times(name: str) -> LayerTimes:
    """Return what layers take under a runner.

    Raises:
        PrunecError: it is not there.
    """
    return LayerTimes(runner_by(name, ".onnx"))


def rounding(round_to: int | str, name: str) -> tuple[Rounding, LayerTimes | None]:
    """Return how counts are rounded, and the table that says so, where one does."""
    if isinstance(round_to, int):
        return round_to, None
    times = layer_times(name)
    return Measured(times), times
