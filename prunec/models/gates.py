"""Gates on the input channels of kernels, attached to a network as parametrisations.

conv_W(g ⊙ u) = conv_{W·g}(u): a gate on an input channel is a factor of the kernel's slice for that
channel. A gated kernel is therefore parametrised as ``weight · gate``.

See docs/glossary.md: gate.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize

from prunec.graph.capture.copying import copied

_SUFFIX = ".parametrizations.weight.0.gate"


class KernelGate(nn.Module):
    """Parametrisation that multiplies a kernel by the gates of its input channels.

    Args:
        gate: values in [0, 1], broadcastable to the kernel.
    """

    gate: Tensor

    def __init__(self, gate: Tensor) -> None:
        super().__init__()
        self.register_buffer("gate", gate.detach().clone())

    def forward(self, weight: Tensor) -> Tensor:
        """Return the gated kernel."""
        return weight * self.gate


def attach_gates(module: nn.Module, gates: Mapping[str, Tensor]) -> None:
    """Attach gates to kernels of a network, in place.

    Args:
        module: the network.
        gates: name of a kernel → its gates, broadcastable to it.
    """
    for name, gate in gates.items():
        owner = module.get_submodule(name.rpartition(".")[0])
        parametrize.register_parametrization(owner, name.rpartition(".")[2], KernelGate(gate))


def gates_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the gates attached to a network, kernel name → gates."""
    return {
        name.removesuffix(_SUFFIX) + ".weight": tensor
        for name, tensor in module.named_buffers()
        if name.endswith(_SUFFIX)
    }


def absorbed(module: nn.Module) -> nn.Module:
    """Return a copy with every gate multiplied into its kernel; the network itself without gates.

    torch's removal of parametrisations edits a class that copies of a module share. Here the copy's
    modules get their original class back instead.
    """
    gates = gates_of(module)
    if not gates:
        return module
    module = copied(module)
    for name in gates:
        owner = module.get_submodule(name.rpartition(".")[0])
        kernel = nn.Parameter(owner.get_parameter("parametrizations.weight.original").detach())
        kernel.data = (kernel * gates[name]).detach()
        owner.__class__ = parametrize.type_before_parametrizations(owner)
        del owner.parametrizations
        owner.register_parameter("weight", kernel)
    return module
