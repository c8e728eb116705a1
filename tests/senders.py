"""Export of a recipe whose network is code beside it, as a sender of a run makes it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from prunec.cli.commands import app


def run(*arguments: object) -> Result:
    """Result of a command line in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def exported(root: Path, module: str, code: str, recipe: str, *wishes: str) -> Result:
    """Write the code and the recipe into a folder, and export there; it must succeed."""
    file = f"{tomllib.loads(recipe)['name']}.toml"
    (root / f"{module}.py").write_text(code)
    (root / file).write_text(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.syspath_prepend(str(root))
        result = run("export", file, *wishes)
    assert result.exit_code == 0, result.output
    return result
