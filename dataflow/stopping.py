"""A clean end: SIGTERM and SIGINT end the sources, and the flow with a last snapshot."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

__all__ = ["ask", "asked", "on_signals"]

_asked = False


def asked() -> bool:
    """Whether the flow is to end before its input does."""
    return _asked


def ask(reason: str | None = None) -> None:
    """Ask the flow to end; the reason is said on standard error, the first time."""
    global _asked
    if not _asked and reason is not None:
        print(reason, file=sys.stderr, flush=True)
    _asked = True


def on_signals() -> None:
    """End cleanly on the first SIGTERM or SIGINT, and at once on the second."""

    def stop(number: int, _frame: FrameType | None) -> None:
        if asked():
            os._exit(128 + number)
        ask()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
