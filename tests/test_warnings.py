"""Warnings: one line each, once, counted, and never the end of the flow."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from test_counters import change

from dataflow.metrics import warnings
from dataflow.metrics.warnings import Warnings


def test_each_reason_is_printed_once_and_all_are_counted() -> None:
    lines: list[str] = []
    shown = Warnings(lines.append)
    one, other = (change("anomaly_warnings_total", reason=name) for name in ("one", "other"))
    for number in range(3):
        shown.once("one", f"the first kind, {number}: look.")
    shown.once("other", "the second kind: look.")
    shown.count("other", 5)
    assert lines == ["warning: the first kind, 0: look.", "warning: the second kind: look."]
    assert (one(), other()) == (3, 6)


def test_threads_print_one_line() -> None:
    lines: list[str] = []
    shown = Warnings(lines.append)
    start = threading.Barrier(8)
    counted = change("anomaly_warnings_total", reason="at once")

    def warn(number: int) -> None:
        start.wait()
        for _ in range(500):
            shown.once("at once", f"thread {number}.")

    threads = [threading.Thread(target=warn, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines) == 1
    assert counted() == 4000


@pytest.mark.parametrize("name", ["a\nerror: b", "a\r\x1b[2Jb", "a\u2028b\x00", "a\ud800b"])
def test_a_line_stays_a_line_whatever_is_in_it(name: str) -> None:
    lines: list[str] = []
    Warnings(lines.append).once("any", f"{name} is odd.")
    (line,) = lines
    assert line.isprintable()
    assert line.startswith("warning: a")
    assert len(line.splitlines()) == 1
    line.encode()


def test_ordinary_names_stay_readable() -> None:
    assert warnings.one_line("the instance 'Größe-東京' is \u00e9") == (
        "the instance 'Größe-東京' is \u00e9"
    )


@pytest.mark.parametrize("closing", ["os.close(2)", "sys.stderr.close()", "sys.stderr = None"])
def test_a_closed_standard_error_does_not_matter(closing: str) -> None:
    code = f"""
import os, sys
from dataflow.metrics.warnings import warn_once
{closing}
warn_once("any", "nothing hears this.")
os._exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


def test_a_reader_that_has_gone_away_does_not_matter() -> None:
    code = """
import os
from dataflow.metrics.warnings import warn_once
os.read(0, 1)
warn_once("any", "nothing hears this.")
os._exit(7)
"""
    done = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert done.stdin is not None
    assert done.stderr is not None
    done.stderr.close()
    os.write(done.stdin.fileno(), b"x")
    assert done.wait(120) == 7
