"""Warnings for the person who runs the flow: one line each, once per reason, and counted."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable

from dataflow.metrics import counters

__all__ = ["Warnings", "count", "one_line", "say", "warn_once"]


def say(line: str) -> None:
    """Print a line on standard error. A closed or full one must never end the flow."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


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
    """Counts what is warned of, and prints the first line of each reason. Thread-safe.

    A reason is one of a few fixed words, because it is a label in Prometheus: `times-backwards`,
    never the name of an instance.

    >>> lines = []
    >>> warnings = Warnings(lines.append)
    >>> for instance in ("web-1", "web-2"):
    ...     warnings.once("example", f"{instance} is odd: look at it.")
    >>> lines
    ['warning: web-1 is odd: look at it.']
    """

    def __init__(self, write: Callable[[str], object] = say) -> None:
        self._write = write
        self._printed: set[str] = set()
        self._lock = threading.Lock()

    def once(self, reason: str, line: str) -> None:
        """Count a warning; print `warning: LINE` if it is the first of its reason."""
        self.count(reason)
        with self._lock:
            if reason in self._printed:
                return
            self._printed.add(reason)
        self.print(line)

    def print(self, line: str) -> None:
        """Print `warning: LINE`, whatever was printed before."""
        self._write(f"warning: {one_line(line)}")

    def count(self, reason: str, number: int = 1) -> None:
        """Count what needs no line of its own."""
        counters.WARNINGS.labels(reason).inc(number)

    def printed(self, reason: str) -> bool:
        """Return whether the line of a reason is out: its text need not be made again."""
        return reason in self._printed


PROCESS = Warnings()
"""Those of this process."""


def warn_once(reason: str, line: str) -> None:
    """Count a warning of this process; print `warning: LINE` if it is the first of its reason.

    `line` says what is wrong, then what to do: `the times ... run backwards: set ....`
    """
    PROCESS.once(reason, line)


def count(reason: str, number: int = 1) -> None:
    """Count what was warned of, without a line."""
    PROCESS.count(reason, number)
