"""Reads what a Collector writes again and again: the same bytes, but for values and times. Pure.

A request of one host has a point for each CPU and each state. Where its length and all bytes in
between are those of a request that was read before, its values and times are where they were, and
`struct` takes all of them out at once, in a fraction of the time of walking through the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from struct import Struct
from typing import Any, NamedTuple, TypeAlias

import msgspec

from dataflow.formats.base import PERCENT, rounded
from dataflow.formats.otlp.wire import BYTES, FIXED64, VARINT, integer, scan

__all__ = ["Share", "Templates"]

MOST = 32_000_000
"""Bytes of requests that are remembered, about."""

INSTANCES = 50_000
"""Resources whose instance is remembered."""

EACH = 4
"""Requests of a length that are remembered."""

MISSES = 64
"""Requests that are learned from and do not come again, before no more are."""

SIZE = 8
"""Bytes of a value, and of a time."""

BODIES = (5, 7, 9, 10, 11)
"""The fields of a metric that hold its points."""


Share: TypeAlias = tuple[int, float, tuple[float, float] | None]
"""CPU at a time in ns: in percent, or 100 where idle and all seconds are counted, which follow."""

Parts = tuple[Any, ...]
Pick = Callable[[Parts], Parts]


class Cpu(msgspec.Struct, frozen=True, gc=False):
    """Which parts of a request are the times and values of a metric.

    A time is one part with the tag that is between it and the value of its point: the byte at
    `tag_at`. `idle` picks the values of idle CPUs, and `counted` all values of a counter; other
    values do not count, and are no parts.
    """

    times: Pick
    time_at: int
    tag_at: int
    tag: int
    idle: Pick
    counted: Pick | None


class Template(msgspec.Struct, frozen=True, gc=False):
    """A request with holes.

    `unpack` returns its parts. Those between the holes, which `between` picks, are `literals`. The
    attributes of the resource are the part `resource`. `metrics` has an entry for each metric of
    the request: None for one that is skipped.
    """

    unpack: Callable[[bytes], Parts]
    between: Pick
    literals: Parts
    resource: int
    metrics: tuple[Cpu | None, ...]


class Templates:
    """Those of a format, by the length of a request."""

    def __init__(self) -> None:
        self._known: dict[int, list[Template]] = {}
        self._instances: dict[bytes, str] = {}
        self._left = MISSES
        self._size = 0

    def read(self, content: bytes) -> tuple[str, list[Share | None]] | None:
        """Return the instance of a request, and what each of its metrics says: None is skipped.

        None if the request is another one than those before.
        """
        for template in self._known.get(len(content), ()):
            parts = template.unpack(content)
            if template.between(parts) == template.literals:
                instance = self._instances.get(parts[template.resource])
                if instance is None:
                    return None
                self._left = MISSES
                shares = _shares(template, parts)
                return None if shares is None else (instance, shares)
        return None

    def learn(
        self, content: bytes, name: Callable[[bytes], str], state: Callable[[bytes], Any]
    ) -> None:
        """Learn from a request that was read with care.

        `name` returns the instance of the attributes of a resource, `state` that of the
        attributes of a point. Both may raise `ValueError`.
        """
        if not self._left:
            return
        try:
            template, resource = _template(content, state)
            instance = name(resource)
        except ValueError:
            self._left -= 1
            return
        if len(self._instances) >= INSTANCES:
            self._instances.clear()
        self._instances[resource] = instance
        if self._size > MOST:
            self._known.clear()
            self._size = 0
        known = self._known.setdefault(len(content), [])
        if all(template.literals != one.literals for one in known):
            self._left -= 1
            self._size += len(content)
            del known[: max(len(known) - EACH + 1, 0)]
            known.append(template)


def _shares(template: Template, parts: Parts) -> list[Share | None] | None:
    """Return what the metrics say; None if one is to be looked at with care."""
    out: list[Share | None] = []
    for metric in template.metrics:
        if metric is None:
            out.append(None)
            continue
        times = metric.times(parts)
        written = times[0]
        if written[metric.tag_at] != metric.tag or times.count(written) != len(times):
            return None
        (time,) = integer(written, metric.time_at)
        if not time:
            return None
        idle = metric.idle(parts)
        if metric.counted is not None:
            out.append((time, PERCENT, (sum(idle), sum(metric.counted(parts)))))
            continue
        total = 0.0
        for share in idle:
            if not 0.0 <= share <= 1.0:
                return None
            total += share
        out.append((time, rounded(PERCENT * (1.0 - total / len(idle))), None))
    return out


class _Hole(NamedTuple):
    """Where a hole of a request begins and ends, and how it is unpacked: no part if by `x`."""

    begin: int
    end: int
    code: str


def _skipped(begin: int, end: int) -> _Hole:
    return _Hole(begin, end, f"{end - begin}x")


class _Point(NamedTuple):
    """Where the value and the time of a point begin, and its state."""

    value: int
    time: int
    state: Any

    def holes(self, *, counter: bool) -> tuple[_Hole, _Hole]:
        """Return the value, and the time with the tag between them. Raises `ValueError`."""
        if abs(self.value - self.time) != SIZE + 1:
            raise ValueError("there is more than a tag between a value and its time")
        begin = min(self.time, self.value + SIZE)
        code = "d" if counter or self.state == "idle" else "8x"
        return _Hole(self.value, self.value + SIZE, code), _Hole(begin, begin + SIZE + 1, "9s")


class _Metric(NamedTuple):
    """A metric of CPU, and its points."""

    name: bytes
    points: list[_Point]

    @property
    def counter(self) -> bool:
        return self.name == TIME

    def holes(self, *, read: bool) -> Iterable[_Hole]:
        """Yield the holes of its points; all of them are skipped if it is not to be read."""
        for point in self.points:
            if read:
                yield from point.holes(counter=self.counter)
            else:
                yield _skipped(point.value, point.value + SIZE)
                yield _skipped(point.time, point.time + SIZE)


UTILIZATION, TIME = b"system.cpu.utilization", b"system.cpu.time"
OTHERS = (b"amazonaws.com/AWS/EC2/CPUUtilization", b"CPUUtilization")


def _template(data: bytes, state: Callable[[bytes], Any]) -> tuple[Template, bytes]:
    """Return the template of a request and the bytes of its resource. Raises `ValueError`."""
    (whole,) = scan(data, 0, len(data))
    resource = (0, 0)
    scopes = []
    for number, kind, begin, end in scan(data, *whole[2:]):
        if kind == BYTES and number == 1:
            resource = begin, end
        elif kind == BYTES and number == 2:
            scopes.append((begin, end))
    if not resource[1]:
        raise ValueError("it has no resource")
    named = _Hole(*resource, f"{resource[1] - resource[0]}s")
    holes = [named]
    metrics = [
        _metric(data, begin, end, holes, state)
        for scope in scopes
        for number, kind, begin, end in scan(data, *scope)
        if number == 2 and kind == BYTES
    ]
    shares = any(one is not None and one.name == UTILIZATION for one in metrics)
    for one in metrics:
        if one is not None:
            holes += one.holes(read=not (shares and one.counter))
    form, between, inside = _layout(holes, len(data))
    unpack, pick = Struct(form).unpack, _picked(between)
    template = Template(
        unpack,
        pick,
        pick(unpack(data)),
        inside[named],
        tuple(
            None if one is None or (shares and one.counter) else _cpu(data, one, inside)
            for one in metrics
        ),
    )
    return template, data[resource[0] : resource[1]]


def _layout(holes: list[_Hole], size: int) -> tuple[str, list[int], dict[_Hole, int]]:
    """Return the form of a request for `struct`, and which parts are between the holes, and in."""
    form, place, part = "<", 0, 0
    between: list[int] = []
    inside: dict[_Hole, int] = {}
    for hole in [*sorted(holes), _Hole(size, size, "0x")]:
        if hole.begin > place:
            form += f"{hole.begin - place}s"
            between.append(part)
            part += 1
        form += hole.code
        if not hole.code.endswith("x"):
            inside[hole] = part
            part += 1
        place = hole.end
    return form, between, inside


def _picked(places: list[int]) -> Pick:
    """Return the function that picks some parts: a tuple, also of one."""
    if len(places) > 1:
        return itemgetter(*places)
    (place,) = places
    return lambda parts: (parts[place],)


def _metric(
    data: bytes,
    place: int,
    end: int,
    holes: list[_Hole],
    state: Callable[[bytes], Any],
) -> _Metric | None:
    """Return a metric of CPU; the points of another one, which is skipped, are added to the holes.

    Raises `ValueError`.
    """
    name = b""
    bodies = []
    for number, kind, begin, stop in scan(data, place, end):
        if kind == BYTES and number == 1:
            name = data[begin:stop]
        elif kind == BYTES and number in BODIES:
            bodies.append((number, begin, stop))
    if name in OTHERS or (name in (UTILIZATION, TIME) and len(bodies) != 1):
        raise ValueError("it is read in another way")
    if name not in (UTILIZATION, TIME):
        holes += [_skipped(begin, stop) for _, begin, stop in bodies]
        return None
    ((body, place, end),) = bodies
    if body not in (5, 7):
        raise ValueError("it has points of another kind")
    points = []
    for number, kind, begin, stop in scan(data, place, end):
        if number == 1 and kind == BYTES:
            points.append(_point(data, begin, stop, state))
        elif body == 7 and number == 2 and (kind != VARINT or begin == 1):
            raise ValueError("the points are differences")
    states = {one.state for one in points}
    if "idle" not in states or None in states or (name == TIME and len(states) < 2):
        raise ValueError("the states are not those of a host")
    return _Metric(name, points)


def _point(data: bytes, place: int, end: int, state: Callable[[bytes], Any]) -> _Point:
    """Return where the value and the time of a point are. Raises `ValueError`."""
    attributes = b""
    values, times = [], []
    before = place
    for number, kind, begin, stop in scan(data, place, end):
        if number == 7 and kind == BYTES:
            attributes += data[before:stop]
        elif number == 3 and kind == FIXED64:
            times.append(begin)
        elif number == 4 and kind == FIXED64:
            values.append(begin)
        elif number != 2 or kind != FIXED64:
            raise ValueError("the point has other fields")
        before = stop
    if len(values) != 1 or len(times) != 1:
        raise ValueError("the point has no value, or no time")
    return _Point(values[0], times[0], state(attributes))


def _cpu(data: bytes, metric: _Metric, inside: dict[_Hole, int]) -> Cpu:
    """Return which parts are the times and values of a metric. Raises `ValueError`."""
    first = metric.points[0]
    tag_at, time_at = (0, 1) if first.value < first.time else (SIZE, 0)
    if any((one.value < one.time) != (first.value < first.time) for one in metric.points):
        raise ValueError("values and times do not take turns")
    holes = [one.holes(counter=metric.counter) for one in metric.points]
    states = [one.state for one in metric.points]
    return Cpu(
        _picked([inside[time] for _, time in holes]),
        time_at,
        tag_at,
        data[holes[0][1].begin + tag_at],
        _picked(
            [inside[value] for (value, _), at in zip(holes, states, strict=True) if at == "idle"]
        ),
        _picked([inside[value] for value, _ in holes]) if metric.counter else None,
    )
