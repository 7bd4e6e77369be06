"""Text of records that end with line breaks: found fast, cut between records."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.records import File, Segment
from modelyard.runtime.scoring.refused import Refused

_BLOCK = 4 * 2**20
_MOST_RECORD_BYTES = 256 * 2**20
_LINE, _RETURN, _QUOTE = 10, 13, 34
BOM = b"\xef\xbb\xbf"


def ends(data: bytes, *, quotes: bool, inside: bool = False) -> tuple[NDArray[np.int64], bool]:
    """(positions of the line breaks that end a record, whether the data ends inside quotes).

    quotes: line breaks within double quotes belong to a value (RFC 4180; a doubled quote changes nothing twice).
    """
    view = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(view == _LINE)
    if not quotes or (not inside and b'"' not in data):
        return breaks, False
    marks = np.flatnonzero(view == _QUOTE)
    before = np.searchsorted(marks, breaks) + int(inside)
    return breaks[before % 2 == 0], (len(marks) + int(inside)) % 2 == 1


def blank(data: bytes, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which records, each from its start to before its line break, are empty lines."""
    length = stops - starts
    view = np.frombuffer(data, np.uint8)
    empty: NDArray[np.bool_] = length == 0
    one = np.flatnonzero(length == 1)
    empty[one] = view[starts[one]] == _RETURN
    return empty


def survey(file: File, name: str, segment_bytes: int, *, quotes: bool, start: int = 0) -> tuple[Segment, ...]:
    """Segments of about that size from one pass over the file. start: where the first record begins."""
    found: list[Segment] = []
    first = rows = 0
    began = start
    for end, count in _records(file, name, start, quotes=quotes):
        rows += count
        if end - began >= segment_bytes:
            found.append(Segment(start=began, stop=end, rows=rows, first_row=first))
            first, rows, began = first + rows, 0, end
    if rows:
        found.append(Segment(start=began, stop=file.size(), rows=rows, first_row=first))
    return tuple(found)


def _records(file: File, name: str, start: int, *, quotes: bool) -> Iterator[tuple[int, int]]:
    """(where the last record of a block ends, how many end in it); blocks without an end are put together."""
    position, rest = start, b""
    size = file.size()
    file.seek(start)
    while position < size:
        block = file.read(_BLOCK)
        if not block:
            raise Refused(Reason.INPUT_CHANGED, f"{name} became shorter while it was read; start again")
        position += len(block)
        data = rest + block
        if position >= size and not data.endswith(b"\n"):
            data += b"\n"
        if len(data) > _MOST_RECORD_BYTES:
            raise Refused(
                Reason.INPUT_INVALID,
                f"{name}: a record is longer than {_MOST_RECORD_BYTES >> 20} MiB, or a quote before byte {position} is "
                "never closed",
            )
        stops, _ = ends(data, quotes=quotes)
        if not len(stops):
            if position >= size:
                yield size, 1
                return
            rest = data
            continue
        starts = np.concatenate(([0], stops[:-1] + 1))
        rest = data[int(stops[-1]) + 1 :]
        yield min(position - len(rest), size), int(len(stops) - blank(data, starts, stops).sum())
    if rest.strip(b"\r\n"):
        yield size, 1


def text(file: File, start: int, stop: int) -> bytes:
    """The bytes of a segment, ending with a line break."""
    file.seek(start)
    data: bytes = file.read(stop - start)
    return data if data.endswith(b"\n") or not data else data + b"\n"


def head(file: File, *, quotes: bool) -> bytes:
    """Whole records of the first MiB, without a byte order mark."""
    file.seek(0)
    data: bytes = file.read(2**20).removeprefix(BOM)
    if len(data) < 2**20 - len(BOM):
        return data
    stops, _ = ends(data, quotes=quotes)
    return data[: int(stops[-1]) + 1] if len(stops) else data
