"""The names of everything at a stream's output of files, and what a file says about itself. Pure.

    part-03-00000000000000000101.parquet             of partition 3, after position 100: its one put is the commit
    _stream/owner.json                               which stream writes here
    _stream/<name>/03/begin.json                     where the partition begins
    _stream/<name>/03/tail.json                      a part, one of the last: where to look first
    _stream/<name>/03/notes/<first>-<sha256>.json    csv, jsonl: what the part of that content tells
    _stream/<name>/03/dead/<first>-<attempt>.ndjson  records that could not be scored
    _stream/<name>/03/skips/<first>-0001.json        csv, jsonl: what comes before the rows of the part of that name
    _stream/<name>/staging/                          where a file is written before it gets its name, on file://

Each part tells the position of its last record, and the next one is called after the position that follows: only one
writer can commit what comes after a part. Names below `_stream/` never end as parts do, so that a glob for parts finds
nothing else.

Files of csv and jsonl without a row tell no types, and readers (pyarrow) refuse them, or those that follow. So where
all records of a commit are bad, a skip is put there instead of a part: the part of that name is put later, with the
first good records, and begins where the last skip ends. Skips of a part are numbered, and each is put if absent. They
bind nobody but who has read them: whoever has not may still commit the part, and then the skips never were.
"""

import base64
import json
import re
from collections.abc import Sequence

import msgspec
import pyarrow as pa

from modelyard.runtime.streams.records import Offset, Outgoing

VERSION = 1
NOTE = b"modelyard.commit"
"""Key of a note in the metadata of parquet and arrow."""
NOTED = ("parquet", "arrow")
"""Formats that keep one."""
OWNER = "_stream/owner.json"
_PART = re.compile(r"part-(\d{2})-(\d{20})\.([a-z]+)")
_SKIP = re.compile(r".*/skips/(\d{20})-(\d{4})\.json")
_DEAD = re.compile(r".*/(\d{20})-([0-9a-f]{16})\.ndjson")


class _Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    version: int = VERSION


class Note(_Struct, frozen=True, kw_only=True):
    """Of one part. last: position of its last message. records, dead_letters, expired: since the partition began.

    rows: in the part; guessed: there were none yet, so its types say nothing. source, created: the stream that was
    read, and when that was made. dead: key of its dead letters; skipped: those of the skips before it.
    """

    stream: str
    partition: int
    first: int
    last: int
    records: int
    dead_letters: int
    expired: int
    rows: int
    guessed: bool = False
    source: str
    created: str = ""
    attempt: str
    dead: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def offset(self) -> Offset:
        return Offset(position=self.last, records=self.records, dead_letters=self.dead_letters, expired=self.expired)

    @property
    def letters(self) -> frozenset[str]:
        """Keys of all dead letters that count."""
        return frozenset(each for each in (self.dead, *self.skipped) if each)


class Skip(_Struct, frozen=True, kw_only=True):
    """A commit without a part. number: of those before the same part, from 1; first: in the name of that part. dead:
    keys of the dead letters of this one and those before; the rest is as in a Note."""

    first: int
    number: int
    last: int
    records: int
    dead_letters: int
    expired: int
    attempt: str
    dead: tuple[str, ...]

    @property
    def offset(self) -> Offset:
        return Offset(
            position=self.last,
            fence=self.first,
            records=self.records,
            dead_letters=self.dead_letters,
            expired=self.expired,
        )


class Begun(_Struct, frozen=True, kw_only=True):
    """`begin.json`. position: of the last message that is left out."""

    stream: str
    partition: int
    position: int
    format: str
    source: str
    created: str = ""
    attempt: str


class Owner(_Struct, frozen=True, kw_only=True):
    """`owner.json`. partitions, subjects, key: as in the manifest; they say which records belong to which partition."""

    stream: str
    partitions: int
    subjects: tuple[str, ...]
    key: int = 0


class Tail(_Struct, frozen=True, kw_only=True):
    """`tail.json`. first: of a part, one of the last. swept: dead letters of parts before it were looked at."""

    first: int
    swept: int = 0


def part(partition: int, first: int, format_name: str) -> str:
    """What comes from that position on."""
    return f"part-{partition:02d}-{first:020d}.{format_name}"


def first_of(key: str, partition: int, format_name: str) -> int | None:
    """The position in the name of a part of that partition; None for everything else."""
    found = _PART.fullmatch(key)
    if found is None or int(found[1]) != partition or found[3] != format_name:
        return None
    return int(found[2])


def folder(name: str, partition: int) -> str:
    """What is kept of a partition besides its parts."""
    return f"_stream/{name}/{partition:02d}"


def staging(name: str) -> str:
    """As of `Store.create`."""
    return f"_stream/{name}/staging"


def note(name: str, partition: int, first: int, sha256: str) -> str:
    """The note of a part that cannot hold it. By its content: of two attempts that make the same part only one note
    counts, or each could take the part for its own and go on from another position."""
    return f"{folder(name, partition)}/notes/{first:020d}-{sha256}.json"


def dead(name: str, partition: int, first: int, attempt: str) -> str:
    """The records of an attempt that could not be scored."""
    return f"{folder(name, partition)}/dead/{first:020d}-{attempt}.ndjson"


def skip(name: str, partition: int, first: int, number: int) -> str:
    """What was committed before the part of that name, without any of its own."""
    return f"{folder(name, partition)}/skips/{first:020d}-{number:04d}.json"


def skip_of(key: str) -> tuple[int, int]:
    """(first, number) in the key of a skip; (-1, 0) for everything else."""
    found = _SKIP.fullmatch(key)
    return (int(found[1]), int(found[2])) if found else (-1, 0)


def attempt_of(key: str) -> tuple[int, str]:
    """(first position, attempt) in the key of dead letters; (-1, "") for everything else."""
    found = _DEAD.fullmatch(key)
    return (int(found[1]), found[2]) if found else (-1, "")


def note_of(schema: pa.Schema) -> Note | None:
    """What parquet or arrow tells; None if nothing, or nothing of ours."""
    data = (schema.metadata or {}).get(NOTE)
    return None if data is None else decode_note(data)


def decode_note(data: bytes) -> Note | None:
    """None for anything else."""
    try:
        return msgspec.json.decode(data, type=Note)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def dead_body(outgoing: Sequence[Outgoing]) -> bytes:
    """A line of JSON for each dead letter; a payload that is no UTF-8 is base64."""
    lines = []
    for each in outgoing:
        line: dict[str, object] = {"position": each.position, "headers": dict(each.headers)}
        try:
            line["payload"] = each.payload.decode()
        except UnicodeDecodeError:
            line["payloadBase64"] = base64.b64encode(each.payload).decode()
        lines.append(json.dumps(line) + "\n")
    return "".join(lines).encode()
