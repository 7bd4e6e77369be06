"""What people see of jobs while they work: bars on a terminal, a line for each change elsewhere."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modelyard.cli.waiting import Follower, News, to_stderr
from modelyard.sdk import progress
from modelyard.sdk.objects import Object
from modelyard.sdk.progress import Progress, State

_JOB = "ModelJob"
_LINE_SECONDS = 1.0
_QUIET_SECONDS = 2.0
_FRAMES_PER_SECOND = 4
_WIDEST_NAME = 30
_COLORS = {State.RUNNING: "cyan", State.COMPLETE: "green", State.FAILED: "red"}
_WAITS = "yellow"


class View(Protocol):
    """Where everything goes that is said while jobs are followed."""

    def say(self, text: str) -> None:
        """A result, at once."""

    def at_last(self, text: str) -> None:
        """How a job ended."""

    def aside(self, text: str) -> None:
        """What somebody should know who interrupts the view."""

    def follower(self, subject: str, body: Object) -> Follower:
        """What is told of one object. subject: as people call it."""


def of(out: TextIO) -> AbstractContextManager[View]:
    """Bars where `out` is a terminal, else lines."""
    return _bars(Console(file=out, highlight=False)) if out.isatty() else _lines()


@contextmanager
def _lines() -> Iterator[View]:
    yield Lines(click.echo)


class Lines:
    """A line for each change; changes of numbers at most every second."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.say = write
        self.at_last = write
        self.aside = to_stderr

    def follower(self, subject: str, body: Object) -> Follower:
        return _JobLines(subject, self.say) if body.get("kind") == _JOB else News(subject)


class _JobLines:
    def __init__(self, subject: str, write: Callable[[str], None]) -> None:
        self._subject = subject
        self._write = write
        self._state: State | None = None
        self._last = "waiting to be looked at"
        self._said = ""
        self._changed = asyncio.Event()

    def told(self, state: Object | None) -> None:
        found = progress.of(state or {})
        if not found.reason:
            return
        self._last = progress.line(found)
        if found.state is State.COMPLETE:
            self._said = self._last  # whoever waits says more
        elif found.state is not self._state:
            self._state = found.state
            self._say()
        self._changed.set()

    async def keep_saying(self) -> None:
        await asyncio.sleep(_QUIET_SECONDS)
        self._say()
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._say()
            await asyncio.sleep(_LINE_SECONDS)

    def _say(self) -> None:
        if self._said != self._last:
            self._said = self._last
            self._write(f"{time.strftime('%H:%M:%S')} {self._subject}  {self._last}")


@contextmanager
def _bars(console: Console) -> Iterator[View]:
    """The bars stay where they are; what is said goes above them, and how jobs ended below."""
    bars = Bars(console, time.time)
    try:
        with Live(console=console, get_renderable=bars.picture, refresh_per_second=_FRAMES_PER_SECOND) as live:
            try:
                yield bars
            finally:
                live.refresh()
    finally:
        for write, text in bars.late:
            write(text)


class Bars:
    """A bar for each job, with its numbers below. now: seconds since 1970."""

    def __init__(self, console: Console, now: Callable[[], float]) -> None:
        self.late: list[tuple[Callable[[str], None], str]] = []
        self._console = console
        self._now = now
        self._jobs: dict[str, Progress] = {}

    def say(self, text: str) -> None:
        self._console.print(Text(text))

    def at_last(self, text: str) -> None:
        self.late.append((click.echo, text))

    def aside(self, text: str) -> None:
        self.late.append((to_stderr, text))

    def follower(self, subject: str, body: Object) -> Follower:
        if body.get("kind") != _JOB:
            return News(subject, self.say)
        self.show(body)
        return _JobBar(self.show)

    def show(self, state: Object) -> None:
        """A job is so now."""
        self._jobs[state["metadata"]["name"]] = progress.of(state)

    def picture(self) -> RenderableType:
        """All jobs as they are now."""
        width = min(max(map(len, self._jobs), default=0), _WIDEST_NAME)
        now = self._now()
        return Group(*(each for job in self._jobs.items() for each in _drawn(*job, width, now)))


class _JobBar:
    def __init__(self, show: Callable[[Object], None]) -> None:
        self._show = show

    def told(self, state: Object | None) -> None:
        if state is not None:
            self._show(state)

    async def keep_saying(self) -> None:
        """The picture is drawn again and again by itself."""


def _drawn(name: str, found: Progress, width: int, now: float) -> Iterator[RenderableType]:
    color = _COLORS.get(found.state, _WAITS)
    percent = "" if found.percent is None else f"{found.percent}%"
    seconds = found.seconds(now)
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(width=width, no_wrap=True, overflow="ellipsis")
    row.add_column(ratio=1, min_width=10)
    row.add_column(width=4, justify="right")
    row.add_column(width=max(map(len, State)), no_wrap=True)
    row.add_column(width=len("less than"), justify="right", no_wrap=True)
    pulse = found.state is State.RUNNING and found.percent is None
    completed = found.percent or 0
    bar = ProgressBar(completed=completed, pulse=pulse, complete_style=color, finished_style=color, pulse_style=color)
    time_text = "" if seconds is None else progress.span(seconds)
    row.add_row(Text(name, style="bold"), bar, percent, Text(found.state, style=color), time_text)
    yield row
    details = _details(found)
    if details:
        yield Padding(Text(details, style="" if found.state is State.FAILED else "dim"), (0, 0, 0, 2))


def _details(found: Progress) -> str:
    if found.state is State.COMPLETE:
        return ""  # said below in the end
    if found.state is not State.RUNNING:
        return progress.told(found)
    runners = progress.count(found.active, "runner") if found.active else ""
    return ", ".join(filter(None, (*progress.parts(found), runners))) or found.message
