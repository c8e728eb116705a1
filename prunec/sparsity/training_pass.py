"""Common parts of training passes that end in masks: options, and the resulting artifact."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.contract import Remarks, Training
from prunec.errors import PassError
from prunec.seeding import derived_seed
from prunec.sparsity.densities import checked_densities, load_densities
from prunec.sparsity.flat import give_own_memory
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.spread import SPREADS, from_densities
from prunec.tasks.quality import measured
from prunec.training.context import Context
from prunec.training.dense_phase import dense_remarks
from prunec.training.loop import fit
from prunec.training.method import Method, Moment
from prunec.wording import percent


class MaskMethod(Method):
    """Method that ends with zeros in some kernels, recorded as masks."""

    names: tuple[str, ...]
    weights: list[Tensor]

    def finish(self) -> None:
        """Set the kernels to the values that ship, after the last step."""

    def nonzero(self) -> list[Tensor]:
        """Return the number of non-zero effective weights per kernel, as one-element tensors."""
        with self.shipping():
            return [torch.count_nonzero(w.detach()) for w in self.weights]

    def counted(self) -> int:
        """Return the number of weights that the sparsity refers to."""
        return sum(w.numel() for w in self.weights)

    def remark(self, density: float) -> str:
        """Return a remark on the resulting density; empty if it is as requested."""
        return ""

    def after_epoch(self, moment: Moment) -> dict[str, Any]:
        """Return the sparsity in percent, and the density of each layer."""
        kept = torch.stack(self.nonzero()).tolist()
        sizes = [w.numel() for w in self.weights]
        layers = [name.removesuffix(".weight") for name in self.names]
        return {
            "sparsity": 100 * (1 - sum(kept) / self.counted()),
            "layers": {
                "density": {
                    layer: count / size
                    for layer, count, size in zip(layers, kept, sizes, strict=True)
                }
            },
        }


def mask_generator(context: Context) -> torch.Generator:
    """Return the generator of initial masks, by the recipe's seed; equal on every rank."""
    return torch.Generator(context.device).manual_seed(derived_seed(context.recipe.seed, MASKS))


MASKS = 7  # purpose number in derived seeds
SHORT = 0.5  # percentage points by which rounding in every layer may reduce a sparsity


@dataclass(frozen=True)
class SparseTraining(Training):
    """Training pass that leaves masks on kernels."""

    forbids: ClassVar[frozenset[str]] = frozenset({"gated", "folded"})
    adds: ClassVar[frozenset[str]] = frozenset({"trained", "masked"})

    @abstractmethod
    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """Return the method for kernels on the device."""

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the kernels that may be masked."""
        return sparse_kernels(module)

    def require_possible(self, artifact: Artifact, context: Context) -> None:
        """See :meth:`Training.require_possible`: creates the method for a copy on the CPU."""
        module = copy.deepcopy(artifact.module)
        self.method(self.kernels(module), replace(context, device=torch.device("cpu")))

    def train(self, artifact: Artifact, context: Context) -> tuple[Artifact, Remarks]:
        """Return the network with zeros in its kernels, and masks where they are."""
        module = copy.deepcopy(artifact.module).to(context.device)
        method = self.method(self.kernels(module), context)
        history = fit(module, method, context)
        method.finish()
        return self.result(artifact, module, method, history)

    def result(
        self,
        artifact: Artifact,
        module: nn.Module,
        method: MaskMethod,
        history: list[dict[str, Any]],
    ) -> tuple[Artifact, Remarks]:
        """Return the artifact of a trained network, and remarks on it."""
        module = module.cpu().to(memory_format=torch.contiguous_format).eval()
        give_own_memory(module)
        masks = {name: module.get_parameter(name).detach() != 0 for name in method.names}
        kept = {name: int(mask.sum()) for name, mask in masks.items()}
        total = method.counted()
        last = history[-1]
        sparsity = 100 * (1 - sum(kept.values()) / total)
        key, name, value = measured(last)
        note = (
            f"test {name} {value:.2f} % at {sparsity:.2f} % sparsity, "
            f"{sum(kept.values()):,} of {total:,} weights left in {len(masks)} layers"
        )
        details: dict[str, object] = {
            key: value,
            "sparsity": sparsity,
            "density": {
                name.removesuffix(".weight"): kept[name] / mask.numel()
                for name, mask in masks.items()
            },
        }
        remark = method.remark(sum(kept.values()) / total)
        dense_notes, dense_details = dense_remarks(history)
        if asked := self.asked_sparsity():
            less = remark if sparsity < 100 * asked else ""
            remark = remark or (less := self.unreached(sparsity, last))
            reached = {"asked": f"≈ {100 * asked:.6g}", "found": sparsity, "missed": less}
            details["targets"] = {"sparsity, percent": reached}
        notes = (*dense_notes, note, *((remark,) if remark else ()))
        return replace(artifact, module=module, masks={**artifact.masks, **masks}), Remarks(
            notes, details | dense_details
        )

    def asked_sparsity(self) -> float:
        """Return the requested final share of zeros; 0 if none is stated."""
        return float(getattr(self, "sparsity", 0.0))

    def unreached(self, sparsity: float, last: Mapping[str, Any]) -> str:
        """Return a remark if training ended before its sparsity was reached; else empty.

        Args:
            sparsity: reached sparsity, in percent.
            last: metrics of the last epoch.
        """
        asked = self.asked_sparsity()
        if not asked or last["settled"] or sparsity >= 100 * asked - SHORT:
            return ""
        return (
            f"asked {percent(asked, 2)}, reached {percent(sparsity / 100, 2)}: the training ended "
            f"after epoch {last['epoch']}, before the sparsity was reached"
        )


@dataclass(frozen=True)
class SpreadTraining(SparseTraining):
    """Training pass with a given sparsity, spread over layers by a rule or by densities.

    Attributes:
        sparsity: share of zeros in the kernels that may be masked.
        spread: ``uniform``, ``er``, ``erk``, or ``densities``.
        densities: density of each layer, in place of ``sparsity``, or a file written by ``prunec
            densities``.
        dense: layers that stay dense, by name or pattern; their weights do not count.
    """

    sparsity: Annotated[
        float, Field(ge=0, lt=1, description="share of the weights that end as zero")
    ]
    spread: Annotated[
        Literal["uniform", "er", "erk", "densities"],
        Field(description="how it is shared: all layers alike, by size (er, erk), or as densities"),
    ] = "erk"
    densities: Annotated[
        str | dict[str, float],
        Field(
            description="file of `prunec densities`, or layer = density: the share that each keeps"
        ),
    ] = ""
    dense: Annotated[
        tuple[str, ...], Field(description="names of layers that stay whole; * stands for any text")
    ] = ()

    def __post_init__(self) -> None:
        """Refuse contradictory options."""
        if self.spread == "densities" and not self.densities:
            raise PassError(
                f'{self.pass_name()}: spread = "densities" needs densities',
                remedy='Name a file, from prunec densities RUN -o FILE: densities = "FILE"',
            )
        if self.densities and self.spread != "densities":
            raise PassError(
                f'{self.pass_name()}: densities are given, but spread = "{self.spread}" takes none',
                remedy='Leave densities out, or say spread = "densities" where the pass has it.',
            )
        if not isinstance(self.densities, str):
            checked_densities(self.densities, "densities")

    def read(self) -> dict[str, Any]:
        """See :meth:`Pass.read`."""
        if isinstance(self.densities, str) and self.densities:
            return {"densities": load_densities(Path(self.densities))}
        return {}

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """See :meth:`SparseTraining.kernels`."""
        return sparse_kernels(module, self.dense)

    def asked_sparsity(self) -> float:
        """See :meth:`SparseTraining.asked_sparsity`; densities state their own."""
        return 0.0 if self.spread == "densities" else self.sparsity

    def counts(
        self, names: Sequence[str], shapes: Sequence[Sequence[int]], sparsity: float | None = None
    ) -> list[int]:
        """Return the kept weights per kernel at ``sparsity``, by default the pass's own.

        Raises:
            PassError: the densities cannot be read or do not fit.
        """
        if self.spread == "densities":
            held = self.densities
            density = load_densities(Path(held)) if isinstance(held, str) else held
            source = held if isinstance(held, str) else self.pass_name()
            return from_densities(density, names, shapes, source, self.dense)
        wanted = self.sparsity if sparsity is None else sparsity
        return SPREADS[self.spread](shapes, 1 - wanted)
