"""Up to which time all records have come, where partitions are read one after the other."""

from __future__ import annotations

import math

from dataflow.incidents.watermark import BLOCKED, IDLE, PASSES, Watermark


class Broker:
    """Says of each partition whether it is known that all of it was read."""

    def __init__(self) -> None:
        self.ends: dict[int, bool] = {}

    def is_read(self, partition: int, since: float) -> bool:
        return self.ends.get(partition, False)


def test_a_partition_that_is_not_read_yet_is_waited_for() -> None:
    """A flow that is behind reads one partition for longer than the others may be idle."""
    broker = Broker()
    watermark = Watermark(0.0, [0, 1], broker.is_read)
    for now in range(1, 200):
        watermark.mark(0, 1000.0 + now, float(now))
    assert watermark.until(199.0) == -math.inf
    # Nor does the clock decide before.
    assert watermark.until(199.0 + IDLE + 1) == -math.inf
    watermark.mark(1, 1050.0, 300.0)
    watermark.mark(0, 1400.0, 301.0)
    watermark.mark(1, 1090.0, 302.0)
    watermark.mark(1, 1500.0, 303.0)
    assert watermark.until(303.0) == 1090.0


def test_a_partition_whose_records_are_all_read_is_not() -> None:
    broker = Broker()
    watermark = Watermark(0.0, [0, 1], broker.is_read)
    broker.ends = {1: True}
    read = None
    for now in range(1, 60):
        watermark.mark(0, 1000.0 + now, float(now))
        if watermark.until(float(now)) > 0 and read is None:
            read = now
    assert read == IDLE
    # It was read just now: what was read may still be on its way.
    broker.ends = {1: False}
    watermark.mark(0, 2000.0, 60.0)
    watermark.mark(0, 2001.0, 61.0)
    before = watermark.until(61.0)
    broker.ends = {1: True}
    watermark.mark(0, 2002.0, 62.0)
    watermark.mark(0, 2003.0, 62.0 + PASSES - 1)
    assert watermark.until(62.0 + PASSES - 1) == before
    watermark.mark(0, 2004.0, 62.0 + PASSES)
    assert watermark.until(62.0 + PASSES) == 2003.0


def test_the_clock_decides_once_all_is_read() -> None:
    broker = Broker()
    watermark = Watermark(0.0, [0, 1], broker.is_read)
    for partition in (0, 1):
        watermark.mark(partition, 1000.0, 0.0)
    broker.ends = {0: True, 1: False}
    assert watermark.until(IDLE + 10) == -math.inf
    broker.ends = {0: True, 1: True}
    assert watermark.until(IDLE + 20) == -math.inf
    assert watermark.until(IDLE + 20 + PASSES) == 1000.0 + 20 + PASSES


def test_a_partition_that_cannot_be_read_holds_nothing_up_for_ever() -> None:
    watermark = Watermark(0.0, [0, 1], Broker().is_read)
    for now in (BLOCKED - 2, BLOCKED - 1, BLOCKED):
        assert watermark.until(now) == -math.inf
        watermark.mark(0, 1000.0 + now, now)
    assert watermark.until(BLOCKED) == 1000.0 + BLOCKED - 1
