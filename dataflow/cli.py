"""The commands beside the flow: `ec2-anomaly COMMAND`, or `python -m dataflow COMMAND`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from dataflow import __version__
from dataflow.errors import UserError, missing_bytewax

__all__ = ["COMMANDS", "main"]

COMMANDS = (
    "demo",
    "dashboard",
    "broker",
    "topics",
    "recovery",
    "inspect",
    "produce",
    "cloudwatch",
    "replay",
    "preview",
    "why",
    "rules",
    "notify",
    "verdict",
    "sample",
    "import-nab",
    "evaluate",
    "plan",
)
"""Each is the function of that name in the module of that name in `dataflow.commands`."""

_SCRIPT = "ec2-anomaly"


def _command(name: str) -> Callable[..., Any]:
    name = name.replace("-", "_")
    function: Callable[..., Any] = getattr(import_module(f"dataflow.commands.{name}"), name)
    return function


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{_SCRIPT} {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def _app(names: tuple[str, ...]) -> typer.Typer:
    app = typer.Typer(
        help="Tools around the flow. Start the flow itself with "
        "`python -m bytewax.run dataflow.flow`.",
        # A shell completes the name of a script, not `python -m dataflow`.
        add_completion=_program() == _SCRIPT,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in names:
        app.command(name)(_command(name))
    return app


def _named(arguments: list[str]) -> tuple[str, ...]:
    """Return the command that the arguments begin with, or else all: to import one is faster."""
    first = arguments[0] if arguments else None
    return tuple(name for name in COMMANDS if name == first) or COMMANDS


def _program() -> str:
    """Return how the user started this program."""
    return "python -m dataflow" if Path(sys.argv[0]).name == "__main__.py" else _SCRIPT


def main() -> None:
    """Run one command; a `UserError` is one line on standard error and exit status 1."""
    try:
        _app(_named(sys.argv[1:]))(prog_name=_program())
    except UserError as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "bytewax":
            raise
        sys.exit(f"error: {missing_bytewax()}")
    except BrokenPipeError:
        sys.exit(1)
