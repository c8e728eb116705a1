"""Writing of a bundle of a run's export: the same run gives the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.catalogue import runner_for
from prunec.deploy import golden
from prunec.deploy.checks import ExportReport
from prunec.deploy.exporter import Exact, Exporter
from prunec.deploy.wishes import Wishes
from prunec.errors import RunError
from prunec.files import folder_atomic, write_bytes_atomic
from prunec.pipeline.bundles.bom import bill
from prunec.pipeline.bundles.code import native_code
from prunec.pipeline.bundles.layout import (
    BOM,
    CHECK,
    GOLDEN,
    LAYERS,
    LOSSY_TOLERANCE,
    MANIFEST,
    SIGNATURE,
    model_package,
    name_flaw,
)
from prunec.pipeline.bundles.reading import is_bundle
from prunec.pipeline.bundles.saying import said_of, said_of_form
from prunec.pipeline.bundles.signing import require_signer, signature
from prunec.pipeline.opened import OpenedRun
from prunec.pipeline.raw_images import Shipping, layout_of, with_raw_images
from prunec.store.records import DIGEST, record_digest
from prunec.store.runs import RunFolder

MOST_GOLDEN = 4 * 2**20
"""Bytes that golden samples may take, beyond the minimum of two: a bundle travels to devices."""
SAMPLES = 8  # golden samples at most: enough to tell a swapped axis from a coincidence
_MODE = 0o100644 << 16  # a regular file, rw-r--r--, where zip keeps the mode of Unix

Arrays = Mapping[str, np.ndarray]


def require_place(path: Path) -> None:
    """Refuse a place where a bundle would overwrite something that is not a bundle.

    Raises:
        RunError: it is a folder that holds something else, or a file that is not a zip.
    """
    if path.suffix.lower() == ".zip":
        if path.is_dir():
            raise RunError(f"{path} is a folder", remedy="Name a file: --bundle FILE.zip.")
    elif path.is_file():
        raise RunError(f"{path} is a file", remedy="Name a folder, or FILE.zip.")
    elif path.is_dir() and any(path.iterdir()) and not is_bundle(path):
        raise RunError(
            f"{path} holds something other than a bundle", remedy="Name a new folder, or FILE.zip."
        )


def require_wishes(wishes: Wishes) -> None:
    """Check place and key of a bundle, before anything is computed.

    Raises:
        RunError: the place is taken, or the key cannot sign.
        PassError: the package that signs is not installed.
    """
    if wishes.place:
        require_place(wishes.place)
    if wishes.key:
        require_signer(wishes.key)


def write_bundle(
    run: RunFolder, report: ExportReport, path: Path, wishes: Wishes | None = None
) -> tuple[str, ...]:
    """Write a bundle of the forms that passed; return their names.

    Args:
        run: an exported run.
        report: report of the export.
        path: a folder, or a file that ends in ``.zip``.
        wishes: version, key and optional contents.

    Raises:
        RunError: no form passed, the place is taken or cannot be written, or the key cannot sign.
    """
    wishes = wishes or Wishes(path)
    require_place(path)
    opened = OpenedRun(run)
    passed = [form for form, form_report in report.forms.items() if form_report.passed]
    writers = [w for w in opened.exporters(passed) if w.form() in passed and not w.is_code]
    if not writers:
        raise RunError(
            "nothing to bundle: no form other than code passed its checks",
            remedy="Export another form as well, for example --onnx.",
        )
    files = _contents(run, opened, writers, report, wishes)
    if wishes.key:
        files[SIGNATURE] = signature(files, wishes.key)
    if path.suffix.lower() == ".zip":
        write_bytes_atomic(path, _zipped(files))
    else:
        with folder_atomic(path) as folder:
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
    return tuple(writer.form() for writer in writers)


def _contents(
    run: RunFolder,
    opened: OpenedRun,
    writers: Sequence[Exporter],
    report: ExportReport,
    wishes: Wishes,
) -> dict[str, bytes]:
    """Return the files of the bundle, name → contents, the manifest first."""
    artifact = opened.artifact(len(opened.passes) - 1)
    layout = layout_of(run.export.recorded.get(writers[0].form(), {}))
    shipping = Shipping(artifact, artifact, opened.images)
    shipping = with_raw_images(layout, opened.recipe, shipping)
    artifact = shipping.artifact
    inputs, labels = _samples(artifact, shipping.data)
    with torch.no_grad():
        leaves = tree_leaves(artifact.module(*(x.clone() for x in inputs)))
    answers = [leaf.numpy() for leaf in leaves if isinstance(leaf, Tensor)]
    given = [x.numpy() for x in inputs]
    files = {**_saved("", "input", given), **_saved("", "output", answers)}
    forms = {}
    for writer in writers:
        files |= _model_files(run, writer)
        # A lossy form answers otherwise than the network; its file must repeat its own answers.
        if not isinstance(writer, Exact):
            shipped = run.export.shipped(writer.form(), writer.suffix)
            own = next(iter(runner_for(writer.suffix).open(shipped).run([given])))
            files |= _saved(f"{writer.form()}/", "output", own)
        form_report, tolerance = report.forms[writer.form()], _tolerance(writer)
        forms[writer.form()] = said_of_form(run, writer, form_report, tolerance)
        if wishes.layers and not writer.runs_on:
            made, layers = _between(run, writer, given)
            files |= made
            forms[writer.form()] |= layers
    code: dict[str, Any] = {}
    if wishes.native:
        made, code = native_code(run, report)
        files |= made
    files[CHECK] = Path(__file__).with_name(CHECK).read_bytes()
    said = {
        **said_of(run, opened, artifact, report, layout),
        "golden": {"samples": len(inputs[0]), "of": _origin(opened.images), "labels": labels},
        "forms": forms,
    }
    if code:
        said["code"] = code
    if wishes.release:
        said["release"] = wishes.release
    # Last but one: the bill repeats the manifest, and the manifest lists the bill.
    if wishes.bom:
        files[BOM] = bill(said)
    said = {
        **said,
        "files": {name: _entry(files[name]) for name in sorted(files)},
    }
    return {MANIFEST: _manifest(said), **{name: files[name] for name in sorted(files)}}


def _between(
    run: RunFolder, writer: Exporter, given: Sequence[np.ndarray]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of the values between the layers, and what the manifest says of them.

    Both are empty where the runtime gives no such values.
    """
    form, path = writer.form(), run.export.shipped(writer.form(), writer.suffix)
    between = runner_for(path.suffix).between(path)
    if between is None:
        return {}, {}
    # One sample: the values between layers are many times larger than the inputs.
    values = between.values([np.ascontiguousarray(x[:1]) for x in given])
    copy = {f"{form}/{LAYERS}{path.suffix}": between.copy} if between.copy else {}
    return {**copy, **_saved(f"{LAYERS}/{form}/", "value", values)}, {"layers": between.layers}


def _manifest(said: Mapping[str, Any]) -> bytes:
    sealed = {**said, DIGEST: record_digest(said)}
    return (json.dumps(model_package(sealed), indent=1, ensure_ascii=False) + "\n").encode()


def _samples(artifact: Artifact, data: Data | None) -> tuple[tuple[Tensor, ...], list[Any] | None]:
    """Return 2 to 8 test images and their labels; the run's example where there are no data."""
    if data is None:
        return artifact.example, None
    size = 4 * int(np.prod(data.shape))  # float32: four bytes per number
    # Two at least: with one sample, a file with a fixed batch looks like one without.
    count = max(2, min(SAMPLES, MOST_GOLDEN // size))
    images, labels = next(iter(data.test_batches(count)))
    return (images,), labels.tolist() if labels.dim() == 1 else None


def _origin(data: Data | None) -> str:
    return "the test split, in its order" if data else "the run's example: random numbers"


def _tolerance(writer: Exporter) -> float:
    return golden.TOLERANCE if isinstance(writer, Exact) else LOSSY_TOLERANCE


def _model_files(run: RunFolder, writer: Exporter) -> dict[str, bytes]:
    """Return the files of a form, without the golden values that belong to the run."""
    folder = run.export.shipped(writer.form(), writer.suffix).parent
    paths = [p for p in folder.iterdir() if p.is_file() and p.name != golden.FILE]
    named = {f"{writer.form()}/{path.name}": path.read_bytes() for path in paths}
    for name in named:
        if wrong := name_flaw(name):
            raise RunError(f"{name} in {run.export.path} {wrong}")
    return named


def _saved(prefix: str, kind: str, values: Sequence[np.ndarray]) -> dict[str, bytes]:
    """Return arrays as ``.npy`` files, name → contents."""
    files = {}
    for place, array in enumerate(values):
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        files[f"{GOLDEN}/{prefix}{kind}_{place}.npy"] = file.getvalue()
    return files


def _entry(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip with fixed times and without compression, so that its bytes are reproducible."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # the earliest date of a zip
            entry.external_attr, entry.create_system = _MODE, 3  # 3: Unix, on any machine
            archive.writestr(entry, data)
    return target.getvalue()
