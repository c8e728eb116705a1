"""Verification of a bundle from an untrusted source against its own manifest.

Its programs are not executed; its model files are run by their runtimes. A bundle has neither the
network nor test images, so that accuracy is not checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunec.catalogue import exporter, runner_for
from prunec.deploy.checks import Check, Details, ExportReport, Report
from prunec.deploy.checks.check import equal, failed
from prunec.deploy.checks.identity import unchanged
from prunec.deploy.exporter import Exact
from prunec.deploy.golden import TOLERANCE, share
from prunec.deploy.signature import FEEDING, RECIPE_DIGEST
from prunec.deploy.written import Written
from prunec.errors import DamagedRecord, PrunecError
from prunec.files import sha256_of
from prunec.pipeline.bundles.bom import bill
from prunec.pipeline.bundles.layout import BOM, CHECK, GOLDEN, LAYERS, LOSSY_TOLERANCE
from prunec.pipeline.bundles.reading import Bundle, opened_bundle
from prunec.pipeline.bundles.signing import check_signature
from prunec.pipeline.unrun import not_run

NOT_CHECKED = (
    "the network itself, random inputs, test images, accuracy and budgets: a bundle does not have "
    "the network"
)
_LOOK = "Ask its maker for the bundle again."
_WHOLE = "as it was written"


def verify_bundle(path: Path, key: Path | None = None) -> ExportReport:
    """Check a bundle as a whole, and then every form in it.

    The checks of the whole make up a form named ``bundle``; if one fails, no model file is loaded.

    Args:
        path: the bundle.
        key: public key of the signer; None to leave the signer unchecked.

    Raises:
        RunError: it is not a bundle, it cannot be read, or the key is not a public key.
        PassError: a key is given, and the package for signatures is not installed.
    """
    try:
        with opened_bundle(path) as bundle:
            signed, unsigned = check_signature(bundle.folder, key)
            whole = [*_files(bundle), _sealed(bundle), *signed, *_bill(bundle)]
            sound = all(check.passed for check in whole)
            # A runtime opens no file of a bundle that was changed.
            forms = {form: _checked(bundle, form) for form in bundle.forms} if sound else {}
            details = Details(str(path), not_checked=(*_remarks(bundle), *unsigned))
            return ExportReport({"bundle": Report(tuple(whole), details), **forms})
    except DamagedRecord as error:
        wrong = failed("contents", "a bundle's files alone", "others", f"{error.message}.")
        return ExportReport({"bundle": Report((wrong,), Details(str(path)))})


def _files(bundle: Bundle) -> list[Check]:
    """Check that every file has the size and the digest in the manifest."""
    wrong = [
        name
        for name, entry in sorted(bundle.files.items())
        if sha256_of(bundle.folder / name) != entry["sha256"]
        or (bundle.folder / name).stat().st_size != entry["bytes"]
    ]
    message = f"changed: {', '.join(wrong[:5])}. {_LOOK}" if wrong else ""
    count = len(bundle.files)
    return [Check("file digests", count, count - len(wrong), None, not wrong, message)]


def _sealed(bundle: Bundle) -> Check:
    wrong = f"the manifest was changed after it was written: its digest does not fit. {_LOOK}"
    return equal("manifest", _WHOLE, _WHOLE if bundle.sealed else "changed", wrong)


def _bill(bundle: Bundle) -> list[Check]:
    """Check that the bill of materials, if there is one, follows from the manifest."""
    place, name = bundle.folder / BOM, "bill of materials"
    if not place.is_file():
        return []
    follows, wrong = "follows from the manifest", f"it contradicts the manifest. {_LOOK}"
    try:
        made = bill(bundle.said)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return [failed(name, follows, "nothing", f"the manifest lacks a key: {error!r}. {_LOOK}")]
    return [equal(name, follows, follows if place.read_bytes() == made else "another", wrong)]


def _remarks(bundle: Bundle) -> tuple[str, ...]:
    ours = Path(__file__).with_name(CHECK).read_bytes()
    own = (bundle.folder / CHECK).is_file() and (bundle.folder / CHECK).read_bytes() == ours
    code = [name for name in bundle.files if name.endswith((".c", ".so"))]
    return (
        *(() if own else (f"{CHECK}: it is not that of this prunec: read it before you run it",)),
        *((f"{', '.join(code)}: code, which prunec neither builds nor runs",) if code else ()),
    )


def _checked(bundle: Bundle, form: str) -> Report:
    said = bundle.forms[form]
    path = bundle.folder / said["file"]
    details = Details(said["file"], not_checked=(NOT_CHECKED,))
    name, valid = "readable", f"a valid {form} file"
    try:
        writer = exporter(f"to-{form}")()
        if writer.runs_on:
            details = Details(said["file"], not_checked=(NOT_CHECKED, not_run(writer)))
        written = writer.read_back(path)
    except PrunecError as error:
        return Report((failed(name, valid, "none", f"{error.message}."),), details)
    checks = [
        Check(name, valid, valid, None, True),
        *unchanged(written, path, {key: str(said.get(key)) for key in _digests(said)}),
        *_of_the_network(written, bundle.said),
        *_counts(written, bundle.said),
    ]
    return Report((*checks, *_golden(bundle, form), *_between(bundle, form)), details)


def _digests(said: Mapping[str, Any]) -> tuple[str, ...]:
    return ("sha256", "graph_digest") if said.get("graph_digest") else ("sha256",)


def _of_the_network(written: Written, said: Mapping[str, Any]) -> list[Check]:
    """Check that file and manifest agree on the recipe and on the preparation of inputs."""
    metadata = written.metadata
    if metadata is None:
        return []
    feeding = json.dumps(said["feeding"], ensure_ascii=False, sort_keys=True)
    fed = "as in the manifest" if metadata.get(FEEDING) == feeding else "otherwise"
    recipes = (str(said.get("recipe_digest"))[:12], str(metadata.get(RECIPE_DIGEST))[:12])
    another = "the file was made by another recipe than the manifest names."
    wrong = "file and manifest disagree on how inputs are prepared."
    return [
        equal("recipe digest", *recipes, another),
        equal("feeding", "as in the manifest", fed, wrong),
    ]


def _counts(written: Written, said: Mapping[str, Any]) -> list[Check]:
    """Check MACs and parameters against the manifest, where the form can be counted."""
    if written.cost is None or written.cost.uncounted:
        return []
    pairs = (("MACs", "macs", written.cost.macs), ("parameters", "params", written.cost.params))
    wrong = "the manifest has another number."
    return [equal(name, str(said.get(key)), str(counted), wrong) for name, key, counted in pairs]


def _golden(bundle: Bundle, form: str) -> list[Check]:
    """Check the file's outputs on the golden inputs against the golden outputs."""
    said, name = bundle.forms[form], "golden values"
    if exporter(f"to-{form}").runs_on:
        return []
    own = bundle.folder / GOLDEN / form
    try:
        given = _arrays(bundle.folder / GOLDEN, "input")
        expected = _arrays(own if own.is_dir() else bundle.folder / GOLDEN, "output")
        path = bundle.folder / said["file"]
        outputs = next(iter(runner_for(path.suffix).open(path).run([given])))
        exact = issubclass(exporter(f"to-{form}"), Exact)  # whatever the manifest allows
        tolerance = TOLERANCE if exact else LOSSY_TOLERANCE
    except PrunecError as error:
        return [failed(name, 0.0, "no outputs", f"{error.message}.")]
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        return [failed(name, 0.0, "no outputs", f"its golden values cannot be read: {error}.")]
    shapes = [list(x.shape) for x in expected]
    if not expected or [list(x.shape) for x in outputs] != shapes:
        wrong = "shapes differ."
        return [failed(name, str(shapes), str([list(x.shape) for x in outputs]), wrong)]
    worst = max(map(share, outputs, expected), default=0.0)
    wrong = f"outputs differ by {worst:.3g} of their largest value."
    passed = worst <= tolerance
    return [Check(name, 0.0, worst, tolerance, passed, "" if passed else wrong)]


def _between(bundle: Bundle, form: str) -> list[Check]:
    """Check that the golden intermediate values, if the bundle has some, are those of the file."""
    said, name, expected = bundle.forms[form], "values between layers", "those of the file"
    path = bundle.folder / said["file"]
    copy = bundle.folder / form / f"{LAYERS}{path.suffix}"
    if "layers" not in said and not copy.exists():
        return []
    try:
        between = runner_for(path.suffix).between(path)
        layers = between.layers if between else []
        written = copy.read_bytes() if copy.exists() else b""
        if between is None or layers != said.get("layers") or written != between.copy:
            wrong = f"{copy.name} is not a copy of the file."
            return [failed(name, expected, "of another", wrong)]
        given = [np.ascontiguousarray(x[:1]) for x in _arrays(bundle.folder / GOLDEN, "input")]
        golden = _arrays(bundle.folder / GOLDEN / LAYERS / form, "value")
        values = between.values(given)
    except Exception as error:  # any exception: the file is untrusted bytes
        return [failed(name, expected, "none", f"they cannot be computed: {str(error)[:200]}.")]
    if [x.shape for x in golden] != [x.shape for x in values]:
        return [failed(name, expected, "others", "number or shapes of the values differ.")]
    tolerance = float(TOLERANCE if issubclass(exporter(f"to-{form}"), Exact) else LOSSY_TOLERANCE)
    for entry, ours, theirs in zip(layers, values, golden, strict=True):
        if not share(ours, theirs) <= tolerance:
            place = f"{entry['operator']} {entry['node']} ({entry['name']})"
            return [failed(name, expected, f"another at {place}", f"{place} gives other values.")]
    return [Check(name, expected, f"{len(values):,} equal", tolerance, True)]


def _arrays(folder: Path, kind: str) -> list[np.ndarray]:
    """Return the golden values of a kind, ``input``, ``output`` or ``value``; never unpickles."""
    count = len(list(folder.glob(f"{kind}_*.npy")))
    return [np.load(folder / f"{kind}_{i}.npy", allow_pickle=False) for i in range(count)]
