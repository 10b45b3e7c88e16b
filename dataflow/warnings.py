"""Warnings on standard error: one line each, counted by reason. Prometheus gets the counts.

A warning says that the process goes on, though perhaps not as the person who runs it expects. It
says what is wrong, then what to do.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

__all__ = [
    "PROCESS",
    "REASONS",
    "Reason",
    "Warnings",
    "one_line",
    "say",
    "show",
    "warn",
    "warn_once",
]

Reason: TypeAlias = Literal[
    # The input's records
    "rejected",
    "unusable",
    "interval",
    "scattered",
    "times-backwards",
    "only-grows",
    "shares",
    "too-many-instances",
    # The broker and its topics
    "no-answer",
    "no-records",
    "no-controller",
    "no-coordinator",
    "insecure-connection",
    "lost-input",
    "output-recreated",
    "output-deleted",
    # The file of rules
    "rules",
    # The topic or the file of verdicts
    "verdicts",
    # The machine
    "store-writable",
]
"""What is warned of: a label in Prometheus, so never the name of an instance."""

REASONS: tuple[Reason, ...] = get_args(Reason)


def say(line: str) -> None:
    """Print a line on standard error. A closed or full one must never end the flow."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            # In one piece: lines of several threads must not mix.
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def one_line(text: str) -> str:
    """Return a text with all that is not printable escaped: names and records are foreign text.

    >>> one_line("'web-1' is bad\\n\\x1b[2J")
    "'web-1' is bad\\\\n\\\\x1b[2J"
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


class Warnings:
    """Counts what is warned of, and prints it. Thread-safe.

    >>> lines = []
    >>> warnings = Warnings(lines.append)
    >>> for instance in ("web-1", "web-2"):
    ...     warnings.once("scattered", f"{instance} is on two partitions: key records by instance.")
    >>> lines
    ['warning: web-1 is on two partitions: key records by instance.']
    >>> warnings.counts["scattered"]
    2
    """

    def __init__(self, write: Callable[[str], object] = say) -> None:
        self.counts: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        """Warnings so far, by reason."""
        self._write = write
        self._printed: set[tuple[Reason, str]] = set()
        self._lock = threading.Lock()

    def once(self, reason: Reason, line: str, key: str = "") -> None:
        """Count a warning; print `warning: LINE` if it is the first of its reason and key."""
        self.count(reason)
        with self._lock:
            if (reason, key) in self._printed:
                return
            self._printed.add((reason, key))
        self.print(line)

    def each(self, reason: Reason, line: str) -> None:
        """Count a warning and print `warning: LINE`, for what may come and go."""
        self.count(reason)
        self.print(line)

    def print(self, line: str) -> None:
        """Print `warning: LINE` without counting it."""
        self._write(f"warning: {one_line(line)}")

    def say(self, line: str) -> None:
        """Print a line that is no warning: what was warned of is over."""
        self._write(one_line(line))

    def count(self, reason: Reason, number: int = 1) -> None:
        """Count what needs no line of its own."""
        with self._lock:
            self.counts[reason] += number

    def printed(self, reason: Reason) -> bool:
        """Return whether the line of a reason is out: its text need not be made again."""
        return (reason, "") in self._printed


PROCESS = Warnings()
"""Those of this process."""

warn_once, warn = PROCESS.once, PROCESS.each
show = PROCESS.print
"""For what is counted already, and for `notify` and `dashboard`, which have no such counts."""
