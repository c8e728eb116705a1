"""Contract of a pass: base classes, and the single entry point that checks every run of a pass.

See docs/glossary.md: pass.
"""

from __future__ import annotations

import copy
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor

from prunec.artifact import Artifact, Step, outputs
from prunec.errors import NeedsNotMet, NotExact, PassError
from prunec.models.gates import gates_of
from prunec.models.state import weights_digest
from prunec.training.phases import DENSE, Phases, described, too_few, too_rare

if TYPE_CHECKING:
    from prunec.training.context import Context

# Bounds on the outputs' difference, relative to the largest output. Within ROUNDING (about eight
# units of float32's 2⁻²³) a rewrite passes at once. A badly scaled float32 network may round by
# more; then up to BADLY_SCALED is accepted, provided that in float64 the difference is below EXACT.
ROUNDING = 1e-6
BADLY_SCALED = 1e-2
EXACT = 1e-10


@dataclass(frozen=True)
class Remarks:
    """Remarks of a pass: sentences for the user, and the same as values of JSON."""

    notes: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass(ABC):
    """Base class of passes: a frozen dataclass whose fields are the options in a recipe.

    Its name is the class's name in kebab case, equal to its file's. The class variables are sets of
    facts; the order of a recipe's passes is checked by them before anything is built.

    Attributes:
        needs: facts that must hold before the pass.
        forbids: facts that must not hold before it.
        drops: facts that no longer hold after it.
        adds: facts that hold after it.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    needs: ClassVar[frozenset[str]] = frozenset()
    forbids: ClassVar[frozenset[str]] = frozenset()
    drops: ClassVar[frozenset[str]] = frozenset()
    adds: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def pass_name(cls) -> str:
        """Return the name in a recipe: ``train-gdp`` for ``TrainGdp``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def missing(cls, facts: frozenset[str]) -> str:
        """Return why the pass may not run where these facts hold; empty where it may."""
        if cls.needs - facts:
            return f"it needs a network that is {', '.join(sorted(cls.needs - facts))}"
        if cls.forbids & facts:
            return f"the network is already {', '.join(sorted(cls.forbids & facts))}"
        return ""

    @classmethod
    def facts_after(cls, facts: frozenset[str]) -> frozenset[str]:
        """Return the facts after the pass."""
        return (facts - cls.drops) | cls.adds

    def read(self) -> Mapping[str, Any]:
        """Return the options that name files, with the contents of the files as their values.

        A new run stores them in its recipe, so that it does not depend on files that may change.

        Raises:
            PassError: a file cannot be read.
        """
        return {}

    @final
    def __call__(self, artifact: Artifact, context: Context | None = None) -> Artifact:
        """Run the pass, check its result, and append a step to the history.

        Raises:
            NeedsNotMet: the pass may not run on this artifact.
            NotExact: a rewrite changed the outputs.
        """
        reason = self.missing(artifact.facts)
        if reason:
            raise NeedsNotMet(
                f"{self.pass_name()} cannot run here: {reason}",
                remedy="Change the order of the recipe's passes.",
            )
        started = time.perf_counter()
        macs, params = _known_cost(artifact)
        result, remarks = self._run(artifact, context)
        error = self._compare(artifact, result)
        facts = self.facts_after(artifact.facts)
        _check(self.pass_name(), result, facts)
        digest = weights_digest(result.module)
        # Same module and weights: the pass changed records only, so what is known of it stays so.
        if result.module is artifact.module and digest == _known_digest(artifact):
            result.knows(artifact)
        cost = result.cost
        step = Step(
            name=self.pass_name(),
            options=asdict(self),
            facts=tuple(sorted(facts)),
            macs=(macs, cost.macs),
            params=(params, cost.params),
            error=error,
            seconds=round(time.perf_counter() - started, 3),
            digest=digest,
            notes=remarks.notes,
            details=remarks.details,
        )
        made = replace(result, history=(*artifact.history, step))
        made.knows(result)
        return made

    @abstractmethod
    def _run(self, artifact: Artifact, context: Context | None) -> tuple[Artifact, Remarks]: ...

    def _compare(self, before: Artifact, after: Artifact) -> float | None:
        return None


class Training(Pass):
    """Base class of passes that change weights by training on data."""

    @abstractmethod
    def train(self, artifact: Artifact, context: Context) -> tuple[Artifact, Remarks]:
        """Return the trained artifact and remarks."""

    def require_possible(self, artifact: Artifact, context: Context) -> None:
        """Refuse a network that this pass cannot train, before the run's folder is created.

        Raises:
            PassError: the pass cannot train it; names the reason.
        """

    def phases(self, epochs: int) -> Phases:
        """Return the phases of a training, name → epochs; empty for a training of one phase.

        ``dense`` is the phase before anything is masked, ``survivors`` the training of the
        remaining weights at the end.

        Args:
            epochs: epochs of the whole training.

        Raises:
            PassError: the phases do not fit into the epochs.
        """
        return {}

    def _run(self, artifact: Artifact, context: Context | None) -> tuple[Artifact, Remarks]:
        if context is None:
            raise PassError(f"{self.pass_name()} is a training pass and needs data")
        train = context.recipe.train
        phases = self.phases(train.epochs)
        plan = described(phases, train.epochs, train.rising)
        rare = too_rare(self, train.epochs * context.data.steps(train.batch_size))
        plans = tuple(filter(None, (plan, too_few(phases, train.epochs), *rare)))
        for line in plans:
            context.progress.note(line)
        dense = phases.get(DENSE) or (
            0.0 if DENSE in phases and _knows(artifact, context) else None
        )
        context = replace(context, pass_name=self.pass_name(), dense_epochs=dense)
        result, remarks = self.train(artifact, context)
        return result, replace(
            remarks,
            notes=(*remarks.notes, *plans),
            details={**remarks.details, "phases": dict(phases)},
        )


def _knows(artifact: Artifact, context: Context) -> bool:
    """Return whether the network is already trained: by an earlier pass, or pretrained."""
    return "trained" in artifact.facts or bool(context.recipe.model.weights)


class Rewrite(Pass):
    """Base class of passes that do not change the network's function; they get no data."""

    @abstractmethod
    def rewrite(self, artifact: Artifact) -> tuple[Artifact, Remarks]:
        """Return the rewritten artifact and remarks; :meth:`__call__` compares the outputs."""

    def _run(self, artifact: Artifact, context: Context | None) -> tuple[Artifact, Remarks]:
        return self.rewrite(artifact)

    def _compare(self, before: Artifact, after: Artifact) -> float | None:
        error = _difference(before, after)
        double = any(x.dtype == torch.float64 for x in before.example)
        if error <= (EXACT if double else ROUNDING):
            return error
        # Only now: a second run of the rewrite, in double the memory.
        wide = _in_float64(before)
        exact = _difference(wide, self.rewrite(wide)[0])
        if not (exact <= EXACT and error <= BADLY_SCALED):
            raise NotExact(
                f"{self.pass_name()} changed the outputs by {error:.2g} of their largest value "
                f"({exact:.2g} in float64, where at most {EXACT:.0e} is rounding); "
                "nothing was written",
                remedy="This is a defect of prunec: please report it with the recipe.",
            )
        return error


def _difference(before: Artifact, after: Artifact) -> float:
    if after.module is before.module:
        return 0.0
    same = after.example is before.example
    actual = after.answers if same else outputs(after.module, before.example)
    return relative_difference(before.answers, actual)


def _in_float64(artifact: Artifact) -> Artifact:
    example = tuple(x.double() if x.is_floating_point() else x for x in artifact.example)
    return replace(artifact, module=copy.deepcopy(artifact.module).double(), example=example)


def _known_cost(artifact: Artifact) -> tuple[int, int]:
    """Return MACs and parameters as the last step counted them, or count them."""
    if artifact.history:
        return artifact.history[-1].macs[1], artifact.history[-1].params[1]
    return artifact.cost.macs, artifact.cost.params


def _known_digest(artifact: Artifact) -> str:
    """Return the digest of the weights that the last step recorded; empty for no step."""
    return artifact.history[-1].digest if artifact.history else ""


def relative_difference(expected: list[Tensor], actual: list[Tensor]) -> float:
    """Return the largest difference of two lists of tensors, relative to each one's largest value.

    Inf where shapes differ; NaN where a difference is NaN.
    """
    if [t.shape for t in expected] != [t.shape for t in actual]:
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, actual, strict=True):
        scale = float(a.abs().max()) if a.numel() else 0.0
        difference = float((a - b).abs().max()) if a.numel() else 0.0
        worst = (
            # 1e-30: an output of zeros alone; its difference must be zero, too.
            max(worst, difference / max(scale, 1e-30)) if difference == difference else float("nan")
        )
        if worst != worst:
            return worst
    return worst


def _check(name: str, artifact: Artifact, facts: frozenset[str]) -> None:
    """Check the invariants: masks fit, masked weights are 0, gates exist exactly if ``gated``."""
    if ("gated" in facts) != bool(gates_of(artifact.module)):
        raise PassError(
            f"{name} left the network {'without' if 'gated' in facts else 'with'} gates"
        )
    parameters = dict(artifact.module.named_parameters())
    for key, mask in artifact.masks.items():
        if key not in parameters or parameters[key].shape != mask.shape:
            raise NotExact(f"{name} left a mask that fits no parameter: {key}")
        if bool((parameters[key][~mask] != 0).any()):
            raise NotExact(f"{name} left weights under the mask of {key}")
