"""The types of what a network returns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Two(NamedTuple):
    """Two results by name."""

    first: Tensor
    others: tuple[Tensor, ...]


Values = tuple[Tensor, ...]

# From the outputs, the inputs and a stored tensor to what is returned.
FORMS: dict[str, Callable[[Values, Values, Tensor], Any]] = {
    "tuple": lambda outputs, inputs, stored: outputs,
    "single": lambda outputs, inputs, stored: outputs[0] if len(outputs) == 1 else list(outputs),
    "dict": lambda outputs, inputs, stored: {f"out/{i}": x for i, x in enumerate(outputs)},
    "ordered": lambda outputs, inputs, stored: OrderedDict(enumerate(outputs)),
    "nested": lambda outputs, inputs, stored: {"heads": [outputs[0], {"x": outputs[1:]}]},
    "named": lambda outputs, inputs, stored: Two(outputs[0], outputs[1:]),
    "twice": lambda outputs, inputs, stored: (*outputs, outputs[0]),
    "views": lambda outputs, inputs, stored: (*outputs, outputs[0][:, 1:], outputs[0].flatten()),
    "an integer": lambda outputs, inputs, stored: (*outputs, 7),
    "nothing": lambda outputs, inputs, stored: (*outputs, None),
    "its width": lambda outputs, inputs, stored: (*outputs, inputs[0].shape[-1]),
    "its batch": lambda outputs, inputs, stored: (*outputs, inputs[0].shape[0]),
    "the input": lambda outputs, inputs, stored: (*outputs, inputs[0]),
    "a part of the input": lambda outputs, inputs, stored: (*outputs, inputs[0][:, :1]),
    "a buffer": lambda outputs, inputs, stored: (*outputs, stored),
    "ones": lambda outputs, inputs, stored: (*outputs, torch.ones(3)),
    "zeros for each": lambda outputs, inputs, stored: (*outputs, torch.zeros(len(inputs[0]), 2)),
    "a class": lambda outputs, inputs, stored: (*outputs, outputs[0].argmax(1)),
    "a yes or no": lambda outputs, inputs, stored: (*outputs, inputs[0] > 0),
    "a number of all": lambda outputs, inputs, stored: (*outputs, outputs[0].mean()),
}
REFUSED_IN_FILES = frozenset(("an integer", "its width", "its batch", "nothing"))
"""Outputs that no ONNX file can express."""
