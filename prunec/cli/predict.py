"""``prunec predict``: classifies images with an exported file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli.arguments import AsJson, Root, RunBy

if TYPE_CHECKING:
    from prunec.pipeline.predicting import Answer


def predict(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An exported file, a bundle, or a run")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Image files")],
    form: Annotated[
        str,
        typer.Option("--form", metavar="FORM", help="Form of a bundle or a run  [default: onnx]"),
    ] = "",
    runner: RunBy = "",
    as_json: AsJson = False,
    runs: Root = None,
) -> None:
    """Print the five most probable classes of every image, prepared as the file states."""
    path = Path(file)
    # A name with a suffix is a mistyped file, not a run.
    if not path.exists() and not path.suffix:
        from prunec.cli.arguments import run_of

        path = run_of(file, runs).path
    from prunec import pipeline

    answers = pipeline.predict(path, images, form, runner=runner)
    if as_json:
        typer.echo(
            json.dumps([_as_dict(answer) for answer in answers], indent=2, ensure_ascii=False)
        )
        return
    for answer in answers:
        _print(answer)


def _as_dict(answer: Answer) -> dict[str, object]:
    best = [{"label": label, "share": share} for label, share in answer.best]
    return {"image": answer.image, "best": best, "remark": answer.remark}


def _print(answer: Answer) -> None:
    typer.echo(f"{answer.image}{f'  ({answer.remark})' if answer.remark else ''}")
    for label, share in answer.best:
        typer.echo(f"  {100 * share:5.1f} %  {label}")
