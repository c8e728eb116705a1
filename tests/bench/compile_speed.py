"""Seconds of compilation as networks grow, beside torch-pruning on the same networks and channels.

    python tests/bench/compile_speed.py -o docs/tables/compile_speed.md
    python tests/bench/compile_speed.py --models resnet50 --profile

Every network has its published widths and an image of 224 × 224, batch 2, float32, one thread, with
60 % of the channels of every group that is not pinned masked whole. In one process, one after the
other, the median of ``--rounds`` runs each, in seconds of the processor, which a busy machine does
not stretch as it does those of the clock:

- *forward*: one run of the network, which both tools need;
- *prunec*: ``compile_module``, from the network to the smaller network;
- *torch-pruning*: its dependency graph, then every group whose root has zero filters.

*per node* is prunec's time by the nodes of the captured graph: linear growth is a constant column.
"""

from __future__ import annotations

import copy
import cProfile
import json
import os
import pstats
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.rows import (
    REASON,
    Cells,
    Rows,
    arguments,
    first_line,
    listed,
    markdown,
    measured,
    serve,
    when_and_with,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

MODELS = ["resnet50", "densenet121", "densenet169", "densenet201"]
MODELS += [f"efficientnet_b{i}" for i in range(8)]
KEPT = 0.4
HEADER = (
    "network", "side", "nodes", "forward s", "prunec s", "ms per node", "error", "torch-pruning s",
    "error", "",
)  # fmt: skip
LEGEND = """\
Seconds of processor time for networks with 60 % of the channels masked (batch 2, float32). *Side*
is that of the square image, *nodes* those of the captured graph. *Forward* is one run of the
network, which both tools need. *ms per node* is prunec's time; a constant column means linear
growth. *Error* is that of the outputs of the tool in the column before, as a share of the largest
output.

"""


def main() -> None:
    """Measure what is missing, then print the table; or a profile of one network."""
    parser = arguments(__doc__ or "", limit=900)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--size", type=int, default=224, help="side of the image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="where prunec's seconds go")
    given = parser.parse_args()
    names = listed(given.models) or []
    if given.child:
        child(json.loads(given.child))
    elif given.profile:
        for name in names:
            profile(name, given.size)
    else:
        rows = Rows(given.output, table)
        job = {"size": given.size, "rounds": given.rounds}
        for name, cells in measured(__file__, job, rows.missing(names), given.limit):
            rows.add(name, {"model": name, "side": given.size, **cells})
            print(json.dumps(rows.cells[name]), flush=True)
        print(table(rows.cells))


def child(job: Mapping[str, Any]) -> None:
    """One network after the other; a small one warms up what is loaded late."""
    import torch

    torch.set_num_threads(1)
    measure("squeezenet1_1", 64, 1)
    serve(job, lambda name: measure(name, job["size"], job["rounds"]))


def measure(name: str, side: int, rounds: int) -> Cells:
    """Time the tools in turn."""
    import torch
    from bench.peer_tools import by_prunec, by_torch_pruning

    module, example = masked_net(name, side)
    cells: Cells = {}

    def forward() -> Tensor:
        with torch.no_grad():
            made = module(*example)
        assert isinstance(made, torch.Tensor)
        return made

    wanted = forward()
    tools = {"prunec": by_prunec, "torch-pruning": by_torch_pruning}
    times: dict[str, list[float]] = {"forward": []} | {tool: [] for tool in tools}
    for _ in range(rounds):
        times["forward"].append(_seconds(forward))
        for tool, cut in tools.items():
            given = copy.deepcopy(module)
            began = time.process_time()
            try:
                small = cut(given, example)
            except Exception as error:
                cells[f"{tool} {REASON}"] = first_line(error)
                continue
            times[tool].append(time.process_time() - began)
            cells[f"{tool} error"] = _error(wanted, small, example)
    cells["nodes"] = _nodes(module, example)
    return cells | {key: statistics.median(spent) for key, spent in times.items() if spent}


def masked_net(name: str, side: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A published network in float32 with its zeros."""
    from bench.published_models import build, example_of
    from masks import channel_masks, masked

    from prunec.graph.channels.groups import channel_groups

    module, shape = build(name, side)
    module.float()
    example = tuple(x.float() for x in example_of(shape, 2))
    masks = channel_masks(module, channel_groups(module, example), KEPT, "both", 1)
    return masked(module, masks), example


def _seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def _error(wanted: Tensor, module: nn.Module, example: tuple[Tensor, ...]) -> float:
    import torch

    with torch.no_grad():
        return ((module(*example) - wanted).abs().max() / wanted.abs().max()).item()


def _nodes(module: nn.Module, example: tuple[Tensor, ...]) -> int:
    from prunec.graph.capture import capture

    return len(capture(module, example).nodes)


def profile(name: str, side: int) -> None:
    """Cumulative seconds of prunec's own functions, the longest first."""
    from bench.peer_tools import by_prunec

    module, example = masked_net(name, side)
    by_prunec(*masked_net("squeezenet1_1", 64))
    run = cProfile.Profile()
    run.runcall(by_prunec, module, example)
    print(name)
    pstats.Stats(run).sort_stats("cumulative").print_stats(r"prunec/graph", 25)
    pstats.Stats(run).sort_stats("tottime").print_stats(15)


def table(rows: Mapping[str, Cells]) -> str:
    """All rows."""
    lines = [line(cells) for cells in rows.values()]
    made = when_and_with("prunec", "torch", "torch-pruning")
    return f"{made}\n\n{LEGEND}{markdown(HEADER, lines)}"


def line(cells: Cells) -> list[str]:
    """A row's cells as text."""
    ours, nodes = cells.get("prunec"), cells.get("nodes")
    reasons = [str(value) for key, value in cells.items() if key.endswith(REASON)]
    return [
        cells["model"],
        str(cells["side"]),
        str(nodes or ""),
        _text(cells, "forward", ".2f"),
        _text(cells, "prunec", ".2f"),
        f"{1000 * ours / nodes:.1f}" if ours and nodes else "",
        _text(cells, "prunec error", ".0e"),
        _text(cells, "torch-pruning", ".2f"),
        _text(cells, "torch-pruning error", ".0e"),
        "; ".join(reasons),
    ]


def _text(cells: Cells, key: str, form: str) -> str:
    return format(cells[key], form) if key in cells else ""


if __name__ == "__main__":
    main()
