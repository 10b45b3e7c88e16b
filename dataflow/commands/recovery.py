"""`python -m dataflow recovery`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dataflow.recovery.files import initialise

__all__ = ["recovery"]


def recovery(
    folder: Annotated[Path, typer.Argument(help="Folder of the recovery store.")],
    partitions: Annotated[
        int,
        typer.Option(
            min=1,
            max=1024,
            help="Files of the store: one a worker, and one for each 10,000 instances.",
        ),
    ] = 3,
) -> None:
    """Make a recovery store for `python -m bytewax.run dataflow.flow -r FOLDER -s 10 -b 0`."""
    if initialise(folder, partitions):
        typer.echo(f"made a recovery store of {partitions} files in {folder}")
    else:
        typer.echo(f"there is a recovery store in {folder} already: nothing changed")
