"""A clone that is installed editable does not hide prunec from scripts in the folder above it."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest

BACKEND = Path(__file__).parent.parent / ".build" / "prunec_backend.py"


@pytest.fixture
def backend() -> ModuleType:
    pytest.importorskip("setuptools")
    spec = importlib.util.spec_from_file_location("build_backend", BACKEND)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found_from(folder: Path, finder: str) -> str:
    """File that ``import prunec`` finds for a script in a folder, with the finder installed."""
    code = f"{finder}\nsys.path.insert(0, {str(folder)!r})\nimport prunec\nprint(prunec.__file__)"
    command = [sys.executable, "-S", "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_folder_of_the_name_hides_nothing(tmp_path: Path, backend: ModuleType) -> None:
    package = tmp_path / "prunec" / "prunec" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.touch()
    finder = backend.FINDER.replace("{package!r}", repr(str(package)))
    above = tmp_path / "prunec"
    assert found_from(tmp_path, finder) == str(package)
    assert found_from(above, finder) == str(package)
    elsewhere = tmp_path / "mine" / "prunec" / "__init__.py"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.touch()
    assert found_from(tmp_path / "mine", finder) == str(elsewhere)


def test_the_wheel_records_what_it_holds(tmp_path: Path, backend: ModuleType) -> None:
    wheel = tmp_path / "a.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("a.dist-info/RECORD", "a.dist-info/RECORD,,\n")
    backend._add(wheel, {"more.pth": "import more\n"})
    with ZipFile(wheel) as archive:
        assert archive.read("more.pth") == b"import more\n"
        lines = archive.read("a.dist-info/RECORD").decode().splitlines()
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"import more\n").digest()).rstrip(b"=")
    assert lines == ["a.dist-info/RECORD,,", f"more.pth,sha256={digest.decode()},12"]
