"""Tables of the commands: colored on a terminal, aligned plain text in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_table"]


def print_table(
    rows: Sequence[Sequence[str]],
    titles: Sequence[str] | None = None,
    *,
    left: int = 1,
    indent: int = 0,
) -> None:
    """Print rows of text on standard output, all as long as the titles, if there are any.

    The first `left` columns are aligned left, the others right. A row whose first cell is empty
    continues the row above. On a terminal the last column wraps if it is aligned left.

    >>> print_table([["web-1", "0.5"], ["", "12.25"]], ["instance", "load"])
    instance   load
    web-1       0.5
              12.25
    """
    if not rows:
        return
    console = Console()
    if console.is_terminal:
        console.print(_colored(rows, titles, left, indent, console.width))
    else:
        print("\n".join(_plain(rows, titles, left, indent)))


def _colored(
    rows: Sequence[Sequence[str]],
    titles: Sequence[str] | None,
    left: int,
    indent: int,
    width: int,
) -> Table:
    columns = len(rows[0])
    # Ten columns fit the usual 80 characters only if they stand close.
    table = Table(
        box=None,
        pad_edge=False,
        collapse_padding=width < 100,
        show_header=titles is not None,
        header_style="bold cyan",
    )
    for number, title in enumerate(titles or [""] * columns):
        table.add_column(
            " " * indent + title if number == 0 else title,
            justify="left" if number < left else "right",
            no_wrap=number < min(left, columns - 1),
            overflow="fold",
        )
    for first, *rest in rows:
        # As Text, not as markup: a cell may hold what a stranger wrote.
        cells = [Text(" " * indent + first, "bold"), *map(Text, rest)]
        table.add_row(*cells, style=None if first else "dim")
    return table


def _plain(
    rows: Sequence[Sequence[str]], titles: Sequence[str] | None, left: int, indent: int
) -> list[str]:
    lines = [titles, *rows] if titles else rows
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        " " * indent
        + "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
