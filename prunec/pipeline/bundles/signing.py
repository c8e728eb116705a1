"""Signatures of bundles in the OpenSSF model signing format, offline, with an elliptic curve key.

The signature is a file of the bundle and covers every other one.
"""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunec.deploy.checks import Check
from prunec.deploy.checks.check import equal, failed
from prunec.errors import PassError, RunError
from prunec.files import sha256_of
from prunec.pipeline.bundles.layout import NAME, SIGNATURE
from prunec.wording import first_line

_MAKE_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem"
_ASK = "Ask its maker for the bundle again, and for the public key by another way."
_CHECK = "signature"


def require_signer(key: Path) -> None:
    """Check that a key can sign, before anything is computed.

    Raises:
        PassError: the package that signs is not installed.
        RunError: the file is not a private key that can sign.
    """
    model_signing = _package()
    with _readable(key):
        model_signing.signing.Config().use_elliptic_key_signer(private_key=key)


def signature(files: Mapping[str, bytes], key: Path) -> bytes:
    """Return the signature of files.

    Args:
        files: file name → contents.
        key: file of the private key, as PEM.

    Raises:
        PassError: the package that signs is not installed.
        RunError: the key cannot sign.
    """
    model_signing = _package()
    with tempfile.TemporaryDirectory(prefix="prunec-sign-") as place, _readable(key):
        folder, signed = Path(place) / NAME, Path(place) / SIGNATURE
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=key)
        signer.set_hashing_config(_all_but_itself(model_signing)).sign(folder, signed)
        return signed.read_bytes()


def check_signature(folder: Path, key: Path | None) -> tuple[list[Check], list[str]]:
    """Check a bundle's signature.

    Without a key it is only compared with the files; the signer stays unknown.

    Args:
        folder: the bundle.
        key: public key of the signer; None for none.

    Returns:
        The check, none for an unsigned bundle without a key; phrases on what was not checked.

    Raises:
        PassError: a key is given, and the package that verifies is not installed.
    """
    place = folder / SIGNATURE
    if not place.is_file():
        if key is None:
            return [], []
        wrong = f"a key is given, but the bundle is not signed. {_ASK}"
        return [failed(_CHECK, f"of {key.name}", "none", wrong)], []
    if key is None:
        unchecked = "signature: the signer is unknown without a public key (--key PUBLIC.pem)"
        return [_of_these_files(folder, place)], [unchecked]
    return [_by(folder, place, key)], []


def _by(folder: Path, place: Path, key: Path) -> Check:
    """Check that the key signed these files."""
    model_signing = _package()
    try:
        verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:
        raise RunError(
            f"{key} is not a public key of an elliptic curve: {first_line(error)}",
            remedy="openssl ec -in KEY.pem -pubout -out PUBLIC.pem",
        ) from error
    try:
        verifier.set_hashing_config(_all_but_itself(model_signing)).verify(folder, place)
    except Exception as error:  # any exception: the signature is untrusted bytes
        wrong = f"not that of {key.name}, or not of these files: {first_line(error)[:200]}. "
        return failed(_CHECK, f"of {key.name}", "bad", wrong + _ASK)
    return Check(_CHECK, f"of {key.name}", f"of {key.name}", None, True)


def _of_these_files(folder: Path, place: Path) -> Check:
    """Check that the signature names these files with their digests."""
    try:
        said = json.loads(place.read_bytes())
        statement = json.loads(base64.b64decode(said["dsseEnvelope"]["payload"], validate=True))
        resources = statement["predicate"]["resources"]
        signed = {str(entry["name"]): str(entry["digest"]) for entry in resources}
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, RecursionError):
        return failed(_CHECK, "of these files", "unreadable", f"it is damaged. {_ASK}")
    files = (p for p in folder.rglob("*") if p.is_file() and p != place)
    there = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    other = sorted(name for name in signed.keys() | there if signed.get(name) != there.get(name))
    subject = "of these files" if not other else "of others"
    wrong = f"these files differ from the signed ones: {', '.join(other[:3])}. {_ASK}"
    return equal(_CHECK, "of these files", subject, wrong)


def _all_but_itself(model_signing: Any) -> Any:
    hashing = model_signing.hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    # ignore_git_paths: by default .git and .gitignore would be unsigned.
    return hashing.set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


@contextmanager
def _readable(key: Path) -> Iterator[None]:
    """Turn the package's exception on a key into an error that names the file."""
    try:
        yield
    except Exception as error:
        raise RunError(
            f"{key} is not a private key that can sign: {first_line(error)}",
            remedy=f"Name an elliptic curve key without a password: {_MAKE_KEY}",
        ) from error


def _package() -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise PassError(
            f"the package for signatures is not installed: {first_line(error)}",
            remedy="Install it: pip install 'prunec[sign]'",
        ) from error
    return model_signing
