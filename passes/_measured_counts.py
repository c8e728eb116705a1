"""Channel counts by what layers take under a runner that a recipe names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from prunec.catalogue import runner, runner_by
from prunec.deploy.layer_times import LayerTimes
from prunec.errors import PassError
from prunec.graph.removal.counts import STEP, Measured, Rounding

MEASURED = "measured"
RoundTo = Annotated[int, Field(ge=1)] | Literal["measured"]
"""A multiple, or what takes the least time."""
MacsRatio = (
    Annotated[
        float,
        Field(
            gt=0, lt=1, description="MACs of the network that is left, as a share of the dense one"
        ),
    ]
    | None
)
LatencyRatio = (
    Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="in place of macs_ratio: its time by the layers' times under the runner, "
            "as a share of the dense one's; ours",
        ),
    ]
    | None
)
TimedRunner = Annotated[
    str, Field(description="whose times latency_ratio means: onnxruntime, ssh://user@board")
]
Block = Annotated[
    RoundTo,
    Field(
        description="channels are kept in blocks of so many; measured: of 4, which "
        "remove-channels rounds up"
    ),
]
TARGETS = {"macs_ratio": "MACs / dense", "latency_ratio": "layers' times / dense"}
"""Names of budgets in a run's record, by option."""


def block_of(round_to: int | str) -> int:
    """Return the channels per block of a pass that chooses channels."""
    return round_to if isinstance(round_to, int) else STEP


def stated_budget(
    name: str, macs_ratio: float | None, latency_ratio: float | None
) -> tuple[str, float]:
    """Return the option of the one budget that a pass states, and its share.

    Raises:
        PassError: it states none, or both.
    """
    stated = {"macs_ratio": macs_ratio, "latency_ratio": latency_ratio}
    given = [(key, ratio) for key, ratio in stated.items() if ratio is not None]
    if len(given) != 1:
        raise PassError(
            f"{name} states " + ("two budgets" if given else "no budget"),
            remedy="State macs_ratio = 0.5, or latency_ratio = 0.5.",
        )
    return given[0]


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
