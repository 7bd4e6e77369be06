"""How answers look: aligned columns, colors only on a terminal, YAML or JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

_Command = Callable[..., Any]
_COLORS = {"True": "green", "False": "red", "Unknown": "yellow", "Warning": "yellow"}


def formats(*names: str) -> Callable[[_Command], _Command]:
    """The option -o."""
    return click.option("-o", "--output", "form", type=click.Choice(names), help="Print in another form.")


def emit(value: Any, form: str) -> None:
    """One value as YAML or JSON, keys as the server gave them."""
    if form == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120), nl=False)


def table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, header: bool = True, widths: list[int] | None = None
) -> None:
    """Rows of cells; each column as wide as its widest cell."""
    for line in lines(titles, rows, header=header, widths=widths):
        click.echo(line)


def lines(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, header: bool = True, widths: list[int] | None = None
) -> list[str]:
    """The lines of a table. On a terminal, states are colored. widths: of earlier lines, brought up to date."""
    body = [[cell.replace("\n", " ") for cell in row] for row in rows]
    widths = [] if widths is None else widths
    before = widths or [0] * len(titles)
    widths[:] = [max(old, *(len(row[index]) for row in [titles, *body])) for index, old in enumerate(before)]
    shown = [list(titles), *body] if header else body
    found = []
    for number, row in enumerate(shown):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if sys.stdout.isatty():
            paint = (lambda cell: click.style(cell, bold=True)) if header and number == 0 else _painted
            cells = [paint(cell) for cell in cells]
        found.append("   ".join(cells).rstrip())
    return found


def _painted(cell: str) -> str:
    color = _COLORS.get(cell.strip())
    return click.style(cell, fg=color) if color else cell
