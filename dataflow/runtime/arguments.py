"""What `python -m bytewax.run` was given."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from bytewax.run import _parse_args

__all__ = ["arguments", "directory"]


def arguments() -> Namespace:
    """Return what `python -m bytewax.run` was given, options and variables, as it reads them."""
    if Path(sys.argv[0]).parts[-2:] == ("bytewax", "run.py"):
        given: Namespace = _parse_args()  # type: ignore[no-untyped-call]
        return given
    return Namespace(
        recovery_directory=os.environ.get("BYTEWAX_RECOVERY_DIRECTORY"),
        process_id=None,
        addresses=None,
    )


def directory() -> Path | None:
    """Return the recovery store that the command line or the environment names."""
    given = arguments().recovery_directory
    return None if given is None else Path(given)
