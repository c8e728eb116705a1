"""Every method of sparse training with options for a network of seconds, and that network."""

from __future__ import annotations

import torch
from torch import nn

from prunec.artifact import Artifact
from prunec.contract import Training
from prunec.passes.train_acdc import TrainAcdc
from prunec.passes.train_dnw import TrainDnw
from prunec.passes.train_dpf import TrainDpf
from prunec.passes.train_dsr import TrainDsr
from prunec.passes.train_east import TrainEast
from prunec.passes.train_gdp import TrainGdp
from prunec.passes.train_gmp import TrainGmp
from prunec.passes.train_granet import TrainGranet
from prunec.passes.train_magnitude import TrainMagnitude
from prunec.passes.train_rigl import TrainRigl
from prunec.passes.train_set import TrainSet
from prunec.passes.train_snfs import TrainSnfs
from prunec.passes.train_st3 import TrainSt3
from prunec.passes.train_str import TrainStr
from prunec.passes.train_two_of_four import TrainTwoOfFour
from prunec.sparsity.training_pass import SparseTraining

SPARSITY = 0.9
METHODS: dict[str, SparseTraining] = {
    "str": TrainStr(sparsity=SPARSITY, s_init=-8.0),
    "gmp": TrainGmp(sparsity=SPARSITY, update_steps=5),
    "dnw": TrainDnw(sparsity=SPARSITY),
    "dpf": TrainDpf(sparsity=SPARSITY, update_steps=4),
    "dsr": TrainDsr(sparsity=SPARSITY, update_steps=2),
    "set": TrainSet(sparsity=SPARSITY, update_steps=4),
    "snfs": TrainSnfs(sparsity=SPARSITY),
    "rigl": TrainRigl(sparsity=SPARSITY, update_steps=4),
    "granet": TrainGranet(sparsity=SPARSITY, update_steps=4),
    "east": TrainEast(sparsity=SPARSITY, cycle_steps=2, update_steps=5),
    "st3": TrainSt3(sparsity=SPARSITY, update_steps=3),
    "acdc": TrainAcdc(sparsity=SPARSITY, warmup_epochs=1, phase_epochs=2, final_epochs=3),
}
SHIPPED: dict[str, Training] = {
    **METHODS,
    "two-of-four": TrainTwoOfFour(),
    "gdp": TrainGdp(dense_epochs=2, select_epochs=3, macs_ratio=0.45, round_to=2),
    "magnitude": TrainMagnitude(macs_ratio=0.45, round_to=2, dense_epochs=2, batches=3),
}


def net() -> nn.Module:
    """1,896 weights that may be masked; no dropout: several processes can follow one process."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, 3),
    )


def artifact() -> Artifact:
    return Artifact(net().eval(), (torch.randn(2, 1, 8, 8),))
