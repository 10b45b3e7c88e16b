"""`python -m dataflow sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dataflow.commands import new_files
from dataflow.demo.sample import SEED, files

__all__ = ["sample"]


def sample(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("data"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the stream.")] = SEED,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that differ.")] = False,
) -> None:
    """Generate the sample stream and its labels from a seed."""
    for line in new_files.write(out, files(seed), force=force):
        typer.echo(line)
