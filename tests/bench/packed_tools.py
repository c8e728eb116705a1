"""Table of runtimes and tools on a packed ONNX file, one row per installed one.

    pip install openvino onnxslim==0.1.* onnxsim==0.8.1 onnxoptimizer onnxconverter-common
    python tests/bench/packed_tools.py

The network is ResNet-20 with 95 % of its weights zero, its batch norms folded. A tool's file is run
by onnxruntime and compared with the dense file's outputs on eight images of noise. Below it, how
many bytes ResNet-50 takes with more and more zeros.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchvision.models import resnet50

from prunec.artifact import Artifact
from prunec.cost.onnx_graph import count_onnx
from prunec.deploy.exporter import Source
from prunec.exporters.to_onnx import ToOnnx
from prunec.exporters.to_packed import ToPacked
from prunec.graph.rewriting.fold_batch_norms import fold_batch_norms
from prunec.models.resnet_cifar import resnet20
from prunec.wording import percent

KEPT = 0.05
"""Share of the weights that are not zero."""
IMAGES = np.random.default_rng(0).standard_normal((8, 1, 28, 28)).astype(np.float32)
Tool = Callable[[Path, Path], None]


def by_onnxruntime(path: Path) -> np.ndarray:
    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: IMAGES})[0])


def by_reference(path: Path) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    return np.asarray(ReferenceEvaluator(str(path)).run(None, {"input": IMAGES})[0])


def by_openvino(path: Path) -> np.ndarray:
    openvino = importlib.import_module("openvino")
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    return np.asarray(openvino.Core().compile_model(str(path), "CPU", precise)([IMAGES])[0])


RUNTIMES = {"onnxruntime": by_onnxruntime, "onnx": by_reference, "openvino": by_openvino}


def converted(path: Path, target: Path) -> None:
    onnx.save(onnx.version_converter.convert_version(onnx.load(path), 21), target)


def inferred(path: Path, target: Path) -> None:
    onnx.checker.check_model(str(path), full_check=True)
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True), target)


def optimised(path: Path, target: Path) -> None:
    optimizer = importlib.import_module("onnxscript.optimizer")
    onnx.save(optimizer.optimize(onnx.load(path)), target)


def saved_as_ort(path: Path, target: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantised(path: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, target, weight_type=QuantType.QUInt8)


def slimmed(path: Path, target: Path) -> None:
    onnx.save(importlib.import_module("onnxslim").slim(str(path)), target)


def simplified(path: Path, target: Path) -> None:
    model, _ = importlib.import_module("onnxsim").simplify(onnx.load(path))
    onnx.save(model, target)


def by_onnxoptimizer(path: Path, target: Path) -> None:
    onnx.save(importlib.import_module("onnxoptimizer").optimize(onnx.load(path)), target)


def halved(path: Path, target: Path) -> None:
    float16 = importlib.import_module("onnxconverter_common.float16")
    onnx.save(float16.convert_float_to_float16(onnx.load(path), keep_io_types=True), target)


TOOLS: dict[str, tuple[str, Tool]] = {
    "onnx: shape inference": ("onnx", inferred),
    "onnx: version converter, to 21": ("onnx", converted),
    "onnxscript: optimizer": ("onnxscript", optimised),
    "onnxruntime: optimised file": ("onnxruntime", saved_as_ort),
    "onnxruntime: dynamic quantisation": ("onnxruntime", quantised),
    "onnxslim": ("onnxslim", slimmed),
    "onnxsim": ("onnxsim", simplified),
    "onnxoptimizer": ("onnxoptimizer", by_onnxoptimizer),
    "onnxconverter-common: halves": ("onnxconverter-common", halved),
}


def files(folder: Path, module: nn.Module, example: Tensor, kept: float) -> tuple[Path, Path]:
    """Write a network, a share of its weights left, as dense file and as packed file."""
    folded, *_ = fold_batch_norms(module.eval(), (example,))
    with torch.no_grad():
        for weight in folded.parameters():
            if weight.dim() > 1:
                weight.mul_(kept**-0.5).masked_fill_(torch.rand(weight.shape) > kept, 0.0)
    artifact = Artifact(folded, (example,))
    dense, packed = folder / "onnx" / "model.onnx", folder / "packed" / "model.onnx"
    ToOnnx()(Source(artifact), dense)
    ToPacked()(Source(artifact, files={"onnx": dense}), packed)
    return dense, packed


def rows(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield who, what became of the file, its bytes, the largest difference as a share."""
    network = resnet20(num_classes=10, in_channels=1)
    dense, packed = files(folder, network, torch.zeros(2, 1, 28, 28), KEPT)
    wanted = by_onnxruntime(dense)
    yield "the dense file", "", f"{dense.stat().st_size:,}", ""
    yield "the packed file", "", f"{packed.stat().st_size:,}", ""
    for package, run in RUNTIMES.items():
        who = f"{package} {_version(package)}"
        yield _row(who, "runs it", "", lambda run=run: run(packed), wanted)  # type: ignore[misc]
    for name, (package, tool) in TOOLS.items():
        target = folder / f"{name.split(':')[-1].strip().replace(' ', '_')}.onnx"

        def made(tool: Tool = tool, target: Path = target) -> np.ndarray:
            with redirect_stdout(StringIO()):
                logging.disable(logging.WARNING)
                tool(packed, target)
            return by_onnxruntime(target)

        row = _row(f"{name} {_version(package)}", "", "", made, wanted)
        if target.exists():
            size = target.stat().st_size
            kept = "stays packed" if size < dense.stat().st_size / 2 else "is dense again"
            row = (row[0], row[1] or kept, f"{size:,}", row[3])
        yield row


def _version(package: str) -> str:
    try:
        return version(package)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"


def _row(
    who: str, said: str, size: str, run: Callable[[], np.ndarray], wanted: np.ndarray
) -> tuple[str, ...]:
    try:
        apart = float(np.abs(run().astype(np.float64) - wanted).max() / np.abs(wanted).max())
    except ImportError:
        return who, "", "", ""
    except Exception as error:  # whatever a tool raises is what the table tells
        return who, f"{type(error).__name__}: {str(error).strip().splitlines()[0][:60]}", size, ""
    return who, said, size, f"{apart:.1e}"


def sizes(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield zeros, bytes of the dense file and of the packed one, bytes per non-zero weight."""
    for share in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999):
        dense, packed = files(folder, resnet50(), torch.zeros(2, 3, 64, 64), 1 - share)
        left = count_onnx(packed).nonzero_params
        before, after = dense.stat().st_size, packed.stat().st_size
        yield percent(share), f"{before:,}", f"{after:,}", f"{after / left:.2f}"


def main() -> None:
    torch.manual_seed(0)
    tools = Table("", "the packed file", "bytes", "difference of logits")
    of_sizes = Table(
        "zeros", "dense, bytes", "packed, bytes", "bytes per non-zero", title="ResNet-50"
    )
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder)):
            tools.add_row(*row)
        for row in sizes(Path(folder)):
            of_sizes.add_row(*row)
    Console(width=120).print(tools, of_sizes)


if __name__ == "__main__":
    main()
