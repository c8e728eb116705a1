"""The settings of a run: measured once, written down with the figures, used again on resume."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from prunec.files import write_text_atomic
from prunec.training.context import Context
from prunec.training.objective import Objective
from prunec.training.settings import Settings
from prunec.training.tuning import Trial, choose, default_settings, is_open


def chosen_settings(model: nn.Module, objective: Objective, context: Context) -> Settings:
    """Return how to compute: as written down in the run, or as measured now by rank 0.

    Args:
        model: on the device, in training mode.
        objective: the loss.
        context: recipe, data, run, processes.

    Raises:
        RunError: they cannot be written down.
    """
    path = context.run.path / "settings.json"
    settings: Settings | None = None
    if context.processes.first:
        settings = _written(path, context) if context.resume else None
        settings = settings or _measured(path, model, objective, context)
    shared = context.processes.share(settings)
    assert shared is not None
    return shared


def _measured(path: Path, model: nn.Module, objective: Objective, context: Context) -> Settings:
    train = context.recipe.train
    settings = default_settings(train, context.processes)
    trials: list[Trial] = []
    if is_open(train):
        data = context.data.to(context.device, context.processes)
        batch = next(iter(data.train_batches(0, train.batch_size)))
        settings, trials = choose(model, batch, train, objective, context.processes)
        context.progress.note(_told(settings, trials))
    record = {
        "device": context.device.type,
        "chosen": asdict(settings),
        "measured": [trial.record() for trial in trials],
    }
    write_text_atomic(path, json.dumps({**_read(path), context.pass_name: record}, indent=1) + "\n")
    return settings


def _told(settings: Settings, trials: list[Trial]) -> str:
    """A line: what was chosen, and how the others fared."""
    others = [_figure(trial) for trial in trials if trial.settings != settings]
    own = next(trial for trial in trials if trial.settings == settings)
    least = min(trial.seconds for trial in trials if trial.agrees)
    head = "Fastest step" if own.seconds <= least else "Step, as fast as any within 3 %"
    return f"{head}: {_figure(own)}" + (f" ({'; '.join(others)})" if others else "")


def _figure(trial: Trial) -> str:
    doubt = "" if trial.agrees else ", another loss"
    return f"{trial.settings} {1000 * trial.seconds:.0f} ms{doubt}"


def _written(path: Path, context: Context) -> Settings | None:
    """What a run that goes on computed with, unless it did so on another kind of device."""
    record = _read(path).get(context.pass_name, {})
    if record.get("device") != context.device.type:
        return None
    try:
        return Settings(**record["chosen"])
    except (KeyError, TypeError):
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
