"""From the same masks: what prunec, torch-pruning and torch-simplify remove, and whether exactly.

    python tests/bench/peers.py -o docs/peers.md
    python tests/bench/peers.py --nets resnet18 --no-zoo

Two ways of masking the same random channels of every group that is not pinned:

- ``whole``: every parameter of a dropped channel is zero, so it may go without a trace;
- ``filters``: only the kernels that make it are zero. Norms and biases behind them make it a
  constant that is not 0, which whoever removes it has to put back.

The published networks run on 64 × 64, one process each. On the zoo of small awkward networks the
outcomes are counted: *exact* to 1e-10 of the largest output in float64 (*idle*: exact, but nothing
was removed where prunec removes something), *rounded* (to 1e-6, as if part of it was computed in
float32), *inexact*, *refused* (an error instead of a network), *broken* (a network that does not
run), *hung* (beyond the limit). Needs ``torch-pruning`` and
``torch-simplify``.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
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

from prunec.wording import percent

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunec.graph.channels.groups import ChannelGroup

NETS = (
    "resnet18 resnet50 mobilenet_v2 vgg11_bn densenet121 shufflenet_v2_x0_5 efficientnet_b0 "
    "small_vit"
).split()
TOOLS = ("prunec", "torch-pruning", "torch-simplify")
MASKS = {"whole": "both", "filters": "producers"}
DENSITY = {"published": 0.4, "zoo": 0.5}
OUTCOMES = ("exact", "idle", "rounded", "inexact", "refused", "broken", "hung")
EXACT, ROUNDED = 1e-10, 1e-6
HEADER = (
    "network", "masks", "tool", "parameters kept", "MACs kept", "float64 error", "seconds",
    "outcome",
)  # fmt: skip


def main() -> None:
    """Measure what is missing, then print both tables."""
    parser = arguments(__doc__ or "", limit=300)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--zoo", help="names of the zoo's networks; all without it")
    parser.add_argument("--no-zoo", action="store_true")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--zoo-limit", type=float, default=20, help="seconds for a small network")
    given = parser.parse_args()
    if given.child:
        child(json.loads(given.child))
        return
    tools = listed(given.tools) or []
    rows = Rows(given.output, text)
    nets = listed(given.nets) or []
    for masks in MASKS:
        for tool in tools:
            _measure(rows, nets, tool, masks, given.limit, small=False)
    if not given.no_zoo:
        from zoo import ZOO

        for masks in MASKS:
            for tool in tools:
                nets = listed(given.zoo) or list(ZOO)
                _measure(rows, nets, tool, masks, given.zoo_limit, small=True)
    print(text(rows.cells))


def _measure(rows: Rows, nets: list[str], tool: str, masks: str, limit: float, small: bool) -> None:
    def key(net: str) -> str:
        return f"{net} {masks} {tool}"

    wanted = [net for net in nets if rows.missing([key(net)])]
    for net, cells in measured(__file__, {"tool": tool, "masks": masks}, wanted, limit):
        known = {"net": net, "masks": masks, "tool": tool, "small": small}
        rows.add(key(net), {**known, **cells})
        print(json.dumps(rows.cells[key(net)]), flush=True)


def child(job: Mapping[str, Any]) -> None:
    """One tool, one way of masking, network after network."""
    import torch
    from bench.peer_tools import TOOLS

    torch.set_num_threads(1)
    serve(job, lambda net: measure(net, job["masks"], TOOLS[job["tool"]]))


def measure(net: str, masks: str, tool: Any) -> Cells:
    """Mask a network, give it to a tool, compare what comes back."""
    from bench.allowed_macs import metered
    from bench.differences import difference
    from oracles import fresh_inputs, outputs

    module, example = masked_net(net, masks)
    before = metered(module, example)
    cells: Cells = {
        "parameters_before": parameters(module),
        "macs_before": before.macs,
    }
    given, inputs = copy.deepcopy(module), fresh_inputs(example, 3, 1)
    began = time.perf_counter()
    try:
        small = tool(given, example)
    except Exception as error:
        return cells | {"outcome": "refused", REASON: first_line(error)}
    cells["seconds"] = time.perf_counter() - began
    cells["parameters"] = parameters(small)
    try:
        cells["error"] = difference(outputs(module, inputs), outputs(small, inputs))
        cells["macs"] = metered(small, example).macs
    except Exception as error:
        return cells | {"outcome": "broken", REASON: first_line(error)}
    if not cells["error"] <= ROUNDED:
        return cells | {"outcome": "inexact"}
    return cells | {"outcome": "exact" if cells["error"] <= EXACT else "rounded"}


def parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def masked_net(net: str, masks: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network of the zoo or a published one, with its zeros."""
    from masks import channel_masks, masked
    from zoo import ZOO

    from prunec.graph.channels.groups import channel_groups

    module, example = ZOO[net]() if net in ZOO else _published(net)
    density = DENSITY["zoo" if net in ZOO else "published"]
    groups: tuple[ChannelGroup, ...] = channel_groups(module, example)
    return masked(module, channel_masks(module, groups, density, MASKS[masks], 7)), example


def _published(net: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    import torch
    from bench.published_models import build, example_of
    from masks import randomise
    from torchvision.models import VisionTransformer

    if net != "small_vit":
        module, shape = build(net)
        return module, example_of(shape, 2)
    torch.manual_seed(0)
    small = VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=10).double().eval()
    return randomise(small), example_of((3, 32, 32), 2)


def text(rows: Mapping[str, Cells]) -> str:
    """Both tables."""
    versions = when_and_with("prunec", "torch", "torch-pruning", "torch-simplify")
    published = [cells for cells in rows.values() if not cells["small"]]
    parts = [versions, "", markdown(HEADER, [line(cells) for cells in by_net(published)])]
    small = [cells for cells in rows.values() if cells["small"]]
    if small:
        parts += [zoo_table(small), removal(small + published)]
    return "\n".join(parts)


def by_net(rows: list[Cells]) -> list[Cells]:
    """The tools of one network below one another."""
    nets = list(dict.fromkeys(cells["net"] for cells in rows))
    return sorted(rows, key=lambda c: (nets.index(c["net"]), c["masks"] != "whole"))


def outcome(cells: Cells, ours: Cells | None) -> str:
    """Outcome of a network with a tool."""
    if "outcome" not in cells:
        return "hung" if "not done within" in cells[REASON] else "broken"
    idle = cells["outcome"] == "exact" and cells["macs"] == cells["macs_before"]
    removes = ours is not None and ours.get("macs", 0) < ours.get("macs_before", 0)
    return "idle" if idle and removes else str(cells["outcome"])


def line(cells: Cells) -> list[str]:
    """A row's cells as text."""
    return [
        cells["net"],
        cells["masks"],
        cells["tool"],
        percent(cells["parameters"] / cells["parameters_before"]) if "parameters" in cells else "",
        percent(cells["macs"] / cells["macs_before"]) if "macs" in cells else "",
        f"{cells['error']:.0e}" if "error" in cells else "",
        f"{cells['seconds']:.1f}" if "seconds" in cells else "",
        outcome(cells, None) + (f": {cells[REASON]}" if REASON in cells else ""),
    ]


def zoo_table(rows: list[Cells]) -> str:
    """Numbers of networks of the zoo by tool and outcome."""
    known = {(c["net"], c["masks"], c["tool"]): c for c in rows}
    lines = []
    for masks in MASKS:
        for tool in TOOLS:
            mine = [c for c in rows if (c["masks"], c["tool"]) == (masks, tool)]
            seen = Counter(outcome(c, known.get((c["net"], masks, "prunec"))) for c in mine)
            lines.append([tool, masks, str(len(mine)), *(str(seen[o]) for o in OUTCOMES)])
    return markdown(("tool", "masks", "networks", *OUTCOMES), lines)


def removal(rows: list[Cells]) -> str:
    """Networks for which another tool keeps fewer MACs than prunec, and whether correctly."""
    known = {(c["net"], c["masks"], c["tool"]): c for c in rows}
    lines = []
    for (net, masks, tool), theirs in known.items():
        ours = known.get((net, masks, "prunec"), {})
        if "macs" in theirs and "macs" in ours and theirs["macs"] < ours["macs"]:
            error = f"{theirs['error']:.0e}"
            lines.append([net, masks, tool, str(ours["macs"]), str(theirs["macs"]), error])
    if not lines:
        return "No other tool keeps fewer MACs than prunec on any of these networks.\n"
    header = ("network", "masks", "tool", "MACs, prunec", "MACs, tool", "float64 error, tool")
    return "Where another tool keeps fewer MACs than prunec:\n\n" + markdown(header, lines)


if __name__ == "__main__":
    main()
