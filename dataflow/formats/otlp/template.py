"""Reads what a Collector writes again and again: the same bytes, but for values and times. Pure.

A request of one host has a point for each CPU and each state. Where its length and all bytes in
between are those of a request that was read before, its values and times are where they were, and
`struct` takes all of them out at once, in a fraction of the time of walking through the message.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from struct import Struct
from typing import Any, NamedTuple

from dataflow.formats.base import DIGITS, PERCENT, Point
from dataflow.formats.otlp.wire import BYTES, FIXED64, VARINT, scan

__all__ = ["Templates"]

MOST = 32_000_000
"""Bytes of requests that are remembered, about."""

INSTANCES = 50_000
"""Resources whose instance is remembered."""

EACH = 4
"""Requests of a length that are remembered."""

MISSES = 64
"""Requests that are learned from and do not come again, before no more are."""

BODIES = (5, 7, 9, 10, 11)
"""The fields of a metric that hold its points."""


class Cpu(NamedTuple):
    """Where the values of a metric are among the holes, and which of them are of idle CPUs."""

    counter: bool
    values: slice
    times: slice
    idle: tuple[int, ...]


class Template(NamedTuple):
    """A request with holes: `literals` are the bytes before, between and after them.

    `metrics` has an entry for each metric of the request: None for one that is skipped.
    """

    unpack: Callable[[bytes], tuple[Any, ...]]
    literals: tuple[bytes, ...]
    resource: int
    metrics: tuple[Cpu | None, ...]


class Templates:
    """Those of a format, by the length of a request."""

    def __init__(self) -> None:
        self._known: dict[int, list[Template]] = {}
        self._instances: dict[bytes, str] = {}
        self._left = MISSES
        self._size = 0

    def read(self, content: bytes) -> list[Point | None] | None:
        """Return the points of a request, None if it is another one than those before."""
        for template in self._known.get(len(content), ()):
            parts = template.unpack(content)
            if parts[::2] == template.literals:
                holes = parts[1::2]
                instance = self._instances.get(holes[template.resource])
                if instance is None:
                    return None
                self._left = MISSES
                return _points(template, holes, instance)
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


def _points(template: Template, holes: tuple[Any, ...], instance: str) -> list[Point | None] | None:
    """Return the points; None if one is to be looked at with care."""
    out: list[Point | None] = []
    for metric in template.metrics:
        if metric is None:
            out.append(None)
            continue
        times, values = holes[metric.times], holes[metric.values]
        time = times[0]
        if not time or times.count(time) != len(times):
            return None
        idle = [values[place] for place in metric.idle]
        total = sum(idle)
        if metric.counter:
            out.append(Point(instance, PERCENT, time, counter=(total, sum(values))))
        elif -math.inf < total < math.inf and min(idle) >= 0.0 and max(idle) <= 1.0:
            mean = total / len(idle)
            out.append(Point(instance, round(PERCENT * (1.0 - mean), DIGITS), time))
        else:
            return None
    return out


class _Metric(NamedTuple):
    """A metric that is read: its first hole, and for each point its state."""

    name: bytes
    begin: int
    states: list[Any]


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
    holes: list[tuple[int, int, str]] = [(*resource, f"{resource[1] - resource[0]}s")]
    metrics = [
        _metric(data, begin, end, holes, state)
        for scope in scopes
        for number, kind, begin, end in scan(data, *scope)
        if number == 2 and kind == BYTES
    ]
    ordered = sorted(holes)
    place, form = 0, "<"
    for begin, end, code in ordered:
        form += f"{begin - place}s{code}"
        place = end
    form += f"{len(data) - place}s"
    unpack = Struct(form).unpack
    shares = any(one is not None and one.name == UTILIZATION for one in metrics)
    template = Template(
        unpack,
        unpack(data)[::2],
        ordered.index(holes[0]),
        tuple(
            None if one is None or (shares and one.name == TIME) else _cpu(one, ordered)
            for one in metrics
        ),
    )
    return template, data[resource[0] : resource[1]]


def _metric(
    data: bytes,
    place: int,
    end: int,
    holes: list[tuple[int, int, str]],
    state: Callable[[bytes], Any],
) -> _Metric | None:
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
        holes += [(begin, stop, f"{stop - begin}s") for _, begin, stop in bodies]
        return None
    ((body, place, end),) = bodies
    if body not in (5, 7):
        raise ValueError("it has points of another kind")
    metric = _Metric(name, place, [])
    for number, kind, begin, stop in scan(data, place, end):
        if number == 1 and kind == BYTES:
            metric.states.append(state(_point(data, begin, stop, holes)))
        elif body == 7 and number == 2 and (kind != VARINT or begin == 1):
            raise ValueError("the points are differences")
    states = set(metric.states)
    if "idle" not in states or None in states or (name == TIME and len(states) < 2):
        raise ValueError("the states are not those of a host")
    return metric


def _point(data: bytes, place: int, end: int, holes: list[tuple[int, int, str]]) -> bytes:
    """Add the value and the time of a point to the holes; return its attributes."""
    attributes = b""
    found = []
    before = place
    for number, kind, begin, stop in scan(data, place, end):
        found.append(number)
        if number == 7 and kind == BYTES:
            attributes += data[before:stop]
        elif number == 3 and kind == FIXED64:
            holes.append((begin, stop, "Q"))
        elif number == 4 and kind == FIXED64:
            holes.append((begin, stop, "d"))
        elif number != 2 or kind != FIXED64:
            raise ValueError("the point has other fields")
        before = stop
    if found.count(3) != 1 or found.count(4) != 1:
        raise ValueError("the point has no value, or no time")
    return attributes


def _cpu(metric: _Metric, ordered: list[tuple[int, int, str]]) -> Cpu:
    """Return where the values and times of a metric are: they take turns."""
    first = next(at for at, (begin, *_) in enumerate(ordered) if begin > metric.begin)
    last = first + 2 * len(metric.states)
    codes = "".join(code for *_, code in ordered[first:last])
    values = 0 if codes[0] == "d" else 1
    if codes != codes[:2] * len(metric.states) or set(codes) != set("dQ"):
        raise ValueError("values and times do not take turns")
    return Cpu(
        metric.name == TIME,
        slice(first + values, last, 2),
        slice(first + 1 - values, last, 2),
        tuple(at for at, one in enumerate(metric.states) if one == "idle"),
    )
