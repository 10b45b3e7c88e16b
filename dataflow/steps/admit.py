"""Which instances a process accepts, and whether each comes from one partition only.

A detector's state takes memory for every instance that was ever seen: hostile input, or a key field
that is unique to each record, would fill it. And an instance whose readings come from several
partitions is scored in an order that differs from run to run.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable

from dataflow.metrics import counters
from dataflow.records import Raw, Reading, Rejected
from dataflow.settings import Settings
from dataflow.steps.decode import reject

__all__ = ["admitter"]


def admitter(
    settings: Settings,
    decode: Callable[[Raw], Reading | Rejected],
    warn: Callable[[str], object] | None = None,
) -> Callable[[list[Raw]], list[Reading | Rejected]]:
    """Return `decode` of a batch, limited to the first `max_instances` instances.

    Readings of further instances become rejected records. All workers of the process share the
    instances seen; after a restart the first ones to come are accepted again. `warn` gets one line
    at the first instance above the limit, and one at the first instance that comes from two
    partitions, unless the flow reorders readings. By default it prints on standard error.
    """
    partitions: dict[str, int] = {}
    limit = settings.max_instances
    warned: set[str] = set()
    warn = warn or _print_warning
    lock = threading.Lock()

    def warn_once(kind: str, line: str) -> None:
        with lock:
            if kind in warned:
                return
            warned.add(kind)
        warn(line)

    def admit(batch: list[Raw]) -> list[Reading | Rejected]:
        records = list(map(decode, batch))
        for position, record in enumerate(records):
            try:
                # As a rule, this look-up is all that a reading costs.
                if partitions[record.instance] == record.partition:  # type: ignore[union-attr]
                    continue
            except (KeyError, AttributeError):
                pass
            records[position] = check(batch[position], record)
        return records

    def check(raw: Raw, record: Reading | Rejected) -> Reading | Rejected:
        if isinstance(record, Rejected):
            counters.RECORDS_REFUSED.labels(record.reason).inc()
            return record
        instance = record.instance
        # Two workers may meet the same new instance, or the last free place, at once.
        with lock:
            first = partitions.get(instance)
            if first is None and len(partitions) < limit:
                first = partitions[instance] = record.partition
                counters.INSTANCES.inc()
        if first is None:
            return reject_instance(raw, instance)
        if first != record.partition and not settings.reorder:
            counters.READINGS_SCATTERED.inc()
            warn_once(
                "scattered",
                f"warning: readings of the instance {instance!r} come from partitions {first} and "
                f"{record.partition}, so their order can differ between runs: key records by "
                "instance, or set ANOMALY_REORDER=true.",
            )
        return record

    def reject_instance(raw: Raw, instance: str) -> Rejected:
        reason = "too-many-instances"
        counters.RECORDS_REFUSED.labels(reason).inc()
        warn_once(
            reason,
            f"warning: more than {limit} instances, so readings of further ones, first of "
            f"{instance!r}, are rejected: raise ANOMALY_MAX_INSTANCES if they are real.",
        )
        return reject(
            settings,
            raw,
            reason,
            f"the instance {instance!r} is above the limit of {limit} instances "
            "(ANOMALY_MAX_INSTANCES)",
        )

    return admit


def _print_warning(line: str) -> None:
    with contextlib.suppress(OSError):  # a closed standard error must not end the flow
        print(line, file=sys.stderr, flush=True)
