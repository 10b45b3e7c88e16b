"""The parts of Bytewax beyond its interface that `runtime` and `recovery` use: all as checked."""

from __future__ import annotations

import ast
import copyreg
import importlib
import pkgutil
import sqlite3
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import bytewax
import bytewax.run
import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.testing import TestingSink, TestingSource, run_main
from conftest import REPOSITORY
from test_routing import KEYS, workers_of_keys

from dataflow.recovery import files
from dataflow.runtime import CHECKED_WITH, PICKLE_CODE, serial
from dataflow.runtime.arguments import Arguments, arguments
from dataflow.runtime.routing import worker_of

CHANGED = (
    f"Bytewax {version('bytewax')} is installed; dataflow/runtime and dataflow/recovery were "
    f"checked with {CHECKED_WITH}"
)


def test_the_version_is_the_one_checked() -> None:
    assert version("bytewax") == CHECKED_WITH, (
        f"{CHANGED}: when the other tests of this file pass, set dataflow.runtime.CHECKED_WITH."
    )


def test_bytewaxs_arguments_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hasattr(bytewax.run, "_parse_args"), f"{CHANGED}: bytewax.run._parse_args is gone."
    run = str(Path(bytewax.run.__file__ or ""))
    options = ["-i", "1", "-a", "here:1;there:2", "-r", "store", "-s", "10", "-b", "0"]
    monkeypatch.setattr(sys, "argv", [run, "dataflow.flow", *options])
    parsed = bytewax.run._parse_args()  # type: ignore[no-untyped-call]
    missing = {*Arguments._fields} - {*vars(parsed)}
    assert not missing, f"{CHANGED}: _parse_args yields no {missing}."
    assert arguments() == Arguments(Path("store"), 1, "here:1;there:2"), CHANGED


@pytest.mark.parametrize(
    "query",
    [
        *(files.EXECUTIONS, files.RUNS, files.FRONTIERS),
        *(files.PART_COUNTS, files.LAST_COMMIT),
    ],
)
def test_a_new_store_has_the_tables_and_columns_that_are_read(query: str, tmp_path: Path) -> None:
    files.initialize(tmp_path / "store", 2)
    parts = sorted((tmp_path / "store").glob(files.PARTS))
    assert len(parts) == 2, f"{CHANGED}: the files of a store have other names than {files.PARTS}."
    for part in parts:
        with closing(sqlite3.connect(part)) as database:
            try:
                database.execute(query)
            except sqlite3.Error as error:
                pytest.fail(f"{CHANGED}: {query!r} fails with {error}.")


def test_keys_go_to_the_predicted_workers() -> None:
    predicted = {key: {worker_of(key, 3)} for key in KEYS}
    assert workers_of_keys(3) == predicted, f"{CHANGED}: it routes keys to other workers."


class Last(StatefulBatchLogic[int, str, None]):
    """Says what comes, and the end."""

    def on_batch(self, values: list[int]) -> tuple[list[str], bool]:
        return [f"{value}" for value in values], self.RETAIN

    def on_eof(self) -> tuple[list[str], bool]:
        return ["end"], self.RETAIN

    def snapshot(self) -> None:
        return None


def test_a_flow_runs_in_the_order_in_which_bytewax_runs_it() -> None:
    def flow(out: list[tuple[str, str]]) -> Dataflow:
        numbers = [(name, number) for number, name in enumerate("cabdacbba")]
        made = Dataflow("order")
        read = op.input("read", made, TestingSource(numbers, batch_size=5))
        even = op.branch("even", read, lambda pair: pair[1] % 2 == 0)
        more = op.flat_map("more", even.trues, lambda pair: [pair, (pair[0], pair[1] + 100)])
        both = op.merge("both", more, even.falses)
        op.output("write", op.stateful_batch("last", both, lambda _: Last()), TestingSink(out))
        return made

    expected: list[tuple[str, str]] = []
    found: list[tuple[str, str]] = []
    run_main(flow(expected))  # type: ignore[no-untyped-call]
    serial.run([flow(found)])
    for key in "abcd":  # how many values come at once is no part of it
        assert [it for it in found if it[0] == key] == [it for it in expected if it[0] == key]
    assert [it for it in found if it[1] == "end"] == [it for it in expected if it[1] == "end"]


def test_bytewax_takes_no_pickle_code() -> None:
    for module in pkgutil.iter_modules(bytewax.__path__, "bytewax."):
        if module.name != "bytewax.visualize":  # needs libraries that the flow does without
            importlib.import_module(module.name)
    taken: dict[int, tuple[str, str]] = copyreg._inverted_registry  # type: ignore[attr-defined]
    ours = taken.get(PICKLE_CODE, ("dataflow.steps.exchange", "unpack"))
    assert ours[0] == "dataflow.steps.exchange", f"{CHANGED}: it registers the code {PICKLE_CODE}."


MAY_IMPORT = {"flow", "sources", "sinks", "steps", "rerun", "runtime"}
"""Parts of the package that may import Bytewax; of those, only `runtime` what starts with `_`."""


def test_only_the_flows_parts_import_bytewax() -> None:
    package = REPOSITORY / "dataflow"
    for path in sorted(package.rglob("*.py")):
        part = path.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                modules, names = [node.module or ""], [alias.name for alias in node.names]
            elif isinstance(node, ast.Import):
                modules, names = [alias.name for alias in node.names], []
            else:
                continue
            if not any(module.split(".")[0] == "bytewax" for module in modules):
                continue
            assert part in MAY_IMPORT, f"{path} imports bytewax"
            private = [name for name in names if name.startswith("_")]
            assert part == "runtime" or not private, f"{path} imports {private} of bytewax"
