from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.sinks.jsonl import write_all

WRITER = """
import signal, sys
from dataflow.sinks.jsonl import write_all

signal.signal(signal.SIGUSR1, lambda *_: None)
print("ready", flush=True)
number = 0
for _ in range(100):
    lines = "".join(f"{number + place:08d} {'x' * 300}\\n" for place in range(1000))
    number += 1000
    write_all(sys.stdout.fileno(), lines.encode())
signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the end of Python would let it kill
"""


def test_signals_do_not_make_holes() -> None:
    """Python's own `sys.stdout.write` fails this within a few batches."""
    with subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        over = threading.Event()

        def disturb() -> None:
            while not over.wait(0.001):
                process.send_signal(signal.SIGUSR1)

        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            lines = process.stdout.readlines()
        finally:
            over.set()
            disturber.join()
    assert process.returncode == 0
    assert lines == [f"{number:08d} {'x' * 300}\n".encode() for number in range(100_000)]


@given(st.binary())
def test_it_writes_what_it_is_given(data: bytes) -> None:
    inlet, outlet = os.pipe()
    with os.fdopen(inlet, "rb") as reader:
        write_all(outlet, data)
        os.close(outlet)
        assert reader.read() == data


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_all(descriptor, b"x")
    os.close(descriptor)
