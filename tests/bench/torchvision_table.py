"""Every network that torchvision ships: masked, compiled, exported, compared.

    python tests/bench/torchvision_table.py -o docs/tables/torchvision.md
    python tests/bench/torchvision_table.py --models resnet18,swin_t --masks 60,unstructured
    python tests/bench/torchvision_table.py --timm resnetv2_50,convnextv2_atto --masks 60

A row is a network and a way of masking it: ``30``, ``60``, ``90`` drop that percentage of the
channels of every group that is not pinned, at random, in all of its parameters; ``30c``, ``60c``,
``90c`` zero only the kernels that make them, so that what the norms and activations behind them
make of 0 remains as a constant; ``unstructured`` keeps one weight in a thousand. Norms are random,
so that no constant is 0.

A row passes when, on a batch that is not the example's,

- masked and compiled network agree in float64 to 1e-10 of the largest output,
- the compiled network, exported as fp32 ONNX, agrees under onnxruntime with torch to 1e-4,
- its MACs are the same to the unit in the torch graph, in the ONNX graph and below autograd,
- with whole channels masked, they are within 2 % of what the masks allow (``allowed_macs.py``).

Where float64 misses its bound, it is said what the masked network itself makes of one rounding of
every weight: with random norms some deep networks amplify it beyond the bound.

``(constant)`` marks a network whose masks leave nothing of the image: every sample gives the same.

Every network has a process of its own. Rows on file are not measured again, so a run that was
stopped goes on with the same command.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
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
    forget_failures,
    listed,
    markdown,
    measured,
    serve,
    when_and_with,
)

from prunec.wording import percent

if TYPE_CHECKING:
    from masks import Masks
    from torch import Tensor, nn

    from prunec.graph.channels.groups import ChannelGroup

MASKS = ("30", "60", "90", "unstructured")
EXACT, CLOSE, SLACK = 1e-10, 1e-4, 1.02
SPARSE = 0.001  # share of weights that unstructured masks keep
PROTOBUF = 2**31  # bytes that one ONNX file without external data can hold
EXAMPLE, BATCH = 2, 3
HEADER = (
    "network", "masks", "free channels", "nodes", "MACs before", "MACs kept", "of allowed",
    "float64 error", "onnxruntime error", "MACs agree", "compile s", "result",
)  # fmt: skip
LEGEND = """\
Columns: *masks* is the percentage of the channels that are masked, at random, in every [channel
group](../glossary.md#channel-group) that is not [pinned](../glossary.md#pinned); *unstructured*
keeps one weight in a thousand. *Free channels* counts the channels that are not pinned, beside
all channels. *Of allowed* is the MACs kept, divided by the MACs that the masks allow (at most
1.02 passes). *Float64 error* compares the masked with the compiled network, *onnxruntime error*
the compiled network in fp32 with its ONNX file, both as a share of the largest output; up to
1e-10 and 1e-4 pass. *(constant)* marks a network whose masks leave the same output for every
image.

"""
WHY = "[reasons](../results.md#the-compiler-on-whole-libraries)"


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = arguments(__doc__ or "", limit=900)
    parser.add_argument("--models", help="names with commas; all of torchvision without it")
    parser.add_argument("--timm", help="names of timm networks")
    parser.add_argument("--masks", default=",".join(MASKS))
    parser.add_argument("--size", type=int, help="side of the image")
    parser.add_argument("--no-onnx", action="store_true")
    given = parser.parse_args()
    if given.child:
        child(json.loads(given.child))
        return
    from bench.published_models import TIMM, published

    names = listed(given.models) or ([] if given.timm else published())
    names += [TIMM + name for name in listed(given.timm) or []]
    kinds = listed(given.masks) or []
    rows = Rows(given.output, table)
    if given.retry:
        forget_failures(
            rows, [f"{n} {k}" for n in names for k in kinds], lambda c: verdict(c) != ""
        )
    for name in names:
        wanted = [kind for kind in kinds if rows.missing([f"{name} {kind}"])]
        job = {"model": name, "size": given.size, "onnx": not given.no_onnx}
        for kind, cells in measured(__file__, job, wanted, given.limit):
            rows.add(f"{name} {kind}", {"model": name, "masks": kind, **cells})
            print(json.dumps(rows.cells[f"{name} {kind}"]), flush=True)
    print(table(rows.cells))


def child(job: Mapping[str, Any]) -> None:
    """One network, each way of masking it; the channel groups are found once."""
    import torch
    from bench.published_models import build, example_of
    from onnxruntime import set_default_logger_severity

    from prunec.graph.channels.groups import channel_groups

    torch.set_num_threads(1)
    set_default_logger_severity(3)
    collected: list[tuple[ChannelGroup, ...]] = []

    def row(kind: str) -> Cells:
        module, shape = build(job["model"], job["size"])
        example = example_of(shape, EXAMPLE)
        if not collected:
            collected.append(channel_groups(module, example))
        return measure(module, example, collected[0], kind, bool(job["onnx"]))

    serve(job, row)


def measure(
    module: nn.Module,
    example: tuple[Tensor, ...],
    groups: Sequence[ChannelGroup],
    kind: str,
    onnx: bool,
) -> Cells:
    """Mask a network in place, compile it, and compare; memory is given back early."""
    import torch
    from bench.allowed_macs import allowed_macs, metered
    from bench.differences import difference
    from oracles import fresh_inputs, outputs

    from prunec.cost.torch_graph import count
    from prunec.graph.rewriting.compile import compile_module

    masks = masks_of(module, groups, kind)
    inputs = fresh_inputs(example, BATCH, 1)
    free = sum(group.size for group in groups if not group.pinned)
    cells: Cells = {"free": free, "channels": sum(group.size for group in groups)}
    allowed = allowed_macs(module, example, groups, masks)
    with torch.no_grad():
        parameters = dict(module.named_parameters())
        for name, mask in masks.items():
            parameters[name].mul_(mask)
        del masks, parameters
    wanted = outputs(module, inputs)
    cells["varies"] = any(bool((leaf != leaf[:1]).any()) for leaf in wanted[0])
    began = time.process_time()
    compiled = compile_module(module, example).module
    cells["seconds"] = time.process_time() - began
    cells["nodes"] = len(compiled.graph.nodes)
    cells["error"] = difference(wanted, outputs(compiled, inputs))
    if not cells["error"] <= EXACT:
        cells["rounding"] = rounding(module, inputs)
    del wanted, module
    seen = metered(compiled, example)
    cells |= {"macs": allowed.dense, "kept": seen.macs, "products": allowed.products}
    if kind.isdigit():
        cells |= {"allowed": allowed.macs, "separate": allowed.separate}
    cells["counted"] = count(compiled, example).macs
    if onnx:
        compiled.float()
        began = time.process_time()
        try:
            cells |= exported(compiled, tuple(x.float() for x in example), inputs)
        except Exception as error:
            cells[REASON] = f"export: {first_line(error)}"
        cells["export_seconds"] = time.process_time() - began
    return cells


def rounding(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Change of the masked network's outputs if every weight changes by one rounding."""
    import torch
    from bench.differences import difference
    from oracles import outputs

    before = outputs(module, inputs)
    generator = torch.Generator().manual_seed(2)
    epsilon = torch.finfo(torch.float64).eps
    with torch.no_grad():
        for parameter in module.parameters():
            signs = torch.randint(-1, 2, parameter.shape, generator=generator).double()
            parameter.mul_(1 + epsilon * signs)
    return difference(before, outputs(module, inputs))


def masks_of(module: nn.Module, groups: Sequence[ChannelGroup], kind: str) -> Masks:
    """Masks of the kind that a row names."""
    from masks import channel_masks, unstructured_masks

    if kind == "unstructured":
        return unstructured_masks(module, SPARSE, 1)
    kept = 1 - int(kind.removesuffix("c")) / 100
    return channel_masks(module, groups, kept, "producers" if kind.endswith("c") else "both", 1)


def exported(module: nn.Module, example: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> Cells:
    """Write fp32 ONNX, run it with onnxruntime, count its MACs."""
    import onnxruntime
    import torch
    from bench.differences import difference
    from oracles import outputs

    from prunec.artifact import Artifact
    from prunec.catalogue import exporter
    from prunec.cost.onnx_graph import count_onnx
    from prunec.deploy.exporter import Source

    size = sum(x.nbytes for x in module.state_dict().values())
    if size >= PROTOBUF:
        return {REASON: f"export: {size / 2**30:.1f} GiB do not fit into one protobuf of 2 GiB"}
    inputs = tuple(x.float() for x in inputs)
    wanted = outputs(module, inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        exporter("to-onnx")()(Source(Artifact(module, example)), path)
        macs = count_onnx(path).macs
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    made = session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
    actual = [torch.from_numpy(x) for x in made]
    return {"onnx_macs": macs, "onnx_error": difference(wanted, (actual, wanted[1]))}


def verdict(cells: Cells) -> str:
    """Return what is wrong with a row; empty if it passes."""
    wrong = [cells[REASON]] if REASON in cells else []
    if not cells.get("error", 0.0) <= EXACT:
        by_itself = f", {cells['rounding']:.1e} by one rounding of every weight"
        wrong.append(f"float64 error {cells['error']:.1e}{by_itself}")
    if not cells.get("onnx_error", 0.0) <= CLOSE:
        wrong.append(f"onnxruntime error {cells['onnx_error']:.1e}")
    if not agree(cells):
        counts = [cells.get(k) for k in ("kept", "counted", "onnx_macs")]
        wrong.append(f"MACs differ: measured {counts[0]}, torch {counts[1]}, ONNX {counts[2]}")
    if "allowed" in cells and cells["kept"] > SLACK * cells["allowed"]:
        wrong.append(f"{cells['kept'] / cells['allowed']:.3f} of the MACs that the masks allow")
    return "; ".join(wrong)


def agree(cells: Cells) -> bool:
    """Return whether all counters agree."""
    return len({cells[k] for k in ("kept", "counted", "onnx_macs") if k in cells}) < 2


def table(rows: Mapping[str, Cells]) -> str:
    """All rows, N/N, and what fails."""
    failed = {key: verdict(cells) for key, cells in rows.items() if verdict(cells)}
    text = when_and_with("prunec", "torch", "torchvision", "timm", "onnx", "onnxruntime") + "\n\n"
    text += f"**{len(rows) - len(failed)}/{len(rows)}** rows pass.\n\n" + LEGEND
    text += markdown(HEADER, [line(cells) for cells in rows.values()])
    if failed:
        text += f"\nRows that fail, and their errors ({WHY}):\n\n"
        text += "".join(f"- {key}: {reason}\n" for key, reason in failed.items())
    return text


def line(cells: Cells) -> list[str]:
    """A row's cells as text."""
    macs, kept, allowed = (cells.get(k) for k in ("macs", "kept", "allowed"))
    return [
        cells["model"],
        cells["masks"],
        f"{cells['free']}/{cells['channels']}" if "free" in cells else "",
        str(cells.get("nodes", "")),
        f"{macs / 1e6:,.1f} M" if macs is not None else "",
        percent(kept / macs) if macs and kept is not None else "",
        f"{kept / allowed:.3f}" if allowed and kept is not None else "",
        _error(cells),
        f"{cells['onnx_error']:.0e}" if "onnx_error" in cells else "",
        ("yes" if agree(cells) else "no") if "counted" in cells else "",
        f"{cells['seconds']:.1f}" if "seconds" in cells else "",
        "fails" if verdict(cells) else "passes",
    ]


def _error(cells: Cells) -> str:
    if "error" not in cells:
        return ""
    return f"{cells['error']:.0e}" + ("" if cells["varies"] else " (constant)")


if __name__ == "__main__":
    main()
