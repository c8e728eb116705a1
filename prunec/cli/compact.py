"""``prunec compact``: a finished ONNX file without the channels that do not matter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli.arguments import AsJson

if TYPE_CHECKING:
    from prunec.deploy.compaction.compact import Compacted
    from prunec.deploy.compaction.files import FileResult

_SHOWN = 12


def compact(
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="A finished ONNX file.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Where to write  [default: FILE.compact.onnx]"
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=SIZES", help="Sizes that the file leaves open: x=1x3x640x640"
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--samples",
            metavar="FILE",
            help="An .npz of arrays by the inputs' names, to prove it on as well",
        ),
    ] = None,
    bounds: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Of random inputs  [default: normal numbers]"),
    ] = None,
    round_to: Annotated[
        int, typer.Option(min=1, metavar="N", help="Round kept counts up to a multiple of N.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Remove the dead, unread and constant channels of a finished ONNX file, exactly.

    The smaller file is proven equal under onnxruntime before it is written; where nothing can go,
    or it is not equal, nothing is written.
    """
    from prunec.cost.onnx_sizes import parse_sizes
    from prunec.deploy.compaction.files import compact_file

    place = output or file.with_name(f"{file.stem}.compact.onnx")
    result = compact_file(
        file, place, parse_sizes(inputs or []), data=data or [], bounds=bounds, round_to=round_to
    )
    if as_json:
        typer.echo(_json(result))
    else:
        _tell(result)


def _json(result: FileResult) -> str:
    import json

    found = result.compacted
    return json.dumps(
        {
            "file": str(result.path),
            "written": None if result.written is None else str(result.written),
            "removed": dict(found.removed),
            "constants": list(found.constants),
            "stayed": dict(found.because),
            "macs": result.macs,
            "bytes": result.bytes if result.written else None,
            "inputs": result.inputs,
            "outputs": {
                one.output: {"difference": one.found, "share_of_rounding": one.share}
                for one in result.proof
            },
        },
        indent=2,
    )


def _tell(result: FileResult) -> None:
    from prunec.cli.printing import say

    found = result.compacted
    if result.written is None:
        say(f"{result.path} is left as it is: no channel is dead, unread or constant.")
    else:
        say(f"{_many(sum(found.removed.values()), 'channel')} removed:")
        groups = list(found.removed.items())
        say(
            *(
                f"  {name}: {gone} of {found.before.get(name, gone)}"
                for name, gone in groups[:_SHOWN]
            )
        )
        if len(groups) > _SHOWN:
            more = sum(gone for _, gone in groups[_SHOWN:])
            say(f"  and {more} more in {len(groups) - _SHOWN} groups")
        if found.constants:
            say(f"{len(found.constants)} values are constants now")
    say("What stays:", *(f"  {_many(count, 'channel')}: {why}" for why, count in _first(found)))
    if result.written is None:
        return
    if result.macs:
        say(f"MACs {result.macs[0]:,} → {result.macs[1]:,}")
    say(f"Bytes {result.bytes[0]:,} → {result.bytes[1]:,}")
    on = _many(result.inputs, "batch")
    worst = max(result.proof, key=lambda one: one.share)
    say(
        f"Equal on {on} under onnxruntime: largest difference {worst.found:.3g} "
        f"({worst.output}), {worst.share:.2g} of what rounding explains",
        f"Written: {result.written}",
    )


def _first(found: Compacted) -> list[tuple[str, int]]:
    return list(found.because.items())[:_SHOWN]


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 'es' if what == 'batch' else 's'}"
