"""The machine's clock steps: a flow neither stands still nor takes the time for silence."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Flow, fill_topic
from faults import wait_for, with_store

from dataflow.runtime.clock import StepBack

SHIFTED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, at);
    if (failed || id != CLOCK_REALTIME) return failed;
    FILE *file = fopen(getenv("SHIFT_FILE"), "r");
    long shift = 0;
    if (file) { if (fscanf(file, "%ld", &shift) != 1) shift = 0; fclose(file); }
    at->tv_sec += shift;
    return 0;
}
"""
"""The clock of the day, moved by the seconds in a file."""


@pytest.mark.parametrize("step", [-3600.0, -86_400.0, -30.0])
def test_a_step_back_is_seen_once(step: float) -> None:
    clock = StepBack(1000.0, 50.0)
    assert clock.seconds(1001.0, 51.0) == 0
    assert clock.seconds(1002.0 + step, 52.0) == -step
    assert clock.seconds(1003.0 + step, 53.0) == 0


def test_a_step_forward_and_a_slow_clock_are_none() -> None:
    """A suspended machine, summer time in a virtual machine, and NTP that slows the clock."""
    clock = StepBack(0.0, 0.0)
    assert clock.seconds(90_000.0, 1.0) == 0
    for second in range(1, 3600):
        assert clock.seconds(90_000.0 + 0.9 * second, 1.0 + second) < 1


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_a_flow_whose_clock_is_set_back_ends_within_seconds(
    run_flow: Flow, brokers: str, topic: str, store: Path, tmp_path: Path
) -> None:
    source, library, shift = (tmp_path / name for name in ("shift.c", "shift.so", "shift"))
    source.write_text(SHIFTED)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    shift.write_text("0")
    fill_topic(brokers, topic, [("a", b'{"instance":"a","timestamp":0,"index":0,"value":5}')])
    moved = {"LD_PRELOAD": str(library), "SHIFT_FILE": str(shift)}
    flow = run_flow.start(
        *with_store(store), bytewax=moved, brokers=brokers, topic=topic, output="found.jsonl"
    )
    wait_for((tmp_path / "found.jsonl").exists)
    shift.write_text("-3600")
    _, said = flow.communicate(timeout=120)
    assert flow.returncode == 1
    (line,) = [each for each in said.splitlines() if not each.startswith("created the topic")]
    assert line.startswith("error: the machine's clock was set back by 3,6")
