"""The build backend: setuptools', but for one thing about a checkout that is installed editable.

A folder named ``prunec`` without code of its own, as a clone is for a script in the folder above,
is a namespace package to Python, and setuptools' finder of the checkout's package is asked only
after that was found: ``import prunec`` gave an empty module. The wheel of an editable installation
therefore brings a finder that is asked first, and answers where nothing but such a folder would.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - every other hook is setuptools'

FINDER = '''\
"""Finds the checkout where Python would take a folder that merely has the name of the package."""

import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location


class BeforeFolders:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "prunec":
            return None
        found = PathFinder.find_spec(name)
        is_folder = found is not None and found.origin is None
        return spec_from_file_location(name, {package!r}) if is_folder else None


sys.meta_path.insert(0, BeforeFolders)
'''
MODULE = "_prunec_before_folders"


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, object] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Return the name of the wheel of an editable installation, its finder included."""
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    package = Path(__file__).resolve().parents[1] / "prunec" / "__init__.py"
    added = {
        f"{MODULE}.py": FINDER.replace("{package!r}", repr(str(package))),
        f"{MODULE}.pth": f"import {MODULE}\n",
    }
    _add(Path(wheel_directory) / name, added)
    return name


def build_sdist(sdist_directory: str, config_settings: dict[str, object] | None = None) -> str:
    """Return the name of the archive of sources, this file included."""
    name: str = build_meta.build_sdist(sdist_directory, config_settings)
    path, here = Path(sdist_directory) / name, Path(__file__)
    packed = io.BytesIO(gzip.decompress(path.read_bytes()))
    with tarfile.open(fileobj=packed, mode="a") as archive:
        archive.add(here, f"{name.removesuffix('.tar.gz')}/{here.parent.name}/{here.name}")
    path.write_bytes(gzip.compress(packed.getvalue()))
    return name


def _add(wheel: Path, texts: dict[str, str]) -> None:
    """Add files to a wheel, and to its record of what it holds."""
    with ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    record = next(name for name in held if name.endswith(".dist-info/RECORD"))
    for name, text in texts.items():
        held[name] = text.encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(held[name]).digest()).rstrip(b"=")
        held[record] += f"{name},sha256={digest.decode()},{len(held[name])}\n".encode()
    with ZipFile(wheel, "w", ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(name, content)
