"""Writes files without replacing different ones, unless asked to."""

from __future__ import annotations

from pathlib import Path

from dataflow.errors import UserError

__all__ = ["write"]


def write(folder: Path, contents: dict[str, bytes], *, force: bool) -> list[str]:
    """Write files into a folder and return a line for each that says what was done.

    Raises `UserError`, with nothing written, if a file exists with other content and `force` is
    false, or if the folder cannot be written to.
    """
    paths = {folder / name: content for name, content in contents.items()}
    try:
        same = {path for path, content in paths.items() if _holds(path, content)}
        for path in paths:
            if path.exists() and path not in same and not force:
                raise UserError(f"{path} exists with other content: give --force to replace it.")
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in paths.items():
            if path not in same:
                path.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"Cannot write to {folder} ({error}): give a folder that can be written to."
        ) from error
    return [f"{path} is unchanged" if path in same else f"wrote {path}" for path in paths]


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
