"""Channel plan: record of a cut as plain data, applicable to a fresh network of the same class.

See docs/glossary.md: plan.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunec.errors import PrunecError
from prunec.files import write_text_atomic
from prunec.graph.capture import Captured, capture
from prunec.graph.capture.computed import evaluated
from prunec.graph.capture.node import Node
from prunec.graph.capture.surroundings import undisturbed
from prunec.graph.channels.analyse import analyse
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.cut import cut_layout
from prunec.graph.removal.decide import Decision
from prunec.graph.rewriting.rewrite import rewrite

FORMAT = 4
FORMAT_BEFORE = 3  # without computed weights; readable, since absent means none


@dataclass(frozen=True)
class Input:
    """Shape (batch first) and dtype name of a network input."""

    shape: tuple[int, ...]
    dtype: str

    def blank(self, device: torch.device) -> Tensor:
        """Return zeros of this shape and dtype."""
        return torch.zeros(self.shape, dtype=getattr(torch, self.dtype), device=device)


@dataclass(frozen=True)
class Plan:
    """Record of how a network was cut.

    See the glossary: [plan](glossary.md#plan).

    Attributes:
        removed: ``"parameter:axis"`` → removed positions along that axis. Axis −1 are the input
            channels of a grouped kernel counted over all groups, −2 the output channels of a
            transposed one.
        biases: names of biases that the cut added to kernels.
        frozen: node name of a value that became a constant → its shape.
        zeros: node names of frozen values that are 0 everywhere; sums leave them out.
        folded: node names of batch norms that were folded into the kernel before them.
        taps: kernel → number of spatial taps cut at each end of each axis.
        inputs: shapes and types of the network's inputs when it was cut.
        shapes: parameter or buffer → its shape before the cut; if empty, shapes are not checked.
        computed: weights that the network computes from parameters; they are evaluated before the
            cut.
        then: plan of a further cut of the compact network.
    """

    removed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    frozen: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    zeros: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    taps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs: tuple[Input, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    computed: tuple[str, ...] = ()
    then: Plan | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {"format": FORMAT, **asdict(self)}

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan.

        Raises:
            PrunecError: the text is not a plan of this format.
        """
        try:
            data = json.loads(text)
            if data["format"] not in (FORMAT_BEFORE, FORMAT):
                raise PrunecError(
                    f"The channel plan has format {data['format']}, this prunec reads {FORMAT}.",
                    remedy="Compile the network again, or use the prunec that wrote the plan.",
                )
            return cls._of(data)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise PrunecError(
                f"Not a channel plan: {error!r}", remedy="Compile the network again."
            ) from error

    @classmethod
    def _of(cls, data: Mapping[str, Any]) -> Plan:
        return cls(
            removed=_integers(data["removed"]),
            biases=tuple(str(name) for name in data["biases"]),
            frozen=_integers(data["frozen"]),
            zeros=tuple(str(name) for name in data["zeros"]),
            folded=tuple(str(name) for name in data["folded"]),
            taps=_integers(data["taps"]),
            inputs=tuple(_input(item) for item in data["inputs"]),
            shapes=_integers(data["shapes"]),
            computed=tuple(str(name) for name in data.get("computed", ())),
            then=None if data["then"] is None else cls._of(data["then"]),
        )

    def save(self, path: Path | str) -> None:
        """Write the plan as a JSON file, whole or not at all.

        Raises:
            RunError: the file cannot be written (disk full, read-only, no permission, …).
        """
        write_text_atomic(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: Path | str) -> Plan:
        """Read a plan from a file.

        Raises:
            PrunecError: the file is missing, or not a plan of this format.
        """
        try:
            return cls.from_json(Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise PrunecError(
                f"The channel plan {path} cannot be read: {reason}",
                remedy="Name the file that plan.save wrote.",
            ) from error
        except PrunecError as error:
            raise PrunecError(f"{path}: {error.message}", remedy=error.remedy) from error

    def apply(self, fresh: nn.Module, example: tuple[Tensor, ...] | None = None) -> nn.Module:
        """Cut a fresh network of the same class; its own weights are kept.

        Args:
            fresh: network from the constructor of the planned one; it is not changed.
            example: positional inputs of at least two samples; by default zeros of the plan's
                input shapes.

        Returns:
            The compact network in evaluation mode, trainable.

        Raises:
            PrunecError: the plan was made for another network.
            UntraceableModel: the network cannot be captured.
        """
        self._require_shapes(fresh)
        with undisturbed(fresh):
            captured = capture(fresh, example or self._example(fresh))
            structure = analyse(self._with_computed(captured))
            compact = rewrite(structure, self.decision(structure), self.folded)
        return compact if self.then is None else self.then.apply(compact, example)

    def _with_computed(self, captured: Captured) -> Captured:
        """Return the network with the weights evaluated that the plan names as computed."""
        if not self.computed:
            return captured
        weights = evaluated(captured)
        if weights.names != self.computed:
            missing = {*self.computed} ^ {*weights.names}
            raise _misfit(f"evaluates {sorted(missing)[0]}, which this network does not compute")
        return weights.captured

    def _example(self, fresh: nn.Module) -> tuple[Tensor, ...]:
        if not self.inputs:
            raise PrunecError(
                "The channel plan holds no shapes of the network's inputs.",
                remedy="Pass an example: plan.apply(fresh, example).",
            )
        device = next((p.device for p in fresh.parameters()), torch.device("cpu"))
        return tuple(item.blank(device) for item in self.inputs)

    def _require_shapes(self, fresh: nn.Module) -> None:
        if not isinstance(fresh, nn.Module):
            raise PrunecError(
                f"A channel plan cuts a torch.nn.Module, not a {type(fresh).__name__}.",
                remedy="Pass the network that its constructor returns.",
            )
        shapes = {name: tuple(tensor.shape) for name, tensor in fresh.state_dict().items()}
        for name, shape in self.shapes.items():
            if name not in shapes:
                raise _misfit(f"holds {name}, which this network does not have")
            if shapes[name] != shape:
                raise _misfit(f"cuts {name} of shape {shape}, which here has shape {shapes[name]}")
        extra = [name for name in shapes if self.shapes and name not in self.shapes]
        if extra:
            raise _misfit(f"does not know {extra[0]}, which this network has")

    def decision(self, structure: Structure) -> Decision:
        """Return the decision that this plan records, for the structure of the same network.

        Raises:
            PrunecError: the plan was made for another network.
        """
        keep = torch.ones(len(structure.classes), dtype=torch.bool)
        for key, positions in self.removed.items():
            name, _, axis = key.rpartition(":")
            atoms = structure.slices.get((name, int(axis)))
            if atoms is None or max(positions, default=0) >= len(atoms):
                raise _misfit(f"cuts {name}, which this network does not have so")
            keep[structure.class_of(atoms[torch.tensor(positions)])] = False
        # Removing a class removes it everywhere; any surplus shows that the network ties other
        # channels.
        if _removed(structure, keep) != self.removed:
            raise _misfit("cuts channels apart that this network ties together")
        by_name = {node.name: node for node in structure.captured.nodes}
        unknown = [n for n in (*self.frozen, *self.folded) if n not in by_name]
        if unknown:
            raise _misfit(f"names {unknown[0]}, which this network's graph does not have")
        weights = {name: x.detach().cpu() for name, x in structure.captured.stored.items()}
        for name in self.biases:
            weights[name] = _bias(structure, name)
        frozen = {  # placeholders of the right shape: the values come with the weights
            by_name[name]: torch.full(shape, 0.0 if name in self.zeros else 1.0)
            for name, shape in self.frozen.items()
        }
        for name, taps in self.taps.items():
            if name not in weights or weights[name].dim() != len(taps) + 2:
                raise _misfit(f"trims {name}, which this network does not have so")
        return Decision(keep, weights, frozen, taps=self.taps)


def plan_of(structure: Structure, decision: Decision) -> Plan:
    """Return the plan that records a decision."""
    weights = structure.captured.state
    known = set(structure.captured.stored)

    def frozen_value(node: Node) -> Tensor:
        return cut_layout(structure, decision.keep, structure.layouts[node], decision.frozen[node])

    return Plan(
        removed=_removed(structure, decision.keep),
        biases=tuple(sorted(name for name in decision.weights if name not in known)),
        frozen={node.name: tuple(value.shape) for node, value in decision.frozen.items()},
        zeros=tuple(node.name for node in decision.frozen if not frozen_value(node).any()),
        taps=dict(decision.taps),
        inputs=_inputs(structure),
        shapes={name: tuple(tensor.shape) for name, tensor in weights.items()},
    )


def _removed(structure: Structure, keep: Tensor) -> dict[str, tuple[int, ...]]:
    removed = {}
    for (name, axis), atoms in structure.slices.items():
        gone = torch.nonzero(~keep[structure.class_of(atoms)]).flatten().tolist()
        if gone:
            removed[f"{name}:{axis}"] = tuple(gone)
    return removed


def _inputs(structure: Structure) -> tuple[Input, ...]:
    captured = structure.captured
    return tuple(
        Input(node.shape, str(node.dtype).removeprefix("torch."))
        for node in captured.nodes
        if node.kind == "input"
    )


def _bias(structure: Structure, name: str) -> Tensor:
    weight = name.rpartition(".")[0] + ".weight"
    for kernel in structure.of(Kernel).values():
        if kernel.weight == weight:
            dtype = structure.captured.stored[weight].dtype
            return torch.zeros(len(kernel.outputs), dtype=dtype)
    raise _misfit(f"adds {name}, which this network has no kernel for")


def _integers(items: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {str(key): tuple(int(i) for i in values) for key, values in items.items()}


def _input(item: Mapping[str, Any]) -> Input:
    if not isinstance(getattr(torch, item["dtype"], None), torch.dtype):
        raise ValueError(f"{item['dtype']!r} is not a dtype")
    return Input(tuple(int(size) for size in item["shape"]), str(item["dtype"]))


def _misfit(what: str) -> PrunecError:
    return PrunecError(
        f"The channel plan does not fit: it {what}.",
        remedy="Apply the plan to the network that it was made for.",
    )
