"""What the tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data: ANOMALY_SHARED, or `shared` beside the repository."""
    folder = Path(os.environ.get("ANOMALY_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the real data is not there: {folder}")
    return folder
