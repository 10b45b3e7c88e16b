"""As many instances as are wanted, each like one of the sample's eight, and not quite."""

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
    """The streams of so many instances, decided by a seed.

    Up to eight are the sample itself. Of more, each lives the life of one of the eight, some whole
    days later and on a smaller or larger machine, so that their days agree and their faults do not
    come at once.

    >>> fleet = Fleet(10)
    >>> key, record = next(fleet.records(0, 1))
    >>> len(fleet), key, record[:44]
    (10, '0c94e1', b'{"index":0,"timestamp":"2025-03-03 00:00:00"')
    """

    def __init__(self, instances: int, seed: int = sample.SEED) -> None:
        lives: dict[str, list[float]] = {}
        minutes: dict[str, int] = {}
        for reading in sample.generate(seed).readings:
            lives.setdefault(reading.instance, []).append(reading.value)
            minutes.setdefault(reading.instance, reading.timestamp.minute)
        random = Random(seed)
        names = sorted(lives)
        hosts = [_Host(name, minutes[name], np.array(lives[name])) for name in names[:instances]]
        taken = set(names)
        while len(hosts) < instances:
            like = names[len(hosts) % len(names)]
            name = f"{random.randrange(16**6):06x}"
            if name in taken:
                continue
            taken.add(name)
            # Whole weeks would put every fault of a kind on one day; whole days mix the weekends.
            later = PER_DAY * random.randrange(READINGS // PER_DAY)
            size = 0.7 + 0.5 * random.random()
            values = np.roll(np.array(lives[like]) * size, later).clip(0, 100).round(3)
            hosts.append(_Host(name, random.randrange(5), values))
        self._hosts = hosts

    def __len__(self) -> int:
        """Return how many instances there are."""
        return len(self._hosts)

    def records(self, first: int, last: int) -> Iterator[tuple[str, bytes]]:
        """Yield the readings `first` to `last - 1` of all, by time, each with its key.

        After fourteen days life begins anew, at later times.
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
