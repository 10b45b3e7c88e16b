"""Creates the files of Bytewax's recovery store. Checked with Bytewax `CHECKED_WITH`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["create_files"]


def create_files(folder: Path, partitions: int) -> None:
    """Create `part-0.sqlite3` and so on, one file per partition, in a folder that exists.

    Raises `OSError` or `sqlite3.Error` if they cannot be written.
    """
    # Here, so that the rest of the module's importers work without Bytewax.
    from bytewax.recovery import init_db_dir

    init_db_dir(folder, partitions)  # type: ignore[no-untyped-call]
