"""Notices readings of an instance whose times run backwards: their order changes the scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dataflow.records import Reading
from dataflow.warnings import PROCESS, Warnings

__all__ = ["Backwards", "backwards"]

Backwards = Callable[[Reading], None]
"""Called with each reading that is older than the one before it."""

REASON: Final = "times-backwards"


def backwards(reorder: bool, warnings: Warnings = PROCESS) -> Backwards:
    """Return the function that counts such readings, and warns of the first.

    `reorder` says whether the flow puts readings into order, as far as it is set to.
    """
    what_to_do = (
        "raise ANOMALY_REORDER_SIZE or ANOMALY_REORDER_SECONDS"
        if reorder
        else "write them in order, or set ANOMALY_REORDER=true"
    )

    def warn(reading: Reading) -> None:
        if warnings.printed(REASON):
            warnings.count(REASON)
            return
        warnings.once(
            REASON,
            f"the times of the instance {reading.instance!r} run backwards, first at "
            f"{reading.timestamp!r} (partition {reading.partition}, offset {reading.offset}), and "
            f"its scores depend on the order: {what_to_do}.",
        )

    return warn
