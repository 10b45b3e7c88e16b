"""What the command line says of recovery: whether a crash will be resumed, and from where."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from pathlib import Path

from bytewax.run import _create_arg_parser

__all__ = ["directory"]


def directory() -> Path | None:
    """Return the recovery store that `python -m bytewax.run` was given, None if none was."""
    if Path(sys.argv[0]).parts[-2:] == ("bytewax", "run.py"):
        # Bytewax's own parser: the option has a short and a long form and a variable.
        parser: ArgumentParser = _create_arg_parser()  # type: ignore[no-untyped-call]
        given: Path | None = parser.parse_known_args(sys.argv[1:])[0].recovery_directory
        return given
    variable = os.environ.get("BYTEWAX_RECOVERY_DIRECTORY")
    return Path(variable) if variable else None
