"""Facts about a file besides its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from prunec.deploy.checks.samples import Flip
from prunec.deploy.runner import Identity
from prunec.deploy.timing import Latency


@dataclass(frozen=True)
class Details:
    """Facts about a file besides its checks; None and empty mean unknown.

    Attributes:
        file: path.
        bytes: size in bytes.
        dense_bytes: size of the dense network's file in bytes.
        not_checked: phrases on what could not be checked, and why.
        constants: tensors of the file that the network does not have.
        missing: tensors of the network that the file does not have.
        runner: runner of the file.
        other_runners: other runners of the file.
        remarks: remarks of the exporter, in sentences.
        told: data reported by the exporter, such as layers and losses.
        metadata: metadata of the file, as short texts.
        macs: MACs of one sample.
        params: number of parameters.
        dense_macs: MACs of the dense network.
        samples: number of test samples.
        figures: quality on these samples by key, such as accuracy in percent.
        classes: per class (samples, right answers of the network, right answers of the file).
        flips: first test samples that the file answers differently.
        latency: latency in comparison with the dense network's.
        uncut: whether nothing was cut, so that the file is the dense network's own.
        forms: form → facts, for several files of one network.
    """

    file: str = ""
    bytes: int | None = None
    dense_bytes: int | None = None
    not_checked: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    runner: Identity | None = None
    other_runners: tuple[Identity, ...] = ()
    remarks: tuple[str, ...] = ()
    told: Mapping[str, object] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    macs: int | None = None
    params: int | None = None
    dense_macs: int | None = None
    samples: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[tuple[int, int, int], ...] = ()
    flips: tuple[Flip, ...] = ()
    latency: Latency | None = None
    uncut: bool = False
    forms: Mapping[str, Details] = field(default_factory=dict)

    @property
    def macs_ratio(self) -> float | None:
        """MACs divided by the dense network's."""
        if self.macs is None or not self.dense_macs:
            return None
        return self.macs / self.dense_macs

    def to_dict(self) -> dict[str, object]:
        """Return the known facts as JSON values, each under its display name."""
        if self.forms:
            return {form: details.to_dict() for form, details in self.forms.items()}
        facts: dict[str, object] = {
            "constants": self.constants,
            "weights not in the file": self.missing,
            "file": self.file or None,
            "bytes": self.bytes,
            "not checked": self.not_checked,
            "runner": asdict(self.runner) if self.runner else None,
            "other runners": [asdict(one) for one in self.other_runners] or None,
            "remarks": self.remarks or None,
            "told": self.told or None,
            "metadata": self.metadata or None,
            "macs": self.macs,
            "params": self.params,
            "dense macs": self.dense_macs,
            "macs ratio": self.macs_ratio,
            "test samples": self.samples,
            **self.figures,
            "classes": self.classes or None,
            "flips": [flip.to_dict() for flip in self.flips] or None,
            "dense bytes": self.dense_bytes,
            "latency": asdict(replace(self.latency, rounds=())) if self.latency else None,
            "uncut": self.uncut or None,
        }
        return {name: value for name, value in facts.items() if value is not None}
