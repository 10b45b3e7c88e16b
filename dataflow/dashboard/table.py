"""The table of instances in the browser: gets what has changed, and says what the reader does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import param
from panel.custom import JSComponent

from dataflow.dashboard.view import Column
from dataflow.records import encode

__all__ = ["Table"]


class Table(JSComponent):
    """A table of which the browser holds one page; see `View`.

    `asked` is called with what the reader does: `{"ready": true}` once the browser can take
    messages, `{"sort": FIELD}`, `{"find": TEXT}`, `{"page": NUMBER}` and `{"held": BOOLEAN}`.
    """

    columns = param.List(doc="Of each column: its field, title, hint, and how it is shown.")

    _esm = Path(__file__).with_name("table.js")
    _stylesheets: ClassVar[list[str]] = [
        Path(__file__).with_name("table.css").read_text(encoding="utf-8")
    ]

    def __init__(self, columns: Sequence[Column], asked: Callable[[dict[str, Any]], None]) -> None:
        shown = [
            {
                "field": column.field,
                "title": column.title,
                "hint": column.hint,
                "number": column.number,
                "hide": column.hide,
                "sortable": column.key is not None,
            }
            for column in columns
        ]
        super().__init__(  # type: ignore[no-untyped-call]
            columns=shown, sizing_mode="stretch_width", margin=0
        )
        self._asked = asked

    def send(self, message: dict[str, Any]) -> None:
        """Send what has changed to the browser."""
        # As text: Bokeh's own encoding of a map takes twice as much.
        self._send_msg(encode(message).decode())

    def _handle_msg(self, data: Any) -> None:
        if isinstance(data, dict):
            self._asked(data)
