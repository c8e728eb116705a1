"""Gates on the input channels of kernels, attached to a network so that it computes with them.

conv_W(g ⊙ u) = conv_{W·g}(u): a gate on an input channel is a factor of the kernel's column, so a
gated network is the network with its gated kernels parametrised as ``weight · gate``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize

from prunec.graph.capture.copying import copied

_SUFFIX = ".parametrizations.weight.0.gate"


class KernelGate(nn.Module):
    """Multiplies a kernel by the gates of its input channels.

    Args:
        gate: values in [0, 1], broadcastable to the kernel.
    """

    gate: Tensor

    def __init__(self, gate: Tensor) -> None:
        super().__init__()
        self.register_buffer("gate", gate.detach().clone())

    def forward(self, weight: Tensor) -> Tensor:
        """The gated kernel."""
        return weight * self.gate


def attach_gates(module: nn.Module, gates: Mapping[str, Tensor]) -> None:
    """Gate kernels in place.

    Args:
        module: the network.
        gates: name of a kernel → its gates, broadcastable to it.
    """
    for name, gate in gates.items():
        owner = module.get_submodule(name.rpartition(".")[0])
        parametrize.register_parametrization(owner, name.rpartition(".")[2], KernelGate(gate))


def gates_of(module: nn.Module) -> dict[str, Tensor]:
    """The gates attached to a network, by kernel name."""
    return {
        name.removesuffix(_SUFFIX) + ".weight": tensor
        for name, tensor in module.named_buffers()
        if name.endswith(_SUFFIX)
    }


def absorbed(module: nn.Module) -> nn.Module:
    """The network with every gate multiplied into its kernel: itself where it has none, or a copy.

    torch's own removal of parametrisations edits a class that copies of a network share, so the
    copy's modules go back to their first class here.
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
