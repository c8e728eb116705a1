"""The optimiser of the loop: its groups of parameters, and its state as named tensors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from prunec.errors import RecipeError
from prunec.recipe import TrainSpec
from prunec.wording import did_you_mean

RATE = "rate"  # what a group multiplies the learning rate by


@dataclass(frozen=True)
class OptimizerState:
    """The state of an optimizer, by ``parameter/entry``.

    Attributes:
        tensors: momentum, variances, steps …
        numbers: entries that some classes keep as Python numbers.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


def make_optimizer(
    model: nn.Module, train: TrainSpec, own: Mapping[str, nn.Parameter] = MappingProxyType({})
) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe over the parameters that want gradients.

    ``train.weight_decay`` holds for kernels, parameters of more than one axis; biases and the
    scales and shifts of norms are not decayed, unless a ``[[train.group]]`` says so: the first that
    matches a parameter's name decides. ``own``, a method's parameters, are decayed.
    Updates run over all tensors at once: fused on CUDA, ``foreach`` elsewhere, unless the recipe
    names one of the two.

    Raises:
        RecipeError: torch.optim has no such class, it refuses an argument, or a group matches no
            parameter.
    """
    factory = optimizer_class(train.optimizer["name"])
    groups = list(_groups(model, train))
    if own:
        decay = train.weight_decay
        groups.append({"params": list(own.values()), "weight_decay": decay, RATE: 1.0})
    arguments = {key: value for key, value in train.optimizer.items() if key != "name"}
    known = inspect.signature(factory).parameters
    for key in arguments:
        if key not in known:
            raise RecipeError(
                f"train.optimizer.{key} is no argument of {factory.__name__}",
                remedy=f"{did_you_mean(key, list(known))}Its arguments: {', '.join(known)}.",
            )
    on_cuda = all(p.is_cuda for group in groups for p in group["params"])
    fast = "fused" if on_cuda and "fused" in known else "foreach"
    if fast in known and not {"fused", "foreach"} & arguments.keys():
        arguments[fast] = True
    try:
        optimizer: torch.optim.Optimizer = factory(groups, lr=train.learning_rate, **arguments)
        return optimizer
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"train.optimizer: {factory.__name__} refuses its arguments: {error}",
            remedy="See torch.optim's documentation for their ranges.",
        ) from error


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its rate."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * group[RATE])
        else:
            group["lr"] = rate * group[RATE]


def tensor_rates(optimizer: torch.optim.Optimizer) -> None:
    """Let learning rates be tensors beside the parameters, which recorded steps read."""
    for group in optimizer.param_groups:
        device = group["params"][0].device
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
        # Otherwise Adam and its kin count steps on the CPU, which a CUDA graph cannot record.
        if "capturable" in group and device.type == "cuda":
            group["capturable"] = True


def number_rates(optimizer: torch.optim.Optimizer) -> None:
    """Let learning rates be numbers again."""
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Let momentum be 0 for parameters that learn for the first time after others of their group.

    torch's fused SGD makes the momentum of all parameters of a group or of none, and fails in
    between. Without dampening the step is what it would be alone: the first momentum is g.
    """
    for group in optimizer.param_groups:
        if not (group.get("fused") and group.get("momentum")):
            continue
        learning = [p for p in group["params"] if p.grad is not None]
        state = optimizer.state
        new = [p for p in learning if state.get(p, {}).get("momentum_buffer") is None]
        for parameter in new if len(new) < len(learning) else ():
            state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)


def state_of(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> OptimizerState:
    """Return what the optimizer remembers of every parameter, by the parameter's name."""
    entries = {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    return OptimizerState(
        {key: value for key, value in entries.items() if isinstance(value, Tensor)},
        {key: value for key, value in entries.items() if isinstance(value, (int, float))},
    )


def load_state(
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: OptimizerState,
) -> None:
    """Put back what :func:`state_of` returned, each tensor laid out as its parameter is.

    What is there already keeps its memory.
    """
    # Fused and capturable optimizers keep counters beside the parameters, others on the CPU.
    near = {
        id(p): bool(g.get("fused") or g.get("capturable"))
        for g in optimizer.param_groups
        for p in g["params"]
    }
    for name, parameter in parameters.items():
        for key, value in _entries(state.tensors, name):
            held = optimizer.state[parameter].get(key)
            if isinstance(held, Tensor) and held.shape == value.shape:
                held.copy_(value)
                continue
            laid_out = _like(value, parameter, near.get(id(parameter)))
            optimizer.state[parameter][key] = laid_out
        for key, number in _entries(state.numbers, name):
            optimizer.state[parameter][key] = number


def _entries(state: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for key, value in state.items():
        owner, _, entry = key.rpartition("/")
        if owner == name:
            yield entry, value


def _like(value: Tensor, parameter: Tensor, near: bool | None) -> Tensor:
    if value.shape == parameter.shape and value.is_floating_point() and value.ndim:
        laid_out = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
        return laid_out.copy_(value)
    return value.to(parameter.device) if near else value.clone()


def optimizer_class(name: str) -> Any:
    """Return the class of ``torch.optim`` of that name.

    Raises:
        RecipeError: there is none.
    """
    kind = getattr(torch.optim, name, None)
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer):
        return kind
    classes = {n: k for n, k in vars(torch.optim).items() if inspect.isclass(k)}
    names = [n for n, k in classes.items() if issubclass(k, torch.optim.Optimizer)]
    raise RecipeError(
        f"train.optimizer.name = {name!r} is not an optimizer of torch.optim",
        remedy=did_you_mean(name, names) or f"One of {', '.join(sorted(names))}.",
    )


def _groups(model: nn.Module, train: TrainSpec) -> Iterator[dict[str, Any]]:
    """The recipe's groups in their order, then kernels, then the rest; empty ones left out."""
    left = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for number, spec in enumerate(train.groups):
        taken = [name for name in left if fnmatchcase(name, spec.match)]
        if not taken:
            raise RecipeError(
                f"train.group[{number}].match = {spec.match!r} matches no parameter that an "
                "earlier group left",
                remedy=f"Names are like {', '.join(list(dict(model.named_parameters()))[:3])}; * "
                "stands for any text.",
            )
        decay = train.weight_decay if spec.weight_decay is None else spec.weight_decay
        parameters = [left.pop(name) for name in taken]
        yield {"params": parameters, "weight_decay": decay, RATE: spec.learning_rate}
    kernels = [p for p in left.values() if p.ndim > 1]
    others = [p for p in left.values() if p.ndim <= 1]
    for parameters, decay in ((kernels, train.weight_decay), (others, 0.0)):
        if parameters:
            yield {"params": parameters, "weight_decay": decay, RATE: 1.0}
