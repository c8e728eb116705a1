"""The artifacts of a run: the first, that after each pass, the network before all of them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.contract import Pass, Training
from prunec.models.building import build_model, unweighted
from prunec.processes import ALONE
from prunec.recipe import Recipe
from prunec.store.artifacts import load_artifact, save_artifact
from prunec.store.runs import RunFolder
from prunec.training.context import Context


def fresh(recipe: Recipe, data: Data) -> Artifact:
    """The network as the recipe builds it, with two test images as its example."""
    module = build_model(recipe.model, data.classes, seed=recipe.seed).eval()
    images, _ = next(iter(data.test_batches(2)))
    return Artifact(module, (images[:2].clone(),))


def resumed(
    recipe: Recipe, run: RunFolder, passes: tuple[Pass, ...], data: Data
) -> tuple[Artifact | None, int]:
    """The artifact after the last finished pass, and how many are finished."""
    done = 0
    while done < len(passes) and is_done(run, done, passes[done]):
        done += 1
    return (load(recipe, run, passes, done - 1, data.classes), done) if done else (None, 0)


def is_done(run: RunFolder, index: int, step: Pass) -> bool:
    """Whether a pass has left its artifact."""
    return (run.step(index, step.pass_name()) / "artifact.json").is_file()


def load(
    recipe: Recipe, run: RunFolder, passes: tuple[Pass, ...], index: int, classes: int
) -> Artifact:
    """The artifact after a pass; weights named in the recipe are not loaded only to be replaced."""
    spec = unweighted(recipe.model)
    folder = run.step(index, passes[index].pass_name())
    return load_artifact(folder, lambda: build_model(spec, classes, seed=recipe.seed))


def dense_network(recipe: Recipe, data: Data) -> nn.Module:
    """The recipe's network as its constructor makes it."""
    spec = unweighted(recipe.model)
    return build_model(spec, data.classes, seed=recipe.seed).eval()


def count_training(passes: tuple[Pass, ...]) -> int:
    """Number of passes up to and with the last that trains."""
    return max((i + 1 for i, p in enumerate(passes) if isinstance(p, Training)), default=0)


def run_pass(
    artifact: Artifact,
    step: Pass,
    index: int,
    run: RunFolder,
    context: Context | None,
    announce: Callable[[str], None],
) -> Artifact:
    """What a pass makes of an artifact, saved in the run by the first of the processes."""
    announce(step.pass_name())
    result = step(artifact, context)
    processes = context.processes if context else ALONE
    if processes.first:
        save_artifact(result, run.step(index, step.pass_name()))
    processes.wait()
    return result
