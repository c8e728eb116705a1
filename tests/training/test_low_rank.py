"""Low-rank maps and the FastGRNN cell by their formulas; layers that have no factors."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from ranked_nets import artifact, net
from small_training import small_context
from torch import nn

from prunec.errors import PassError, PrunecError
from prunec.models.fastgrnn import FastGRNNCell
from prunec.models.low_rank import Form, LowRank, factored, reform, unscaled, whole
from prunec.passes.absorb_ranks import AbsorbRanks
from prunec.passes.train_str_rank import TrainStrRank


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_its_factors_at_full_rank(shape: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(*shape, bias=bias).double()
    made, x = factored(layer), torch.randn(3, shape[0], dtype=torch.float64)
    assert made.first.out_features == min(shape)
    torch.testing.assert_close(made(x), layer(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(whole(made).weight, layer.weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(unscaled(made)(x), layer(x), rtol=0, atol=1e-12)


def test_a_lower_rank_is_the_nearest_matrix_of_it() -> None:
    """Eckart & Young: the error is what the singular values left out amount to."""
    torch.manual_seed(0)
    layer = nn.Linear(9, 7).double()
    sigma = torch.linalg.svdvals(layer.weight.detach())
    error = torch.linalg.norm((whole(factored(layer, 3)).weight - layer.weight).detach())
    assert float(error) == pytest.approx(float(sigma[3:].square().sum().sqrt()))
    made = factored(layer, 3)
    assert made.m is not None
    torch.testing.assert_close(made.m[0], sigma[:3] / sigma[0])


def test_a_layer_of_zeros_has_factors() -> None:
    layer = nn.Linear(3, 4)
    nn.init.zeros_(layer.weight)
    x = torch.randn(2, 3)
    assert torch.equal(factored(layer)(x), layer(x))


@pytest.mark.parametrize("ranks", [(0, 0), (3, 4)])
def test_the_cell_is_its_formula(ranks: tuple[int, int]) -> None:
    """One sample and unit after the other, with the functions of math alone."""
    torch.manual_seed(1)
    cell = FastGRNNCell(4, 5, *ranks).double()
    for parameter in cell.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    w, u = (
        (whole(part) if isinstance(part, LowRank) else part).weight.tolist()
        for part in (cell.w, cell.u)
    )
    b_z, b_h = cell.bias_z.tolist(), cell.bias_h.tolist()
    zeta, nu = (1 / (1 + math.exp(-v.item())) for v in (cell.zeta, cell.nu))
    for n in range(2):
        h = [0.0] * 5
        for step in x[n].tolist():
            new = []
            for j in range(5):
                both = sum(a * b for a, b in zip(w[j], step, strict=True))
                both += sum(a * b for a, b in zip(u[j], h, strict=True))
                z = 1 / (1 + math.exp(-(both + b_z[j])))
                candidate = math.tanh(both + b_h[j])
                new.append((zeta * (1 - z) + nu) * candidate + z * h[j])
            h = new
        assert cell(x)[n].tolist() == pytest.approx(h, abs=1e-12)


def test_the_cell_starts_as_the_paper_says() -> None:
    cell = FastGRNNCell(40, 60, rank_u=30)
    assert (cell.zeta.item(), cell.nu.item()) == (1.0, -4.0)
    assert bool((cell.bias_z == 1).all() and (cell.bias_h == 1).all())
    assert isinstance(cell.u, LowRank)
    assert bool((cell.u.get_parameter("m") == 1).all())
    for weight in (cell.w.weight, cell.u.first.weight, cell.u.second.weight):
        assert float(weight.detach().std()) == pytest.approx(0.1, rel=0.1)


def test_a_sequence_runs_along_the_last_axis() -> None:
    model = net().double()
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    steps = torch.stack([x[..., t].flatten(1) for t in range(5)], 1)
    torch.testing.assert_close(model(x), model.classifier(model.cell(steps)))


def test_what_is_frozen_stays_frozen() -> None:
    """Through factors, their file, m taken in, and one matrix again; each bias by itself."""
    for weight, bias in ((False, True), (True, False), (False, False)):
        layer = nn.Linear(5, 4)
        layer.weight.requires_grad_(weight)
        layer.bias.requires_grad_(bias)
        made = factored(layer)
        loaded = nn.Sequential(copy.deepcopy(layer))
        reform(loaded, {"0": Form(4, scaled=True)})
        for part in (made, unscaled(made), whole(made), loaded):
            for name, parameter in part.named_parameters():
                assert parameter.requires_grad == (bias if name.endswith("bias") else weight)


def test_any_linear_layer_may_be_factored() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 9), nn.Linear(9, 3))
    expected = module.double()(x := torch.randn(2, 1, 8, 8, dtype=torch.float64))
    forms = TrainStrRank(factor=("2", "3")).split(module)
    assert forms == {"2": Form(9, scaled=True), "3": Form(3, scaled=True)}
    torch.testing.assert_close(module(x), expected)
    assert set(TrainStrRank().kernels(module)) == {"2.m", "3.m"}


def shared_weight() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    return net


def zero_head() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    nn.init.zeros_(net[1].weight)
    return net


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (shared_weight(), "0 shares a parameter with 1"),
        (zero_head(), "1 has no rank to learn"),
        (nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16)),
         r"0\.linear1 cannot be factored: torch's TransformerEncoderLayer reads its weight"),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_factored_are_named(net: nn.Module, message: str) -> None:
    with pytest.raises(PassError, match=message) as caught:
        TrainStrRank(factor=("*",)).split(net)
    assert "Leave it out of factor" in caught.value.remedy


def test_mistakes_are_reported(tmp_path: Path) -> None:
    with pytest.raises(PassError, match="factor = 'cel' fits no linear layer") as caught:
        TrainStrRank(factor=("cel",)).split(net())
    assert "cell.w, cell.u, classifier" in caught.value.remedy
    with pytest.raises(PassError, match="no low-rank map"):
        TrainStrRank()(artifact(), small_context(tmp_path))
    with pytest.raises(PrunecError, match="low-rank"):
        AbsorbRanks()(artifact())
    with pytest.raises(PassError, match="Flatten, not a linear map"):
        reform(nn.Sequential(nn.Flatten()), {"0": Form(2)})
