"""Channel counts by measured times beside fixed multiples: latency of the same channels kept.

python tests/bench/measured_counts.py [NETWORK…] [--macs 0.5] [--latency SHARE] [--rounds 31]

Each network of torchvision, untrained, at 224×224, is cut to a share of its MACs, its channels
chosen by L1 norm without any rounding, or with --latency to a share of its layers' times, as
train-magnitude chooses them; then it is compiled four times, with kept counts rounded up
to 4, 8, 16, and to what the layers' times say. All files and the dense one are run in turns under
onnxruntime on one thread; a ratio is the median over rounds of that round's times: those of the
processor, which other work on a machine does not lengthen.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.deploy.exporter import Source
from prunec.deploy.layer_times import LayerTimes
from prunec.deploy.runner import Batch, LoadedFile, once
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.deploy.timing import Block, Timer
from prunec.exporters.to_onnx import ToOnnx
from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.graph.removal.counts import Measured, Rounding
from prunec.graph.rewriting.compile import compile_module
from prunec.graph.rewriting.fold_batch_norms import fold_batch_norms
from prunec.sparsity.channel_importance import IMPORTANCES
from prunec.sparsity.gated_macs import gated_channels
from prunec.sparsity.gated_times import gated_times
from prunec.sparsity.mac_budget import most_important, most_important_in_time

BLOCK = 8  # channels: the default of train-magnitude
NETWORKS = ("mobilenet_v2", "resnet18", "efficientnet_b0")


def masks_of(
    module: nn.Module, example: tuple[Tensor, ...], macs: float, latency: float | None
) -> dict[str, Tensor]:
    """Return masks over the columns of kernels that leave a share of the MACs, or of the layers'
    times.
    """
    module = copy.deepcopy(module)
    structure = analyse(capture(module, example))
    gated = gated_channels(structure)
    scores = IMPORTANCES["l1"](structure, gated, module).scores(torch.ones(len(gated.group_of)) > 0)
    if latency is None:
        kept = most_important(gated, scores, macs * float(gated.macs(gated.sizes.double())), 1)
    else:
        times = gated_times(structure, gated, LayerTimes(Onnxruntime()))
        target = latency * float(times.milliseconds(gated.sizes.double()))
        kept = most_important_in_time(gated, times, scores, target, BLOCK)
    spread = torch.cat([kept, kept.new_ones(1)])
    weights = dict(module.named_parameters())
    return {
        name: spread[gates].reshape(gated.shapes[name]).expand_as(weights[name]).contiguous()
        for name, gates in gated.readers.items()
    }


def written(module: nn.Module, example: tuple[Tensor, ...], path: Path) -> float:
    """Write a network, its batch norms folded; return its MACs."""
    folded, *_ = fold_batch_norms(module, example)
    artifact = Artifact(folded, example)
    ToOnnx()(Source(artifact), path)
    return artifact.cost.macs


def processor_timer(loaded: LoadedFile, inputs: Batch) -> Timer:
    """Seconds of the processor that runs take in this process."""

    def seconds(runs: int) -> list[float]:
        collected = []
        for _ in range(runs):
            begun = time.process_time()
            once(loaded, inputs)
            collected.append(time.process_time() - begun)
        return collected

    return seconds


def bench(name: str, share: float, latency: float | None, rounds: int) -> None:
    """Print a line for each way of rounding."""
    torch.manual_seed(0)
    module = getattr(torchvision.models, name)().eval()
    example = (torch.randn(2, 3, 224, 224),)
    masks = masks_of(module, example, share, latency)
    times = LayerTimes(Onnxruntime())
    ways: dict[str, Rounding] = {"4": 4, "8": 8, "16": 16, "measured": Measured(times)}
    with tempfile.TemporaryDirectory() as folder:
        files = {"dense": Path(folder) / "dense.onnx"}
        macs = {"dense": written(module, example, files["dense"])}
        for way, round_to in ways.items():
            begun = time.perf_counter()
            made = compile_module(module, example, masks=masks, round_to=round_to)
            seconds = time.perf_counter() - begun
            files[way] = Path(folder) / f"{way}.onnx"
            macs[way] = written(made.module, example, files[way])
            if way == "measured":
                print(f"{name}: compiled in {seconds:.1f} s; {times.description}")
        blocks = {}
        for way, path in files.items():
            loaded = Onnxruntime().open(path)
            blocks[way] = Block(processor_timer(loaded, loaded.noise(1)), least=2)
        actual = [{way: block.fastest() for way, block in blocks.items()} for _ in range(rounds)]
    for way in files:
        ratio = statistics.median(one[way] / one["dense"] for one in actual)
        beside = statistics.median(one["measured"] / one[way] for one in actual)
        print(
            f"{name}, {way}: {1e3 * statistics.median(one[way] for one in actual):.2f} ms, "
            f"{ratio:.3f} of dense ({1 / ratio:.2f}×), MACs {macs[way] / macs['dense']:.3f}; "
            f"measured / this {beside:.3f}",
            flush=True,
        )


def main() -> None:
    """Bench what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--latency", type=float, help="share of the layers' times, instead of MACs")
    parser.add_argument("--rounds", type=int, default=31)
    given = parser.parse_args()
    for name in given.networks:
        bench(name, given.macs, given.latency, given.rounds)


if __name__ == "__main__":
    main()
