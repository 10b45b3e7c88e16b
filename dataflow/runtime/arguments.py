"""The arguments of `python -m bytewax.run`, which Bytewax does not pass on to the flow.

Checked with Bytewax `CHECKED_WITH`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["Arguments", "arguments"]


class Arguments(NamedTuple):
    """What the flow reads of Bytewax's arguments.

    `recovery_directory` is the folder of the recovery store. `process_id` and `addresses` are set
    in a cluster of several processes.
    """

    recovery_directory: Path | None
    process_id: int | None
    addresses: str | None


def arguments() -> Arguments:
    """Return the arguments, from the command line or the environment, as Bytewax reads them.

    In a process that `python -m bytewax.run` did not start, only the recovery store is known.
    """
    if Path(sys.argv[0]).parts[-2:] == ("bytewax", "run.py"):
        # Here, because the rest works without Bytewax.
        from bytewax.run import _parse_args

        parsed = _parse_args()  # type: ignore[no-untyped-call]
        folder, process_id, addresses = (getattr(parsed, name) for name in Arguments._fields)
    else:
        folder, process_id, addresses = os.environ.get("BYTEWAX_RECOVERY_DIRECTORY"), None, None
    return Arguments(None if folder is None else Path(folder), process_id, addresses)
