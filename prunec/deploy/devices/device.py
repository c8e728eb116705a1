"""A runner on another machine, by a worker that runs there."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from prunec.deploy.devices import worker
from prunec.deploy.devices.channel import Channel, Lost
from prunec.deploy.runner import Batch, Identity, LayerTime, LoadedFile, Runner, Sizes
from prunec.deploy.sessions import layer_times, numpy_type
from prunec.deploy.timing import Timer
from prunec.errors import PrunecError

_CHANNELS: dict[Device, Channel] = {}
"""One for each device: a process there takes seconds to begin."""


@dataclass(frozen=True)
class Device(Runner):
    """Run ONNX files under the onnxruntime of another machine, on one thread."""

    suffixes: ClassVar[frozenset[str]] = frozenset({".onnx", ".ort"})
    unasked: ClassVar[bool] = False

    threads: int = 1

    @property
    @abstractmethod
    def name(self) -> str:
        """The name that it was asked for by."""

    def python(self) -> Sequence[str]:
        """The command that starts Python there, from there; empty: the worker's own."""
        return ()

    @abstractmethod
    def _connect(self) -> Channel:
        """Return a channel to it; it need not run yet."""

    @abstractmethod
    def _explained(self, error: PrunecError) -> PrunecError:
        """Say what mends it that the worker does not begin, or lacks something."""

    @property
    def identity(self) -> Identity:
        """The version of onnxruntime there, and what it runs on."""
        said = self._said()
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        device = ", ".join(filter(None, (said["machine"], said["model"], "onnxruntime", threads)))
        return Identity(self.name, str(said["versions"]["onnxruntime"]), device)

    def open(self, path: Path) -> LoadedFile:
        """Send a file, and load it there."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PrunecError(f"{path} cannot be read: {error.strerror}") from None
        self._said()
        name = f"{hashlib.sha256(data).hexdigest()[:16]}/{path.name}"
        self.ask("put", [data], names=[name])
        try:
            said, _ = self.ask("open", name=name, threads=self.threads)
        except PrunecError as error:
            wrong = f"{self.name} cannot load {path}: {error.message}"
            raise PrunecError(wrong, remedy=error.remedy) from error
        return _Opened(self, path, name, said["inputs"])

    def check_bundle(self, folder: Path) -> Mapping[str, Any]:
        """Copy a bundle there, run its check.py, and return what it found, as JSON has it.

        Nothing is left there.

        Raises:
            PrunecError: it cannot be run, or says nothing of use.
        """
        self._said()
        names = sorted(path for path in folder.rglob("*") if path.is_file())
        relative = [f"bundle/{path.relative_to(folder).as_posix()}" for path in names]
        self.ask("put", [path.read_bytes() for path in names], names=relative)
        said, _ = self.ask("check", folder="bundle", python=list(self.python()))
        try:
            found: Mapping[str, Any] = json.loads(said["out"])
        except ValueError:
            last = (str(said["err"]).strip() or "it printed nothing").splitlines()[-1]
            wrong = f"check.py does not run on {self.name}: {last}"
            raise self._explained(PrunecError(wrong)) from None
        return found

    def ask(
        self, what: str, parts: Sequence[bytes] = (), **header: Any
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Return what the worker answers: see :meth:`Channel.ask`."""
        try:
            return self.channel.ask(what, parts, **header)
        except Lost as error:
            raise self._explained(error) from error
        except PrunecError as error:
            if error.message.startswith(worker.MISSING):
                raise self._explained(error) from error
            raise

    @property
    def channel(self) -> Channel:
        """The process there, one for this device as long as this process lives."""
        if self not in _CHANNELS:
            _CHANNELS[self] = self._connect()
        return _CHANNELS[self]

    def close(self) -> None:
        """End the process there; it begins anew where it is asked again."""
        if found := _CHANNELS.pop(self, None):
            found.close()

    def _said(self) -> Mapping[str, Any]:
        return self.ask("hello")[0]


class _Opened(LoadedFile):
    def __init__(self, device: Device, path: Path, name: str, inputs: Sequence[Any]) -> None:
        self._device, self._path, self._name, self._inputs = device, path, name, inputs

    @property
    def input_shapes(self) -> list[Sizes]:
        """Sizes of the inputs."""
        return [tuple(shape) for _, _, shape in self._inputs]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs."""
        return [name for name, _, _ in self._inputs]

    @property
    def input_types(self) -> list[np.dtype[Any]]:
        """Types of the inputs."""
        return [numpy_type(kind) for _, kind, _ in self._inputs]

    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs of a batch when they are asked for."""
        for inputs in batches:
            if len(inputs) != len(self._inputs):
                wrong = f"{self._path} has {len(self._inputs)} inputs, {len(inputs)} given"
                raise PrunecError(wrong)
            try:
                yield self._device.channel.run(self._name, inputs)
            except PrunecError as error:
                raise self._cannot(error) from error

    def timed(self, inputs: Batch) -> Timer:
        """Return what times runs there: the way there and back is no part of it."""
        if self._device.timeless:
            raise PrunecError(self._device.timeless, remedy="Time it on a board: ssh://user@board.")
        parts = [worker.as_bytes(x) for x in inputs]
        try:
            self._device.ask("give", parts, name=self._name)
            self._seconds(1)
        except PrunecError as error:
            raise self._cannot(error) from error
        return self._seconds

    def profile(self, inputs: Batch, runs: int = 20) -> list[LayerTime]:
        """See :meth:`LoadedFile.profile`."""
        if self._device.timeless:
            raise PrunecError(self._device.timeless)
        parts = [worker.as_bytes(x) for x in inputs]
        threads = self._device.threads
        said, _ = self._device.ask(
            "profile", parts, name=self._name, threads=threads, runs=runs + 1
        )
        return layer_times(said["events"])

    def _seconds(self, runs: int) -> list[float]:
        said, _ = self._device.ask("time", name=self._name, runs=runs)
        return [float(value) for value in said["seconds"]]

    def _cannot(self, error: PrunecError) -> PrunecError:
        wrong = f"{self._device.name} cannot run {self._path}: {error.message}"
        return PrunecError(wrong, remedy=error.remedy)
