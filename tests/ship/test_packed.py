"""Packed weights: the same bits in fewer bytes, in operators that every ONNX runtime has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from ship_nets import METADATA, FakeData, tiny
from torch import nn

from prunec.artifact import Artifact
from prunec.cost.onnx_packed import axis_of_sums, pack, packed_nodes, unpack, unpack_weights
from prunec.cost.onnx_reading import read_model
from prunec.deploy.exporter import Exported, Source
from prunec.deploy.gate import verify_file
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.errors import PassError, PrunecError
from prunec.exporters.to_onnx import ToOnnx
from prunec.exporters.to_packed import ToPacked, smallest
from prunec.recipe import VerifySpec

GAPS = (np.uint8, np.uint16)


@st.composite
def sparse_arrays(draw: st.DrawFn) -> np.ndarray:
    """Any values, NaN and −0 among them, with zeros of any share, in runs of any length."""
    dtype = draw(st.sampled_from([np.float32, np.float16, np.float64]))
    shape = draw(hnp.array_shapes(max_dims=4, max_side=9))
    array = draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(np.dtype(dtype))))
    array[draw(hnp.arrays(np.bool_, shape))] = 0
    if draw(st.booleans()):
        run = draw(st.sampled_from([254, 255, 256, 257, 511, 70_000]))
        array = np.concatenate([array.reshape(-1), np.zeros(run, dtype), array.reshape(-1)])
    return array


def model_of(array: np.ndarray, nodes: list[onnx.NodeProto], stored: list[TensorProto]) -> bytes:
    """A file that returns a packed tensor times one, the input."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    graph = helper.make_graph(
        [*nodes, helper.make_node("Mul", ["w", "one"], ["y"])],
        "packed",
        [helper.make_tensor_value_info("one", kind, [])],
        [helper.make_tensor_value_info("y", kind, list(array.shape))],
        [*stored, axis_of_sums()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


@pytest.mark.slow
@given(sparse_arrays(), st.sampled_from(GAPS))
def test_what_is_packed_comes_back_bit_for_bit(
    array: np.ndarray, gap: type[np.unsignedinteger]
) -> None:
    packed = pack(array, gap)
    again = unpack(packed)
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()
    stored, nodes = packed_nodes("w", packed, helper.np_dtype_to_tensor_dtype(array.dtype), 0)
    model = onnx.load_from_string(model_of(array, nodes, stored))
    made = ReferenceEvaluator(model).run(None, {"one": array.dtype.type(1)})[0]
    np.testing.assert_array_equal(made, array)
    unpack_weights(model)
    assert [node.op_type for node in model.graph.node] == ["Mul"]
    assert [tensor.name for tensor in model.graph.initializer] == ["w"]
    assert numpy_helper.to_array(model.graph.initializer[0]).tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 1.0])
def test_a_runtime_puts_together_the_same_bits(dtype: str, share: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.standard_normal((40, 30, 3, 3)).astype(dtype)
    array[rng.random(array.shape) >= share] = 0
    pieces = packed_nodes(
        "w", pack(array, np.uint8), helper.np_dtype_to_tensor_dtype(array.dtype), 0
    )
    path = tmp_path / "packed.onnx"
    path.write_bytes(model_of(array, pieces[1], pieces[0]))
    made = next(Onnxruntime().open(path).run([[np.ones((), dtype)]]))[0]
    assert made.tobytes() == array.tobytes()


def test_the_smallest_way_is_taken() -> None:
    rng = np.random.default_rng(0)
    few = np.zeros((100, 1000), np.float32)
    few.reshape(-1)[rng.choice(few.size, 60, replace=False)] = rng.standard_normal(60)
    some = rng.standard_normal((100, 1000)).astype(np.float32)
    some[rng.random(some.shape) > 0.05] = 0
    kinds = {}
    for name, array in {
        "few": few, "some": some, "round": np.round(some, 1), "halves": np.round(some * 8),
        "dense": rng.standard_normal((100, 1000)).astype(np.float32), "none": np.zeros((0, 3), "f"),
        "tiny": np.zeros((2, 2), np.float32), "whole": np.zeros((100, 1000), np.int64),
    }.items():  # fmt: skip
        tensor = numpy_helper.from_array(array, name)
        pieces = smallest(tensor, 0)
        if pieces is not None:
            kinds[name] = tuple(
                helper.tensor_dtype_to_np_dtype(t.data_type).name for t in pieces[0][:2]
            )
            assert sum(p.ByteSize() for kind in pieces for p in kind) < tensor.ByteSize()
    assert kinds == {
        "few": ("float32", "uint16"), "some": ("float32", "uint8"), "round": ("float32", "uint8"),
        "halves": ("float16", "uint8"),
    }  # fmt: skip


RESNET50 = [(64, 3, 7), *((o, i, k) for o, i, k, n in (
    (64, 64, 1, 1), (64, 256, 1, 2), (64, 64, 3, 3), (256, 64, 1, 4), (128, 256, 1, 1),
    (128, 512, 1, 3), (128, 128, 3, 4), (512, 128, 1, 4), (512, 256, 1, 1), (256, 512, 1, 1),
    (256, 1024, 1, 5), (256, 256, 3, 6), (1024, 256, 1, 6), (1024, 512, 1, 1), (512, 1024, 1, 1),
    (512, 2048, 1, 2), (512, 512, 3, 3), (2048, 512, 1, 3), (2048, 1024, 1, 1), (1000, 2048, 1, 1),
) for _ in range(n))]  # fmt: skip
"""Filters, channels and side of every kernel of ResNet-50, the classifier's last."""


@pytest.mark.parametrize(("zeros", "megabytes"), [(0.99, 1.65), (0.999, 0.40)])
def test_a_large_network_takes_what_its_nonzero_weights_take(
    zeros: float, megabytes: float
) -> None:
    """The same bits, by the gaps that take fewer bytes."""
    assert sum(o * i * k * k for o, i, k in RESNET50) == 25_502_912
    rng, size = np.random.default_rng(0), 0
    for number, (filters, channels, side) in enumerate(RESNET50):
        array = np.zeros((filters, channels, side, side), np.float32)
        count = max(1, round((1 - zeros) * array.size))
        places = rng.integers(0, array.size, count)
        array.reshape(-1)[places] = rng.standard_normal(count, np.float32)
        pieces = smallest(numpy_helper.from_array(array, f"w{number}"), number)
        assert pieces is not None
        size += sum(piece.ByteSize() for kind in pieces for piece in kind)
        values, gaps = (numpy_helper.to_array(tensor) for tensor in pieces[0][:2])
        again = unpack(type(pack(array, np.uint8))(values, gaps, array.shape))
        assert again.tobytes() == array.tobytes()
    # Biases of 26,560 filters and the graph's nodes, as tests/bench/packed_tools.py counts them.
    assert size + 4 * 26_560 + 40_000 < 1e6 * megabytes


def sparse(module: nn.Module, share: float) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() > 1:
                drawn = torch.rand(weight.shape, generator=generator)
                weight.masked_fill_(drawn > share, 0.0)
    return module


def exported(module: nn.Module, folder: Path, opset: int = 18) -> tuple[Exported, Artifact]:
    artifact = Artifact(module, (torch.randn(2, 3, 16, 16),))
    ToOnnx(opset=opset)(Source(artifact, METADATA), folder / "onnx" / "model.onnx")
    source = Source(artifact, METADATA, {"onnx": folder / "onnx" / "model.onnx"})
    return ToPacked()(source, folder / "packed" / "model.onnx"), artifact


def test_a_packed_file_passes_the_gate_and_is_the_onnx_file_unpacked(tmp_path: Path) -> None:
    made, artifact = exported(sparse(tiny(seed=0), 0.1), tmp_path)
    dense = tmp_path / "onnx" / "model.onnx"
    assert made.bytes < dense.stat().st_size
    assert read_model(made.path) == onnx.load(dense)
    report = verify_file(
        made.path, artifact.module, artifact.example, exporter=ToPacked(), runner=Onnxruntime(),
        spec=VerifySpec(), torch_cost=artifact.cost, data=FakeData(),  # type: ignore[arg-type]
    )  # fmt: skip
    assert report.passed, report.failures
    batch = torch.randn(3, 3, 16, 16).numpy()
    ours, theirs = (next(Onnxruntime().open(p).run([[batch]]))[0] for p in (made.path, dense))
    np.testing.assert_array_equal(ours, theirs)


def test_a_dense_network_is_left_as_it_is(tmp_path: Path) -> None:
    made, _ = exported(tiny(seed=0), tmp_path)
    assert made.path.read_bytes() == (tmp_path / "onnx" / "model.onnx").read_bytes()


def test_an_opset_without_running_sums_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PassError, match="need opset 11, the ONNX file has 10"):
        exported(sparse(tiny(seed=0), 0.1), tmp_path, opset=10)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda gaps: gaps + 40, "a value lies at"),
        (lambda gaps: gaps * (np.arange(len(gaps)) != 3), "values have the same position"),
        (lambda gaps: gaps[:-1], "values and"),
    ],
)
def test_damaged_gaps_are_named(tmp_path: Path, change: object, said: str) -> None:
    made, _ = exported(sparse(tiny(seed=0), 0.1), tmp_path)
    model = onnx.load(made.path)
    gaps = next(t for t in model.graph.initializer if t.data_type == TensorProto.UINT8)
    assert callable(change)
    changed = change(numpy_helper.to_array(gaps)).astype(np.uint8)
    gaps.CopyFrom(numpy_helper.from_array(changed, gaps.name))
    made.path.write_bytes(model.SerializeToString())
    with pytest.raises(
        PrunecError, match="damaged: the packed tensor .*weight is damaged: .*" + said
    ):
        read_model(made.path)


def test_weights_that_no_file_could_hold_are_refused(tmp_path: Path) -> None:
    """A file of a few bytes may not ask for the memory of a building."""
    made, _ = exported(sparse(tiny(seed=0), 0.1), tmp_path)
    model = onnx.load(made.path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    last = next(n for n in model.graph.node if n.op_type == "Reshape" and n.input[0] == "p0f")
    for name, sizes in (("p0n", [2**40]), (last.input[1], [2**20, 2**20])):
        stored[name].CopyFrom(numpy_helper.from_array(np.array(sizes, np.int64), name))
    with pytest.raises(PrunecError, match="packed weights would take 4,398,0"):
        unpack_weights(model)
