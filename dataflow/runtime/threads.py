"""The threads in which Bytewax runs workers. Checked with Bytewax `CHECKED_WITH`."""

from __future__ import annotations

import ctypes
import threading

__all__ = ["alone", "keep"]


def alone() -> bool:
    """Return, in a worker's thread, whether it is the only worker of the flow.

    Bytewax then runs it in the main thread. In a cluster, even of one process, no worker is alone.
    """
    return threading.get_ident() == threading.main_thread().ident


def keep() -> None:
    """Keep Python's state of the calling thread until the process ends.

    With several workers, or in a cluster, Rust creates the threads. Python creates a thread state
    whenever such a thread takes the interpreter lock, and deletes it when the thread releases the
    lock: several times per batch, and once per item that goes to another process.
    """
    # Never released, so the state stays in use.
    ctypes.pythonapi.PyGILState_Ensure()
