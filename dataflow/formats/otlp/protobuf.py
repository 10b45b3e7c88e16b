"""Reads the metrics of OTLP in protobuf.

The numbers of fields are those of opentelemetry/proto/metrics/v1/metrics.proto.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from dataflow.formats.base import MAX_READINGS, RecordError
from dataflow.formats.otlp.metric import Attributes, Metric, Number, Summary, state_in
from dataflow.formats.otlp.wire import (
    BYTES,
    FIXED64,
    VARINT,
    double,
    integer,
    scan,
    time_and_value,
    value_and_time,
    varint,
)

__all__ = ["Known", "from_protobuf", "read_attributes", "state_of"]

KNOWN = 4096
"""Lists of attributes that are remembered."""


class Known:
    """Attributes that were read before, by their bytes: hosts and CPUs are the same each time.

    `names` are those of the metrics to read.
    """

    def __init__(self, names: Container[bytes]) -> None:
        self.of_resources: dict[bytes, Attributes] = {}
        self.of_points: dict[bytes, Attributes] = {}
        self.names = names

    @staticmethod
    def add(known: dict[bytes, Attributes], data: bytes, attributes: Attributes) -> None:
        """Remember the attributes of some bytes."""
        if len(known) >= KNOWN:
            known.clear()
        known[data] = attributes


def from_protobuf(content: bytes, known: Known) -> list[Metric | None]:
    """Read a request, or several with their length before each, as CloudWatch writes them."""
    found: list[Metric | None] = []
    end = len(content)
    try:
        _read_request(content, 0, end, found, known)
        return found
    except ValueError:
        found.clear()
    place = 0
    while place < end:
        size, place = varint(content, place, end)
        if not size or place + size > end:
            raise ValueError("a message is longer than the record")
        _read_request(content, place, place + size, found, known)
        place += size
    return found


def _read_request(
    data: bytes, place: int, end: int, found: list[Metric | None], known: Known
) -> None:
    for number, kind, begin, stop in scan(data, place, end):
        if number != 1 or kind != BYTES:
            raise ValueError("it holds something else than metrics of resources")
        _read_resource(data, begin, stop, found, known)


def _read_resource(
    data: bytes, place: int, end: int, found: list[Metric | None], known: Known
) -> None:
    resource: Attributes = {}
    scopes = []
    for number, kind, begin, stop in scan(data, place, end):
        if kind == BYTES and number == 1:
            written = data[begin:stop]
            before = known.of_resources.get(written)
            if before is None:
                before = read_attributes(data, begin, stop, 1)
                known.add(known.of_resources, written, before)
            resource = before
        elif kind == BYTES and number == 2:
            scopes.append((begin, stop))
    for scope, scope_end in scopes:
        for number, kind, begin, stop in scan(data, scope, scope_end):
            if number == 2 and kind == BYTES:
                found.append(_read_metric(data, begin, stop, resource, known))
                if len(found) > MAX_READINGS:
                    raise RecordError(
                        f"the record holds over {MAX_READINGS:,} readings", "too-many-readings"
                    )


def _read_metric(
    data: bytes, place: int, end: int, resource: Attributes, known: Known
) -> Metric | None:
    name: bytes | None = None
    unit = b""
    bodies = []
    for number, kind, begin, stop in scan(data, place, end):
        if kind != BYTES:
            continue
        if number == 1:
            name = data[begin:stop]
            if name not in known.names:
                return None
        elif number == 3:
            unit = data[begin:stop]
        elif number in (5, 7, 11):  # gauge, sum, summary
            bodies.append((number, begin, stop))
    if name is None:
        return None
    metric = Metric(resource, name.decode(), [], [], unit=unit.decode())
    for body, begin, stop in bodies:
        if body != 11:
            begin, delta = _read_numbers(data, begin, stop, metric.numbers, known.of_points)
            if delta and body == 7:
                metric = metric._replace(delta=True)
        for number, kind, first, last in scan(data, begin, stop):
            if number == 2 and kind == VARINT and body == 7:
                metric = metric._replace(delta=first == 1)
            elif number == 3 and kind == VARINT and body == 7:
                metric = metric._replace(monotonic=first == 1)
            if number != 1 or kind != BYTES:
                continue
            if body == 11:
                metric.summaries.append(_read_summary(data, first, last))
            else:
                metric.numbers.append(_read_number(data, first, last, known))
    return metric


def _read_numbers(
    data: bytes, place: int, end: int, numbers: list[Number], known: dict[bytes, Attributes]
) -> tuple[int, bool]:
    """Read points of known attributes; return where the first other one begins, and what delta is.

    The Collector writes fields from the last to the first: the attributes, the value, the time, and
    perhaps the start. Others write them the other way round.
    """
    delta = False
    while place + 2 < end:
        tag, size = data[place], data[place + 1]
        if size >= 0x80:
            break
        if tag != 0x0A:
            if tag == 0x10:
                delta = size == 1
            elif tag != 0x18:
                break
            place += 2
            continue
        begin, stop = place + 2, place + 2 + size
        if stop > end or size <= 27:
            break
        if data[begin] == 0x3A:
            last = stop - 9 if data[stop - 9] == 0x11 else stop
            if data[last - 9] != 0x19 or data[last - 18] != 0x21:
                break
            attributes = known.get(data[begin : last - 18])
            if attributes is None:
                break
            value, time = value_and_time(data, last - 17)
        else:
            start = begin + 9 if data[begin] == 0x11 else begin
            if data[start] != 0x19 or data[start + 9] != 0x21:
                break
            attributes = known.get(data[start + 18 : stop])
            if attributes is None:
                break
            time, value = time_and_value(data, start + 1)
        numbers.append(Number(time, value, attributes))
        place = stop
    return place, delta


def _read_number(data: bytes, place: int, end: int, known: Known) -> Number:
    time, value, flags = 0, None, 0
    pairs: Attributes = {}
    order = []
    for number, kind, begin, stop in scan(data, place, end):
        order.append(number)
        if kind == FIXED64 and number == 3:
            (time,) = integer(data, begin)
        elif kind == FIXED64 and number == 4:
            (value,) = double(data, begin)
        elif kind == FIXED64 and number == 6:
            value = float(int.from_bytes(data[begin:stop], "little", signed=True))
        elif kind == BYTES and number == 7:
            _add_attribute(data, begin, stop, pairs)
        elif kind == VARINT and number == 8:
            flags = begin
    if order[:1] == [2]:
        order, place = order[1:], place + 9
    elif order[-1:] == [2]:
        order, end = order[:-1], end - 9
    written = None
    if order[:2] == [3, 4] and set(order[2:]) == {7}:
        written = place + 18, end, data[place], data[place + 9]
    elif order[-2:] == [4, 3] and set(order[:-2]) == {7}:
        written = place, end - 18, data[end - 9], data[end - 18]
    if written is not None and written[2:] == (0x19, 0x21):  # tags of one byte
        known.add(known.of_points, data[written[0] : written[1]], pairs)
    return Number(time, None if flags & 1 else value, pairs)


def _read_summary(data: bytes, place: int, end: int) -> Summary:
    time, count, total = 0, 0, 0.0
    pairs: Attributes = {}
    for number, kind, begin, stop in scan(data, place, end):
        if kind == FIXED64 and number == 3:
            (time,) = integer(data, begin)
        elif kind == FIXED64 and number == 4:
            (count,) = integer(data, begin)
        elif kind == FIXED64 and number == 5:
            (total,) = double(data, begin)
        elif kind == BYTES and number == 7:
            _add_attribute(data, begin, stop, pairs)
        elif kind == BYTES and number == 1:  # labels, before version 1.0 of the protocol
            texts = {at: data[a:b].decode() for at, _, a, b in scan(data, begin, stop)}
            pairs[texts.get(1, "")] = texts.get(2, "")
    return Summary(time, count, total, pairs)


def read_attributes(data: bytes, place: int, end: int, field: int) -> Attributes:
    """Return the attributes of a message, which are in the field of this number."""
    pairs: Attributes = {}
    for number, kind, begin, stop in scan(data, place, end):
        if number == field and kind == BYTES:
            _add_attribute(data, begin, stop, pairs)
    return pairs


def state_of(attributes: bytes) -> Any:
    """Return the state of a point by the bytes of its attributes."""
    return state_in(read_attributes(attributes, 0, len(attributes), 7))


def _add_attribute(data: bytes, place: int, end: int, pairs: Attributes) -> None:
    key = ""
    value: Any = None
    for number, kind, begin, stop in scan(data, place, end):
        if number == 1 and kind == BYTES:
            key = data[begin:stop].decode()
        elif number == 2 and kind == BYTES:
            for at, sort, first, last in scan(data, begin, stop):
                if sort == BYTES and at == 1:
                    value = data[first:last].decode()
                elif sort == VARINT and at in (2, 3):
                    value = str(first) if at == 3 else str(bool(first)).lower()
                elif sort == FIXED64 and at == 4:
                    value = str(double(data, first)[0])
                elif sort == BYTES and at == 6:
                    value = read_attributes(data, first, last, 1)
    pairs[key] = value
