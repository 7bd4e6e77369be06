"""What `modelyard up` shows: a live table on a terminal, a line for each change elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modelyard.sdk import objects, progress
from modelyard.sdk.progress import State

Object = dict[str, Any]
_Key = tuple[str, str, str]
_SHOWN = frozenset({"Model", "ModelJob", "ModelService", "ModelStream"})
_FLOWING = "ModelStream"
"""Its numbers change for ever: apart from the table only states are news."""
_PROGRESS_SECONDS = 2.0
_COLORS = {"True": "green", State.COMPLETE: "green", "False": "red", State.FAILED: "red", State.RUNNING: "cyan"}
_GOOD = frozenset({"True", State.COMPLETE, State.RUNNING})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """state: `Ready`'s status, or the word for a job. facts: changes when more than numbers do."""

    state: str
    reason: str
    message: str
    facts: int = 0

    def line(self) -> str:
        state = self.state if isinstance(self.state, State) else f"Ready={self.state}"
        return "  ".join(filter(None, (state, self.shown_reason(), self.message)))

    def shown_reason(self) -> str:
        """A job that is Complete is Completed."""
        return "" if self.reason.startswith(self.state) else self.reason

    def is_news(self, before: "_Row | None") -> bool:
        return before is None or (self.state, self.reason, self.facts) != (before.state, before.reason, before.facts)


class Board:
    """Knows the latest condition of every model, service, job and stream. monotonic: seconds that never go back."""

    def __init__(self, out: TextIO, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(file=out, highlight=False, soft_wrap=True)
        self._monotonic = monotonic
        self._rows: dict[_Key, _Row] = {}
        self._said: dict[_Key, float] = {}
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
        row = None if body is None else _row(kind, body)
        before = self._rows.get(key)
        if row == before or (row is not None and not row.reason and before is None):
            return  # nothing new, or nothing known yet
        if row is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = row
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif row is None:
            self._said.pop(key, None)
            self._line(key, "deleted")
        elif row.is_news(before) or (kind != _FLOWING and (kind != "ModelJob" or self._is_due(key))):
            self._said[key] = self._monotonic()
            self._line(key, row.line())

    def _is_due(self, key: _Key) -> bool:
        """Numbers change all the time."""
        return self._monotonic() - self._said.get(key, -_PROGRESS_SECONDS) >= _PROGRESS_SECONDS

    def _line(self, key: _Key, text: str) -> None:
        self.say(f"{time.strftime('%H:%M:%S')} {key[0]} {_name(key[1:])}: {text}")

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
        for title in ("KIND", "NAME", "STATE", "REASON", "MESSAGE"):
            table.add_column(title, overflow="ellipsis", no_wrap=title != "MESSAGE")
        for (kind, *place), row in sorted(self._rows.items(), key=lambda each: each[0]):
            color = _COLORS.get(row.state, "yellow")
            name = _name((place[0], place[1]))
            # What is the matter may take several lines; what is well takes one.
            good = row.state in _GOOD
            told = Text(row.message, no_wrap=good, overflow="ellipsis" if good else "fold")
            state = {"True": "Ready", "False": "not Ready"}.get(row.state, row.state)
            table.add_row(kind, name, Text(state, style=color), row.shown_reason(), told)
        return table


def _name(place: tuple[str, str]) -> str:
    return place[1] if place[0] == "default" else f"{place[0]}/{place[1]}"


def _row(kind: str, body: Object) -> _Row:
    if kind == "ModelJob":
        return _job(body)
    found = objects.condition(body)
    message = _first_line(found, body)
    return _Row(state=str(found.get("status", "Unknown")), reason=str(found.get("reason", "")), message=message)


def _job(body: Object) -> _Row:
    found = progress.of(body)
    if found.state in (State.RUNNING, State.COMPLETE, State.SUSPENDED):
        return _Row(state=found.state, reason=found.reason, message=progress.told(found), facts=found.failed)
    message = _first_line(objects.condition(body, "Complete"), body)
    return _Row(state=found.state, reason=found.reason, message=message, facts=found.failed)


def _first_line(found: Object, body: Object) -> str:
    first, _, rest = str(found.get("message", "")).partition("\n")
    return first + (f" ... ('modelyard why {body['metadata']['name']}' shows all)" if rest else "")
