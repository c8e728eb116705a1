"""Networks as ncnn, whose first layers tell pnnx nothing of the batch axis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sampling import slow_but
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.catalogue import exporter, runner_for
from prunec.deploy.exporter import Source
from prunec.errors import PassError

for package in ("ncnn", "pnnx"):
    pytest.importorskip(package)
pytestmark = pytest.mark.filterwarnings("ignore")  # what torch says of its tracer


class Written(nn.Module):
    """A network whose forward pass is a function of its layers and inputs."""

    def __init__(self, forward: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.parts, self.function = nn.ModuleList(parts), forward

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self.parts, *inputs)


IMAGE, SEQUENCE, VECTOR = (3, 8, 8), (5, 8), (24,)
NETS: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]]]] = {
    "flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), [IMAGE]),
    "linear on an image": (
        lambda: nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)),
        [IMAGE],
    ),
    "permute and a mean": (
        lambda: Written(lambda m, x: m[0](x.permute(0, 2, 3, 1)).mean((1, 2)), nn.Linear(3, 4)),
        [IMAGE],
    ),
    "a mean": (lambda: Written(lambda m, x: m[0](x.mean((2, 3))), nn.Linear(3, 4)), [IMAGE]),
    "patches as a sequence": (
        lambda: Written(lambda m, x: m[0](x.flatten(2).transpose(1, 2)).amax(1), nn.Linear(3, 4)),
        [IMAGE],
    ),
    "a sequence": (lambda: nn.Sequential(nn.Linear(8, 4)), [SEQUENCE]),
    "a maximum over a sequence": (
        lambda: Written(lambda m, x: m[0](x.amax(1)), nn.Linear(8, 4)),
        [SEQUENCE],
    ),
    "attention": (
        lambda: Written(
            lambda m, x: ((m[0](x) @ m[1](x).transpose(1, 2)).softmax(-1) @ m[2](x)).mean(1),
            *(nn.Linear(8, 6) for _ in range(3)),
        ),
        [SEQUENCE],
    ),
    "a vector seen as a matrix": (
        lambda: Written(lambda m, x: m[0](x.view(x.shape[0], 4, 6).mean(1)), nn.Linear(6, 3)),
        [VECTOR],
    ),
    "a padded vector": (
        lambda: nn.Sequential(nn.ConstantPad1d((1, 2), 0.0), nn.Linear(27, 3)),
        [VECTOR],
    ),
    "two vectors": (
        lambda: Written(lambda m, x, y: m[0](torch.cat([x, y], 1)) * x[:, :3], nn.Linear(48, 3)),
        [VECTOR, VECTOR],
    ),
    "two images": (
        lambda: Written(lambda m, x, y: m[0](torch.cat([x, y], 1).mean((2, 3))), nn.Linear(6, 3)),
        [IMAGE, IMAGE],
    ),
    "averages of whole windows": (
        lambda: nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(3, 4, 3)),
        [IMAGE],
    ),
    "a padded image": (
        lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 3, 4)), nn.Conv2d(3, 4, 3)),
        [IMAGE],
    ),
    "an input that is an output": (lambda: nn.Sequential(nn.Identity()), [IMAGE]),
    "a volume": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(360, 4)), [(2, 5, 6, 6)]),
}


@pytest.mark.parametrize("name", slow_but(NETS, "permute and a mean", "two vectors"))
def test_the_file_has_the_axes_of_one_sample(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, shapes = NETS[name]
    module, inputs = build().eval(), tuple(torch.randn(2, *shape) for shape in shapes)
    source = Source(Artifact(module, inputs), {}, {"onnx": tmp_path / "unread.onnx"})
    path = tmp_path / "model.param"
    exporter("to-ncnn")()(source, path)
    (actual,) = next(iter(runner_for(".param").open(path).run([[x.numpy() for x in inputs]])))
    with torch.no_grad():
        expected = module(*inputs).numpy()
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    kinds = [line.split()[0] for line in path.read_text().splitlines()[2:]]
    assert "averages" in name or "output" in name or "Pooling" not in kinds
    assert name == "a padded vector" or "Padding" not in kinds


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.AvgPool2d(2, divisor_override=3), "no pooling with divisor_override"),
        (nn.AvgPool2d(3, 2, ceil_mode=True), "ceil_mode divides by the whole window"),
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"), "no circular padding"),
    ],
)
def test_what_pnnx_would_write_otherwise_is_refused_by_name(
    layer: nn.Module, reason: str, tmp_path: Path
) -> None:
    module = nn.Sequential(layer, nn.Conv2d(3, 4, 3)).eval()
    source = Source(Artifact(module, (torch.randn(2, 3, 8, 8),)), {}, {"onnx": tmp_path / "o"})
    with pytest.raises(PassError, match=reason):
        exporter("to-ncnn")()(source, tmp_path / "model.param")
