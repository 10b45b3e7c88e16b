"""Files as input: a line is a record, and any bytes are read or rejected, never lost."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from conftest import Flow, read_json_lines
from feeds import FEEDS, Row
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataflow.demo.producer import keyed_records
from dataflow.errors import UserError
from dataflow.formats import files
from dataflow.formats.files import check_file, read_records
from dataflow.records import Reading, Rejected
from dataflow.settings import Settings
from dataflow.steps.decode import decoder

HEADER = b"instance,timestamp,value,index\n"
FORMS = Settings(_env_file=None)


def decoded(path: Path) -> list[Reading | Rejected]:
    """What the flow makes of a file."""
    options = Settings(_env_file=None, input=str(path))
    check_file(path, options.columns)
    return decoder(options)(list(read_records(path)))


def of_csv(folder: Path, data: bytes) -> list[Reading | Rejected]:
    path = folder / "given.csv"
    path.write_bytes(data)
    return decoded(path)


def text_of(rejected: Reading | Rejected) -> bytes:
    assert isinstance(rejected, Rejected)
    assert rejected.raw is not None
    return base64.b64decode(rejected.raw)


BAD_ROWS = {
    "a quote that is not closed": (b'web-1,1700000000,"25.5,7', "not CSV"),
    "a quote that is closed too early": (b'web-1,1700000000,"25".5,7', "not CSV"),
    "only a quote": (b'"', "not CSV"),
    "a cell too many": (b"1700000000,97,5,web-1,509", "has 5 cells, and the first line 4"),
    "a cell too few": (b"web-1,1700000000,97", "has 3 cells, and the first line 4"),
    "one cell": (b"-- end --", "has 1 cell, and the first line 4"),
    "blanks": (b"   ", "has 1 cell, and"),
    "bytes that are not UTF-8": (b"web-\xe91,1700000000,97,7", "not UTF-8"),
    "a NUL": (b"web-1,1700000000,9\x007,7", "'value' is not a number"),
    "a cell beyond the limit of the csv module": (b'web-1,1,"%s",7' % (b"9" * 131_073), "limit"),
    "a long cell": (b"web-1,1,%s,7" % (b"9" * 131_073), "'value' is not a number"),
    "a quoted CR": (b'"web', "not CSV"),
}


@pytest.mark.parametrize(("line", "says"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_rejected_alone_and_as_it_is(tmp_path: Path, line: bytes, says: str) -> None:
    good = [b"web-1,%d,25.5,%d\n" % (1700000000 + 300 * at, at) for at in range(4)]
    found = of_csv(tmp_path, HEADER + b"".join(good[:2]) + line + b"\n" + b"".join(good[2:]))
    assert [isinstance(one, Reading) for one in found] == [True, True, False, True, True]
    bad = found[2]
    assert isinstance(bad, Rejected)
    assert says in bad.error
    assert bad.source.offset == 2
    if bad.reason == "bad-record":
        assert text_of(bad) == line


def test_quotes_within_a_line(tmp_path: Path) -> None:
    row = b'"web ""a"", b",1700000000,"25.5","7"\n'
    (reading,) = of_csv(tmp_path, HEADER + row)
    assert isinstance(reading, Reading)
    assert (reading.instance, reading.value, reading.index) == ('web "a", b', 25.5, 7)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_ends_of_lines_and_a_byte_order_mark(
    tmp_path: Path, end: bytes, last: bool, mark: bytes
) -> None:
    lines = [HEADER.strip(), b"a,1700000000,1,0", b"", b"a,1700000300,2,1"]
    found = of_csv(tmp_path, mark + end.join(lines) + (end if last else b""))
    assert [one.value for one in found if isinstance(one, Reading)] == [1, 2]
    path = tmp_path / "given.jsonl"
    record = b'{"instance": "a", "timestamp": 0, "value": 1, "index": 0}'
    path.write_bytes(mark + end.join([record, record]) + (end if last else b""))
    assert [type(one) for one in decoded(path)] == [Reading, Reading]


def test_ends_of_lines_may_be_mixed_and_lie_between_two_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = HEADER + b"a,1,1,0\r\na,2,2,1\ra,3,3,2\n\r\na,4,4,3"
    for size in range(1, len(data) + 1):
        monkeypatch.setattr(files, "BLOCK", size)
        found = of_csv(tmp_path, data)
        assert [one.index for one in found if isinstance(one, Reading)] == [0, 1, 2, 3]
        assert len(found) == 4


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
def test_a_line_without_an_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, ending: bytes
) -> None:
    monkeypatch.setattr(files, "BLOCK", 100)
    monkeypatch.setattr(files, "MAX_LINE", 1000)
    row = (
        b"a,1,1,0\n"
        if suffix == ".csv"
        else b'{"instance":"a","timestamp":1,"value":1,"index":0}\n'
    )
    path = tmp_path / f"long{suffix}"
    data = row + b"x" * 5000 + ending + (row if ending else b"")
    path.write_bytes((HEADER if suffix == ".csv" else b"") + data)
    found = decoded(path)
    assert [type(one) for one in found] == [Reading, Rejected, *([Reading] if ending else [])]
    assert len(text_of(found[1])) <= 1101
    assert "the line is longer than" in found[1].error  # type: ignore[union-attr]


def test_a_produced_line_is_the_line_without_a_key(tmp_path: Path) -> None:
    path = tmp_path / "given.csv"
    path.write_bytes(HEADER + b'a,1,1,0\na,"2,2,1\n')
    assert [key for key, _ in keyed_records(path, FORMS)] == ["a", None]
    assert [value for _, value in keyed_records(path, FORMS)][1] == b'a,"2,2,1'


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".influx", ".lp", ".log", ".out", ".txt"])
@pytest.mark.parametrize("name", ["telegraf, lines", "cloudwatch", "otlp, JSON"])
def test_records_of_any_feed_are_keyed_by_instance(tmp_path: Path, name: str, suffix: str) -> None:
    rows = [Row(f"i-{number % 3}", 1_741_449_600 + 60 * number, 5.0) for number in range(9)]
    lines = [
        line for row in rows for value in FEEDS[name].write(row) for line in value.split(b"\n")
    ]
    lines = [line for line in lines if line]
    path = tmp_path / f"given{suffix}"
    path.write_bytes(b"\n".join(lines))
    sent = list(keyed_records(path, FORMS))
    assert [value for _, value in sent] == lines
    # Other metrics have no key, for none of their readings are asked for.
    assert [key for key, _ in sent if key is not None] == [row.instance for row in rows]


def test_a_file_of_which_nothing_is_known_is_sent_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "no metrics.txt"
    path.write_bytes(b"Dear all,\nthe report is late.\n")
    assert [key for key, _ in keyed_records(path, FORMS)] == [None, None]
    said = capsys.readouterr().err
    assert said.startswith("warning: the first 2 records of ")
    assert said.endswith("no metrics.txt'` says.\n")


def test_a_csv_file_needs_no_index_unless_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "given.csv"
    path.write_text("instance,timestamp,value\na,1700000000,5\n")
    (reading,) = decoded(path)
    assert isinstance(reading, Reading)
    assert reading.index is None
    with pytest.raises(UserError, match="no column 'index'"):
        check_file(path, Settings(_env_file=None, index_field="index").columns)


SADF = (
    "# hostname;interval;timestamp;CPU;%user;%nice;%system;%iowait;%steal;%idle\n"
    "web-1;600;2024-03-01 00:10:01 UTC;-1;1.20;0.00;0.50;0.01;0.00;98.29\n"
)
TABLE = HEADER.decode() + "web-1,1700000000,97,5\n"
WRONG_FILES = {
    "semicolons": (TABLE.replace(",", ";").encode(), "separated by semicolons", "sed 's/,/./g"),
    "tabs": (TABLE.replace(",", "\t").encode(), "separated by tabs", r"tr '\t' ',' <"),
    "bars": (TABLE.replace(",", "|").encode(), "separated by vertical bars", "tr '|' ','"),
    "a comment": (b"# made in March\n" + HEADER, "begins with a comment", "grep -v '^#'"),
    "sadf": (SADF.encode(), "the output of sadf -d", "docs/settings.md#files"),
    "UTF-16": (TABLE.encode("utf-16"), "is UTF-16", "iconv -f UTF-16 -t UTF-8"),
    "UTF-16BE": (b"\xfe\xff" + TABLE.encode("utf-16-be"), "is UTF-16", "iconv -f UTF-16 "),
    "UTF-16 without a mark": (TABLE.encode("utf-16-le"), "NUL bytes", "iconv -f UTF-16LE"),
    "UTF-32": (TABLE.encode("utf-32"), "is UTF-32", "iconv -f UTF-32 "),
    "Latin-1": ("Gerät,".encode("latin-1") + HEADER, "is not UTF-8", "iconv -f LATIN1"),
    "nothing": (b"", "is empty", "name the columns"),
    "an empty line": (b"\n" + HEADER, "begins with an empty line", "name the columns"),
    "blanks": (b"  \r\n" + HEADER, "begins with an empty line", "name the columns"),
    "gzip": (gzip.compress(TABLE.encode()), "packed by gzip", "gunzip"),
    "zip": (b"PK\x03\x04" + bytes(30), "zip archive or an Excel workbook", "save it as CSV"),
    "no columns": (b"web-1,1700000000,97,5\n", "no column 'instance'", "ANOMALY_KEY_FIELD"),
    "one column less": (b"instance,timestamp,index\n", "no column 'value'", "ANOMALY_VALUE_FIELD"),
    "a long cell": (b"x" * 131_073 + b"," + HEADER, "field limit", "separated by commas"),
    "a long line": (b"x," * 500_001 + HEADER, "over 1,000,000 bytes", "names the columns"),
    "an open quote": (b'"instance,timestamp\n",value,index\n', "is not CSV", "name the columns"),
}


@pytest.mark.parametrize(("data", "what", "remedy"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_file_of_another_kind_is_one_line_that_says_what_reads_it(
    tmp_path: Path, data: bytes, what: str, remedy: str
) -> None:
    with pytest.raises(UserError) as error:
        of_csv(tmp_path, data)
    line = str(error.value)
    assert what in line
    assert remedy in line
    assert line.isprintable()
    assert len(line) - len(str(tmp_path)) * 2 < 300
    assert line.endswith(".")


@pytest.mark.parametrize("name", ["semicolons", "tabs", "bars", "a comment"])
def test_the_command_in_the_line_makes_a_file_that_is_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    data = WRONG_FILES[name][0]
    with pytest.raises(UserError) as error:
        of_csv(folder, data + (TABLE.encode().splitlines()[1] if name == "a comment" else b""))
    command = str(error.value).partition("for example with ")[2].partition(" > NEW.csv")[0]
    done = subprocess.run(command, shell=True, capture_output=True, check=True)
    (reading,) = of_csv(tmp_path, done.stdout)
    assert isinstance(reading, Reading)
    assert (reading.instance, reading.value) == ("web-1", 97)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, suffix: str) -> None:
    pipe, folder, device = (tmp_path / f"{name}{suffix}" for name in ("pipe", "folder", "device"))
    os.mkfifo(pipe)
    folder.mkdir()
    device.symlink_to("/dev/zero")
    for path in (pipe, folder, device):
        with pytest.raises(UserError, match=rf"{path.name} is not a regular file"):
            check_file(path, FORMS.columns)
        with pytest.raises(UserError, match=rf"{path.name} is not a regular file"):
            next(read_records(path))


LINES = st.lists(
    st.sampled_from([b"a", b"1", b",", b'"', b"\r", b"\n", b"\xff", b"\0", b"a,1,1,0\n", b'"a",'])
    | st.binary(max_size=6),
    max_size=40,
).map(b"".join)


def lines_of(data: bytes) -> list[bytes]:
    """The lines by another way: universal newlines of the io module."""
    read = io.TextIOWrapper(io.BytesIO(data), "latin-1", newline=None)
    return [line.rstrip("\n").encode("latin-1") for line in read]


@settings(max_examples=300, deadline=None)
@given(LINES, st.integers(1, 30))
@example(b'a,1,"25.5,0\n' + b"a,1,1,0\n" * 3, 7)
@example(b"a,1,1,0\r\r\n\n\ra,1,1,0", 3)
def test_any_bytes_in_a_csv_file_are_readings_or_rejected_lines(data: bytes, block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        found = of_csv(Path(folder), HEADER + data)
    lines = [line for line in lines_of(data) if line]
    assert len(found) == len(lines)
    for number, (line, one) in enumerate(zip(lines, found, strict=True)):
        if isinstance(one, Reading):
            assert one.offset == number
            (cells,) = csv.reader([line.decode()])
            assert one.instance == cells[0]
            assert one.value == float(cells[2])
        else:
            assert one.source.offset == number
            kept = text_of(one)
            # A row of the right form with a wrong value is kept as the record that it is.
            assert kept == line or list(json.loads(kept).values()) == next(
                csv.reader([line.decode()])
            )


@settings(max_examples=300, deadline=None)
@given(
    LINES
    | st.lists(
        st.sampled_from([b'{"instance":"a",', b'"timestamp":0,"value":1,', b'"index":0}', b"\n"])
    ).map(b"".join),
    st.integers(1, 30),
)
def test_any_bytes_in_a_file_of_json_lines_too(data: bytes, block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        path = Path(folder) / "given.jsonl"
        path.write_bytes(b"{}\n" + data)
        found = decoded(path)[1:]
    lines = lines_of(data)
    assert len(found) == len(lines)
    for line, one in zip(lines, found, strict=True):
        assert isinstance(one, Reading) or text_of(one) == line


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([".csv", ".jsonl"]))
def test_any_bytes_as_a_whole_file_are_one_line_or_records(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"given{suffix}"
        path.write_bytes(data)
        try:
            found = decoded(path)
        except UserError as error:
            found, said = [], str(error)
        else:
            said = ""
    if said:
        assert said.isprintable()
    else:
        assert suffix == ".jsonl"
        assert len(found) == len(lines_of(data.removeprefix(b"\xef\xbb\xbf")))


def test_bad_rows_in_the_flow(run_flow: Flow) -> None:
    rows = [
        b"web-%d,%d,25.5,%d" % (at % 3, 1700000000 + 300 * (at // 3), at // 3) for at in range(900)
    ]
    rows[100] = b'web-1,1700010000,"25.5,33'
    rows[200] = b"web-2,1700020000,25.5,66,9"
    rows[300] = b"web-0,1700030000,25.5,100"[:-4] + b"\xff"
    rows[400:400] = [
        b"web-1,%s,25.5,%s" % it
        for it in [
            (b"-90000000000", b"1"),
            (b"1700000000", b"9" * 39),
            (b"9999-12-31T23:59:59-14:00", b"1"),
            (b"0001-01-01T00:00:00+01:00", b"1"),
            (b"1700000000", b"1e300"),
        ]
    ]
    path = run_flow.folder / "given.csv"
    path.write_bytes(HEADER + b"\r\n".join(rows))
    done = run_flow(
        input="given.csv",
        output="found.jsonl",
        incidents="true",
        reorder="true",
        reorder_seconds="1",
    )
    assert done.returncode == 0, done.stderr
    rejected = read_json_lines(run_flow.folder / "found.rejected.jsonl")
    assert [(one["source"]["offset"], one["reason"]) for one in rejected] == [
        (100, "bad-record"),
        (200, "bad-record"),
        (300, "bad-record"),
        (400, "bad-timestamp"),
        (401, "bad-index"),
        (402, "bad-timestamp"),
        (403, "bad-timestamp"),
        (404, "bad-index"),
    ]
    assert [base64.b64decode(one["raw"]) for one in rejected[:3]] == [
        rows[100],
        rows[200],
        rows[300],
    ]


def test_a_pipe_is_one_line(run_flow: Flow) -> None:
    os.mkfifo(run_flow.folder / "pipe.csv")
    done = run_flow(input="pipe.csv")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: pipe.csv is not a regular file: ")
