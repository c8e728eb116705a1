"""Random networks under random masks: every law of compilation.

``PRUNEC_EXAMPLES=2000 pytest tests/compiler/test_random.py`` draws as many networks anew; without
it a few, always the same, and the corpus of those that once broke a law.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from corpus import CORPUS
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from masks import masked
from modes import FINE_MODES, MODES
from oracles import brute_macs, fresh_inputs, torch_macs, worst
from random_nets import RandomNet, Wiring
from random_wirings import wirings
from sampling import sampled
from torch import Tensor, nn

import prunec
from prunec.cost.torch_graph import count
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.graph.channels.groups import channel_groups
from prunec.graph.rewriting.compile import compile_module
from prunec.graph.rewriting.plan import Plan

EXAMPLES = int(os.environ.get("PRUNEC_EXAMPLES", "0"))
ALL_MODES = MODES | FINE_MODES
# Of "weights" a quarter of the density stays: down to one weight in a thousand.
WAYS = [(mode, density) for mode in ALL_MODES for density in (0.15, 0.5, 0.8)]
WAYS += [("weights", density) for density in (0.04, 0.004)]
Example = tuple[Tensor, ...]


def effort(examples: int, share: int = 1) -> settings:
    """So many examples, always the same; or one in ``share`` of those asked for, new ones."""
    return settings(
        max_examples=-(-EXAMPLES // share) or examples,
        phases=(Phase.generate, Phase.shrink) if EXAMPLES else (Phase.generate,),
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in module.state_dict().items()}


def macs_by_all_counters(wiring: Wiring, module: nn.Module) -> int:
    """MACs of a network, on which the counters agree; brute force knows of layers alone."""
    macs = count(module, wiring.example()).macs
    assert macs == torch_macs(module, wiring.example())
    if all(step.kind != "attention" for step in wiring.steps):
        assert macs == brute_macs(module, wiring.example())
    return macs


def original_of(wiring: Wiring, mode: str, density: float) -> nn.Module:
    net = RandomNet(wiring)
    groups = channel_groups(net, wiring.example())
    return masked(net, ALL_MODES[mode](net, groups, density, wiring.seed))


def obeys_the_laws(wiring: Wiring, mode: str, density: float) -> None:
    original, example = original_of(wiring, mode, density), wiring.example()
    before = macs_by_all_counters(wiring, original)
    compiled = compile_module(original, example)
    for batch in (1, 3):
        assert worst(original, compiled.module, fresh_inputs(example, batch, batch)) < 1e-10
    assert macs_by_all_counters(wiring, compiled.module) <= before

    again = compile_module(compiled.module, example)
    assert worst(original, again.module, fresh_inputs(example, 3, 2)) < 1e-10
    assert count(again.module, example).macs <= count(compiled.module, example).macs
    assert shapes(again.module) == shapes(compiled.module)

    plan = Plan.from_json(compiled.plan.to_json())
    assert plan == compiled.plan
    rebuilt = plan.apply(scrambled(wiring), example).eval()
    assert shapes(rebuilt) == shapes(compiled.module)
    rebuilt.load_state_dict(compiled.module.state_dict())
    assert worst(original, rebuilt, fresh_inputs(example, 3, 4)) < 1e-10


@torch.no_grad()
def scrambled(wiring: Wiring) -> nn.Module:
    """A network of the same making with other weights."""
    module = RandomNet(wiring)
    for parameter in module.parameters():
        parameter.normal_()
    return module


@pytest.mark.slow
@effort(8)
@given(wirings(), st.sampled_from(WAYS))
def test_a_random_network_obeys_the_laws(wiring: Wiring, way: tuple[str, float]) -> None:
    note(f"shapes {wiring.shapes()}")
    obeys_the_laws(wiring, *way)


@pytest.mark.parametrize("name", sampled(CORPUS, 5))
def test_what_once_broke_a_law_obeys_it(name: str) -> None:
    obeys_the_laws(*CORPUS[name])


@pytest.mark.slow
@effort(2, share=20)
@given(wirings(), st.sampled_from(WAYS))
def test_a_random_network_is_exported_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, wiring: Wiring, way: tuple[str, float]
) -> None:
    """The file counts what the network counts and computes what it computes."""
    compiled = compile_module(original_of(wiring, *way), wiring.example()).module.float()
    example = tuple(x.float() for x in wiring.example())
    path = tmp_path_factory.mktemp("random") / "model.onnx"
    prunec.export_onnx(compiled, example, path)
    here, there = prunec.count(compiled, example), prunec.count_onnx(path)
    assert (here.macs, here.nonzero_macs) == (there.macs, there.nonzero_macs)
    inputs = fresh_inputs(example, 3, 5)
    with torch.no_grad():
        ours = compiled(*inputs)
    found = next(Onnxruntime().open(path).run([[x.numpy() for x in inputs]]))
    for mine, theirs in zip(ours, found, strict=True):
        scale = float(mine.abs().max()) or 1.0
        np.testing.assert_allclose(theirs / scale, mine.numpy() / scale, rtol=0, atol=1e-4)
