"""Measurement of two files on one runner: latency, throughput, layers, memory, MACs per second."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from prunec.catalogue import runner_by, runner_for
from prunec.cost.onnx_graph import count_onnx
from prunec.deploy.memory import Memory, memory_of
from prunec.deploy.native.peaks import Peaks, measured_peaks
from prunec.deploy.runner import LayerTime, LoadedFile, Runner
from prunec.deploy.timing import CONFIDENCE, Latency, in_turns, quartiles
from prunec.errors import PrunecError, RunError
from prunec.files import near_file, sha256_of

SIDES = ("shipped", "dense")
DEFINITION = "median over rounds of shipped_ms / dense_ms, each round's by that round's"


@dataclass(frozen=True)
class Measurement:
    """Latency in one setting.

    Attributes:
        batch: samples per run.
        threads: threads per operator.
        latency: latency of both files, with every round.
    """

    batch: int
    threads: int
    latency: Latency

    def to_dict(self, macs: Sequence[int | None]) -> dict[str, Any]:
        """Return the measurement as values of JSON; ``ratio`` follows from ``rounds``.

        Args:
            macs: MACs per sample of the shipped and of the dense file; None where unknown.
        """
        latency = self.latency
        sides = zip(SIDES, macs, zip(*latency.rounds, strict=True), strict=True)
        return {
            "batch": self.batch,
            "threads": self.threads,
            **{name: self._side(times, count) for name, count, times in sides},
            "ratio": latency.ratio,
            "interval": [latency.least, latency.most],
            "told_apart": latency.apart,
            "rounds": latency.rounds,
        }

    def _side(self, times: Sequence[float], macs: int | None) -> dict[str, Any]:
        median = statistics.median(times)
        return {
            "median_ms": median,
            "quartiles_ms": quartiles(times),
            "samples_per_second": 1e3 * self.batch / median,
            "macs_per_second": None if macs is None else 1e3 * self.batch * macs / median,
        }


@dataclass(frozen=True)
class Bench:
    """Measurements of two files.

    Attributes:
        runner: name, version and device of the runner, or of both runners.
        measurements: one per setting.
        macs: MACs per sample of the shipped and of the dense file; None where unknown.
        memory: resident memory of both; None where it cannot be measured.
        layers: times of the layers of both, in the first setting; None where not asked for.
        peaks: speeds of this machine, if layers of native code were timed.
        names: what to call the files: those of a run are the shipped and the dense one.
    """

    runner: str
    measurements: tuple[Measurement, ...]
    macs: tuple[int | None, int | None]
    memory: tuple[Memory, Memory] | None
    layers: tuple[Sequence[LayerTime], Sequence[LayerTime]] | None
    peaks: Peaks | None = None
    names: tuple[str, str] = SIDES

    def to_dict(self) -> dict[str, Any]:
        """Return everything as values of JSON, the first file under ``shipped``."""
        return {
            "runner": self.runner,
            "files": dict(zip(SIDES, self.names, strict=True)),
            "ratio": DEFINITION,
            "confidence": CONFIDENCE,
            "macs": dict(zip(SIDES, self.macs, strict=True)),
            "measurements": [m.to_dict(self.macs) for m in self.measurements],
            "memory": self.memory
            and {name: asdict(m) for name, m in zip(SIDES, self.memory, strict=True)},
            "peaks": self.peaks and asdict(self.peaks),
            "layers": self.layers
            and {
                name: [asdict(layer) for layer in own]
                for name, own in zip(SIDES, self.layers, strict=True)
            },
        }


@dataclass(frozen=True)
class Settings:
    """Settings of a measurement.

    Attributes:
        batches: batch sizes.
        threads: numbers of threads per operator.
        sizes: name of an input → its shape, batch first; where given, ``batches`` is ignored.
        layers: whether to time the layers.
        runner: name of the runner; empty for the first here that opens the files.
    """

    batches: Sequence[int] = (1, 32)
    threads: Sequence[int] = (1,)
    sizes: Mapping[str, Sequence[int]] | None = None
    layers: bool = False
    runner: str = ""


def bench_files(
    shipped: Path, dense: Path, settings: Settings, names: tuple[str, str] = SIDES
) -> Bench:
    """Measure two files in turns, in every setting; the dense one on its own runner if need be.

    Args:
        shipped: the first file.
        dense: the file that it is compared with.
        settings: the settings.
        names: what to call the files.

    Raises:
        PrunecError: no runner opens them, they do not run, a dynamic size is not given, or a shape
            is given for an input that neither file has.
    """
    for path in (shipped, dense):
        if not path.exists():
            raise RunError(f"there is no file {path}", remedy=near_file(path).strip())
    measurements, layers, memory, peaks = [], None, None, None
    for count in settings.threads:
        runner = _with_threads(runner_by(settings.runner, shipped.suffix), count)
        other = runner if dense.suffix in runner.suffixes else runner_for(dense.suffix)
        other = _with_threads(other, count)
        ours = runner.open(shipped)
        # Two sessions of one file can lie differently in memory, and so seem to differ.
        equal = other == runner and sha256_of(shipped) == sha256_of(dense)
        theirs = ours if equal else other.open(dense)
        _require_inputs(settings.sizes or {}, ours, theirs)
        # Sizes from the command line include the batch.
        for batch in settings.batches if not settings.sizes else (1,):
            pair = [file.noise(batch, settings.sizes) for file in (ours, theirs)]
            samples = len(pair[0][0]) if pair[0] and pair[0][0].ndim else 1
            latency = in_turns(ours.timed(pair[0]), theirs.timed(pair[1]))
            measurements.append(Measurement(samples, count, latency))
            if layers is None and settings.layers:
                # Once, in the first setting: profiling slows the file down.
                layers = (ours.profile(pair[0]), theirs.profile(pair[1]))
                peaks = measured_peaks() if shipped.suffix == ".c" else None
            # Not on another machine: /proc shows this one's processes.
            if memory is None and runner.unasked:
                memory = _memory(((shipped, runner), (dense, other)), batch, settings.sizes)
    said = dict.fromkeys(
        f"{i.name} {i.version}, {i.device}" for i in (runner.identity, other.identity)
    )
    return Bench(
        " beside ".join(said), tuple(measurements),
        (_macs(shipped, ours, settings), _macs(dense, theirs, settings)),
        memory, layers, peaks, names,
    )  # fmt: skip


def told_apart(first: Path, second: Path) -> tuple[str, str]:
    """Return names for two files: those of the files, or what tells them apart."""
    if first.name != second.name:
        return first.name, second.name
    if first != second:
        return str(first), str(second)
    return f"{first.name} (1)", f"{first.name} (2)"


def _with_threads(runner: Runner, threads: int) -> Runner:
    if any(field.name == "threads" for field in fields(runner)):
        options: dict[str, Any] = {"threads": threads}
        return replace(runner, **options)
    if threads != 1:
        raise PrunecError(
            f"{runner.runner_name()} runs on one thread here", remedy="Leave --threads out."
        )
    return runner


def _require_inputs(sizes: Mapping[str, Sequence[int]], *files: LoadedFile) -> None:
    for file in files:
        for name, shape in zip(file.input_names, file.input_shapes, strict=True):
            given = sizes.get(name)
            fixed = [s for s in shape if isinstance(s, int)]
            number = not shape and given is not None and len(given) == 1
            fits = (
                given is None
                or number
                or (
                    len(given) == len(shape)
                    and all(
                        not isinstance(s, int) or s == g for s, g in zip(shape, given, strict=True)
                    )
                )
            )
            if not fits:
                raise PrunecError(
                    f"--input {name}: {'x'.join(map(str, given or ()))} does not fit "
                    f"{'x'.join(map(str, shape))}",
                    remedy="Name all sizes, the batch first"
                    + (", and fixed sizes as the file has them." if fixed else "."),
                )
    known = {name for file in files for name in file.input_names}
    unknown = [name for name in sizes if name not in known]
    if unknown:
        raise PrunecError(
            f"--input {unknown[0]}: neither file has an input of this name",
            remedy=f"Inputs are: {', '.join(sorted(known))}.",
        )


def _memory(
    files: tuple[tuple[Path, Runner], tuple[Path, Runner]],
    batch: int,
    sizes: Mapping[str, Sequence[int]] | None,
) -> tuple[Memory, Memory] | None:
    if not Path("/proc/self/status").is_file():
        return None
    ours, theirs = (memory_of(path, runner, batch, sizes) for path, runner in files)
    return ours, theirs


def _macs(path: Path, file: LoadedFile, settings: Settings) -> int | None:
    if path.suffix != ".onnx":
        return None
    given = (settings.sizes or {}).items()
    try:
        return count_onnx(path, {n: tuple(s) for n, s in given if n in file.input_names}).macs
    except PrunecError:
        return None
