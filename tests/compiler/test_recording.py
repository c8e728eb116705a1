"""A recorded network is the exported one, node by node; what cannot be certain is not recorded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from prunec.errors import UntraceableModel
from prunec.graph.capture import reader, recording
from prunec.graph.capture.fast import fast_trace


class Plain(nn.Module):
    """A convolution, a batch norm and a classifier around a function of a value (B, 8, 4, 4)."""

    def __init__(self, inner: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.last = inner, nn.Linear(128, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.inner(self.norm(self.conv(x)))
        return {"scores": self.last(y.flatten(1)), "map": y}


def shuffled(y: Tensor) -> Tensor:
    return y.view(y.shape[0], 2, 4, 4, 4).transpose(1, 2).reshape(y.shape[0], 8, 4, 4)


def windows(y: Tensor) -> Tensor:
    return y.view(y.shape[0] * 2, 4, 16).softmax(2).reshape(y.shape[0], 8, 4, 4)


def written(y: Tensor) -> Tensor:
    y.relu_()
    return y.add_(1).mul(y)


def parts(y: Tensor) -> Tensor:
    first, second = y.chunk(2, 1)
    return torch.cat([second, first, torch.zeros(y.shape[0], 8, 4, 4)], 1).narrow(1, 0, 8)


INPUT = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("inner", [shuffled, windows, written, parts])
def test_recorded_is_what_is_exported(inner: Callable[[Tensor], Tensor]) -> None:
    net = Plain(inner).eval()
    recorded, exported = reader._recorded(net, (INPUT,)), reader._exported(net, (INPUT,))
    assert recorded is not None
    a, b = (
        [(n.name, n.operator, n.value, n.dynamic, n.dtype, n.module) for n in c.nodes
         if n.operator != "sym_size"]
        for c in (recorded, exported)
    )  # fmt: skip
    assert a == b
    assert list(recorded.state) == list(exported.state) == list(net.state_dict())
    assert all(map(torch.equal, recorded.outputs, exported.outputs))


def random_part(y: Tensor) -> Tensor:
    return y + torch.rand(8, 4, 4)


def half_of_the_batch(y: Tensor) -> Tensor:
    return torch.cat([y[: y.shape[0] // 2], y[y.shape[0] // 2 :]])


def on_values(y: Tensor) -> Tensor:
    return y if y.sum() > 0 else -y


def on_the_batch(y: Tensor) -> Tensor:
    return y if y.shape[0] < 9 else y + 1


def a_new_tensor(y: Tensor) -> Tensor:
    return y * torch.tensor(2.0)


def an_item_set(y: Tensor) -> Tensor:
    mask = y.new_zeros(4, 4)
    mask[1:, 2] = 1
    return y * mask


@pytest.mark.parametrize(
    "inner", [an_item_set, random_part, half_of_the_batch, on_values, on_the_batch, a_new_tensor]
)
def test_what_is_not_certain_is_not_recorded(inner: Callable[[Tensor], Tensor]) -> None:
    assert fast_trace(Plain(inner), (INPUT,)) is None


class Overwriting(nn.Module):
    """Writes into a view of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2].mul_(2)


class Learned(nn.Module):
    """Does something else for the batches that are recorded than for a smaller one."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x) if len(x) > 4 else self.last(x) * 2


def test_a_graph_that_answers_otherwise_is_not_taken() -> None:
    assert fast_trace(Learned(), (INPUT,)) is not None
    assert reader._recorded(Learned().eval(), (INPUT,)) is None


def test_the_input_and_the_network_are_left_as_they_are() -> None:
    given, net = INPUT.clone(), Plain(written)
    assert reader._recorded(Overwriting(), (given,)) is None
    assert torch.equal(given, INPUT)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    reader.capture(net, (given,))
    assert net.training
    assert not net.conv._forward_pre_hooks
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(not value.is_inference() for value in net.state_dict().values())


def test_branches_on_values_are_still_refused() -> None:
    with pytest.raises(UntraceableModel, match="data-dependent"):
        reader.capture(Plain(on_values), (INPUT,))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16])
def test_shapes_that_are_stated_are_those_of_torch(kind: torch.dtype) -> None:
    """Of functions of single values, on dense, turned and repeated tensors."""
    dense = torch.empty(2, 3, 4, 5, dtype=kind, device="meta")
    for given in (dense, dense.permute(0, 2, 3, 1), dense[:, ::2], dense[:, :1].expand(2, 3, 4, 5)):
        stated = torch.empty_like(given)
        for function in recording._ACTIVATIONS:
            written = function._schema.is_mutable
            made = function(given.clone() if written else given)
            assert (made.shape, made.dtype) == (stated.shape, stated.dtype), function
            assert written or made.stride() == stated.stride(), function
