"""Errors fit on a screen, and come at once, whatever a recipe holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunec.errors import PrunecError, RecipeError
from prunec.recipe import load_recipe, loads


def test_an_error_fits_on_a_screen_whatever_was_found() -> None:
    many = "\n".join(f"size mismatch for layer{i}" for i in range(500))
    error = PrunecError(f"it does not fit:\n{many}", remedy="x" * 10**7)
    lines = str(error).splitlines()
    assert len(lines) <= 19
    assert "… and 487 more lines" in lines
    assert max(map(len, lines)) <= 1000
    assert PrunecError("short", remedy="mend it").remedy == "mend it"


def test_a_recipe_of_megabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    path.write_text(f'name = "{"x" * 10**7}"')
    with pytest.raises(RecipeError, match=r"at most 100,000 bytes, this one 10,000,009"):
        load_recipe(str(path))


@pytest.mark.parametrize("key", ["a." * 40_000 + "b", '"a". ' * 15_000 + "b", "'a' . " * 40 + "b"])
def test_a_key_of_thousands_of_parts_is_refused_at_once(key: str) -> None:
    with pytest.raises(RecipeError, match="more than 32 parts"):
        loads(f"{key} = 1")
    with pytest.raises(RecipeError, match="at most 16 parts"):
        load_recipe("gdp_mbv2", [f"{'a.' * 3000}b=1"])
