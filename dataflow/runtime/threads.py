"""The threads that Bytewax's workers run in."""

from __future__ import annotations

import ctypes
import threading

__all__ = ["alone", "keep"]


def alone() -> bool:
    """Tell, in a worker's thread, whether it is the flow's only one, here and elsewhere.

    Bytewax then runs it in the main thread. A cluster, of even one process, counts as several.
    """
    return threading.get_ident() == threading.main_thread().ident


def keep() -> None:
    """Let Python remember the calling thread until the process ends.

    The threads of several workers, or of a cluster's, are Rust's. Python makes a state for such a
    thread whenever it comes for the interpreter, and throws it away when it lets go, which is
    several times for each batch and for each item that goes to another process.
    """
    # One more than is ever released: the state stays in use.
    ctypes.pythonapi.PyGILState_Ensure()
