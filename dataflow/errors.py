"""Errors for the person who must act: one sentence in place of a stack trace."""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
from typing import NoReturn

from dataflow.warnings import say

__all__ = [
    "UserError",
    "missing_bytewax",
    "missing_extra",
    "missing_river",
    "stop_process",
    "wrong_aws_certificate",
]


class UserError(Exception):
    """An error that the user can fix: what is wrong, why, and what to do, in one line.

    >>> raise UserError("data.csv is not there: give the path of a .csv file.")
    Traceback (most recent call last):
    dataflow.errors.UserError: data.csv is not there: give the path of a .csv file.
    """


def missing_extra(what: str, extra: str) -> UserError:
    """Return the error for a part whose libraries, an extra of this package, are not installed.

    >>> str(missing_extra("The dashboard", "dashboard"))
    "The dashboard needs an extra: in a checkout of this project, run pip install '.[dashboard]'."
    """
    return UserError(
        f"{what} needs an extra: in a checkout of this project, run pip install '.[{extra}]'."
    )


def missing_river() -> UserError:
    """Return the error for River's models, where only what the demos need is installed.

    >>> str(missing_river())
    "River's models need River, which is not installed: run make install in the checkout."
    """
    return UserError(
        "River's models need River, which is not installed: run make install in the checkout."
    )


def missing_bytewax() -> UserError:
    """Return the error for what needs Bytewax, on a Python that Bytewax has no wheel for."""
    python = ".".join(map(str, sys.version_info[:2]))
    return UserError(
        f"The flow needs Bytewax, which is not installed in this Python {python} and has wheels "
        "for 3.11 and 3.12 only: run it with one of these (uv python install 3.12, pyenv install "
        "3.12) or in the Docker image."
    )


def wrong_aws_certificate(error: BaseException) -> str:
    """Return why AWS's library has no secure connection, and the setting to correct.

    What is wrong says the first of a chain of errors: one of TLS, or of a file.

    >>> wrong_aws_certificate(FileNotFoundError(2, "No such file or directory"))
    'AWS_CA_BUNDLE names no file of certificates (No such file or directory): correct its path'
    """
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    why = str(error)
    if isinstance(error, ssl.SSLError):
        why = str(getattr(error, "verify_message", "") or error.reason or "TLS failed")
    elif isinstance(error, OSError):
        why = error.strerror or why
    if why == "NO_CERTIFICATE_OR_CRL_FOUND" or not isinstance(error, ssl.SSLError | ValueError):
        return f"AWS_CA_BUNDLE names no file of certificates ({why}): correct its path"
    return (
        f"AWS's certificate is not accepted ({why}): check the clock, the proxy, and "
        "AWS_CA_BUNDLE, the file with the certificates that are trusted"
    )


def stop_process(reason: str) -> NoReturn:
    """Print one line on standard error and end the whole process with status 1, at once.

    For the running flow only. An exception in a Bytewax worker becomes a Rust panic with two stack
    traces, and other workers may still take a snapshot. This ends like kill -9: nothing more is
    committed, and a resume continues from the last snapshot.
    """
    say(f"error: {reason}")
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(1)
