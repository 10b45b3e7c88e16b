"""`python -m dataflow COMMAND`: everything that is not the flow itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer

from dataflow.errors import UserError

__all__ = ["COMMANDS", "main"]

COMMANDS = (
    "demo",
    "dashboard",
    "broker",
    "topics",
    "recovery",
    "produce",
    "replay",
    "notify",
    "sample",
    "import-nab",
    "evaluate",
    "plan",
)
"""Each is the function of that name in the module of that name in `dataflow.commands`."""


def _command(name: str) -> Callable[..., Any]:
    name = name.replace("-", "_")
    function: Callable[..., Any] = getattr(import_module(f"dataflow.commands.{name}"), name)
    return function


def _app(names: tuple[str, ...]) -> typer.Typer:
    app = typer.Typer(
        name="python -m dataflow",
        help="Tools around the flow; the flow itself is `python -m bytewax.run dataflow.flow`.",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(lambda: None)  # keeps the command's name even if there is only one
    for name in names:
        app.command(name)(_command(name))
    return app


def main() -> None:
    """Run one command; what it refuses is one line on standard error and exit status 1."""
    try:
        _app(COMMANDS)()
    except UserError as refusal:
        sys.exit(f"error: {refusal}")
    except BrokenPipeError:
        sys.exit(1)
