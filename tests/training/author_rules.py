"""The rules of the methods' authors, in the plainest PyTorch, for networks of a few kernels.

Facts are of the papers and the published codes; nothing here is prunec's but the conventions that
docs/results.md names: norms and biases are not decayed, an update of RigL's kind takes the place of
a step, and counts are rounded so that the total holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cubic(p: float) -> float:
    return 1 - (1 - min(p, 1.0)) ** 3


def falling(p: float, first: float, last: float = 0.0) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(p, 1.0))) / 2


def top(scores: Tensor, count: int) -> Tensor:
    """A mask of the largest scores."""
    mask = torch.zeros(scores.numel(), dtype=scores.dtype)
    mask[scores.flatten().argsort(descending=True)[:count]] = 1
    return mask.view(scores.shape)


class Rule:
    """Training as all authors do it; a subclass says what the network computes with, and when.

    Attributes:
        kernels: W by name, leaves.
        masks: of each; ones where a method has none.
    """

    def __init__(
        self,
        net: nn.Module,
        masks: Sequence[Tensor],
        optimizer: dict[str, Any],
        rate: float,
        decay: float,
        clip: float,
        epochs: int,
        steps: int,
    ) -> None:
        self.net, self.decay, self.clip, self.epochs, self.steps = net, decay, clip, epochs, steps
        self.total_steps = epochs * steps
        self.kernels = {name: p for name, p in net.named_parameters() if p.dim() > 1}
        given = masks or [torch.ones_like(w) for w in self.kernels.values()]
        self.masks = dict(zip(self.kernels, [m.detach().clone() for m in given], strict=True))
        if masks:
            self.cut()
        self.begin()
        arguments = {key: value for key, value in optimizer.items() if key != "name"}
        self.leaves = [*net.parameters(), *self.own()]
        self.optimizer = torch.optim.SGD(self.leaves, lr=rate, **arguments)

    def begin(self) -> None:
        """Make what a rule keeps."""

    def own(self) -> list[nn.Parameter]:
        """Parameters beside the network's."""
        return []

    def before(self, number: int) -> None:
        """Prepare a step."""

    def effective(self, name: str) -> Tensor:
        """Effective weight, with which the network computes in place of W."""
        return self.kernels[name]

    def gradient(self, number: int) -> bool:
        """Change gradients; say whether a step of the weights follows."""
        return True

    def decayed(self) -> dict[nn.Parameter, Tensor]:
        """Weight that decay applies to."""
        return {w: w.detach() for w in self.kernels.values()}

    def clipped(self) -> None:
        nn.utils.clip_grad_norm_(self.leaves, self.clip)

    def after(self) -> None:
        """Change weights after a step."""

    def extra(self) -> dict[str, Tensor]:
        return {}

    def step(self, number: int, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.before(number)
        replaced = {name: self.effective(name) for name in self.kernels}
        F.cross_entropy(torch.func.functional_call(self.net, replaced, images), labels).backward()
        with torch.no_grad():
            if self.gradient(number):
                if self.clip:
                    self.clipped()
                for weight, value in self.decayed().items():
                    assert weight.grad is not None
                    weight.grad += self.decay * value
                self.optimizer.step()
            self.after()
        return {**self.net.state_dict(), **self.extra()}

    def support(self) -> bytes:
        with torch.no_grad():
            parts = [self.effective(name) != 0 for name in self.kernels]
        return b"".join(part.numpy().tobytes() for part in parts)

    def cut(self) -> None:
        with torch.no_grad():
            for name, weight in self.kernels.items():
                weight *= self.masks[name]

    def active(self) -> dict[str, int]:
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    def grads(self) -> dict[str, Tensor]:
        actual = {name: w.grad for name, w in self.kernels.items()}
        return {name: grad for name, grad in actual.items() if grad is not None}

    def all_sizes(self) -> Tensor:
        return torch.cat([w.detach().abs().flatten() for w in self.kernels.values()])

    def keep_of_all(self, scores: Tensor, count: int) -> None:
        chosen = torch.split(top(scores, count), [w.numel() for w in self.kernels.values()])
        for (name, weight), part in zip(self.kernels.items(), chosen, strict=True):
            self.masks[name] = part.view(weight.shape)


class SoftThresholds(Rule):
    """STR: sign(W)·relu(|W| − sigmoid(s)), s a parameter like any other."""

    def begin(self) -> None:
        self.s = {n: nn.Parameter(torch.full((1,), -4.0).double()) for n in self.kernels}

    def own(self) -> list[nn.Parameter]:
        return list(self.s.values())

    def effective(self, name: str) -> Tensor:
        weight = self.kernels[name]
        return torch.sign(weight) * torch.relu(weight.abs() - torch.sigmoid(self.s[name]))

    def decayed(self) -> dict[nn.Parameter, Tensor]:
        return {**super().decayed(), **{s: s.detach() for s in self.s.values()}}

    def extra(self) -> dict[str, Tensor]:
        return {"s": torch.cat([s.detach() for s in self.s.values()])}


class DiscoverWirings(Rule):
    """DNW: the largest quarter of each kernel, the gradient straight through to all."""

    def effective(self, name: str) -> Tensor:
        weight = self.kernels[name]
        mask = top(weight.detach().abs(), weight.numel() // 4)
        return weight + (mask * weight - weight).detach()


class TwoOfFour(Rule):
    """SR-STE: two of four along the inputs; the others are pulled to 0."""

    def mask(self, name: str) -> Tensor:
        fours = self.kernels[name].detach().abs().movedim(1, -1)
        rows = fours.reshape(-1, 4)
        kept = torch.zeros_like(rows).scatter_(1, rows.argsort(1, descending=True)[:, :2], 1.0)
        return kept.view(fours.shape).movedim(-1, 1)

    def effective(self, name: str) -> Tensor:
        weight = self.kernels[name]
        return weight + (self.mask(name) * weight - weight).detach()

    def gradient(self, number: int) -> bool:
        for name, grad in self.grads().items():
            grad += 2e-4 * (1 - self.mask(name)) * self.kernels[name]
        return True


class StraightThrough(Rule):
    """ST-3: soft thresholds at the quantile of all, each filter scaled by what it lost."""

    def before(self, number: int) -> None:
        share = number / self.total_steps
        last = number + 1 == self.total_steps
        self.gone = round(0.9 * (1.0 if last else cubic(share / 0.5)) * self.all_sizes().numel())

    def begin(self) -> None:
        self.gone = 0

    def effective(self, name: str) -> Tensor:
        weight = self.kernels[name]
        if not self.gone:
            return weight
        tau = self.all_sizes().sort().values[self.gone - 1]
        sizes = weight.detach().abs()
        axes = tuple(range(1, weight.dim()))
        kept = (sizes * (sizes > tau)).mean(axes, keepdim=True)
        kappa = (kept + 1e-6) / (sizes.mean(axes, keepdim=True) + 1e-6)
        soft = torch.sign(weight) * torch.relu(sizes - tau) * 1.01 / (kappa + 0.01)
        return weight + (soft - weight).detach()


class GradualMagnitude(Rule):
    """GMP: fewer and fewer of the largest; a masked weight keeps its value, and may return."""

    def before(self, number: int) -> None:
        self.held = {name: w.detach().clone() for name, w in self.kernels.items()}
        end = self.total_steps // 2
        if number > end or (number % 5 and number < end):
            return
        for name, weight in self.kernels.items():
            size = weight.numel()
            kept = round(size - cubic(number / end) * (size - size // 8))
            self.masks[name] = top(weight.abs(), kept)

    def effective(self, name: str) -> Tensor:
        return self.kernels[name] * self.masks[name]

    def decayed(self) -> dict[nn.Parameter, Tensor]:
        return {w: w.detach() * self.masks[name] for name, w in self.kernels.items()}

    def after(self) -> None:
        for name, weight in self.kernels.items():
            weight.copy_(torch.where(self.masks[name] > 0, weight, self.held[name]))

    def step(self, number: int, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        actual = super().step(number, images, labels)
        return {**actual, **{name: self.effective(name).detach() for name in self.kernels}}


class Regrowing(Rule):
    """Drop the smallest and grow elsewhere, in place of a step; gradients are masked."""

    def is_due(self, number: int) -> bool:
        raise NotImplementedError

    def exchanged(self, number: int) -> dict[str, int]:
        raise NotImplementedError

    def gradient(self, number: int) -> bool:
        if not self.is_due(number):
            for name, grad in self.grads().items():
                grad *= self.masks[name]
            return True
        grads = self.grads()
        for name, count in self.exchanged(number).items():
            mask, weight = self.masks[name], self.kernels[name].detach()
            sizes = torch.where(mask > 0, weight.abs(), -1.0)
            mask = top(sizes, int(mask.sum()) - count)
            scores = torch.where(mask > 0, -1.0, grads[name].abs())
            self.masks[name] = mask + top(scores, count)
            self.optimizer.state[self.kernels[name]]["momentum_buffer"] *= self.masks[name]
        self.cut()
        return False

    def after(self) -> None:
        self.cut()

    def extra(self) -> dict[str, Tensor]:
        return {f"mask.{name}": mask for name, mask in self.masks.items()}


class RiggedLottery(Regrowing):
    """RigL: every seven steps until three quarters."""

    def is_due(self, number: int) -> bool:
        return number > 0 and number % 7 == 0 and number < 0.75 * self.total_steps

    def exchanged(self, number: int) -> dict[str, int]:
        share = falling(number / self.total_steps / 0.75, 0.3)
        return {name: int(share * count) for name, count in self.active().items()}


class GradualNeuroregeneration(Regrowing):
    """GraNet: prune all kernels together along the ramp, exchange to the last step."""

    def is_due(self, number: int) -> bool:
        return number > 0 and number % 5 == 0 and number + 1 < self.total_steps

    def before(self, number: int) -> None:
        if number == self.total_steps // 2:
            self.prune(1.0)
            self.cut()

    def exchanged(self, number: int) -> dict[str, int]:
        share = number / self.total_steps
        self.prune(share / 0.5)
        part = falling(share, 0.5, 0.005)
        return {name: math.ceil(part * count) for name, count in self.active().items()}

    def prune(self, p: float) -> None:
        sparsity = 0.5 + 0.4 * cubic(p)
        sizes = self.all_sizes()
        masks = torch.cat([mask.flatten() for mask in self.masks.values()])
        wanted = min(round((1 - sparsity) * sizes.numel()), int(masks.sum()))
        self.keep_of_all(torch.where(masks > 0, sizes, -1.0), wanted)


class SparseMomentum(Rule):
    """SNFS: momentum is dense, weights are masked; between epochs they move to it."""

    def begin(self) -> None:
        self.m = {name: torch.zeros_like(w) for name, w in self.kernels.items()}

    def before(self, number: int) -> None:
        if number and number % self.steps == 0:
            self.move(falling(number / self.total_steps, 0.5, 0.005))

    def gradient(self, number: int) -> bool:
        for name, grad in self.grads().items():
            self.m[name] = 0.9 * self.m[name] + grad
        return True

    def clipped(self) -> None:
        """The norm is of what moves: gradients of masked weights move nothing."""
        masks = {weight: self.masks[name] for name, weight in self.kernels.items()}
        moving = [p.grad * masks.get(p, 1.0) for p in self.leaves if p.grad is not None]
        norm = nn.utils.get_total_norm(moving)
        nn.utils.clip_grads_with_norm_(self.leaves, self.clip, norm)

    def move(self, share: float) -> None:
        before = self.active()
        means = {n: float(self.m[n].abs()[mask > 0].mean()) for n, mask in self.masks.items()}
        average = sum(means.values()) / len(means)
        gone, room = {}, {}
        for name, count in before.items():
            size = self.kernels[name].numel()
            sparsity = 1 - count / size
            slow = sparsity < 0.2 and average / means[name] < 1
            gone[name] = math.ceil((min(sparsity, share) if slow else share) * count)
            room[name] = size - count + gone[name]
        total = sum(gone.values())
        grown = rounded(redistributed(total, list(means.values()), list(room.values())))
        for (name, weight), count in zip(self.kernels.items(), grown, strict=True):
            sizes = torch.where(self.masks[name] > 0, weight.abs(), -1.0)
            mask = top(sizes, before[name] - gone[name])
            self.masks[name] = mask + top(torch.where(mask > 0, -1.0, self.m[name].abs()), count)
        self.cut()

    def after(self) -> None:
        self.cut()

    def extra(self) -> dict[str, Tensor]:
        masks = {f"mask.{name}": mask for name, mask in self.masks.items()}
        return {**masks, **{f"m.{name}": value for name, value in self.m.items()}}


def redistributed(total: int, means: Sequence[float], room: Sequence[int]) -> list[float]:
    """Round after round, the surplus of layers at 0.99 of their room in equal parts to all."""
    grown = [total * mean / sum(means) for mean in means]
    extra = 0.0
    for _ in range(1000):
        surplus = 0.0
        for i, limit in enumerate(room):
            grown[i] += extra
            if grown[i] > 0.99 * limit:
                surplus += grown[i] - 0.99 * limit
                grown[i] = 0.99 * limit
        extra = surplus / len(room)
        if surplus == 0:
            break
    return grown


def rounded(values: Sequence[float]) -> list[int]:
    """Integers of the same total, by largest remainders."""
    whole = [int(value) for value in values]
    order = sorted(range(len(values)), key=lambda i: whole[i] - values[i])
    for i in order[: round(sum(values)) - sum(whole)]:
        whole[i] += 1
    return whole


class Alternating(Rule):
    """AC/DC: two epochs dense, compressed and dense ones in turns, three compressed at the end."""

    phases = "ddcdcddccc"

    def before(self, number: int) -> None:
        epoch, step = divmod(number, self.steps)
        now, before = self.phases[epoch], self.phases[max(epoch - 1, 0)]
        if step or now == before:
            return
        if now == "c":
            sizes = self.all_sizes()
            self.keep_of_all(sizes, round(0.2 * sizes.numel()))
            self.cut()
            return
        self.masks = {name: torch.ones_like(w) for name, w in self.kernels.items()}
        for state in self.optimizer.state.values():
            state["momentum_buffer"].zero_()

    def gradient(self, number: int) -> bool:
        for name, grad in self.grads().items():
            grad *= self.masks[name]
        return True

    def after(self) -> None:
        self.cut()


def dynamic_relu(x: Tensor, weights: Sequence[Tensor], beta: float) -> Tensor:
    """DyReLU-B, its coefficients blended with those of ReLU."""
    first, first_bias, second, second_bias = weights
    hidden = torch.relu(x.mean((2, 3)) @ first.T + first_bias)
    theta = 2 * torch.sigmoid(hidden @ second.T + second_bias) - 1
    a1, a2, b1, b2 = theta.view(len(x), 4, -1, 1, 1).unbind(1)
    slopes = [beta * (1 + a1) + (1 - beta), beta * a2]
    offsets = [beta * b1 / 2, beta * b2 / 2]
    lines = [slope * x + offset for slope, offset in zip(slopes, offsets, strict=True)]
    return torch.maximum(*lines)
