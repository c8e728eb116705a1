"""Random networks under random masks: a compiled network computes what the masked one did.

``PRUNEC_EXAMPLES=2000`` draws as many networks anew; without it a few, always the same.
"""

from __future__ import annotations

import os

import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from masks import masked
from modes import MODES
from oracles import brute_macs, fresh_inputs, worst
from random_nets import RandomNet, Wiring, wirings

from prunec.cost.torch_graph import count
from prunec.graph.compile import compile_module
from prunec.graph.groups import channel_groups

EXAMPLES = int(os.environ.get("PRUNEC_EXAMPLES", "0"))
effort = settings(
    max_examples=EXAMPLES or 8,
    phases=(Phase.generate, Phase.shrink) if EXAMPLES else (Phase.generate,),
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@effort
@given(wirings(), st.sampled_from(sorted(MODES)), st.sampled_from((0.15, 0.5, 0.8)))
def test_a_random_network_keeps_its_function(wiring: Wiring, mode: str, density: float) -> None:
    net = RandomNet(wiring)
    note(f"channels {wiring.channels()}")
    example = (torch.randn(2, 3, 7, 7, dtype=torch.float64),)
    assert count(net, example).macs == brute_macs(net, example)
    groups = channel_groups(net, example)
    original = masked(net, MODES[mode](net, groups, density, wiring.seed))
    compiled = compile_module(original, example)
    assert worst(original, compiled.module, fresh_inputs(example, 3, 1)) < 1e-10
    macs = count(compiled.module, example).macs
    assert macs <= count(original, example).macs
    again = compile_module(compiled.module, example)
    assert worst(original, again.module, fresh_inputs(example, 3, 2)) < 1e-10
    # Where a whole branch is dead, the channels that must fill it may be chosen better again.
    assert count(again.module, example).macs <= macs
