"""Program of one of several processes of a training.

It writes the digests of weights and method, as every update left them and as the next step found
them, to FOLDER/METHOD/digests-RANK.json, and at the end the weights to
FOLDER/METHOD/final.safetensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from every_method import net
from safetensors.torch import save_file
from small_training import CPU, small_context
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.errors import Interrupted
from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.passes._gdp import Gdp
from prunec.passes.train_gdp import TrainGdp
from prunec.passes.train_gmp import TrainGmp
from prunec.passes.train_rigl import TrainRigl
from prunec.passes.train_set import TrainSet
from prunec.passes.train_snfs import TrainSnfs
from prunec.passes.train_str import TrainStr
from prunec.passes.train_str_rank import TrainStrRank
from prunec.processes import Processes, joined
from prunec.sparsity.gated_macs import gated_channels
from prunec.sparsity.training_pass import SparseTraining
from prunec.training.context import Context
from prunec.training.loop import fit
from prunec.training.method import Method, Moment

GDP = TrainGdp(dense_epochs=1, select_epochs=2, macs_ratio=0.6, round_to=2)


class Mortal(nn.Module):
    """A network for images of three channels; rank 1 dies of it once, after sixty passes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.ReLU(),
            nn.Linear(8, num_classes),
        )  # fmt: skip
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += self.training
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
        if first and os.environ["RANK"] == "1" and self.passes == 60:
            os.kill(os.getpid(), signal.SIGKILL)
        result: Tensor = self.inner(x)
        return result


class Hungry(nn.Module):
    """The network, which one rank has no memory for unless a batch is small."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2 and os.environ["RANK"] == "1":
            raise MemoryError
        result: Tensor = self.inner(x)
        return result


class Random(Method):
    """Masks a share of the weights at random, as methods that grow at random do."""

    def __init__(self, module: nn.Module) -> None:
        self.weight = next(module.parameters())
        self.mask = torch.ones_like(self.weight)

    def after_step(self, moment: Moment) -> None:
        drawn = torch.rand(self.mask.shape, generator=moment.generator(CPU))
        self.mask.copy_(drawn > 0.2)
        self.weight.data *= self.mask

    def tensors(self) -> dict[str, Tensor]:
        return {"mask": self.mask}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.mask.copy_(tensors["mask"])


class Careless(Method):
    """Keeps what every rank draws for itself: torch's own generator is another on each."""

    def __init__(self) -> None:
        self.kept = torch.zeros(4)

    def after_step(self, moment: Moment) -> None:
        self.kept.uniform_()

    def tensors(self) -> dict[str, Tensor]:
        return {"kept": self.kept}


SPARSE: dict[str, SparseTraining] = {
    "str": TrainStr(sparsity=0.8, s_init=-6.0),
    "gmp": TrainGmp(sparsity=0.8, update_steps=4),
    "set": TrainSet(sparsity=0.8, update_steps=4),
    "rigl": TrainRigl(sparsity=0.8, update_steps=4),
    "snfs": TrainSnfs(sparsity=0.8),
    "str-rank": TrainStrRank(factor=("8",), sparsity=0.6),
}


def method_for(kind: str, module: nn.Module, context: Context) -> Method:
    if kind in SPARSE:
        step = SPARSE[kind]
        if isinstance(step, TrainStrRank):
            step.split(module)
        return step.method(step.kernels(module), context)
    if kind == "random":
        return Random(module)
    if kind == "careless":
        return Careless()
    if kind == "gdp":
        artifact = Artifact(net().eval(), (torch.zeros(2, 1, 8, 8),))
        return Gdp(GDP, module, gated_channels(analyse(capture(artifact.module, artifact.example))))
    return Method()


@dataclass
class Digests:
    """Of weights and method at every update: as it left them, as the next step found them."""

    left: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


def digest(module: nn.Module, method: Method) -> str:
    made = hashlib.sha256()
    for tensor in [*module.state_dict().values(), *method.tensors().values()]:
        made.update(tensor.detach().contiguous().numpy().tobytes())
    return made.hexdigest()


def trained(
    folder: Path,
    kind: str,
    processes: Processes,
    *,
    epochs: int,
    resume: bool = False,
    stop_at: int = -1,
    die_at: int = -1,
    **train: Any,
) -> tuple[nn.Module, Digests]:
    """The network, and the digests of its updates."""
    module, digests = net(), Digests()
    context = small_context(folder, resume=resume, epochs=epochs, **train)
    method = method_for(kind, module, context)
    before, after = method.before_forward, method.after_step

    def finding(moment: Moment) -> None:
        digests.seen.append(digest(module, method))
        before(moment)

    def leaving(moment: Moment) -> None:
        after(moment)
        digests.left.append(digest(module, method))
        if moment.number == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if moment.number == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    method.before_forward = finding  # type: ignore[method-assign]
    method.after_step = leaving  # type: ignore[method-assign]
    fit(module, method, replace(context, processes=processes))
    return module, digests


def train_all(root: Path, kinds: Sequence[str], epochs: int) -> None:
    """Train with one method after the other."""
    with joined() as processes:
        for kind in kinds:
            own: dict[str, Any] = {"sync_batchnorm": False} if kind == "unsynchronised" else {}
            _kept(root / kind, kind, processes, epochs=epochs, **own)


def be_stopped(folder: Path) -> None:
    """A signal reaches the second process in the second epoch."""
    with joined() as processes, contextlib.suppress(Interrupted):
        stop_at = 30 if processes.rank == 1 else -1
        trained(folder, "plain", processes, epochs=3, stop_at=stop_at, batch_size=4)


def lose_one(folder: Path) -> None:
    """The second process is killed in the second epoch."""
    with joined() as processes:
        die_at = 8 if processes.rank == 1 else -1
        _kept(folder, "plain", processes, epochs=3, die_at=die_at)


def be_hungry(folder: Path) -> None:
    """The second process has no memory for a batch."""
    with joined() as processes:
        fit(Hungry(net()), Method(), replace(small_context(folder), processes=processes))


def _kept(folder: Path, kind: str, processes: Processes, **options: Any) -> None:
    module, digests = trained(folder, kind, processes, **options)
    (folder / f"digests-{processes.rank}.json").write_text(json.dumps(asdict(digests)))
    if processes.first:
        state = {k: v.contiguous() for k, v in module.state_dict().items()}
        save_file(state, folder / "final.safetensors")
