"""`python -m dataflow dashboard`."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer

from dataflow import settings
from dataflow.errors import UserError, missing_extra
from dataflow.records import seconds
from dataflow.verdicts import store

if TYPE_CHECKING:
    from dataflow.dashboard.feed import Feed

__all__ = ["KEEP", "dashboard", "feed_of", "show"]

KEEP = 2016
"""A week of readings five minutes apart."""

_UNITS = {"m": 60, "h": 3600, "d": 86_400}


def dashboard(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all interfaces.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 selects a free one.")] = 5006,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Further name under which browsers open the page, such as a proxy's: "
            "`metrics.example.org`, `https://metrics.example.org:8443`. Repeatable.",
        ),
    ] = None,
    keep: Annotated[
        int, typer.Option(min=10, max=1_000_000, help="Readings to keep for each instance.")
    ] = KEEP,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Read the topics from this time on: `6h`, `7d` or a time. Default: their "
            "beginning.",
        ),
    ] = None,
    verdicts: Annotated[
        bool,
        typer.Option(
            "--verdicts",
            help="Let viewers say that an anomaly was fine: the page writes to ANOMALY_VERDICTS. "
            "Whoever can open the page can.",
        ),
    ] = False,
) -> None:
    """Show readings and anomalies live in a browser, until Ctrl-C.

    It reads what the flow's settings name: ANOMALY_INPUT, and the anomalies in
    ANOMALY_ANOMALIES_TOPIC or in the .jsonl file of ANOMALY_OUTPUT.
    """
    options = settings.load()
    feed = feed_of(options, keep, None if since is None else _moment(since))
    if verdicts:
        store.prove(options)
        feed.verdicts = True
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    show(feed, host, port, origin or [])


def show(feed: Feed, host: str, port: int, origins: list[str]) -> None:
    """Serve the pages of a feed until Ctrl-C. Raises `UserError` if it cannot listen."""
    from dataflow.dashboard.server import serve

    server = serve(feed, host, port, origins)
    feed.start()
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    typer.echo(f"dashboard http://{shown}:{server.port}/ (Ctrl-C to stop)")
    loop = server.io_loop
    for stop in (signal.SIGINT, signal.SIGTERM):
        loop.asyncio_loop.add_signal_handler(stop, loop.stop)
    try:
        loop.start()
    finally:
        feed.stop()
        server.stop()


def feed_of(options: settings.Settings, keep: int, since: float | None) -> Feed:
    """Return the feed of the pages. Raises `UserError` if the input or an extra is missing."""
    try:
        import panel  # noqa: F401
    except ModuleNotFoundError:
        raise missing_extra("The dashboard", "dashboard") from None
    from dataflow.dashboard.feed import FileFeed
    from dataflow.dashboard.kafka_feed import KafkaFeed

    if options.input != "kafka":
        if since is not None:
            raise UserError(
                "--since applies to topics only: remove it, a file is read from its beginning."
            )
        return FileFeed(options, keep)
    kafka_feed = KafkaFeed(options, keep, since)
    kafka_feed.prove()
    return kafka_feed


def _moment(text: str) -> float:
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text.strip())
    if ago:
        return time.time() - float(ago[1]) * _UNITS[ago[2]]
    try:
        return seconds(text)
    except (ValueError, OverflowError):
        raise UserError(
            f"--since {text} is not a time: use `90m`, `6h`, `7d`, or 2025-03-14T16:00."
        ) from None
