"""What a message's bytes say, and what is wrong with them: whoever publishes may send anything."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modelyard.runtime.scoring.values import check_texts
from modelyard.runtime.streams.fields import Problem

_BOM = b"\xef\xbb\xbf"
_MOST_NESTED = 64
MOST_ROWS = 2**20
MOST_TABLE_BYTES = 256 * 2**20
"""Of one Arrow message after decompression: a few bytes can claim to be very many rows."""
_UNREADABLE = "Unreadable"
_decode = msgspec.json.Decoder().decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_JSON_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class Records:
    """Of one JSON message. values: of its records; packed: they came in a list; bad: places whose value means
    nothing."""

    values: Sequence[Any]
    packed: bool
    bad: dict[int, Problem]


def json_records(payload: bytes) -> Records:
    """An object is one record, a list has one in each element. Whatever else is there is one that cannot be read.

    Numbers with a fraction are doubles, whole ones are exact. A name that an object has twice is an error, since
    everybody reads another one of them. Sources: RFC 8259, and RFC 7493 for names.
    """
    if payload[:1] == _BOM[:1]:
        payload = payload.removeprefix(_BOM)
    try:
        value = _decode(payload)
    except _JSON_ERRORS as error:
        return _unreadable(payload, error)
    packed = type(value) is list
    values = value if packed else [value]
    # Far cheaper than looking at the names themselves, and only ever wrong by looking once too often.
    if payload.count(b'":') + payload.count(b'" :') != _names(values):
        return Records(values, packed, _doubled(payload, values, packed=packed))
    return Records(values, packed, {})


def raw_elements(payload: bytes, count: int) -> list[bytes] | None:
    """The text of each record of a list; None if it cannot be told."""
    try:
        found = _elements(payload.removeprefix(_BOM))
    except _JSON_ERRORS:
        return None
    return [bytes(each) for each in found] if len(found) == count else None


def too_deep(value: Any) -> bool:
    """Lists and objects within each other, deeper than readers of JSON put up with."""
    level = [value]
    for _ in range(_MOST_NESTED):
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            return False
    return True


def arrow_table(payload: bytes) -> pa.Table | Problem:
    """All record batches of an IPC stream, checked. Source: the Arrow columnar format, IPC streaming format."""
    if payload[:6] == b"ARROW1":
        return Problem(_UNREADABLE, "the message is an Arrow file; send the streaming format of Arrow IPC")
    try:
        return _batches(payload)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        return Problem(_UNREADABLE, f"the message is no Arrow IPC stream: {sentence(error)}")


def rows_of(table: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    """Some rows, by their places in order. By slices, since Arrow takes rows out of most types only."""
    if len(places) == table.num_rows or not len(places):
        return table.slice(0, len(places))
    runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    return pa.concat_tables([table.slice(int(run[0]), len(run)) for run in runs])


def sentence(error: Exception) -> str:
    """The first line of an error, for people."""
    return " ".join(str(error).split("\n", 1)[0].split())[:300] or type(error).__name__


def _batches(payload: bytes) -> pa.Table | Problem:
    source = pa.BufferReader(payload)
    found, rows, size = [], 0, 0
    with pa.ipc.open_stream(source) as reader:
        schema = reader.schema
        check_texts(schema)
        for batch in reader:
            rows += batch.num_rows
            if rows > MOST_ROWS:
                return Problem("TooLarge", f"the message has {rows} records, at most {MOST_ROWS} are taken in one")
            batch.validate(full=True)
            size += batch.nbytes
            if size > MOST_TABLE_BYTES:
                return Problem(
                    "TooLarge", f"the message has {size} bytes when decompressed, at most {MOST_TABLE_BYTES}"
                )
            found.append(batch)
    if source.tell() < len(payload):
        return Problem(
            _UNREADABLE, f"{len(payload) - source.tell()} bytes follow after the end of the Arrow IPC stream"
        )
    return pa.Table.from_batches(found, schema)


def _unreadable(payload: bytes, error: Exception) -> Records:
    """A list whose elements can be told apart has only some that are bad; everything else is bad as a whole."""
    try:
        elements = _elements(payload)
    except _JSON_ERRORS:
        return Records([None], False, {0: Problem(_UNREADABLE, f"the message is no JSON: {sentence(error)}")})
    values: list[Any] = []
    bad = {}
    for place, element in enumerate(elements):
        text = bytes(element)
        try:
            values.append(_decode(text))
        except _JSON_ERRORS as odd:
            values.append(None)
            bad[place] = Problem(_UNREADABLE, f"the record is no JSON: {sentence(odd)}")
        else:
            if twice := _doubled(text, values[-1:], packed=False):
                bad[place] = twice[0]
    return Records(values, True, bad)


def _doubled(payload: bytes, values: Sequence[Any], *, packed: bool) -> dict[int, Problem]:
    """Records in which an object has a name twice."""
    if payload.count(b'":') + payload.count(b'" :') == _all_names(values):
        return {}
    elements = raw_elements(payload, len(values)) if packed else [payload]
    found = {}
    for place, element in enumerate(elements or []):
        try:
            json.loads(element, object_pairs_hook=_once)
        except _Twice as error:
            found[place] = Problem(_UNREADABLE, f"an object has the name {error.name} twice")
        except _JSON_ERRORS as error:
            found[place] = Problem(_UNREADABLE, f"the record is no JSON: {sentence(error)}")
    return found


class _Twice(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name[:100]


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Nothing is kept: names are all that is asked for."""
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise _Twice(name)
        seen.add(name)


def _names(values: Iterable[Any]) -> int:
    """Of the records themselves."""
    return sum(len(each) for each in values if type(each) is dict)


def _all_names(values: Iterable[Any]) -> int:
    """Of objects within them, too."""
    count, level = 0, list(values)
    while level:
        count += _names(level)
        level = [inner for each in level for inner in _inner(each)]
    return count


def _inner(value: Any) -> Iterable[Any]:
    if type(value) is dict:
        return value.values()
    return value if type(value) is list else ()
