"""`python -m dataflow sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dataflow.commands import new_files
from dataflow.demo.sample import SEED, files

__all__ = ["sample"]


def sample(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("data"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed makes another stream.")] = SEED,
    force: Annotated[bool, typer.Option("--force", help="Write over files that differ.")] = False,
) -> None:
    """Make the sample stream and its labels again, from a seed."""
    for line in new_files.write(out, files(seed), force=force):
        typer.echo(line)
