"""The settings of a run: those of the environment, with others in their place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from dataflow import settings
from dataflow.errors import UserError
from dataflow.settings import PREFIX, Settings

__all__ = ["differing", "load", "of_file", "of_pairs", "refuse_other_input"]

INPUT = ("input", "topic", "brokers", "partitions", "kafka")
"""The settings that say where the input is."""


def load(changed: Mapping[str, str], **overrides: Any) -> Settings:
    """Return the settings of the environment, with variables `changed`; `overrides` win over both.

    Raises `UserError` as `settings.load` does.
    """
    with _environment(changed):
        return settings.load(**overrides)


@contextmanager
def _environment(changed: Mapping[str, str]) -> Iterator[None]:
    kept = dict(os.environ)
    names = {name.upper() for name in changed}
    try:
        for name in kept:  # names of settings may have small letters
            if name.upper() in names:
                del os.environ[name]
        os.environ.update(changed)
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def of_pairs(pairs: Iterable[str]) -> dict[str, str]:
    """Return the variables that are given as `NAME=VALUE`. Raises `UserError`.

    >>> of_pairs(["ANOMALY_THRESHOLD=0.6", "ANOMALY_MAINTENANCE=db-1: daily 02:00-03:00"])
    {'ANOMALY_THRESHOLD': '0.6', 'ANOMALY_MAINTENANCE': 'db-1: daily 02:00-03:00'}
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.upper().startswith(PREFIX):
            raise UserError(
                f"--set {pair!r} is not a setting and its value: give one such as "
                f"{PREFIX}THRESHOLD=0.6."
            )
        found[name.upper()] = value
    return found


def of_file(path: Path) -> dict[str, str]:
    """Return the settings in a file of lines `NAME=VALUE`, as in `.env`.

    Other variables in it are left out. Raises `UserError` if it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): give a file of settings, one NAME=VALUE a "
            "line."
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    values = dotenv_values(stream=StringIO(text))
    return {
        name.upper(): value or ""
        for name, value in values.items()
        if name.upper().startswith(PREFIX)
    }


def refuse_other_input(before: Settings, after: Settings) -> None:
    """Raise `UserError` if the settings do not read the same input."""
    for name in INPUT:
        if getattr(before, name) != getattr(after, name):
            raise UserError(
                f"{PREFIX}{name.upper()} differs, and both runs must read the same input: set it "
                "in the environment."
            )


def differing(before: Settings, after: Settings) -> dict[str, list[str]]:
    """Return the settings that differ, each with its value before and after, as text.

    >>> one, other = (Settings(_env_file=None, threshold=it) for it in (None, 0.6))
    >>> differing(one, other)
    {'ANOMALY_THRESHOLD': ['none', '0.6']}
    """
    return {
        f"{PREFIX}{name.upper()}": [_text(getattr(side, name)) for side in (before, after)]
        for name in Settings.model_fields
        if getattr(before, name) != getattr(after, name)
    }


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(
            "=".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in value
        )
    return f"{value:g}" if isinstance(value, float) else str(value)
