"""The JSON Schemas of the records: `python tests/test_schemas.py` writes them again."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from dataflow.notify.digest import Digest
from dataflow.records import Anomaly, Incident, Rejected
from dataflow.verdicts.record import Feedback

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schemas"
RECORDS = {
    "anomaly": Anomaly,
    "incident": Incident,
    "rejected": Rejected,
    "digest": Digest,
    "verdict": Feedback,
}


def schema(name: str) -> str:
    return json.dumps(msgspec.json.schema(RECORDS[name]), indent=2) + "\n"


@pytest.mark.parametrize("name", RECORDS)
def test_the_schema_is_that_of_the_records(name: str) -> None:
    path = FOLDER / f"{name}.schema.json"
    assert path.read_text() == schema(name), "run python tests/test_schemas.py"


if __name__ == "__main__":
    for name in RECORDS:
        (FOLDER / f"{name}.schema.json").write_text(schema(name))
