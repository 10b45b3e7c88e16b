"""Writing files that must not take another's place unasked."""

from __future__ import annotations

from pathlib import Path

from dataflow.errors import UserError

__all__ = ["write"]


def write(folder: Path, contents: dict[str, bytes], *, force: bool) -> list[str]:
    """Write files into a folder and return what was done, a line for each.

    A UserError, with nothing written, if one is there with another content and without `force`.
    """
    paths = {folder / name: content for name, content in contents.items()}
    try:
        same = {path for path, content in paths.items() if _holds(path, content)}
        for path in paths:
            if path.exists() and path not in same and not force:
                raise UserError(f"{path} is there and differs: say --force to write over it.")
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in paths.items():
            if path not in same:
                path.write_bytes(content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error}.") from error
    return [f"{path} is as it should be" if path in same else f"wrote {path}" for path in paths]


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
