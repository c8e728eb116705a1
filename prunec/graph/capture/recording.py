"""Recording of the ATen calls of one forward pass on tensors without values.

In inference mode, no operator is decomposed before a dispatch mode sees it, so the calls are those
of ``torch.export``: ``conv2d``, ``batch_norm``, ``linear``. Reading a value in Python raises, since
there is none; anything else that a recording cannot represent raises ``Unrecorded``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from prunec.graph.capture.copying import copied
from prunec.graph.capture.form import Form


class Unrecorded(Exception):
    """A forward pass does something that a recording cannot represent."""


class TensorRef(NamedTuple):
    """Reference to a tensor of a recording.

    Attributes:
        source: number of the call or of the input, or name of the stored tensor.
        kind: ``call``, ``input`` or ``stored``.
        position: index among several tensors of a call, −1 for a single one.
    """

    source: int | str
    kind: str
    position: int = -1


@dataclass(frozen=True)
class Call:
    """One call of an operator, with tensors as :class:`TensorRef`."""

    target: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Form | tuple[Form, ...]
    path: str


@dataclass(frozen=True)
class Recording:
    """All calls of a forward pass, its flat outputs, their structure, and the input shapes."""

    calls: tuple[Call, ...]
    outputs: tuple[TensorRef, ...]
    structure: pytree.TreeSpec
    shapes: tuple[tuple[int, ...], ...]


class Hollow:
    """Copy of a network in evaluation mode whose tensors have no values.

    Attributes:
        module: the copy.
        stored: id of a tensor of the copy → its first name in the network.
        paths: paths of the modules whose forward is running.
    """

    def __init__(self, module: nn.Module) -> None:
        self.stored: dict[int, str] = {}
        memo: dict[int, Any] = {}
        for name, parameter in module.named_parameters():
            # Gradients are not needed.
            empty = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
            memo[id(parameter)], self.stored[id(empty)] = empty, name
        for name, buffer in module.named_buffers():
            empty_buffer = buffer.detach().to("meta")
            memo[id(buffer)], self.stored[id(empty_buffer)] = empty_buffer, name
        self._network, self._memo = module, memo
        self.module = copied(module, memo).eval()
        self.paths: list[str] = []
        for path, inner in self.module.named_modules():
            inner.register_forward_pre_hook(self._enter(path), prepend=True)
            inner.register_forward_hook(self._leave)

    def _enter(self, path: str) -> Any:
        return lambda _module, _args: self.paths.append(path)

    def _leave(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        self.paths.pop()

    def record(self, inputs: tuple[Tensor, ...], device: torch.device) -> Recording:
        """Record a forward pass.

        Args:
            inputs: tensors on ``meta``.
            device: device of the network's own tensors.
        """
        self.paths.clear()
        fastpath = torch.backends.mha.get_fastpath_enabled()
        # The fast path would record attention as one fused operator.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            without_cudnn = torch.backends.cudnn.flags(enabled=False)  # an argument of batch norms
            with without_cudnn, torch.inference_mode(), _Recorder(self, inputs, device) as recorder:
                returned = self.module(*inputs)
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)
        flat, structure = pytree.tree_flatten(returned)
        outputs = tuple(recorder.value(item) for item in flat)
        shapes = tuple(tuple(x.shape) for x in inputs)
        return Recording(tuple(recorder.calls), outputs, structure, shapes)

    def answers(self, inputs: tuple[Tensor, ...]) -> list[Any]:
        """Return the flat outputs of a copy that never ran, with the network's values."""
        fresh = copied(self._network, self._memo).eval()
        buffers = {name: buffer.clone() for name, buffer in self._network.named_buffers()}
        held = dict(self._network.named_parameters()) | buffers
        given = tuple(x.clone() for x in inputs)
        with torch.no_grad():
            return pytree.tree_leaves(torch.func.functional_call(fresh, held, given))


_OF_NO_TENSOR = frozenset(
    (torch.ops.aten._assert_tensor_metadata.default, torch.ops.aten.sym_size.int)
)
"""Queries of shapes and types, which are not calls in a recording."""


_ACTIVATIONS = frozenset(
    getattr(torch.ops.aten, name + suffix).default
    for name in ("hardtanh", "relu", "hardswish", "hardsigmoid", "silu")
    for suffix in ("", "_")
)
"""Functions of single values, whose shape rule in torch takes up to 20 ms each (ReLU6)."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that keeps every call; equal calls on equal shapes are computed once."""

    def __init__(self, hollow: Hollow, inputs: tuple[Tensor, ...], device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self._paths = hollow.paths
        self._device = device
        self._alive: list[object] = list(inputs)  # an id stands for one tensor only while it lives
        self._known: dict[int, TensorRef] = {
            key: TensorRef(name, "stored") for key, name in hollow.stored.items()
        }
        self._known |= {id(given): TensorRef(i, "input") for i, given in enumerate(inputs)}
        self._seen: dict[Any, Tensor] = {}
        self._in_place: set[Any] = set()

    def value(self, tensor: object) -> TensorRef:
        """Return the reference of a tensor; raise Unrecorded if no call made it."""
        value = self._known.get(id(tensor)) if isinstance(tensor, Tensor) else None
        if value is None:
            raise Unrecorded("A value is not a tensor, or comes from outside the network.")
        return value

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute the shapes of the call's result and keep the call."""
        kwargs = kwargs or {}
        # Queries of shapes and devices run as they are and leave no call.
        if func.namespace == "prim" or func in _OF_NO_TENSOR:
            return func(*args, **kwargs)
        if func is torch.ops.aten.detach.default and self._is_made_of_numbers(args[0]):
            return self._same(func(*args), args[0])
        written = self._written(func, args, kwargs)
        given, named = self._described(args), self._described(kwargs)
        result = written if written is not None else self._result(func, args, kwargs)
        many = isinstance(result, (list, tuple))
        tensors = list(result) if many else [result]
        if not tensors or not all(isinstance(item, Tensor) for item in tensors):
            raise Unrecorded(f"{func} returns no tensors.")
        forms = tuple(Form(tuple(item.shape), item.dtype, self._device) for item in tensors)
        for i, item in enumerate(tensors):
            self._known[id(item)] = TensorRef(len(self.calls), "call", i if many else -1)
        # Keeps the tensor alive: its id identifies it.
        self._alive.append(result)
        path = self._paths[-1] if self._paths else ""
        self.calls.append(Call(func, given, named, forms if many else forms[0], path))
        return result

    def _is_made_of_numbers(self, tensor: Tensor) -> bool:
        """Return whether the last call made the tensor, from numbers alone.

        Torch detaches the tensors that its factories return.
        """
        last = self.calls[-1] if self.calls else None
        is_last = self.value(tensor) == TensorRef(len(self.calls) - 1, "call")
        leaves = pytree.tree_leaves((last.args, last.kwargs), _is_value) if last else []
        return is_last and not any(_is_value(leaf) for leaf in leaves)

    def _same(self, new: Tensor, old: Tensor) -> Tensor:
        """Make a tensor refer to the same value as another."""
        self._known[id(new)] = self.value(old)
        self._alive.append(new)
        return new

    def _written(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Tensor | None:
        """Return the tensor that an operator writes into and returns; None if it only reads."""
        # Assigning a number to an item is a copy of a tensor here, but a fill in torch.export.
        numbered = func is torch.ops.aten.scalar_tensor.default
        batched = func is torch.ops.aten.convolution.default  # from a vmapped convolution
        if func.namespace != "aten" or numbered or batched or _is_random(func, args, kwargs):
            raise Unrecorded(f"{func} is not recorded.")
        if not func._schema.is_mutable:
            return None
        first, *others = func._schema.arguments
        if first.alias_info is None or any(
            a.alias_info is not None and a.alias_info.is_write for a in others
        ):
            raise Unrecorded(f"{func} writes into an argument other than its first.")
        whole = args[0]
        if self.value(whole).kind != "call" or not func.__name__.split(".")[0].endswith("_"):
            raise Unrecorded(f"{func} writes into an input or a stored tensor.")
        key = (func, repr(_signature((args, kwargs))))
        plain = func in _ACTIVATIONS and whole.is_floating_point()
        if not plain and key not in self._in_place:
            shape = whole.shape
            func(*args, **kwargs)
            if whole.shape != shape:
                raise Unrecorded(f"{func} changes a shape in place.")
            self._in_place.add(key)
        assert isinstance(whole, Tensor)
        return whole

    def _result(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        # In evaluation the result has its operand's shape: no need for torch's rule.
        if func is torch.ops.aten.batch_norm.default and not args[5]:
            return torch.empty_like(args[0])
        if func is torch.ops.aten.fake_quantize_per_tensor_affine.default:
            return torch.empty_like(args[0])  # torch has no rule for its shape
        if func in _ACTIVATIONS and args[0].is_floating_point():
            return torch.empty_like(args[0])
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if not tensors:  # made of numbers alone: the values are dropped like all others
            return func(*args, **kwargs).to("meta")
        key = (func, repr(_signature((args, kwargs))))
        seen = self._seen.get(key)
        if seen is not None:
            return torch.empty_strided(seen.shape, seen.stride(), dtype=seen.dtype, device="meta")
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and all(result is not x for x in tensors):
            self._seen[key] = result
        return result

    def _described(self, given: Any) -> Any:
        """Return arguments with tensors as values, and with the network's real device."""
        if isinstance(given, Tensor):
            return self.value(given)
        if isinstance(given, (list, tuple)):
            return type(given)(self._described(item) for item in given)
        if isinstance(given, dict):
            return {key: self._described(item) for key, item in given.items()}
        if isinstance(given, torch.device) and given.type == "meta":
            return self._device
        return given


def _is_value(given: object) -> bool:
    return isinstance(given, TensorRef)


def _is_random(func: Any, args: tuple[Any, ...], kwargs: Any) -> bool:
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    if "dropout_p" in names:
        return bool(given.get("dropout_p", 0.0))
    return "dropout" not in str(func) or given.get("train") is not False


def _signature(given: Any) -> Any:
    if isinstance(given, Tensor):
        return tuple(given.shape), given.stride(), given.dtype
    if isinstance(given, (list, tuple)):
        return [_signature(item) for item in given]
    if isinstance(given, dict):
        return {key: _signature(item) for key, item in given.items()}
    return given
