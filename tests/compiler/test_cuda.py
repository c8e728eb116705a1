"""A network on a GPU is compiled there: analysed on the CPU, the result lies where it was."""

from __future__ import annotations

import pytest
import torch
from masks import channel_masks
from oracles import worst
from zoo import ZOO

from prunec.graph.channels.groups import channel_groups
from prunec.graph.rewriting.compile import compile_module

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("name", ["grouped", "mobile-net-v2", "lstm", "attention", "dead-branch"])
def test_a_network_on_a_gpu_stays_there(name: str) -> None:
    module, example = ZOO[name]()
    masks = channel_masks(module, channel_groups(module, example), 0.5, "both", 1)
    on_cpu = compile_module(module, example, masks=masks)
    module, example = module.cuda(), tuple(x.cuda() for x in example)
    compiled = compile_module(module, example, masks={k: m.cuda() for k, m in masks.items()})
    assert all(p.is_cuda for p in compiled.module.parameters())
    assert all(b.is_cuda for b in compiled.module.buffers())
    assert compiled.plan == on_cpu.plan
    assert worst(compiled.module.cpu(), on_cpu.module, tuple(x.cpu() for x in example)) < 1e-10
