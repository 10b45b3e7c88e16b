"""Any number of instances, each a variation of one of the eight in the sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import numpy as np

from dataflow.demo import sample
from dataflow.demo.sample import PER_DAY, READINGS, START
from dataflow.records import encode

__all__ = ["Fleet"]

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class _Host:
    instance: str
    minute: int
    values: Floats


class Fleet:
    """The streams of a number of instances, made from a seed.

    The first eight are the sample itself. Each further instance repeats one of the eight, shifted
    by whole days and scaled by 0.7 to 1.2, so that their hours of the day agree and their faults
    come at different times.

    >>> fleet = Fleet(10)
    >>> key, record = next(fleet.records(0, 1))
    >>> len(fleet), key, record[:44]
    (10, '0c94e1', b'{"index":0,"timestamp":"2025-03-03 00:00:00"')
    """

    def __init__(self, instances: int, seed: int = sample.SEED) -> None:
        values_of: dict[str, list[float]] = {}
        minutes: dict[str, int] = {}
        for reading in sample.generate(seed).readings:
            values_of.setdefault(reading.instance, []).append(reading.value)
            minutes.setdefault(reading.instance, reading.timestamp.minute)
        random = Random(seed)
        names = sorted(values_of)
        hosts = [
            _Host(name, minutes[name], np.array(values_of[name])) for name in names[:instances]
        ]
        taken = set(names)
        while len(hosts) < instances:
            model = names[len(hosts) % len(names)]
            name = f"{random.randrange(16**6):06x}"
            if name in taken:
                continue
            taken.add(name)
            # A shift by whole weeks would put all faults of a kind on the same day.
            shift = PER_DAY * random.randrange(READINGS // PER_DAY)
            scale = 0.7 + 0.5 * random.random()
            values = np.roll(np.array(values_of[model]) * scale, shift).clip(0, 100).round(3)
            hosts.append(_Host(name, random.randrange(5), values))
        self._hosts = hosts

    def __len__(self) -> int:
        """Return how many instances there are."""
        return len(self._hosts)

    def records(self, first: int, last: int) -> Iterator[tuple[str, bytes]]:
        """Yield the readings `first` to `last - 1` of all instances by time, each with its key.

        After 14 days the values repeat, at later times.
        """
        for index in range(first, last):
            for host in self._hosts:
                time = START + timedelta(minutes=5 * index + host.minute)
                record = {
                    "index": index,
                    "timestamp": f"{time}",
                    "value": float(host.values[index % READINGS]),
                    "instance": host.instance,
                }
                yield host.instance, encode(record)
