"""`prunec compare`: the grid of cells, its equal terms, and how the machine is shared out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compared import compare
from comparison_recipes import write_recipe

from prunec.comparison import machine_shares
from prunec.comparison.folder import default_folder
from prunec.comparison.grid import expand, parse_sparsities
from prunec.errors import RecipeError, UsageError


def test_a_grid_is_every_recipe_at_every_sparsity_and_seed(recipes: list[str]) -> None:
    grid = expand(recipes, sparsities=(0.5, 0.99), seeds=3, changes=["train.epochs=4"])
    actual = [(cell.method, cell.sparsity, cell.seed) for cell in grid.cells]
    wanted = {(m, s, k) for m in ("gmp", "rigl") for s in (0.5, 0.99) for k in range(3)}
    assert sorted(map(str, actual)) == sorted(map(str, wanted | {("dense", None, k) for k in
                                                                range(3)}))  # fmt: skip
    assert len({cell.name for cell in grid.cells}) == len({c.digest for c in grid.cells}) == 15
    for cell in grid.cells:
        assert cell.recipe.train.epochs == 4
        assert cell.recipe.seed == cell.seed
        assert cell.recipe.passes[0].get("sparsity") == cell.sparsity
    assert [cell.seed for cell in grid.cells] == sorted(cell.seed for cell in grid.cells)
    assert "dense" in grid.notes[0]


def test_without_sparsities_each_recipe_has_its_own(recipes: list[str]) -> None:
    own, asked = expand(recipes), expand(recipes, sparsities=(0.5,))
    assert own.cells == asked.cells
    assert not own.notes


def test_densities_of_a_run_leave_no_sparsity_to_ask_for(tmp_path: Path) -> None:
    path = Path(write_recipe(tmp_path, "gmp"))
    asked = f'sparsity = 0.5\nspread = "densities"\ndensities = "{tmp_path}/b.json"'
    path.write_text(path.read_text().replace("sparsity = 0.5", asked))
    digests = set()
    for density in (0.5, 0.25):
        (tmp_path / "b.json").write_text(json.dumps({"density": {"layer1.0.conv": density}}))
        (cell,) = expand([str(path)], sparsities=(0.9, 0.99)).cells
        assert cell.sparsity is None
        assert cell.recipe.passes[0]["densities"] == {"layer1.0.conv": density}
        digests.add(cell.digest)
    assert len(digests) == 2


@pytest.mark.parametrize("text", ["", " ", "1", "-0.1", "0.9,,0.99", "much", "nan", "0.9;0.99"])
def test_what_is_no_sparsity_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a sparsity"):
        parse_sparsities(text)


def test_sparsities_are_read_in_order_each_once() -> None:
    assert parse_sparsities("0.99, 0.9,0.90") == (0.9, 0.99)


def test_different_sparsities_have_different_names(tmp_path: Path) -> None:
    """The short ones are those of folders that are there already."""
    text = "0.9,0.90000000001,0.995,0.99999999999,0.00001,0"
    cells = expand([write_recipe(tmp_path, "rigl")], sparsities=parse_sparsities(text)).cells
    assert [cell.name.removesuffix("-seed0") for cell in cells] == [
        "rigl-s0", "rigl-s1e-05", "rigl-s0.9", "rigl-s0.90000000001", "rigl-s0.995",
        "rigl-s0.99999999999",
    ]  # fmt: skip


def test_a_name_that_leaves_a_cells_no_room_is_refused(tmp_path: Path) -> None:
    path = Path(write_recipe(tmp_path, "gmp"))
    name = "g" * (80 - len("-s0.5-seed9"))
    path.write_text(path.read_text().replace('name = "gmp"', f'name = "{name}"', 1))
    assert len(expand([str(path)], seeds=10).cells[-1].name) == 80
    with pytest.raises(RecipeError, match="too long for the runs of a comparison") as error:
        expand([str(path)], seeds=11)
    assert "68 characters" in error.value.remedy


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("epochs", "3", "train.epochs"),
        ("batch_size", "8", "train.batch_size"),
        ("root", '"elsewhere"', "data.root"),
        ("precision", '"bf16"', "train.precision"),
    ],
)
def test_unequal_terms_are_refused_by_key(tmp_path: Path, key: str, value: str, told: str) -> None:
    one, other = write_recipe(tmp_path, "gmp"), write_recipe(tmp_path, "rigl", **{key: value})
    with pytest.raises(RecipeError) as error:
        expand([one, other])
    assert f"{told}:" in error.value.message
    assert "gmp" in error.value.message
    assert "rigl" in error.value.message
    assert error.value.remedy == f"Make them equal for all recipes: --set {told}=…"
    assert len(expand([one, other], changes=[f"{told}={value}"]).cells) == 2


def test_what_a_method_chooses_may_differ(tmp_path: Path) -> None:
    one = write_recipe(tmp_path, "gmp")
    other = write_recipe(tmp_path, "rigl", learning_rate="0.3", threads="2")
    assert len(expand([one, other]).cells) == 2


def test_more_training_passes_are_a_larger_budget(tmp_path: Path) -> None:
    one, other = write_recipe(tmp_path, "gmp"), write_recipe(tmp_path, "rigl")
    text = Path(other).read_text()
    Path(other).write_text(text.replace("[[pass]]", '[[pass]]\nname = "train-dense"\n[[pass]]', 1))
    with pytest.raises(RecipeError, match=r"training passes: 1 \(gmp\), 2 \(rigl\)"):
        expand([one, other])


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "gmp")
    with pytest.raises(RecipeError, match="two recipes have the name 'gmp'"):
        expand([path, path])


def test_what_asks_for_nothing_is_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "gmp")
    assert "--seeds 0: must be at least 1" in compare(recipe, "--seeds", 0, code=3)
    assert "is not a sparsity" in compare(recipe, "--sparsity", "", code=3)


def test_the_seed_is_the_grids_own(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="its own seed"):
        expand([write_recipe(tmp_path, "gmp")], changes=["seed=5"])


def test_the_folder_is_the_same_for_the_same_recipes(recipes: list[str]) -> None:
    assert default_folder(expand(recipes)) == Path("comparisons/dense-gmp-rigl")
    assert default_folder(expand(recipes, seeds=3)) == default_folder(expand(recipes))


def test_the_cores_are_shared_out(recipes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine_shares, "cores", lambda: 8)
    grid = expand(recipes, sparsities=(0.5, 0.9), seeds=4)
    for jobs, threads in ((None, 1), (1, 8), (2, 4), (3, 2), (16, 1)):
        actual = machine_shares.shares(grid.cells, jobs)
        assert len(actual) == (jobs or 8)
        assert {share["OMP_NUM_THREADS"] for share in actual} == {str(threads)}
    assert len(machine_shares.shares(grid.cells[:2], None)) == 2


def test_no_process_has_more_threads_than_the_user_allows(
    recipes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_shares, "cores", lambda: 8)
    cells = expand(recipes, seeds=4).cells
    for allowed, threads in (("1", 1), ("3,2", 3), ("64", 4), ("", 4), ("many", 4), ("0", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", allowed)
        assert machine_shares.shares(cells, 2)[0]["OMP_NUM_THREADS"] == str(threads)


def test_on_cuda_each_share_has_a_gpu(recipes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine_shares, "cores", lambda: 8)
    monkeypatch.setattr(machine_shares, "_gpus", lambda: ["2", "5"])
    cells = expand(recipes, seeds=2, changes=["device=auto"]).cells
    actual = [share["CUDA_VISIBLE_DEVICES"] for share in machine_shares.shares(cells, 3)]
    assert actual == ["2", "5", "2"]
    assert (
        machine_shares.described_shares(machine_shares.shares(cells, None))
        == "2 at once on 2 GPUs, 4 threads each"
    )
    on_cpu = expand(recipes, seeds=2).cells
    assert "CUDA_VISIBLE_DEVICES" not in machine_shares.shares(on_cpu, None)[0]
