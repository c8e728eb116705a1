"""Tables on a terminal, laid out for its width.

A column is never narrower than its longest word. A table that does not fit under this rule is
printed as a list, one row after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment, Segments
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

BOUNDLESS = 100_000  # width of an imaginary terminal on which nothing wraps
INDENT = 4  # spaces before lines that belong to the line above
SHORT = 40  # characters: shorter values share a line; two of them fit into 80 columns


class FittedTable(Table):
    """A table that wraps only between words. Cells are plain text, never markup.

    Attributes:
        firm: names of the columns that are narrowed last.
    """

    firm: Sequence[str] = ()

    def add_row(
        self,
        *cells: RenderableType | None,
        style: StyleType | None = None,
        end_section: bool = False,
    ) -> None:
        """Add a row; a string is taken literally, not as markup."""
        texts = [Text(cell) if isinstance(cell, str) else cell for cell in cells]
        super().add_row(*texts, style=style, end_section=end_section)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the table, or a list of its rows where it is too wide."""
        title, caption = self.title, self.caption
        if title:
            yield Text(str(title), style="italic")
        self.title = self.caption = None
        try:
            yield from self._body(console, options)
        finally:
            self.title, self.caption = title, caption
        if caption:
            yield Text(str(caption), style="dim italic")

    def _body(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = [list(map(_plain, (c.header, *c.cells))) for c in self.columns]
        natural = [max(_lengths(texts, "\n"), default=0) for texts in columns]
        least = self._least(columns)
        room = options.max_width - self._frame(console, options, natural)
        if sum(least) > room:
            yield from self._narrow(console, options, columns)
            return
        for column, width in zip(self.columns, self._widths(natural, least, room), strict=True):
            column.width = max(width, 1)
        yield from super().__rich_console__(console, options)

    def _least(self, columns: Sequence[Sequence[str]]) -> list[int]:
        """Return the smallest width of each column: its longest word."""
        return [max(_lengths(texts, None), default=0) for texts in columns]

    def _narrow(
        self, console: Console, options: ConsoleOptions, columns: Sequence[Sequence[str]]
    ) -> RenderResult:
        """Render the table where its smallest widths do not fit."""
        yield from self._rows_apart(columns)

    def _frame(self, console: Console, options: ConsoleOptions, widths: Sequence[int]) -> int:
        """Return the width that lines and padding take."""
        for column, width in zip(self.columns, widths, strict=True):
            column.width = max(width, 1)
        whole = super().__rich_measure__(console, options.update(width=BOUNDLESS)).maximum
        return whole - sum(max(width, 1) for width in widths)

    def _widths(self, natural: list[int], least: list[int], room: int) -> list[int]:
        """Return widths that fit into ``room``: narrow the widest text first, then numbers."""
        widths = list(natural)
        texts = [k for k, column in enumerate(self.columns) if column.header not in self.firm]
        for giving in (texts, range(len(widths))):
            while sum(widths) > room:
                able = [k for k in giving if widths[k] > least[k]]
                if not able:
                    break
                widths[max(able, key=widths.__getitem__)] -= 1
        return widths

    def _rows_apart(self, columns: Sequence[Sequence[str]]) -> Iterator[RenderableType]:
        """Yield each row as lines: its first cell, then the others with their columns' names."""
        heads = [" ".join(texts[0].split()) for texts in columns]
        for row in zip(*(texts[1:] for texts in columns), strict=True):
            pairs = [(h, text.strip()) for h, text in zip(heads, row, strict=True) if text.strip()]
            if not pairs:
                continue
            yield Text(pairs[0][1], style="bold")
            short = [f"{h} {text}".strip() for h, text in pairs[1:] if _is_short(text)]
            long = [f"{h}: {text}" if h else text for h, text in pairs[1:] if not _is_short(text)]
            lines = [" · ".join(short)] if short else []
            for line in (*lines, *long):
                yield Padding(Text(line), (0, 0, 0, INDENT), expand=False)


class Listing(FittedTable):
    """A table without lines; a first cell that is too long gets a line of its own."""

    def _least(self, columns: Sequence[Sequence[str]]) -> list[int]:
        first, *others = columns
        return [max(_lengths(first, "\n"), default=0), *super()._least(others)]

    def _narrow(
        self, console: Console, options: ConsoleOptions, columns: Sequence[Sequence[str]]
    ) -> RenderResult:
        natural = [max(_lengths(texts, "\n"), default=0) for texts in columns]
        room = options.max_width - self._frame(console, options, natural) - sum(natural[1:])
        if room < INDENT or any("\n" in text for texts in columns for text in texts):
            yield from self._rows_apart(columns)
            return
        cells = [list(column.cells) for column in self.columns]
        beside = _like(self)
        for row, *texts in zip(self.rows, *cells, strict=True):
            label = texts[0] if cell_len(_plain(texts[0])) <= room else ""
            beside.add_row(label, *texts[1:], style=row.style)
        beside.columns[0].min_width = room
        header, *lines = console.render_lines(Group(beside), options, pad=False)
        yield Segments([*header, Segment.line()])
        for label, line in zip(cells[0], lines, strict=True):
            if cell_len(_plain(label)) > room:
                yield label
            yield Segments([*line, Segment.line()])


def _like(one: Table) -> Listing:
    """Return a listing of the same columns, without rows."""
    made = Listing(box=None, padding=one.padding, header_style="bold", pad_edge=False)
    for column in one.columns:
        made.add_column(column.header, justify=column.justify)
    return made


def _plain(cell: RenderableType) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _lengths(texts: Sequence[str], separator: str | None) -> Iterator[int]:
    return (cell_len(part) for text in texts for part in text.split(separator))


def _is_short(text: str) -> bool:
    return "\n" not in text and len(text) <= SHORT


def table(title: str, *columns: str, numbers: Sequence[str] = ()) -> FittedTable:
    """Return an empty table; the columns named in ``numbers`` are right-aligned."""
    made = FittedTable(title=title, header_style="bold", pad_edge=False)
    made.firm = numbers
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left")
    return made


def listing(*columns: str, numbers: Sequence[str] = ()) -> Listing:
    """Return an empty table without lines; ``numbers`` are right-aligned."""
    made = Listing(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    made.firm = numbers
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left")
    return made


def counts_table(title: str, counts: Mapping[str, int]) -> FittedTable:
    """Return a table of reasons and the number of channels per reason."""
    made = table(title, "reason", "channels", numbers=["channels"])
    for reason, count in counts.items():
        made.add_row(reason, f"{count:,}")
    return made


def as_text(*parts: RenderableType) -> str:
    """Return the output of a console of this terminal's width as text, without colours."""
    console = Console(file=StringIO(), color_system=None, highlight=False)
    with console.capture() as printed:
        console.print(*parts, sep="\n")
    return printed.get().rstrip()


def show(console: Console, text: str | Text, style: str = "") -> None:
    """Print a line: wrapped between words on a terminal, unwrapped in a file or a pipe.

    A line with a word longer than the terminal is not wrapped, so that the word can be copied.
    """
    line = text if isinstance(text, Text) else Text(text, style=style)
    longest = max(_lengths([line.plain], None), default=0)
    whole = not console.is_terminal or longest > console.width
    console.print(line, soft_wrap=whole, highlight=False)
