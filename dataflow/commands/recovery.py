"""`python -m dataflow recovery`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from dataflow.errors import missing_bytewax
from dataflow.recovery.files import initialize

__all__ = ["recovery"]


def recovery(
    folder: Annotated[Path, typer.Argument(help="Folder of the recovery store.")],
    partitions: Annotated[
        int,
        typer.Option(
            min=1,
            max=1024,
            help="Number of files: one per worker, and one per 10,000 instances.",
        ),
    ] = 3,
) -> None:
    """Create a recovery store for `python -m bytewax.run dataflow.flow -r FOLDER -s 10 -b 0`."""
    if find_spec("bytewax") is None:
        raise missing_bytewax()
    if initialize(folder, partitions):
        typer.echo(f"created a recovery store of {partitions} files in {folder}")
    else:
        typer.echo(f"{folder} already holds a recovery store: nothing changed")
