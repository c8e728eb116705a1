"""`prunec init`: what it writes of a folder of images, of methods and of timm, runs as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from prunec.catalogue import build_passes
from prunec.cli.commands import app
from prunec.cli.starter import methods, recipe_name
from prunec.cli.starter_data import DATA
from prunec.datasets.folders import HELD_OUT, read_imagefolder
from prunec.datasets.survey import MOST, survey
from prunec.errors import DataError
from prunec.plugins import PASSES, plug_in_names
from prunec.recipe import DataSpec, load_recipe

NETWORK = """
from torch import nn

def net(num_classes=7):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )

def own():
    return net(5)
"""
LEVELS = (40, 120, 200)  # of the three channels


def run(*arguments: str) -> Any:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done


def written(folder: Path, sizes: list[tuple[int, int]], each: int = 10) -> Path:
    """A folder of three classes of images, one colour with a little noise."""
    source = np.random.default_rng(0)
    for label in ("cats", "dogs", "owls"):
        (folder / label).mkdir(parents=True)
        for k in range(each):
            height, width = sizes[k % len(sizes)]
            noise = source.integers(-20, 21, (height, width, 3))
            image = np.clip(np.array(LEVELS) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / label / f"{k}.png")
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNEC_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "init_net.py").write_text(NETWORK)
    return tmp_path


@pytest.mark.slow
def test_a_folder_of_images_trains_at_once(place: Path) -> None:
    written(place / "images", [(40, 48), (44, 50)])
    told = " ".join(run("init", "init_net:net", "images/", "--epochs", "1").stdout.split())
    assert "Read 24 of 24 training images in images/: 3 classes" in told
    assert "prunec train net_images.toml" in told
    recipe = load_recipe("net_images.toml")
    assert (recipe.data.name, recipe.data.root) == ("imagefolder", "images/")
    assert recipe.data.mean == pytest.approx([level / 255 for level in LEVELS], abs=0.01)
    assert all(0.02 < deviation < 0.08 for deviation in recipe.data.std)
    assert recipe.train.epochs == 1
    assert not recipe.model.edit
    run("train", "net_images.toml", "--device", "cpu")
    assert Path("runs/net_images-001/report.html").is_file()
    seen = run("inspect", "net_images.toml", "--json").stdout
    assert '"total": 3' in seen


def test_images_of_one_size_keep_it(place: Path) -> None:
    written(place / "images", [(24, 32)])
    run("init", "init_net:net", "images", "-o", "own.toml")
    text = Path("own.toml").read_text()
    assert 'name = "RandomCrop", size = [24, 32], padding = 3' in text
    assert "Resize" not in text
    run("init", "init_net:net", "images", "-o", "other.toml", "--size", "16")
    assert 'name = "RandomResizedCrop", size = 16' in Path("other.toml").read_text()


def test_a_look_is_at_a_bounded_sample(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(place / "images", [(8, 8)], each=30)
    monkeypatch.setattr("prunec.datasets.survey.MOST", 10)
    seen = survey("images")
    assert (seen.looked, seen.train, seen.test) == (10, 72, 18)
    assert seen.same
    assert MOST <= 1000


def test_a_folder_of_classes_alone_is_divided(place: Path) -> None:
    written(place / "images", [(8, 8)], each=11)
    spec = DataSpec(name="imagefolder", root="images")
    actual = read_imagefolder(spec)
    assert (len(actual.train), len(actual.test)) == (27, 6)
    names = {actual.train.name(k) for k in range(27)} | {actual.test.name(k) for k in range(6)}
    assert len(names) == 33
    assert [int(actual.test[k][1]) for k in range(6)] == [0, 0, 1, 1, 2, 2]
    for k in range(HELD_OUT, 12):
        Path(f"images/owls/{k - 1}.png").unlink()
    with pytest.raises(DataError, match="fewer than 5 images of owls"):
        read_imagefolder(spec)


def test_a_folder_without_images_is_refused(place: Path) -> None:
    (place / "empty/cats").mkdir(parents=True)
    done = CliRunner().invoke(app, ["init", "init_net:net", "empty"])
    assert done.exit_code == 1
    assert "no images were found in empty" in done.stderr
    assert sorted(os.listdir()) == ["empty", "init_net.py"]


@pytest.mark.parametrize("method", methods())
def test_a_method_is_that_of_its_packaged_recipe(method: str) -> None:
    run("init", "init_net:net", "cifar10", "--method", method, "--epochs", "7", "-o", "m.toml")
    recipe = load_recipe("m.toml")
    stem = method.replace("-", "_")
    packaged = load_recipe(f"{stem}_mbv2" if method == "magnitude" else f"{stem}_resnet20")
    assert recipe.passes == packaged.passes
    assert recipe.passes[0]["name"] == f"train-{method}"
    assert recipe.verify.budget == packaged.verify.budget
    assert recipe.train.epochs == 7
    assert build_passes(recipe, "m.toml")


def test_every_method_that_begins_at_random_can_be_begun_with() -> None:
    passes = {name.removeprefix("train-") for name in plug_in_names(PASSES) if "train-" in name}
    assert passes - set(methods()) == {"str-rank"}  # ranks: of recurrent networks alone


def test_trained_weights_bring_their_own_images_and_need_no_dense_phase(place: Path) -> None:
    arguments = ("init", "resnet18", "imagenet", "--method", "magnitude", "--budget", "0.4")
    run(*arguments, "--weights", "IMAGENET1K_V1", "-o", "w.toml")
    recipe = load_recipe("w.toml")
    assert recipe.model.weights == "IMAGENET1K_V1"
    assert recipe.data.mean == (0.485, 0.456, 0.406)
    assert recipe.data.prepare[-1] == {"name": "CenterCrop", "size": 224}
    assert "dense" not in recipe.passes[0]
    assert recipe.passes[0]["macs_ratio"] == pytest.approx(0.384)
    run(*arguments, "-o", "r.toml")
    random = load_recipe("r.toml")
    assert random.passes[0]["dense"] > 0
    assert recipe.train.learning_rate == pytest.approx(random.train.learning_rate / 10)


@pytest.mark.parametrize(
    ("model", "weights", "reason"),
    [
        ("resnet18", "IMAGENET1K_V9", "Known: IMAGENET1K_V1, DEFAULT"),
        ("resnet18", "absent.safetensors", "absent.safetensors"),
        ("init_net:net", "DEFAULT", "is not a network of torchvision"),
        ("init_net:net", "narrow.safetensors", "narrow.safetensors"),
    ],
)
def test_weights_that_cannot_be_loaded_are_refused_before_anything_is_written(
    place: Path, model: str, weights: str, reason: str
) -> None:
    save_file({"0.weight": torch.zeros(8, 3, 3, 3)}, "narrow.safetensors")
    written(place / "images", [(24, 24)])
    before = sorted(os.listdir())
    done = CliRunner().invoke(app, ["init", model, "images", "--weights", weights])
    assert done.exit_code == 1
    assert reason in " ".join(done.stderr.split())
    assert sorted(os.listdir()) == before


@pytest.mark.slow
def test_a_trained_file_is_cut_and_fine_tuned_at_once(place: Path) -> None:
    from init_net import net  # type: ignore[import-not-found]

    save_file(net(3).state_dict(), "mine.safetensors")
    written(place / "images", [(24, 24)])
    options = ("--method", "magnitude", "--weights", "mine.safetensors", "--epochs", "2")
    run("init", "init_net:net", "images", *options, "-o", "w.toml")
    run("train", "w.toml", "--device", "cpu")
    assert Path("runs/w-001/report.html").is_file()


def test_a_budget_is_of_macs_or_of_weights() -> None:
    run("init", "init_net:net", "cifar10", "--budget", "0.3", "-o", "a.toml")
    recipe = load_recipe("a.toml")
    assert recipe.passes[0]["macs_ratio"] == pytest.approx(0.288)
    assert recipe.verify.budget.macs_ratio == 0.3
    run("init", "init_net:net", "cifar10", "--method", "rigl", "--budget", "0.02", "-o", "b.toml")
    assert load_recipe("b.toml").passes[0]["sparsity"] == pytest.approx(0.98)
    done = CliRunner().invoke(
        app, ["init", "init_net:net", "cifar10", "--method", "dense", "--budget", "0.3"]
    )
    assert done.exit_code == 1
    assert "dense has no budget" in done.stderr


def test_networks_of_timm_bring_their_own_images() -> None:
    pytest.importorskip("timm")
    run("init", "timm:mobilevit_xxs", "imagenet", "-o", "t.toml")
    recipe = load_recipe("t.toml")
    assert recipe.data.mean == (0.0, 0.0, 0.0)
    assert recipe.data.std == (1.0, 1.0, 1.0)
    assert recipe.data.prepare[-1] == {"name": "CenterCrop", "size": 256}


def test_a_size_is_of_images_with_a_class_each() -> None:
    done = CliRunner().invoke(app, ["init", "init_net:net", "har", "--size", "32"])
    assert done.exit_code == 1
    assert "--size does not apply to" in done.stderr


def test_names_fit_a_folder() -> None:
    assert recipe_name("a.b:net", "../my images/") == "net_my_images"
    assert recipe_name("timm:x.y", "cifar10", "two-of-four") == "x_y_cifar10_two_of_four"
    assert recipe_name("resnet18", next(iter(DATA))) == "resnet18_embedded"


@pytest.mark.parametrize(
    ("arguments", "classes"),
    [
        (["init_net:net"], 7),
        (["init_net:own"], 5),
        (["init_net:net", "--classes", "9"], 9),
        (["init_net:own", "--classes", "9"], 5),
    ],
)
def test_a_factory_has_its_own_number_of_classes(arguments: list[str], classes: int) -> None:
    seen = run("inspect", *arguments, "--input", "3x8x8", "--json").stdout
    assert f'"total": {classes}\n' in seen


def test_a_recipe_says_itself_what_inspect_looks_at() -> None:
    run("init", "init_net:net", "embedded", "-o", "e.toml")
    done = CliRunner().invoke(app, ["inspect", "e.toml", "--classes", "3"])
    assert done.exit_code == 1
    assert "e.toml has its own inputs, weights and classes" in done.stderr


def test_masks_change_within_a_short_training(place: Path) -> None:
    """48 images, 4 epochs: 24 steps, of which a usual rhythm of 50 would not see one."""
    written(place / "images", [(24, 24)], each=20)
    for method, keys in (("rigl", ["update_steps"]), ("east", ["cycle_steps", "update_steps"])):
        run("init", "init_net:net", "images/", "--method", method, "--epochs", "4", "-o", "a.toml")
        [options, *_] = load_recipe("a.toml").passes
        assert [options[key] for key in keys] == [4] * len(keys)
        run("init", "init_net:net", "embedded", "--method", method, "-o", "b.toml")
        assert all(load_recipe("b.toml").passes[0][key] > 4 for key in keys)
        Path("a.toml").unlink()
        Path("b.toml").unlink()


def test_a_folder_of_one_class_is_refused(place: Path) -> None:
    (written(place / "images", [(24, 24)]) / "dogs").rename(place / "dogs")
    (place / "images/owls").rename(place / "owls")
    done = CliRunner().invoke(app, ["init", "init_net:net", "images"])
    assert done.exit_code == 1
    assert "images holds a single class, cats" in done.stderr


def test_a_file_may_have_a_name_that_no_run_has(place: Path) -> None:
    written(place / "my images ü", [(24, 24)])
    run("init", "init_net:net", "my images ü", "--epochs", "1", "-o", "ä first try.toml")
    assert load_recipe("ä first try.toml").name == "first_try"
    done = CliRunner().invoke(app, ["init", "init_net:net", "my imagse ü"])
    assert "Did you mean 'my images ü'?" in done.stderr
