"""Which instances a process accepts, and whether each comes from one partition only.

A detector's state takes memory for every instance: hostile input, or a key field that is unique to
each record, would fill it. And an instance whose readings come from several partitions is scored in
an order that differs from run to run.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final

import msgspec

from dataflow.formats.base import Decode
from dataflow.metrics import counters
from dataflow.records import Raw, Reading, Rejected, key_of
from dataflow.settings import Settings
from dataflow.steps.decode import in_percent, reject
from dataflow.steps.growth import BOUNDED, READINGS, OnlyGrows, grown_warning
from dataflow.steps.living import DAY, Living
from dataflow.steps.rejections import Rejections
from dataflow.steps.shares import Shares, shares_warning
from dataflow.steps.usable import USABLE, Usable
from dataflow.warnings import PROCESS, Warnings

__all__ = ["Admission", "admitter", "period"]

TOO_MANY: Final = "too-many-instances"

_offset = attrgetter("offset")


def period(settings: Settings) -> float:
    """Return the seconds after which is looked who has sent nothing; 0 if it does not matter."""
    # Several readings of an instance must fall into it.
    return max(min(DAY, settings.forget), 10 * settings.interval) if settings.forget else 0.0


def admitter(
    settings: Settings,
    decode: Decode,
    warn: Callable[[str], object] | None = None,
) -> Admission:
    """Return `decode` of a batch, limited to `max_instances` instances that send.

    Readings of further instances become rejected records. All workers of the process share the
    instances seen; after a restart the first ones to come are accepted anew. An instance that has
    sent nothing for one or two days, by the times of the readings, makes room for another one.

    `warn` gets a line for the first rejected record of each reason, one at the first instance above
    the limit, and one at the first instance that comes from two partitions, unless the flow
    reorders readings. By default it prints on standard error.
    """
    return Admission(settings, decode, PROCESS if warn is None else Warnings(warn))


class Admission:
    """The function that `admitter` describes, and what it knows of the instances."""

    def __init__(
        self,
        settings: Settings,
        decode: Decode,
        warnings: Warnings,
    ) -> None:
        self._settings = settings
        self._decode = decode
        self._warnings = warnings
        self._rejections = Rejections(settings, warnings)
        self._usable = USABLE if warnings is PROCESS else Usable()
        self._lock = threading.Lock()
        self._living = Living(settings.max_instances, period(settings), settings.forget)
        self._several = settings.several_metrics
        self._forgotten: dict[int, list[str]] = {}
        self._grows = OnlyGrows(
            grown_warning(settings, warnings), READINGS if settings.scale is None else BOUNDED
        )
        self._shares = Shares()
        self._shares.done = settings.scale is None or settings.scale <= 1.0

    def __call__(self, batch: list[Raw]) -> list[Reading | Rejected]:
        """Decode a batch, of one partition as sources give it."""
        records = self._decode(batch)
        if not self._usable.done:
            self._usable.look(self._settings, batch, records, self._warnings)
        partitions = self._living.recent
        kept = -1
        several = self._several
        for position, record in enumerate(records):
            try:
                # As a rule, this look-up is all that a reading costs.
                name = key_of(record) if several else record.instance  # type: ignore[arg-type]
                if partitions[name] == record.partition:  # type: ignore[union-attr, index]
                    continue
            except (KeyError, AttributeError):
                pass
            records[position] = checked = self._check(batch, record, kept)
            if checked is not record:
                kept = record.offset  # type: ignore[union-attr]  # a reading of too many instances
        if records:
            # Two of a batch tell the time well enough.
            self._pass_time(records[len(records) // 2])
            self._pass_time(records[-1])
        return records

    @property
    def looks(self) -> bool:
        """Whether `look` still has something to look for."""
        return not (self._grows.done and self._shares.done)

    def look(self, groups: list[tuple[str, list[Reading]]]) -> None:
        """Look at the readings of a batch, by instance: they may be counters, or shares of 1."""
        if not self._grows.done:
            self._grows.look(groups)
        if not self._shares.done:
            self._shares.look(groups)
            if self._shares.found and not in_percent(self._settings, self._decode):
                self._warnings.once("shares", shares_warning(self._settings))

    def _pass_time(self, record: Reading | Rejected) -> None:
        """Note how far the times of the readings have come."""
        if isinstance(record, Rejected) or record.time is None:
            return
        partition = record.partition
        with self._lock:
            before = self._living.size
            # Not by the key: all metrics of an instance have its clock, which may be wrong.
            if self._living.passed(partition, record.instance, record.time):
                counters.INSTANCES.dec(before - self._living.size)
                forgotten = self._living.forgotten(partition)
                if forgotten:
                    self._forgotten.setdefault(partition, []).extend(forgotten)

    def forgotten(self, readings: Sequence[Reading]) -> list[str]:
        """Return the keys whose states are to be discarded before these readings.

        They have sent nothing for `forget` seconds. The worker that reads their partition calls
        this after each batch, so that they are discarded at the same place of the partition's
        readings.
        """
        # As a rule there are none, and looking costs nothing.
        if not self._forgotten:
            return []
        # As a rule they are of one partition; Bytewax may put several together.
        partitions = dict.fromkeys(reading.partition for reading in readings)
        return [key for number in partitions for key in self._forgotten.pop(number, [])]

    def _check(self, batch: list[Raw], record: Reading | Rejected, kept: int) -> Reading | Rejected:
        """Return a record that may pass, or its rejection; `kept` is the offset of kept bytes."""
        if isinstance(record, Rejected):
            counters.RECORDS_REFUSED.labels(record.reason).inc()
            self._rejections.add(record)
            return record
        instance = record.instance
        # Two workers may meet the same new instance, or the last free place, at once.
        with self._lock:
            before = self._living.size
            first = self._living.admit(key_of(record), record.partition)
            if self._living.size > before:
                counters.INSTANCES.inc()
        if first is None:
            return self._reject_instance(batch, record, record.offset == kept)
        if first != record.partition and not self._settings.reorder:
            counters.READINGS_SCATTERED.inc()
            self._warnings.once(
                "scattered",
                f"readings of the instance {instance!r} come from partitions {first} and "
                f"{record.partition}, so their order can differ between runs: key records by "
                "instance, or set ANOMALY_REORDER=true.",
            )
        return record

    def _reject_instance(self, batch: list[Raw], reading: Reading, kept: bool) -> Rejected:
        instance = reading.instance
        limit = self._settings.max_instances
        counters.RECORDS_REFUSED.labels(TOO_MANY).inc()
        self._warnings.once(
            TOO_MANY,
            f"more than {limit} instances send, so readings of further ones, such as "
            f"{instance!r}, are rejected: raise ANOMALY_MAX_INSTANCES if they are real.",
        )
        raw = batch[bisect_left(batch, reading.offset, key=_offset)]
        if kept:  # the bytes of a record are kept once
            raw = Raw(raw.partition, raw.offset, None)
        rejected = reject(
            self._settings,
            raw,
            TOO_MANY,
            f"the instance {instance!r} is above the limit of {limit} instances "
            "(ANOMALY_MAX_INSTANCES)",
        )
        if not reading.number:
            return rejected
        source = msgspec.structs.replace(rejected.source, number=reading.number)
        return msgspec.structs.replace(rejected, source=source)
