"""Exporter of a Core ML package (``.mlpackage``), zipped, for one sample, in float32.

coremltools converts on every system but runs models only on macOS: elsewhere the file is read back,
and its outputs are not compared.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import warnings
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

# At import, coremltools warns of untested versions and of parts that only macOS has.
with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import coremltools as ct

    logging.disable(logging.NOTSET)

from prunec.deploy.exporter import Exact, Source
from prunec.deploy.signature import file_digest
from prunec.deploy.written import Written
from prunec.errors import PassError, PrunecError
from prunec.exporters._one_sample import one_sample, require_eval, require_numbers
from prunec.wording import first_line

PACKAGE = "model.mlpackage"
_UNPACKED = "Data/com.apple.CoreML/model.mlmodel"
_TIME = (1980, 1, 1, 0, 0, 0)  # earliest time of a zip; constant, for equal bytes every time


@dataclass(frozen=True)
class ToCoreml(Exact):
    """Convert the network for Core ML, as an ML program for iOS 16 or macOS 13."""

    suffix: ClassVar[str] = ".zip"
    reads: ClassVar[str] = "onnx"
    runs_on: ClassVar[str] = "macOS"
    takes_bytes: ClassVar[bool] = False

    def write(self, source: Source, path: Path) -> None:
        """Write the package as a zip, with the same bytes every time.

        Raises:
            PassError: the network is in training mode, or Core ML cannot express it.
        """
        require_eval(source.module, "Core ML's")
        example = one_sample(source.example)
        require_numbers(example, "Core ML's")
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / PACKAGE
            self._convert(source, example, place)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
                for name, data in _contents(place).items():
                    archive.writestr(zipfile.ZipInfo(f"{PACKAGE}/{name}", _TIME), data)

    def _convert(self, source: Source, example: tuple[torch.Tensor, ...], place: Path) -> None:
        try:
            quiet = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
            with warnings.catch_warnings(), quiet[0], quiet[1]:
                warnings.simplefilter("ignore")
                program = torch.export.export(source.module, example).run_decompositions({})
                made: Any = ct.convert(
                    program,
                    convert_to="mlprogram",
                    compute_precision=ct.precision.FLOAT32,
                    minimum_deployment_target=ct.target.iOS16,
                    # Loading compiles the model, which only macOS can.
                    skip_model_load=True,
                )
                made.user_defined_metadata.update(source.metadata)
                made.save(str(place))
        except Exception as error:
            raise PassError(
                f"coremltools cannot express the network: {first_line(error)}",
                remedy="Replace the operator in the network, or ship another form.",
            ) from error

    def read_back(self, path: Path) -> Written:
        """Return a digest, if the zip holds a complete package."""
        try:
            with zipfile.ZipFile(path) as archive:
                flaw = archive.testzip()
                spec = ct.proto.Model_pb2.Model()
                spec.ParseFromString(archive.read(f"{PACKAGE}/{_UNPACKED}"))
        except Exception as error:
            raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
        if flaw or spec.WhichOneof("Type") != "mlProgram":
            raise PrunecError(f"{path} does not hold a complete ML program")
        return Written(graph_digest=file_digest(path.read_bytes()))


def _contents(place: Path) -> dict[str, bytes]:
    """Return the files of a package, without the converter's random names of parts."""
    manifest = json.loads((place / "Manifest.json").read_text("utf-8"))
    names = {name: f"part-{i}" for i, name in enumerate(_parts(manifest))}
    text = json.dumps(manifest, indent=1)
    # Replaced in the whole text: the root's identifier repeats the name of a part.
    for name, fixed in names.items():
        text = text.replace(name, fixed)
    text = json.dumps(json.loads(text), sort_keys=True, indent=1)
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString((place / _UNPACKED).read_bytes())
    data = {
        file.relative_to(place).as_posix(): file.read_bytes()
        for file in sorted((place / "Data").rglob("*"))
        if file.is_file()
    }
    # protobuf stores maps in no fixed order unless it is asked to.
    data[_UNPACKED] = spec.SerializeToString(deterministic=True)
    return {**data, "Manifest.json": text.encode()}


def _parts(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the parts listed in a package's manifest, by name, ordered by path."""
    entries: dict[str, Any] = manifest["itemInfoEntries"]
    return dict(sorted(entries.items(), key=lambda entry: str(entry[1].get("path"))))
