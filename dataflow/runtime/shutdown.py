"""A clean end: SIGTERM and SIGINT end the sources, and the flow with a last snapshot."""

from __future__ import annotations

import os
import signal
import sys
import threading

__all__ = ["ask", "asked", "on_signals", "reading"]

_asked = False
_reading = False


def asked() -> bool:
    """Whether the flow is to end before its input does."""
    return _asked


def ask(reason: str | None = None) -> None:
    """Ask the flow to end; the reason is said on standard error, the first time."""
    global _asked
    if not _asked and reason is not None:
        print(reason, file=sys.stderr, flush=True)
    _asked = True


def reading() -> None:
    """Say that a source has begun: from here on, an end takes a snapshot."""
    global _reading
    _reading = True


def on_signals() -> None:
    """End cleanly on the first SIGTERM or SIGINT, and at once on the second.

    At once, too, before anything is read. To be called in the main thread. A thread waits for the
    signals, because a Python handler runs in the main thread only, which may be deep in Bytewax,
    waiting for the other processes of its cluster.
    """
    inlet, outlet = os.pipe()
    os.set_blocking(outlet, False)  # Python asks for it
    signal.set_wakeup_fd(outlet)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)

    def wait() -> None:
        os.read(inlet, 1)
        ask()
        if not _reading:
            os._exit(0)
        (number,) = os.read(inlet, 1)
        os._exit(128 + number)

    threading.Thread(target=wait, name="signals", daemon=True).start()
