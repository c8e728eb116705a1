"""``prunec compact``: removes channels without effect from a finished ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli.arguments import AsJson

if TYPE_CHECKING:
    from prunec.deploy.compaction.compact import Compacted
    from prunec.deploy.compaction.files import FileResult

_SHOWN = 12  # rows per list: the whole result stays on a screen of 24 to 40 lines


def compact(
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="A finished ONNX file")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="File to write  [default: FILE.compact.onnx]"
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=SIZES",
            help="Shape of an input that has dynamic sizes: x=1x3x640x640",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--samples",
            metavar="FILE",
            help="Also check it on the arrays of an .npz, one per input name",
        ),
    ] = None,
    bounds: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Range of random inputs  [default: normal]"),
    ] = None,
    round_to: Annotated[
        int, typer.Option(min=1, metavar="N", help="Round kept counts up to a multiple of N")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Remove the dead, unread and constant channels of a finished ONNX file, exactly.

    The smaller file is written only after it is proven equal under onnxruntime. Where no channel
    can be removed, or the outputs differ, nothing is written.
    """
    from prunec.cost.onnx_sizes import parse_sizes
    from prunec.deploy.compaction.files import compact_file
    from prunec.errors import UsageError

    if bounds and not bounds[0] < bounds[1]:  # NaN, too
        raise UsageError(
            f"--bounds {bounds[0]:g} {bounds[1]:g}: the first must be below the second",
            remedy="For images of bytes: --bounds 0 255.",
        )

    place = output or file.with_name(f"{file.stem}.compact.onnx")
    result = compact_file(
        file, place, parse_sizes(inputs or []), data=data or [], bounds=bounds, round_to=round_to
    )
    if as_json:
        typer.echo(_json(result))
    else:
        _print_result(result)


def _json(result: FileResult) -> str:
    import json

    compacted = result.compacted
    return json.dumps(
        {
            "file": str(result.path),
            "written": None if result.written is None else str(result.written),
            "removed": dict(compacted.removed),
            "constants": list(compacted.constants),
            "stayed": dict(compacted.because),
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


def _print_result(result: FileResult) -> None:
    from prunec.cli.printing import say

    compacted = result.compacted
    if result.written is None:
        say(f"{result.path} is left as it is: no channel is known to be dead, unread or constant.")
    else:
        say(f"{_counted(sum(compacted.removed.values()), 'channel')} removed:")
        groups = list(compacted.removed.items())
        say(
            *(
                f"  {name}: {gone} of {compacted.before.get(name, gone)}"
                for name, gone in groups[:_SHOWN]
            )
        )
        # The rest is summed, so that the numbers on the screen add up.
        if len(groups) > _SHOWN:
            more = sum(gone for _, gone in groups[_SHOWN:])
            say(f"  and {more} more in {len(groups) - _SHOWN} groups")
        if compacted.constants:
            say(f"{len(compacted.constants):,} values are constants now")
    kept = (f"  {_counted(count, 'channel')}: {reason}" for reason, count in _first(compacted))
    say("Kept:", *kept)
    if result.written is None:
        return
    if result.macs:
        say(f"MACs {result.macs[0]:,} → {result.macs[1]:,}")
    say(f"Bytes {result.bytes[0]:,} → {result.bytes[1]:,}")
    batches = _counted(result.inputs, "batch")
    # Of the bound, not of the value: outputs have different scales.
    worst = max(result.proof, key=lambda one: one.share)
    say(
        f"Equal on {batches} under onnxruntime: largest difference {worst.found:.3g} "
        f"({worst.output}), {worst.share:.2g} of the rounding bound",
        f"Wrote {result.written}",
    )


def _first(compacted: Compacted) -> list[tuple[str, int]]:
    return list(compacted.because.items())[:_SHOWN]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun == 'batch' else 's'}"
