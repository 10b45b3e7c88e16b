"""`python -m dataflow cloudwatch`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from dataflow import settings
from dataflow.cloudwatch import plan
from dataflow.cloudwatch.client import Client, Point, TransientError
from dataflow.demo import producer
from dataflow.errors import UserError
from dataflow.inspection import sample
from dataflow.records import Reading, encode
from dataflow.steps import decode
from dataflow.warnings import say

__all__ = ["cloudwatch"]

PARTITIONS = 3


def cloudwatch(
    region: Annotated[
        str | None, typer.Option(help="AWS region. Default: that of AWS's own tools.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Only instances with this tag; may be repeated. VALUE may have `*`.",
        ),
    ] = None,
    period: Annotated[
        int, typer.Option(help="Seconds between two readings: 60 needs detailed monitoring.")
    ] = 300,
    history: Annotated[
        str | None,
        typer.Option(
            help="At the first start, while the topic is empty: write the readings of so long ago, "
            "such as 14d, so that detectors know their instances before the first live reading."
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Poll once and end.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it costs, and end.")
    ] = False,
) -> None:
    """Poll the CPU of EC2 instances from CloudWatch and write it to the input topic, by instance.

    Asks GetMetricData once a period, for the last 15 minutes each time, because data comes late. It
    prints the price first. Started again, it continues where the topic ends; what it writes twice,
    the flow drops.
    """
    if period not in (60, 300, 3600):
        raise UserError("--period must be 60, 300 or 3600, as CloudWatch aggregates EC2's metrics.")
    tags = tag or []
    if not all(name and equals for name, equals, _ in (one.partition("=") for one in tags)):
        raise UserError("--tag must be NAME=VALUE, such as team=web.")
    span = _span(history, period)
    options = settings.load()
    client = Client(region)
    instances = client.instances(tags)
    if not instances:
        raise UserError(
            f"CloudWatch has no CPU of such instances in {client.region}: check --region and --tag."
        )
    now = datetime.now(UTC)
    _print_price(client, len(instances), period, None if span is None else (now - span, now))
    if dry_run:
        return
    if producer.prepare_topic(options, PARTITIONS):
        typer.echo(f"created {options.topic} with {PARTITIONS} partitions")
    written = plan.Written()
    start = _start(options, now, span)
    while True:
        now = datetime.now(UTC)
        began = time.monotonic()
        try:
            instances = client.instances(tags) or instances
            points = client.means(instances, period, (start, now))
            count = producer.send(options, _records(points, written), None, _nothing)
        except TransientError as error:
            say(f"warning: {error}: asking again in {period} s.")
        else:
            typer.echo(f"{now:%H:%M:%S}: {count:,} readings of {len(instances):,} instances")
            start = now - plan.LATE - timedelta(seconds=period)
            written.forget(start)
        if once:
            return
        time.sleep(max(0.0, period - (time.monotonic() - began)))


def _span(history: str | None, period: int) -> timedelta | None:
    if history is None:
        return None
    try:
        span = plan.duration(history)
    except ValueError as error:
        raise UserError(f"--history: {error}.") from None
    if span > plan.kept(period):
        raise UserError(
            f"CloudWatch keeps readings of a period of {period} s for {plan.kept(period).days} "
            "days: give a shorter --history, or a longer --period."
        )
    return span


def _print_price(client: Client, instances: int, period: int, history: plan.Window | None) -> None:
    a_day = plan.dollars(instances, 86_400 / period)
    say(
        f"{instances:,} instances in {client.region}: asking every {period} s costs about "
        f"{a_day:.2f} dollars a day, {30 * a_day:.2f} in 30 days."
    )
    if history is not None:
        calls = plan.calls(instances, history, period)
        say(f"The history takes {calls:,} calls and costs {plan.dollars(instances):.2f} dollars.")


def _start(options: settings.Settings, now: datetime, history: timedelta | None) -> datetime:
    """Return the time from which to ask: the end of the topic, or the beginning of the history."""
    if not producer.stored_records(options):
        return now - (plan.LATE if history is None else history)
    found = decode.decoder(options)(sample.of_topic(options, 200))
    times = [one.time for one in found if isinstance(one, Reading) and one.time is not None]
    if not times:
        return now - plan.LATE
    return min(now, datetime.fromtimestamp(max(times), UTC)) - plan.LATE


def _records(points: Iterable[Point], written: plan.Written) -> Iterator[tuple[str, bytes]]:
    for instance, at, value in points:
        if written.is_new(instance, at):
            yield instance, encode({"instance": instance, "timestamp": at, "value": value})


def _nothing(_: int) -> None:
    pass
