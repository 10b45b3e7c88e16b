"""The table that `evaluate` prints: coloured on a terminal, plain in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from dataflow.evaluation.backtest import FIGURES, Figures

__all__ = ["print_table"]

Row = tuple[str, str, Figures]

_TITLES = {
    "standard": "NAB",
    "low_fp": "low FP",
    "low_fn": "low FN",
    "precision": "prec.",
    "recall": "recall",
    "f1": "F1",
    "false_alarms_per_day": "FP/day",
    "delay_hours": "delay h",
}
_DIGITS = {"standard": 1, "low_fp": 1, "low_fn": 1, "false_alarms_per_day": 3, "delay_hours": 1}


def print_table(rows: Sequence[Row], spread: bool) -> None:
    """Print detector, threshold and figures, with `spread` their deviations too."""
    head = ["detector", "threshold", *(_TITLES[name] for name in FIGURES)]
    cells = [[name, limit, *_cells(figures, spread)] for name, limit, figures in rows]
    console = Console()
    if console.is_terminal:
        console.print(_dressed(head, cells, console.width))
    else:
        print("\n".join(_aligned([head, *cells])))


def _cells(figures: Figures, spread: bool) -> list[str]:
    cells = []
    for name in FIGURES:
        value, deviation, digits = figures[name], figures[f"{name}_sd"], _DIGITS.get(name, 2)
        cell = "-" if value is None else f"{value:.{digits}f}"
        if spread and deviation is not None:
            cell += f" ±{deviation:.{digits}f}"
        cells.append(cell)
    return cells


def _dressed(head: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> Table:
    # Ten columns fit the usual 80 characters only if they stand close.
    table = Table(box=None, pad_edge=False, collapse_padding=width < 100, header_style="bold cyan")
    for number, title in enumerate(head):
        table.add_column(title, justify="left" if number < 2 else "right", no_wrap=number < 2)
    for name, *rest in cells:
        table.add_row(f"[bold]{name}[/bold]", *rest, style=None if name else "dim")
    return table


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
