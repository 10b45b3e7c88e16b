"""What `notify` has done, one line each, on standard output."""

from __future__ import annotations

import contextlib
import sys

from dataflow.warnings import one_line

__all__ = ["log"]


def log(line: str) -> None:
    """Print a line in one piece: those of several threads must not mix.

    A closed or full output must not end the delivery.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(f"{one_line(line)}\n")
        sys.stdout.flush()
