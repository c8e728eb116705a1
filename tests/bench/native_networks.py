"""Networks of torchvision and timm as C: each exported, built, and compared with onnxruntime.

    python tests/bench/native_networks.py [torchvision|timm|NAME ...]

Weights are random, half of them zero, inputs small; batch norms have the statistics of one batch
and are folded. A row says how far the outputs of C and of onnxruntime lie from the network in
float64, in shares of the largest, or the operator that C refused. Deep random networks amplify
rounding: C is right if it is no further away than 1e-5, or than twice onnxruntime's distance.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from torch import nn

from prunec.artifact import Artifact
from prunec.deploy.exporter import Source
from prunec.deploy.native.library import load
from prunec.deploy.runner import once
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.errors import PrunecError
from prunec.exporters.to_c import ToC
from prunec.exporters.to_onnx import ToOnnx
from prunec.graph.rewriting.fold_batch_norms import fold_batch_norms

TORCHVISION = (
    "alexnet vgg11 vgg11_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 squeezenet1_0"
    " squeezenet1_1 densenet121 inception_v3 googlenet shufflenet_v2_x0_5 shufflenet_v2_x1_0"
    " mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet0_5 mnasnet1_0 efficientnet_b0"
    " efficientnet_v2_s regnet_x_400mf regnet_y_400mf convnext_tiny"
).split()
TIMM = (
    "mobilenetv3_small_100 mobilenetv4_conv_small efficientnet_lite0 tf_efficientnet_b0 regnetx_002"
    " regnety_002 convnext_atto convnextv2_atto ghostnet_100 ghostnetv2_100 repvgg_a0 mobileone_s0"
    " rexnet_100 hardcorenas_a fbnetc_100 lcnet_050 tinynet_e mixnet_s dla34 hrnet_w18_small"
    " res2net50_26w_4s resnest14d skresnet18 seresnet18 cspresnet50 cspdarknet53 darknet17 dpn48b"
    " selecsls42 vovnet39a ese_vovnet19b_dw xception41 inception_v4 inception_resnet_v2"
    " legacy_xception nf_resnet26 nfnet_l0 resnetv2_50 gernet_s ecaresnet26t efficientvit_b0"
    " edgenext_xx_small inception_next_atto fastvit_t8 repghostnet_050 starnet_s1 hgnet_tiny"
    " hgnetv2_b0 rdnet_tiny pnasnet5large nasnetalarge mobilenetv5_base repvit_m0_9 poolformer_s12"
    " focalnet_tiny_srf convmixer_768_32 mambaout_femto tresnet_m gcresnet33ts bat_resnext26ts"
    " halonet26t sebotnet33ts_256 lambda_resnet26t cs3darknet_s visformer_tiny levit_128"
    " caformer_s18 convformer_s18 next_vit_small csatv2"
).split()
TWICE = frozenset({"inception_v3", "inception_v4", "inception_resnet_v2", "googlenet"})
"""Networks that need more than 64 rows to be left with one in the end."""
SAMPLES = 2


def built(kind: str, name: str, size: int) -> nn.Module:
    """A network, half of its weights zero."""
    torch.manual_seed(0)
    if kind == "timm":
        sized = {"img_size": size} if name in ("levit_128", "visformer_tiny") else {}
        module: nn.Module = timm.create_model(name, **sized)
    else:
        alone = {"aux_logits": False} if name in ("inception_v3", "googlenet") else {}
        module = getattr(torchvision.models, name)(weights=None, **alone)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.weight.mul_(torch.rand_like(part.weight) < 0.5)
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.momentum = 1.0
        # Statistics of a batch: without them some networks answer with their last bias alone.
        module.train()(torch.randn(8, 3, size, size))
    return module.eval()


def row(kind: str, name: str, folder: Path) -> str:
    """Export a network, build it, and say how far its answers lie from onnxruntime's."""
    size = 128 if name in TWICE else 64
    example = (torch.randn(SAMPLES, 3, size, size),)
    module = fold_batch_norms(built(kind, name, size), example)[0]
    artifact = Artifact(module, example)
    ToOnnx()(Source(artifact), folder / "model.onnx")
    bytes_ = ToC()(Source(artifact, {}, {"onnx": folder / "model.onnx"}), folder / "model.c").bytes
    inputs = [x.numpy() for x in example]
    ours = once(load(folder / "model.c"), inputs)[0]
    theirs = once(Onnxruntime().open(folder / "model.onnx"), inputs)[0]
    with torch.no_grad():
        right = module.double()(example[0].double()).numpy()
    apart, other = (float(np.abs(y - right).max() / np.abs(right).max()) for y in (ours, theirs))
    said = "right" if apart <= max(1e-5, 2 * other) else "**apart**"
    size_of = f"{size}² | {bytes_ / 1e6:.1f}"
    return f"| {kind} | {name} | {size_of} | {apart:.0e} | {other:.0e} | {said} |"


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    given = sys.argv[1:] or ["torchvision", "timm"]
    wanted = [("torchvision", name) for name in TORCHVISION] + [("timm", name) for name in TIMM]
    for kind, name in wanted:
        if kind not in given and name not in given:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(row(kind, name, Path(folder)), flush=True)
            except (PrunecError, RuntimeError) as error:
                print(f"| {kind} | {name} | | | | {str(error).splitlines()[0]} |", flush=True)


if __name__ == "__main__":
    main()
