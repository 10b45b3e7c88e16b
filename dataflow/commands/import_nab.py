"""`python -m dataflow import-nab`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from dataflow.commands import new_files
from dataflow.demo.sample import CSV, LABELS
from dataflow.evaluation.datasets import EC2_CPU, convert

__all__ = ["import_nab"]


def import_nab(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A checkout of NAB.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.")],
    files: Annotated[
        str, typer.Option(metavar="GLOB", help="Which files under DIR/data.")
    ] = EC2_CPU,
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ.")] = False,
) -> None:
    """Convert series of a NAB checkout into a stream like the sample.

    Writes `ec2_metrics.csv` and `labels.json` to OUT. An instance has the name of its file, or the
    six digits that end the name of an `ec2_cpu_utilization` file.
    """
    readings, labels = convert(directory, files)
    contents = {
        CSV: readings.to_csv(index=False, lineterminator="\n").encode(),
        LABELS: (json.dumps(labels, indent=1) + "\n").encode(),
    }
    for line in new_files.write(out, contents, force=force):
        typer.echo(line)
    typer.echo(f"{len(readings):,} readings of {len(labels)} instances")
    values = pd.to_numeric(readings["value"], errors="coerce")
    if not values.between(0, 100).all():
        typer.echo("Some values are outside 0 to 100: set ANOMALY_SCALE=none for the flow.")
