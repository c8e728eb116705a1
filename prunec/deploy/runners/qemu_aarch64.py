"""onnxruntime for aarch64, emulated by qemu on this machine: for answers, not for times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prunec.deploy.devices import sysroot
from prunec.deploy.devices.channel import Channel, python_arguments
from prunec.deploy.devices.device import Device
from prunec.deploy.runner import Identity
from prunec.errors import PrunecError


@dataclass(frozen=True)
class QemuAarch64(Device):
    """Runner of ONNX files on an emulated ARM processor; `prunec runners setup qemu-aarch64`."""

    samples: ClassVar[int | None] = 64  # emulation is slow
    timeless: ClassVar[str] = "times under qemu say nothing of a device"

    @classmethod
    def set_up(cls, tell: Callable[[str], None]) -> None:
        """Download an aarch64 Python and onnxruntime into the user's cache folder."""
        sysroot.set_up(tell)

    @property
    def name(self) -> str:
        """Name of the runner."""
        return self.runner_name()

    @property
    def identity(self) -> Identity:
        """Identity of the device, with the emulator."""
        identity = super().identity
        emulated = f"{sysroot.record()['qemu']}, cortex-a72, emulated"
        return Identity(identity.name, identity.version, f"{identity.device}, {emulated}")

    def python(self) -> Sequence[str]:
        """Command of the emulated Python."""
        return sysroot.command()

    def _connect(self) -> Channel:
        return Channel([*sysroot.command(), *python_arguments(quoted=False)], sysroot.environment())

    def _explained(self, error: PrunecError) -> PrunecError:
        return PrunecError(
            f"{self.name} does not run: {error.message}",
            remedy="Set it up again: prunec runners setup qemu-aarch64",
        )
