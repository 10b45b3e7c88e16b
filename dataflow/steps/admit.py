"""Which instances a process takes, and whether each comes on one partition only.

A detector's state costs memory for every instance there ever was: hostile input, or a key field
that is unique to each record, would fill it. And an instance whose readings lie on several
partitions is scored in an order that differs from run to run.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from dataflow.metrics import counters
from dataflow.metrics.counters import ADMITTED, AdmissionCounts
from dataflow.records import Raw, Reading, Rejected
from dataflow.settings import Settings
from dataflow.steps.decode import reject

__all__ = ["admitter"]


def admitter(
    settings: Settings,
    decode: Callable[[Raw], Reading | Rejected],
    counts: AdmissionCounts = ADMITTED,
    say: Callable[[str], object] | None = None,
) -> Callable[[list[Raw]], list[Reading | Rejected]]:
    """Return `decode` of batches with a bound: the first `max_instances` instances pass, no others.

    What it has seen it keeps for the life of the process, for all workers, and no longer: after a
    restart the first instances to come are taken again. It says one line the first time that it
    refuses one, and one the first time that an instance comes on two partitions, unless the flow
    puts readings into order.
    """
    partitions: dict[str, int] = {}
    most = settings.max_instances
    warned: set[str] = set()
    say = say or _say

    def once(kind: str, line: str) -> None:
        if kind not in warned:
            warned.add(kind)
            say(line)

    def admit(batch: list[Raw]) -> list[Reading | Rejected]:
        records = list(map(decode, batch))
        for at, record in enumerate(records):
            try:
                # One look-up is all that a reading costs as a rule.
                if partitions[record.instance] == record.partition:  # type: ignore[union-attr]
                    continue
            except (KeyError, AttributeError):
                pass
            records[at] = look(batch[at], record)
        return records

    def look(raw: Raw, record: Reading | Rejected) -> Reading | Rejected:
        if isinstance(record, Rejected):
            counters.worker().refuse(record.reason)
            return record
        instance = record.instance
        first = partitions.get(instance)
        if first is not None:
            if not settings.reorder:
                counts.scattered += 1
                once(
                    "scattered",
                    f"warning: the instance {instance!r} comes on the partitions {first} and "
                    f"{record.partition}, so its readings have no certain order: write them keyed "
                    "by instance, or set ANOMALY_REORDER=true.",
                )
            return record
        if len(partitions) < most:
            partitions[instance] = record.partition
            counts.instances += 1
            return record
        counts.refused += 1
        counters.worker().refuse("too-many-instances")
        once(
            "refused",
            f"warning: more than {most} instances: the readings of further ones, first of "
            f"{instance!r}, are refused; set ANOMALY_MAX_INSTANCES if they are real.",
        )
        return reject(
            settings,
            raw,
            "too-many-instances",
            f"the instance {instance!r} is one more than the {most} that ANOMALY_MAX_INSTANCES "
            "allows",
        )

    return admit


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a warning that nobody reads must not end the flow
        print(line, file=sys.stderr, flush=True)
