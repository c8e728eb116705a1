"""What is worth knowing of a file beside its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from prunec.deploy.checks.samples import Flip
from prunec.deploy.runner import Identity
from prunec.deploy.timing import Latency


@dataclass(frozen=True)
class Details:
    """What is worth knowing of a file beside its checks; None and empty: not known.

    Attributes:
        file: its path.
        bytes: its size.
        dense_bytes: the size of the dense network's file.
        not_checked: what could not be checked and why, a phrase each.
        constants: tensors of the file that are none of the network.
        missing: tensors of the network that the file does not hold.
        runner: what ran it.
        other_runners: what else ran it.
        remarks: what its exporter remarked, in sentences.
        told: all that its exporter told: which layers, which losses.
        metadata: what it says of itself, in short texts.
        macs: multiply-accumulates of a sample.
        params: its parameters.
        dense_macs: of the network before anything was cut.
        samples: test samples that it answered.
        figures: what it is worth on them, by the key of each figure: accuracy, in percent.
        classes: of each class its samples, and how many the network and the file answer right.
        flips: the first test samples that the file answers otherwise than the network.
        latency: as measured against the dense network's.
        forms: of several files of a network, what is known of each, by its form.
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
    forms: Mapping[str, Details] = field(default_factory=dict)

    @property
    def macs_ratio(self) -> float | None:
        """Its MACs by the dense network's."""
        if self.macs is None or not self.dense_macs:
            return None
        return self.macs / self.dense_macs

    def to_dict(self) -> dict[str, object]:
        """Return what is known as JSON has it, each under the name that a person reads."""
        if self.forms:
            return {form: details.to_dict() for form, details in self.forms.items()}
        found: dict[str, object] = {
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
        }
        return {name: value for name, value in found.items() if value is not None}
