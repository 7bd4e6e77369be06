"""What `modelyard up` shows: a live table on a terminal, a line for each change elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

Object = dict[str, Any]
_SHOWN = frozenset({"Model", "ModelService"})


class Board:
    """Knows the latest condition of every model and service."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False, soft_wrap=True)
        self._rows: dict[tuple[str, str, str], tuple[str, str, str]] = {}
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False)
        self._console.file.flush()

    def changed(self, kind: str, place: tuple[str, str], body: Object | None) -> None:
        """An object was created, changed or removed."""
        if kind not in _SHOWN:
            return
        key = (kind, *place)
        row = None if body is None else _row(body)
        before = self._rows.get(key)
        if row == before or (row is not None and not row[1] and before is None):
            return  # nothing new, or nothing known yet
        if row is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = row
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif row is not None:
            self.say(f"{time.strftime('%H:%M:%S')} {kind} {_name(place)}: Ready={row[0]}  {row[1]}  {row[2]}".rstrip())
        else:
            self.say(f"{time.strftime('%H:%M:%S')} {kind} {_name(place)}: deleted")

    @contextmanager
    def live(self) -> Iterator[None]:
        """On a terminal the table stays in place; elsewhere nothing changes."""
        if not self._console.is_terminal:
            yield
            return
        with Live(self._table(), console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            live.refresh()
            try:
                yield
            finally:
                self._live = None

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("KIND", "NAME", "READY", "REASON", "MESSAGE"):
            table.add_column(title, overflow="ellipsis", no_wrap=title != "MESSAGE")
        for (kind, *place), (ready, reason, message) in sorted(self._rows.items()):
            color = {"True": "green", "False": "red"}.get(ready, "yellow")
            name = _name((place[0], place[1]))
            # What is the matter may take several lines; what is well takes one.
            told = Text(message, no_wrap=ready == "True", overflow="ellipsis" if ready == "True" else "fold")
            table.add_row(kind, name, Text(ready, style=color), reason, told)
        return table


def _name(place: tuple[str, str]) -> str:
    return place[1] if place[0] == "default" else f"{place[0]}/{place[1]}"


def _row(body: Object) -> tuple[str, str, str]:
    conditions = (body.get("status") or {}).get("conditions") or []
    ready: Object = next((each for each in conditions if each.get("type") == "Ready"), {})
    first, _, rest = str(ready.get("message", "")).partition("\n")
    if rest:
        first += f" ... ('modelyard why {body['metadata']['name']}' shows all)"
    return str(ready.get("status", "Unknown")), str(ready.get("reason", "")), first
