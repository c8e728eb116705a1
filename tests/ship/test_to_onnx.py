"""Laws of the exported file: same function, same bits, same bytes, nothing of the machine."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx import numpy_helper
from ship_nets import METADATA, TINY_COST, Shipped, tiny
from torch import Tensor, nn

import prunec
from prunec.artifact import Artifact
from prunec.cost.onnx_graph import count_onnx
from prunec.deploy.exporter import Source
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.errors import PassError, UntraceableModel
from prunec.exporters.to_onnx import ToOnnx


def write(
    module: nn.Module, example: tuple[Tensor, ...], path: Path, metadata: Mapping[str, str]
) -> None:
    ToOnnx()(Source(Artifact(module, example), metadata), path)


def assert_same(module: nn.Module, path: Path, inputs: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        ours = module(*inputs)
    ours = [ours] if isinstance(ours, Tensor) else list(ours)
    theirs = next(Onnxruntime().open(path).run([[x.numpy() for x in inputs]]))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(b, a.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_batch_is_dynamic(shipped: Shipped, batch: int) -> None:
    assert_same(shipped.module, shipped.path, (torch.randn(batch, 3, 16, 16),))


def test_names_and_shapes_are_stable(proto: onnx.ModelProto) -> None:
    (given,), (result,) = proto.graph.input, proto.graph.output
    sizes = [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim]
    assert (given.name, sizes) == ("input", ["batch", 3, 16, 16])
    assert result.name == "logits"
    assert result.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_weights_keep_their_names_and_bits(shipped: Shipped, proto: onnx.ModelProto) -> None:
    actual = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for name, tensor in shipped.module.state_dict().items():
        if "num_batches" not in name:
            assert actual[name].tobytes() == tensor.numpy().tobytes(), name


def test_a_convolution_without_bias_gets_none(proto: onnx.ModelProto) -> None:
    assert [len(n.input) for n in proto.graph.node if n.op_type == "Conv"] == [2, 2, 3]


def test_the_counter_agrees_with_the_hand(shipped: Shipped) -> None:
    cost = count_onnx(shipped.path)
    assert [layer.macs for layer in cost.layers] == [layer.macs for layer in TINY_COST.layers]
    assert [layer.name for layer in cost.layers] == ["0", "3", "6", "9"]
    assert (cost.params, cost.nonzero_params) == (TINY_COST.params, TINY_COST.nonzero_params)


def test_metadata_is_carried(proto: onnx.ModelProto) -> None:
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert METADATA.items() <= metadata.items()
    assert {"prunec.weights_digest", "prunec.graph_digest"} <= metadata.keys()


def test_the_same_network_gives_the_same_bytes_silently(
    shipped: Shipped, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tiny(seed=0), (torch.zeros(1, 3, 16, 16),), again, METADATA)
    assert again.read_bytes() == shipped.path.read_bytes()
    assert capfd.readouterr() == ("", "")


def test_nothing_of_the_machine_is_inside(shipped: Shipped) -> None:
    data = shipped.path.read_bytes()
    places = [str(Path(torch.__file__).parents[1]), str(Path.home()), str(Path.cwd()), ".py"]
    assert not [place for place in places if place.encode() in data]


class Aliased(nn.Module):
    """Overwrites values that are read again; two inputs, two outputs, a shared kernel, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("offset", torch.rand(4, 1, 1), persistent=False)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        again = torch.relu_(y) + y
        seen = (first := self.conv(z)).view(z.shape[0], -1)
        first.mul_(0.5)
        return again * self.scale + self.offset, seen


@pytest.mark.slow
def test_overwritten_values_and_several_inputs(tmp_path: Path) -> None:
    module, path = Aliased().eval(), tmp_path / "aliased.onnx"
    inputs = (torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6))
    write(module, inputs, path, {})
    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == ["input_0", "input_1"]
    assert [value.name for value in model.graph.output] == ["output_0", "output_1"]
    assert_same(module, path, tuple(torch.randn(3, 4, 6, 6) for _ in range(2)))
    cost = count_onnx(path)
    assert cost.params == sum(p.numel() for p in module.parameters())
    assert cost.macs == 2 * 36 * 4 * 4 * 9


@pytest.mark.nightly  # ResNet-50 has its own by default: cost/test_published.py
def test_mobilenet_v2_has_the_published_cost(tmp_path: Path) -> None:
    module, path = torchvision.models.mobilenet_v2().eval(), tmp_path / "mobilenet.onnx"
    write(module, (torch.zeros(2, 3, 224, 224),), path, {"prunec.history": json.dumps([])})
    cost = count_onnx(path)
    assert round(cost.macs / 1e6, 1) == 300.8
    assert cost.params == 3_504_872


def test_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PassError, match="training mode"):
        write(tiny(0).train(), (torch.zeros(2, 3, 16, 16),), tmp_path / "x.onnx", {})


def test_a_projection_is_refused_instead_of_left_out(tmp_path: Path) -> None:
    module = nn.LSTM(6, 5, batch_first=True, proj_size=3).eval()
    with pytest.raises(PassError, match="projection of the LSTM"):
        write(module, (torch.zeros(2, 4, 6),), tmp_path / "x.onnx", {})
    assert not list(tmp_path.iterdir())


def test_what_no_file_can_hold_is_refused_before_the_work(tmp_path: Path) -> None:
    module = nn.Linear(2**15, 2**15, device="meta").eval()
    with pytest.raises(PassError, match=r"Linear are 4.0 GiB; one ONNX file holds 2 GiB"):
        write(module, (torch.zeros(2, 2**15),), tmp_path / "x.onnx", {})


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


class Literal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 12)


@pytest.mark.parametrize("module", [Branches(), Literal()], ids=["branches", "literal batch"])
def test_what_cannot_be_captured_is_named(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UntraceableModel, match=type(module).__name__):
        write(module.eval(), (torch.zeros(2, 3, 4),), tmp_path / "x.onnx", {})
    assert not list(tmp_path.iterdir())


def test_a_divisor_of_a_mean_is_written(tmp_path: Path) -> None:
    """torch's exporter leaves it out; where windows may be of different sizes it is refused."""
    example, path = torch.randn(2, 3, 8, 8), tmp_path / "net.onnx"
    pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False, divisor_override=5)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), pool, nn.Conv2d(4, 2, 1)).eval()
    prunec.export_onnx(net, example, path)
    assert prunec.verify(net, path, example_inputs=example).passed
    pool.ceil_mode = True
    with pytest.raises(PassError, match=r"avg_pool2d at avg_pool2d .*divisor_override"):
        prunec.export_onnx(net, example, path)


def test_bounds_of_two_types_are_written(tmp_path: Path) -> None:
    class Bounded(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).clamp(0.25, 1)

    net, example, path = Bounded(3, 4).eval(), torch.randn(2, 3), tmp_path / "net.onnx"
    prunec.export_onnx(net, example, path)
    assert prunec.verify(net, path, example_inputs=example).passed
