"""Says loudly when the records of the input are no use: most of the first ones, or all of them."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final

from dataflow.formats.detect import Choice, guess
from dataflow.metrics import counters
from dataflow.records import BadLine, Raw, Reading, Rejected
from dataflow.runtime import shutdown
from dataflow.settings import Settings
from dataflow.steps.decode import choice, shown
from dataflow.warnings import PROCESS, Warnings

__all__ = ["USABLE", "Usable", "end_loudly"]

FIRST = 100
"""Records after which it is decided whether they can be used."""

REASON: Final = "unusable"

INSPECT = "run `python -m dataflow inspect`, which says what they are"


class Usable:
    """Counts the first records that can be used. Thread-safe.

    >>> lines = []
    >>> usable = Usable()
    >>> raw = Raw(0, 0, b"cpu,cpu=cpu-total,host=a usage_idle=58.5 1741449600000000000")
    >>> settings = Settings(_env_file=None, format="json")
    >>> usable.look(settings, [raw] * 100, [Rejected("not-json", "it is text", None, None)] * 100,
    ...             Warnings(lines.append))
    >>> lines[0].partition("they look like ")[2]
    'telegraf: set ANOMALY_FORMAT=telegraf, or run `python -m dataflow inspect`.'
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reasons: Counter[str] = Counter()
        self._refused: list[bytes | None] = []
        self._sentence = ""
        self._said = False
        self.records = 0
        """Records so far; not counted any more once some were read."""
        self.readings = 0
        """Readings so far; not counted any more once there are some."""
        self.done = False
        """Whether nothing more is to be looked at."""

    def look(
        self,
        settings: Settings,
        batch: Sequence[Raw],
        found: Sequence[Reading | Rejected],
        warnings: Warnings = PROCESS,
    ) -> None:
        """Take a batch of records and what was read of them."""
        with self._lock:
            if self.done:
                return
            self.records += len(batch)
            for one in found:
                if isinstance(one, Rejected):
                    self._reasons[one.reason] += 1
                    self._sentence = self._sentence or one.error
                else:
                    self.readings += 1
            if any(isinstance(one, Rejected) for one in found):
                known = [raw.value for raw in batch if not isinstance(raw, BadLine)]
                self._refused += known[: FIRST - len(self._refused)]
            if self.records < FIRST:
                return
            # Until something is read, nothing may ever be.
            self.done = self.readings > 0
            rejected = self._reasons.total()
            said, self._said = self._said, True
        if said:
            return
        if rejected > self.readings:
            reasons = ", ".join(f"{name}: {count:,}" for name, count in self._reasons.most_common())
            warnings.once(
                REASON,
                f"{rejected:,} of the first {self.records:,} records cannot be used ({reasons}): "
                f"{self.help(settings)}.",
            )
        elif not self.readings:
            warnings.once(
                REASON,
                f"the first {self.records:,} records hold none of the metrics in ANOMALY_METRICS "
                f"({', '.join(settings.metrics)}): run `python -m dataflow inspect`.",
            )

    def help(self, settings: Settings) -> str:
        """Return what would help to read the records, of which some or all were rejected."""
        if not self._reasons:
            return "they hold no CPU that is read, only other metrics: docs/feeds.md says which is"
        free = settings.model_copy(update={"format": "auto"})
        found: Choice | None = choice(free, self._refused, sure=False) or guess(self._refused)
        # With `auto`, whatever is sure has been tried.
        other = found is not None and found.format not in (settings.format, "json")
        named = found is not None and found.format == "json" != settings.format != "auto"
        if found is not None and found.sure and settings.format == "auto":  # it was taken
            return f"they look like {found.format}, but {self._sentence}"
        if found is None or not (other or named or found.settings):
            return INSPECT
        what = shown(found).replace(f"{found.format}, with ", f"ANOMALY_FORMAT={found.format} ", 1)
        if not found.settings:
            what = f"ANOMALY_FORMAT={what}"
        return f"they look like {found.format}: set {what}, or run `python -m dataflow inspect`"


USABLE = Usable()
"""The records of this process."""


def end_loudly(settings: Settings) -> None:
    """End this process with status 1 if it has read a whole input and used nothing of it.

    Not if the input is read on later, or by other processes too.
    """

    def check() -> None:
        read = sum(
            int(one.value) for family in counters.RECORDS_READ.collect() for one in family.samples
        )
        if not read or USABLE.readings or shutdown.asked():
            return
        print(
            f"error: none of the {read:,} records of {settings.source_name} could be used: "
            f"{USABLE.help(settings)}.",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        os._exit(1)

    if settings.input != "kafka" or not settings.follow:
        atexit.register(check)
