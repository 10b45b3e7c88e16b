"""`python -m dataflow broker`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from dataflow.demo.broker import EmbeddedBroker

__all__ = ["broker"]


def broker(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 selects a free one.")] = 9092,
    data_dir: Annotated[Path, typer.Option(help="Folder for the topics' data.")] = Path(
        ".anomaly/broker"
    ),
) -> None:
    """Run the embedded broker on 127.0.0.1 until Ctrl-C. For demos and tests, not production."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with EmbeddedBroker(data_dir, port) as embedded:
        typer.echo(f"broker on {embedded.address}, data in {data_dir}; Ctrl-C to stop")
        sys.stdout.flush()
        embedded.wait()
    sys.exit(f"error: The embedded broker stopped: see {data_dir / 'broker.log'}.")
