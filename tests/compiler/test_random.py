"""Random networks under random masks: every law of compilation.

``PRUNEC_EXAMPLES=2000 pytest tests/compiler/test_random.py`` draws as many networks anew; without
it a few, always the same, and the corpus of those that once broke a law.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import CORPUS
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from masks import masked
from modes import FINE_MODES, MODES
from oracles import brute_macs, fresh_inputs, outputs, torch_macs, worst
from random_networks import Wiring, network_of
from random_networks.drawing import wirings
from random_networks.outputs import REFUSED_IN_FILES
from random_networks.spellings import OF_STEPS
from random_networks.states import REFUSED
from sampling import sampled
from torch import nn
from untouched import everything, same

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
BATCHES = 1, 2, 3, 5
PLACE = re.compile(r"parts\.\d+|heads\.\d+|\w+\.py:\d+|input \d|a batch of \d")


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


def macs_by_all_counters(wiring: Wiring, module: nn.Module, *, compact: bool) -> int:
    """MACs of a network, on which the counters agree.

    torch's own knows of no recurrent layer, and counts what makes a weight of parameters; brute
    force knows of layers alone, each with its own weight.
    """
    macs = count(module, wiring.example()).macs
    recurrent = wiring.uses("spelled", *OF_STEPS)
    if not recurrent and (compact or not wiring.uses("computed")):
        assert macs == torch_macs(module, wiring.example())
    if not any(map(wiring.uses, ("attention", "spelled", "computed", "state"))):
        assert macs == brute_macs(module, wiring.example())
    return macs


def is_rightly_refused(wiring: Wiring, error: prunec.PrunecError) -> None:
    """A network may be refused that depends on its earlier calls; with a place and a remedy.

    Or one that makes a root of its batch, which is not recorded, and asks for it by ``len``, which
    is a number to ``torch.export``.
    """
    by_len = wiring.uses("of-batch") and "the batch size is a literal number" in str(error)
    assert by_len or wiring.uses("state", *REFUSED), str(error)
    assert error.remedy
    assert PLACE.search(str(error)), str(error)


def original_of(wiring: Wiring, mode: str, density: float) -> nn.Module:
    net = network_of(wiring)
    groups = channel_groups(net, wiring.example())
    return masked(net, ALL_MODES[mode](net, groups, density, wiring.seed))


def obeys_the_laws(wiring: Wiring, mode: str, density: float) -> None:
    with torch.no_grad():
        original, example = original_of(wiring, mode, density), wiring.example()
    handed_in = everything(original, example)
    before = count(original, example).macs
    compiled = compile_module(original, example)
    assert same(handed_in, everything(original, example))
    assert macs_by_all_counters(wiring, original, compact=False) == before
    for batch in BATCHES:
        assert worst(original, compiled.module, fresh_inputs(example, batch, batch)) < 1e-10
    assert macs_by_all_counters(wiring, compiled.module, compact=True) <= before

    again = compile_module(compiled.module, example)
    assert worst(original, again.module, fresh_inputs(example, 3, 2)) < 1e-10
    assert count(again.module, example).macs <= count(compiled.module, example).macs
    assert shapes(again.module) == shapes(compiled.module)

    with tempfile.TemporaryDirectory() as folder:
        compiled.plan.save(Path(folder) / "plan.json")
        plan = Plan.load(Path(folder) / "plan.json")
    assert plan == compiled.plan
    rebuilt = plan.apply(scrambled(wiring), example).eval()
    assert shapes(rebuilt) == shapes(compiled.module)
    rebuilt.load_state_dict(compiled.module.state_dict())
    for batch in BATCHES:
        assert worst(original, rebuilt, fresh_inputs(example, batch, 4)) < 1e-10


@torch.no_grad()
def scrambled(wiring: Wiring) -> nn.Module:
    """A network of the same making with other weights."""
    module = network_of(wiring)
    for parameter in module.parameters():
        parameter.normal_()
    return module


@pytest.mark.slow
@effort(5)
@given(wirings(), st.sampled_from(WAYS))
def test_a_random_network_obeys_the_laws(wiring: Wiring, way: tuple[str, float]) -> None:
    note(f"shapes {wiring.shapes()}")
    try:
        obeys_the_laws(wiring, *way)
    except prunec.PrunecError as error:
        is_rightly_refused(wiring, error)


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
    note(f"shapes {wiring.shapes()}")
    try:
        original = original_of(wiring, *way).float()
    except prunec.PrunecError as error:
        is_rightly_refused(wiring, error)
        return
    ships_as_it_is(wiring, original, tmp_path_factory.mktemp("random") / "model.onnx")


def is_not_expressed(wiring: Wiring, error: prunec.PrunecError) -> None:
    assert wiring.form in REFUSED_IN_FILES, str(error)
    assert error.remedy


def ships_as_it_is(wiring: Wiring, original: nn.Module, path: Path) -> None:
    example = tuple(x.float() for x in wiring.example())
    compiled = compile_module(original, example).module
    handed_in = everything(compiled, example)
    try:
        prunec.export_onnx(compiled, example, path)
    except prunec.PrunecError as error:
        is_not_expressed(wiring, error)
        return
    here, there = prunec.count(compiled, example), prunec.count_onnx(path)
    assert same(handed_in, everything(compiled, example))
    assert (here.macs, here.nonzero_macs) == (there.macs, there.nonzero_macs)
    for batch in BATCHES:
        inputs = fresh_inputs(example, batch, 5)
        ours, _ = outputs(compiled, inputs)
        actual = next(Onnxruntime().open(path).run([[x.numpy() for x in inputs]]))
        for mine, theirs in zip(ours, actual, strict=True):
            scale = float(mine.abs().max()) or 1.0
            np.testing.assert_allclose(theirs / scale, mine.numpy() / scale, rtol=0, atol=1e-4)
