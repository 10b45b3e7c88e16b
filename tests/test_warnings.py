"""Warnings: one line each, once, counted, and never the end of the flow."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from test_counters import change

from dataflow import warnings
from dataflow.warnings import Warnings


def test_each_reason_is_printed_once_and_all_are_counted() -> None:
    lines: list[str] = []
    shown = Warnings(lines.append)
    for number in range(3):
        shown.once("scattered", f"the first kind, {number}: look.")
    shown.once("interval", "the second kind: look.")
    shown.count("interval", 5)
    assert lines == ["warning: the first kind, 0: look.", "warning: the second kind: look."]
    assert (shown.counts["scattered"], shown.counts["interval"]) == (3, 6)
    assert (shown.printed("scattered"), shown.printed("rejected")) == (True, False)


def test_what_has_a_key_is_printed_once_for_each() -> None:
    lines: list[str] = []
    shown = Warnings(lines.append)
    for name in ("one", "other", "one"):
        shown.once("insecure-connection", f"{name} is insecure.", key=name)
    assert lines == ["warning: one is insecure.", "warning: other is insecure."]
    assert shown.counts["insecure-connection"] == 3


def test_what_comes_and_goes_is_printed_each_time() -> None:
    lines: list[str] = []
    shown = Warnings(lines.append)
    for _ in range(2):
        shown.each("no-answer", "no answer.")
        shown.say("it answers again.")
    assert lines == ["warning: no answer.", "it answers again."] * 2
    assert shown.counts["no-answer"] == 2


def test_prometheus_gets_the_counts_of_the_process() -> None:
    counted = change("anomaly_warnings_total", reason="only-grows")
    warnings.PROCESS.count("only-grows", 3)
    assert counted() == 3


def test_threads_print_one_line() -> None:
    lines: list[str] = []
    shown = Warnings(lines.append)
    start = threading.Barrier(8)

    def warn(number: int) -> None:
        start.wait()
        for _ in range(500):
            shown.once("interval", f"thread {number}.")

    threads = [threading.Thread(target=warn, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines) == 1
    assert shown.counts["interval"] == 4000


@pytest.mark.parametrize("name", ["a\nerror: b", "a\r\x1b[2Jb", "a\u2028b\x00", "a\ud800b"])
def test_a_line_stays_a_line_whatever_is_in_it(name: str) -> None:
    lines: list[str] = []
    Warnings(lines.append).once("interval", f"{name} is odd.")
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
from dataflow.warnings import warn_once
{closing}
warn_once("interval", "nothing hears this.")
os._exit(7)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (7, b"")


@pytest.mark.parametrize("closing", ["os.close(2)", "sys.stderr.close()", "sys.stderr = None"])
def test_an_error_ends_the_process_where_it_cannot_be_said(closing: str) -> None:
    code = f"""
import os, sys
from dataflow.errors import stop_process
{closing}
stop_process("all is lost.")
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_reader_that_has_gone_away_does_not_matter() -> None:
    code = """
import os
from dataflow.warnings import warn_once
os.read(0, 1)
warn_once("interval", "nothing hears this.")
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
