"""Clean shutdown: SIGTERM and SIGINT end the sources, and the flow ends with a last snapshot."""

from __future__ import annotations

import os
import signal
import threading

from dataflow.warnings import say

__all__ = ["ask", "asked", "on_signals", "reading"]

_asked = False
_reading = False


def asked() -> bool:
    """Return whether the flow must end before its input ends."""
    return _asked


def ask(reason: str | None = None) -> None:
    """Make the flow end. The first call prints its reason, if any, on standard error."""
    global _asked
    if not _asked and reason is not None:
        say(reason)
    _asked = True


def reading() -> None:
    """Note that a source has started to read: from now on, a shutdown takes a snapshot."""
    global _reading
    _reading = True


def on_signals() -> None:
    """End cleanly on the first SIGTERM or SIGINT, and immediately on the second.

    Before anything is read, the first one already ends the process immediately, with status 0. Call
    this in the main thread. A thread waits for the signals, because Python runs handlers only in
    the main thread, which may be blocked in Bytewax, waiting for other processes of the cluster.
    """
    inlet, outlet = os.pipe()
    os.set_blocking(outlet, False)  # required by set_wakeup_fd
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
