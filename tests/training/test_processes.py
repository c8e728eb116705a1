"""Two processes: the trajectory of one, the same state on both, resumed by another number."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from process_worker import Digests, be_hungry, be_stopped, lose_one, train_all, trained
from safetensors.torch import load_file
from test_end_to_end import write_images
from torch import Tensor
from torchrun import torchrun

from prunec.cli.commands import main
from prunec.processes import ALONE


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "final.safetensors")


def digests(folder: Path) -> list[Digests]:
    texts = [(folder / f"digests-{rank}.json").read_text() for rank in (0, 1)]
    return [Digests(**json.loads(text)) for text in texts]


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs on two processes, of plain training and of methods, a folder each."""
    folder = tmp_path_factory.mktemp("together")
    kinds = ("plain", "careless", "unsynchronised", *METHODS)
    for kind in kinds:
        (folder / kind).mkdir()
    answer = torchrun(train_all, folder, kinds, 4)
    assert answer.returncode == 0, answer.stderr
    return folder


STEPS = 4 * 6
METHODS = ("gdp", "random", "str", "gmp", "set", "rigl", "snfs", "str-rank")


@pytest.fixture
def together(trainings: Path) -> Path:
    """The plain training."""
    return trainings / "plain"


@pytest.mark.slow
def test_two_ranks_follow_one_process(together: Path, tmp_path: Path) -> None:
    alone, _ = trained(tmp_path, "plain", ALONE, epochs=4)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(
            weights(together)[name], value, rtol=1e-3, atol=1e-5, msg=f"{name} differs"
        )
    own, shared = (json.loads((f / "metrics.jsonl").read_text().splitlines()[-1]) for f in
                   (tmp_path, together))  # fmt: skip
    assert shared["loss"] == pytest.approx(own["loss"], rel=1e-4)
    for split in ("train", "test"):
        assert shared[f"{split}_accuracy"] == own[f"{split}_accuracy"]


@pytest.mark.slow
def test_a_different_learning_rate_is_not_followed(together: Path, tmp_path: Path) -> None:
    """That the comparison above can fail."""
    other, _ = trained(tmp_path, "plain", ALONE, epochs=4, learning_rate=0.051)
    actual = weights(together)["0.weight"]
    assert not torch.allclose(actual, other.state_dict()["0.weight"], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", METHODS)
def test_state_is_the_same_on_every_rank_at_every_update(kind: str, trainings: Path) -> None:
    """Masks, gates, thresholds, momenta: what a method keeps, and all weights."""
    first, second = digests(trainings / kind)
    assert len(first.left) == STEPS
    assert len(set(first.left)) >= STEPS - 3  # an update may take the place of a step
    assert first == second


@pytest.mark.slow
def test_what_ranks_made_differently_becomes_rank_0s(trainings: Path) -> None:
    first, second = digests(trainings / "careless")
    assert not {*first.left} & {*second.left}
    assert first.seen[1:] == second.seen[1:] == first.left[:-1]


@pytest.mark.slow
def test_batch_norms_that_each_rank_has_for_itself_agree_when_an_epoch_ends(
    trainings: Path,
) -> None:
    first, second = digests(trainings / "unsynchronised")
    same = [i for i in range(STEPS) if first.seen[i] == second.seen[i]]
    assert same == [0, 6, 12, 18]
    assert not {*first.left} & {*second.left}


@pytest.mark.slow
def test_one_process_resumes_what_two_began(tmp_path: Path) -> None:
    """A signal to one of two, in the second epoch of 24 steps, stops both at the same step."""
    answer = torchrun(be_stopped, tmp_path / "cut")
    assert answer.returncode == 0, answer.stderr
    actual = sorted(p.name for p in (tmp_path / "cut" / "checkpoint").glob("epoch*"))
    assert actual == ["epoch-001", "epoch-001-step-000020"]
    settings = {"epochs": 3, "batch_size": 4}
    alone, _ = trained(tmp_path / "alone", "plain", ALONE, **settings)
    resumed, rest = trained(tmp_path / "cut", "plain", ALONE, resume=True, **settings)
    assert len(rest.left) == 3 * 24 - 24 - 20
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_a_lost_rank_is_reported_and_what_was_saved_is_kept(tmp_path: Path) -> None:
    answer = torchrun(lose_one, tmp_path)
    assert answer.returncode != 0
    assert "rank 0 of 2 lost another process" in answer.stderr
    assert "--resume" in answer.stderr
    assert (tmp_path / "checkpoint" / "epoch-001" / "checkpoint.json").is_file()


@pytest.mark.slow
def test_a_rank_short_of_memory_finds_alone_what_fits(tmp_path: Path) -> None:
    """Its batch norms and gradients would wait for the other rank."""
    answer = torchrun(be_hungry, tmp_path)
    assert answer.returncode != 0
    assert "out of memory with train.batch_size = 16 on cpu" in answer.stderr
    assert "train.batch_size = 4 fits" in answer.stderr


RECIPE = """
name = "mortal"
model = { name = "process_worker:Mortal" }
data = { name = "imagefolder", root = "ROOT" }
train = { epochs = 4, batch_size = 4, precision = "fp32", channels_last = true, threads = 1 }
pass = [{ name = "train-dense" }]
"""


def command_line(*arguments: str) -> None:
    sys.argv = ["prunec", *arguments]
    main()


@pytest.mark.slow
def test_torchrun_starts_it_again_and_it_goes_on(tmp_path: Path) -> None:
    """The command line: rank 1 dies in the third epoch of 24 steps, both come back."""
    write_images(tmp_path / "images")
    (tmp_path / "mortal.toml").write_text(RECIPE.replace("ROOT", str(tmp_path / "images")))
    recipe, runs = str(tmp_path / "mortal.toml"), str(tmp_path / "runs")
    answer = torchrun(command_line, "train", recipe, "--runs", runs, restarts=1)
    assert answer.returncode == 0, answer.stderr
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["mortal-001"]
    run = tmp_path / "runs" / "mortal-001"
    assert json.loads((run / "run.json").read_text())["status"] == "trained"
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert answer.stdout.count("Continuing after epoch 2.") == 1
    assert answer.stdout.count("epoch 3/4") == 1
    assert "Warning" not in answer.stderr
