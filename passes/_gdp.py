"""The gates of train-gdp while a network trains: phases, gradient and proximal steps, ε.

Formulas and symbols are those of :mod:`prunec.passes.train_gdp`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunec.recipe.lengths import in_epochs
from prunec.sparsity.gated_kernels import GatedKernels
from prunec.sparsity.gated_macs import Gated
from prunec.sparsity.gated_times import GatedTimes
from prunec.sparsity.mac_budget import in_whole_blocks
from prunec.sparsity.proximal import proximal
from prunec.training.method import Method, Moment

RMS_DECAY = 0.98  # of the gates' mean square gradient, per step
RMS_FLOOR = 0.1  # of its mean: no gate moves more than ten times as fast as the average
MEASURE = 0.1  # share of the selecting phase that only measures gradients
STEP = 0.1  # of the weights' learning rate: the gates' own, their gradient at unit mean square
POLARISE = 0.25  # share of the finishing phase in which ε falls
BINS = 20  # of the histogram of gates
LENGTHS = ("dense", "select")  # of the phases before the one that trains what is left


class _Options(Protocol):
    """Options of the pass that are read here, beside the lengths of its phases."""

    @property
    def budget(self) -> tuple[str, float]: ...
    @property
    def block(self) -> int: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def epsilon_end(self) -> float: ...
    @property
    def strength(self) -> float: ...


class Gdp(Method):
    """The gates of a network while it trains."""

    def __init__(
        self,
        options: _Options,
        module: nn.Module,
        gated: Gated,
        times: GatedTimes | None = None,
    ) -> None:
        """Stand gates before the kernels.

        Args:
            options: of the pass.
            module: the network.
            gated: its gates and their MACs.
            times: their latency, where it is bounded in place of the MACs.
        """
        self.options = options
        self.gated = gated
        self.price = times.milliseconds if times else gated.macs
        self.marginal = times.marginal if times else gated.marginal
        self.kernels = GatedKernels(module, gated)
        device = gated.group_of.device
        self.a = torch.ones(len(gated.group_of), dtype=torch.float64, device=device)
        self.square = torch.zeros_like(self.a)
        self.slope = torch.zeros_like(self.a)
        self.epsilon = torch.tensor(options.epsilon, dtype=torch.float64, device=device)
        self.seen = torch.zeros((), dtype=torch.float64, device=device)
        self.rate, self.next_epsilon = torch.zeros_like(self.seen), torch.zeros_like(self.seen)
        self.phase = torch.zeros((), dtype=torch.long)  # 0 dense, 1 selecting, 2 finishing
        self.dense_macs = gated.macs(gated.sizes.double())
        self.dense_price = self.price(gated.sizes.double())
        self.allowed = torch.zeros_like(self.dense_price)

    # -- the gates as factors of kernels --------------------------------------------------------

    def gates(self) -> Tensor:
        """g(a), shape (G,); all 1 in the dense phase."""
        if int(self.phase) == 0:
            return torch.ones_like(self.a)
        square = self.a**2
        return square / (square + self.epsilon)

    def kernel_gates(self) -> dict[str, Tensor]:
        """Return the gates by kernel name, in shapes that broadcast against the kernels."""
        return dict(zip(self.gated.readers, self.kernels.factors(self.gates()), strict=True))

    def open_kernels(self) -> None:
        """Let the kernels be W·g, keeping W aside."""
        self.close_kernels()
        if int(self.phase):
            self.kernels.open(self.gates())

    def close_kernels(self) -> None:
        """Let the kernels be W again."""
        self.kernels.close()

    def rescale(self, factor: Tensor) -> None:
        """Multiply the kernels, and their averages, by a factor for each gate."""
        self.kernels.rescale(factor, self.averages)

    # -- the loop's hooks -------------------------------------------------------------------------

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps of a phase are alike, but its first."""
        number = int(self.phase)
        begins = number == 0 and moment.progress >= in_epochs(self.options, "dense", moment.epochs)
        return None if begins or (number == 1 and self.settled(moment)) else number

    def prepare(self, moment: Moment) -> None:
        """Let the gates' rate, the MACs allowed and the next ε be those of the moment."""
        self.rate.fill_(STEP * self.options.strength * moment.learning_rate)
        self.allowed.copy_(self.target(moment))
        self.next_epsilon.fill_(self.epsilon_at(moment))

    def settle(self) -> None:
        """See :meth:`Method.settle`."""
        self.close_kernels()

    def before_forward(self, moment: Moment) -> None:
        """Change the phase when it is time, then gate the kernels."""
        self.ready(moment)
        self.close_kernels()
        self.advance(moment)
        if int(self.phase) == 2:
            self.polarise()
        self.open_kernels()

    def advance(self, moment: Moment) -> None:
        """Begin the phase that is due."""
        options = self.options
        if int(self.phase) == 0 and moment.progress >= in_epochs(options, "dense", moment.epochs):
            self.phase += 1
            self.rescale(1 / self.gates())  # g(1) = 1/(1+ε) would change the function
        if int(self.phase) == 1 and self.settled(moment):
            # what the schedule has not closed yet, where the phase has few steps
            self.a.copy_(self.proximal(self.a, self.metric()[0] ** 2, self.target(moment)))
            self.finish_selection()

    @torch.no_grad()
    def gradient(self, moment: Moment) -> None:
        """∂L/∂W = g·∂L/∂(Wg) and ∂L/∂g = Σ W·∂L/∂(Wg)."""
        if int(self.phase) == 0:
            return
        gradients = [kernel.grad for kernel in self.kernels.weights if kernel.grad is not None]
        assert len(gradients) == len(self.kernels.weights)
        if int(self.phase) == 1:
            self.slope = self.kernels.slopes(gradients)
        self.kernels.scale(gradients, self.gates())
        self.close_kernels()

    @torch.no_grad()
    def after_step(self, moment: Moment) -> None:
        """The gates' gradient step and their proximal step, while gates are chosen."""
        if int(self.phase) != 1:
            return
        self.ready(moment)
        self.square.mul_(RMS_DECAY).addcmul_(self.slope, self.slope, value=1 - RMS_DECAY)
        self.seen += 1
        rms, unit = self.metric()
        g_prime = 2 * self.epsilon * self.a / (self.a**2 + self.epsilon) ** 2
        v = self.a - self.rate * g_prime * (self.slope / unit) / rms
        # Zero is absorbing: a closed gate stays closed, whatever its gradient.
        self.a.copy_(self.proximal(v.clamp(min=0) * (self.a > 0), rms**2, self.allowed))

    def metric(self) -> tuple[Tensor, Tensor]:
        """√F̂ of each gate, by its mean over the open ones, and that mean."""
        # A running mean that starts at 0 is too small at first; Adam divides by the same term.
        rms = torch.sqrt(self.square / (1 - RMS_DECAY ** self.seen.clamp(min=1)))
        opened = self.a > 0
        mean = (rms * opened).sum() / opened.sum() if self.kernels.at_once else rms[opened].mean()
        unit = mean.clamp(min=1e-30)
        return rms / unit + RMS_FLOOR, unit

    def target(self, moment: Moment) -> Tensor:
        """MACs, or time, that the schedule allows now: 1 − (1−ratio)·(1−(1−p)³) of the dense."""
        dense, select = (in_epochs(self.options, name, moment.epochs) for name in LENGTHS)
        p = (moment.progress - dense) / select
        # The ramp begins after the share that only measures, and ends one such share early.
        p = min(max((p - MEASURE) / (1 - 2 * MEASURE), 0.0), 1.0)
        return self.dense_price * (1 - (1 - self.options.budget[1]) * (1 - (1 - p) ** 3))

    def proximal(self, v: Tensor, fisher: Tensor, target: Tensor) -> Tensor:
        """See :func:`prunec.sparsity.proximal.proximal`."""
        block = self.options.block
        return proximal(self.gated, v, fisher, target, self.price, self.marginal, block)

    @torch.no_grad()
    def finish_selection(self) -> None:
        """Close the weakest gates beyond whole blocks; the support is frozen from here on."""
        self.phase += 1
        left = in_whole_blocks(self.gated, self.a, self.a > 0, self.options.block)
        self.a[~left] = 0.0

    @torch.no_grad()
    def polarise(self) -> None:
        """Lower ε geometrically early in the finishing phase, the function unchanged.

        A kernel behind a gate learns at g² of the learning rate, so survivors are freed soon.
        """
        before = self.gates()
        self.epsilon.copy_(self.next_epsilon)
        after = self.gates()
        self.rescale(torch.where(self.a > 0, before / after.clamp(min=1e-30), 1.0))

    def epsilon_at(self, moment: Moment) -> float:
        """Return ε at a moment, in the finishing phase."""
        options, start = self.options, self.chosen_at(moment)
        p = min((moment.progress - start) / max(POLARISE * (moment.epochs - start), 1e-9), 1.0)
        return float(options.epsilon * (options.epsilon_end / options.epsilon) ** max(p, 0.0))

    def after_epoch(self, moment: Moment) -> dict[str, Any]:
        """MACs as they would ship, by the dense ones; the gates, in all and before each kernel.

        ``gates_between`` is the share of gates in (0, ¼). A selection that is over is finished
        here: no step may follow, and this epoch's weights may be those that ship.
        """
        if self.settled(moment):
            self.advance(moment)
        counts = self.gated.counts(self.a > 0)
        shipped = self.gated.shipped(counts, self.options.block)
        macs, key = self.gated.macs(shipped), self.options.budget[0]
        told = {} if key == "macs_ratio" else {key: float(self.price(shipped) / self.dense_price)}
        gates = self.gates()
        # g = ¼ at |a| = √(ε/3), where |g'| is largest: no gate can rest below.
        middle = ((gates > 0) & (gates < 0.25)).double().mean()
        return {
            "macs_ratio": float(macs / self.dense_macs),
            **told,
            "gates_open": int((self.a > 0).sum()),
            "gates_between": float(middle),
            "layers": {"gates open": self.kernels.open_shares(self.a)},
            "histograms": {"gate g": histogram(gates)},
        }

    def settled(self, moment: Moment) -> bool:
        """Say whether the gates are chosen."""
        return moment.progress >= self.chosen_at(moment)

    def chosen_at(self, moment: Moment) -> float:
        """Return the epochs after which gates are chosen."""
        return sum(in_epochs(self.options, name, moment.epochs) for name in LENGTHS)

    @contextmanager
    def shipping(self) -> Iterator[None]:
        """Evaluate with gated kernels."""
        self.open_kernels()
        try:
            yield
        finally:
            self.close_kernels()

    def tensors(self) -> dict[str, Tensor]:
        """Gates, their statistics and the phase."""
        return {
            "a": self.a,
            "square": self.square,
            "epsilon": self.epsilon,
            "seen": self.seen,
            "phase": self.phase,
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        for name, held in self.tensors().items():
            held.copy_(tensors[name])


def histogram(gates: Tensor) -> dict[str, list[float]]:
    """How many gates lie in each of ``BINS`` equal parts of [0, 1]."""
    counts = torch.histc(gates.cpu(), BINS, 0.0, 1.0)
    return {"edges": [i / BINS for i in range(BINS + 1)], "counts": counts.long().tolist()}
