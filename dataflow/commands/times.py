"""Times on the command line."""

from __future__ import annotations

from dataflow.errors import UserError
from dataflow.records import seconds

__all__ = ["moment"]


def moment(text: str | None, option: str) -> float | None:
    """Return a time that an option gives, in seconds since 1970; None if it is not given.

    Raises `UserError` if it is no time.

    >>> moment("1970-01-02", "--from")
    86400.0
    """
    if text is None:
        return None
    try:
        return seconds(text)
    except (ValueError, OverflowError):
        raise UserError(
            f"{option} {text!r} is not a time: give one such as 2024-03-01T12:00."
        ) from None
