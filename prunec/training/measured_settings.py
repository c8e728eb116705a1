"""The settings of a run: measured once, written down with the figures, used again on resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from prunec.errors import DamagedRecord
from prunec.files import write_text_atomic
from prunec.store.kept_records import flaw_of, keep_records
from prunec.store.records import DIGEST, parse_record, record_text
from prunec.training.context import Context
from prunec.training.objective import Objective
from prunec.training.remembered import remembered_of
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
    settings: Settings | None = None
    if context.processes.first:
        written = _written(context)
        settings = _of_before(written, context) if context.resume else None
        settings = settings or _measured(written, model, objective, context)
    shared = context.processes.share(settings)
    assert shared is not None
    return shared


def _measured(
    written: Mapping[str, Any], model: nn.Module, objective: Objective, context: Context
) -> Settings:
    train = context.recipe.train
    settings = default_settings(train, context.processes)
    trials: list[Trial] = []
    if is_open(train):
        data = context.data.to(context.device, context.processes)
        batch = next(iter(data.train_batches(0, train.batch_size)))
        memory = remembered_of(model, batch, train) if remembers(context.device) else None
        before = memory.settings() if memory and not context.retune else None
        if before is not None:
            context.progress.note(f"Step as measured before: {before} (--retune measures again)")
            settings = before
        else:
            settings, trials = _chosen(model, batch, objective, context)
            context.progress.note(_described(settings, trials))
        if memory and trials:
            memory.keep(settings, [trial.record() for trial in trials])
    record = {
        "device": context.device.type,
        "chosen": asdict(settings),
        "measured": [trial.record() for trial in trials],
    }
    path = context.run.settings
    write_text_atomic(path, record_text({**written, context.pass_name: record}))
    keep_records(context.run, path)
    return settings


def _chosen(
    model: nn.Module, batch: tuple[Tensor, Tensor], objective: Objective, context: Context
) -> tuple[Settings, list[Trial]]:
    progress = context.progress

    def trying(settings: Settings) -> None:
        progress.trying(f"Measuring a step: {settings}")

    try:
        train, processes = context.recipe.train, context.processes
        return choose(model, batch, train, objective, processes, tell=trying)
    finally:
        progress.trying("")


def remembers(device: torch.device) -> bool:
    """Return whether measurements are kept beyond the run: on devices where they take long."""
    return device.type == "cuda"


def _described(settings: Settings, trials: list[Trial]) -> str:
    """Return one line: the chosen setting, and the times of the others."""
    others = [_figure(trial) for trial in trials if trial.settings != settings]
    own = next(trial for trial in trials if trial.settings == settings)
    least = min(trial.seconds for trial in trials if trial.agrees)
    head = "Fastest step" if own.seconds <= least else "Step, as fast as any within 3 %"
    return f"{head}: {_figure(own)}" + (f" ({'; '.join(others)})" if others else "")


def _figure(trial: Trial) -> str:
    doubt = "" if trial.agrees else ", another loss"
    return f"{trial.settings} {1000 * trial.seconds:.0f} ms{doubt}"


def _of_before(written: Mapping[str, Any], context: Context) -> Settings | None:
    """Return the settings of a resumed run; None on another kind of device."""
    record = written.get(context.pass_name, {})
    try:
        if record["device"] != context.device.type:
            return None
        return Settings(**record["chosen"])
    except (KeyError, TypeError):
        return None


def _written(context: Context) -> dict[str, Any]:
    """Return the recorded settings of the run's passes; none, with a note, if they are damaged."""
    run = context.run
    kept = run.key(run.settings) in run.kept if run.identity else False
    flaw = flaw_of(run, run.settings) if kept or (run.identity and run.settings.is_file()) else ""
    if flaw:
        context.progress.note(f"{flaw}; how to compute is measured again")
        return {}
    try:
        record = parse_record(run.settings)
    except DamagedRecord:
        return {}
    return {key: value for key, value in record.items() if key != DIGEST}
