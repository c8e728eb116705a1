"""Runner on another machine, through a worker that runs there."""

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
"""One per device, kept open: starting a process there takes seconds."""


@dataclass(frozen=True)
class Device(Runner):
    """Runner of ONNX files under onnxruntime on another machine, on one thread."""

    suffixes: ClassVar[frozenset[str]] = frozenset({".onnx", ".ort"})
    unasked: ClassVar[bool] = False

    threads: int = 1

    @property
    @abstractmethod
    def name(self) -> str:
        """Name under which the runner was requested."""

    def python(self) -> Sequence[str]:
        """Command that starts Python on the device; empty for the worker's own."""
        return ()

    @abstractmethod
    def _connect(self) -> Channel:
        """Return a channel to the device; the worker need not run yet."""

    @abstractmethod
    def _explained(self, error: PrunecError) -> PrunecError:
        """Return an error with a remedy for a worker that does not start or lacks a package."""

    @property
    def identity(self) -> Identity:
        """Version of onnxruntime on the device, and its hardware."""
        hello = self._hello()
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        device = ", ".join(filter(None, (hello["machine"], hello["model"], "onnxruntime", threads)))
        return Identity(self.name, str(hello["versions"]["onnxruntime"]), device)

    def open(self, path: Path) -> LoadedFile:
        """Send a file and load it on the device."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PrunecError(f"{path} cannot be read: {error.strerror}") from None
        self._hello()
        # The digest tells files of one name apart; the name keeps the suffix.
        name = f"{hashlib.sha256(data).hexdigest()[:16]}/{path.name}"
        self.ask("put", [data], names=[name])
        try:
            header, _ = self.ask("open", name=name, threads=self.threads)
        except PrunecError as error:
            wrong = f"{self.name} cannot load {path}: {error.message}"
            raise PrunecError(wrong, remedy=error.remedy) from error
        return _Opened(self, path, name, header["inputs"])

    def check_bundle(self, folder: Path) -> Mapping[str, Any]:
        """Copy a bundle to the device, run its check.py, and return its JSON output.

        No files remain on the device.

        Raises:
            PrunecError: check.py does not run, or prints no JSON.
        """
        self._hello()
        names = sorted(path for path in folder.rglob("*") if path.is_file())
        relative = [f"bundle/{path.relative_to(folder).as_posix()}" for path in names]
        self.ask("put", [path.read_bytes() for path in names], names=relative)
        header, _ = self.ask("check", folder="bundle", python=list(self.python()))
        try:
            report: Mapping[str, Any] = json.loads(header["out"])
        except ValueError:
            last = (str(header["err"]).strip() or "it printed nothing").splitlines()[-1]
            wrong = f"check.py does not run on {self.name}: {last}"
            raise self._explained(PrunecError(wrong)) from None
        return report

    def ask(
        self, what: str, parts: Sequence[bytes] = (), **header: Any
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Return the worker's answer: see :meth:`Channel.ask`."""
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
        """Worker process, one per device for the lifetime of this process."""
        if self not in _CHANNELS:
            _CHANNELS[self] = self._connect()
        return _CHANNELS[self]

    def close(self) -> None:
        """End the worker process; the next request starts a new one."""
        if channel := _CHANNELS.pop(self, None):
            channel.close()

    def _hello(self) -> Mapping[str, Any]:
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
        """Yield the outputs of a batch when they are requested."""
        for inputs in batches:
            if len(inputs) != len(self._inputs):
                wrong = f"{self._path} has {len(self._inputs)} inputs, {len(inputs)} given"
                raise PrunecError(wrong)
            try:
                yield self._device.channel.run(self._name, inputs)
            except PrunecError as error:
                raise self._cannot(error) from error

    def timed(self, inputs: Batch) -> Timer:
        """Return a timer of runs on the device, without the transfer."""
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
        """Return the layers of a profile on the device: see :meth:`LoadedFile.profile`."""
        if self._device.timeless:
            raise PrunecError(self._device.timeless)
        parts = [worker.as_bytes(x) for x in inputs]
        # One run more below: the first of each node is a warm-up.
        threads = self._device.threads
        header, _ = self._device.ask(
            "profile", parts, name=self._name, threads=threads, runs=runs + 1
        )
        return layer_times(header["events"])

    def _seconds(self, runs: int) -> list[float]:
        header, _ = self._device.ask("time", name=self._name, runs=runs)
        return [float(value) for value in header["seconds"]]

    def _cannot(self, error: PrunecError) -> PrunecError:
        wrong = f"{self._device.name} cannot run {self._path}: {error.message}"
        return PrunecError(wrong, remedy=error.remedy)
