"""The order of the tests: so that the processes that run them end at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["LONGEST", "in_shares"]

LONGEST = (
    "test_documents.py",
    "test_faults.py",
    "test_dashboard.py",
    "test_isolation_forest.py",
    "test_incident_flow.py",
    "test_benchmarks.py",
    "test_commands.py",
    "test_notebooks.py",
    "test_make.py",
    "test_guarantee.py",
    "test_source.py",
    "test_feeds.py",
    "test_page_now.py",
    "test_demo_dashboard.py",
    "test_brokers.py",
    "test_outage.py",
    "test_notify_receivers.py",
    "test_notify.py",
    "test_rights.py",
    "test_replay.py",
    "test_reorder.py",
    "test_recovery.py",
    "test_metrics_server.py",
    "test_monitoring.py",
)
"""The files that take longest, the longest first."""

Test = TypeVar("Test")


def in_shares(tests: Sequence[Test], processes: int, file_of: Callable[[Test], str]) -> list[Test]:
    """Return the tests in an order that suits `pytest --dist worksteal`.

    It gives each process an equal number of tests in a row, from which those that are done take
    over the last ones. So each share begins with its part of the longest files, and short tests
    are left for the end. A file stays in one share, for its fixtures.

    >>> tests = ["test_flow.py", "test_faults.py", "test_documents.py", "test_rows.py"]
    >>> in_shares(tests, 2, str)
    ['test_documents.py', 'test_flow.py', 'test_faults.py', 'test_rows.py']
    """
    files: dict[str, list[Test]] = {name: [] for name in LONGEST}
    short: list[Test] = []
    for test in tests:
        files.get(file_of(test), short).append(test)
    shares: list[list[Test]] = [[] for _ in range(processes)]
    to_and_fro = [*range(processes), *reversed(range(processes))]
    for place, file in enumerate(filter(None, files.values())):
        shares[to_and_fro[place % len(to_and_fro)]] += file
    ordered: list[Test] = []
    left = len(tests)
    for place, share in enumerate(shares):
        room = max(left // (processes - place) - len(share), 0)
        ordered += [*share, *short[:room]]
        left -= len(share) + len(short[:room])
        del short[:room]
    return ordered
