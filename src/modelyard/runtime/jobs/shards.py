"""The frozen plan of a run: which rows of which files become which part. Pure.

It is decided once, when the run begins, and stored in the run's record: a resume never depends on how files are laid
out or cut at that later time.
"""

from collections.abc import Sequence

import msgspec

from modelyard.base.errors import UserError

VERSION = 1
_SMALLEST_BYTES = 256 * 2**10


class _Struct(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    pass


class Source(_Struct, frozen=True, kw_only=True):
    """An input file as it was when the run began; key: relative to the input's uri."""

    key: str
    size_bytes: int
    etag: str


class Piece(_Struct, frozen=True, kw_only=True):
    """Rows of one file. start, stop: in units of the format, as `records.Segment`; first_row: of `start`.

    low, high: numbers of the rows to take within the file; more may lie between start and stop.
    """

    source: int
    start: int
    stop: int
    first_row: int
    low: int
    high: int

    @property
    def rows(self) -> int:
        return self.high - self.low


class RunRecord(_Struct, frozen=True, kw_only=True):
    """`_run/<number>.json`. job: the uid of the object that began it; identity: of what is done (`identity`).

    schema: of the input, as base64 of an Arrow IPC message. format: of the parts. shards: pieces by number.
    """

    version: int = VERSION
    job: str
    identity: str
    number: int
    mode: str
    format: str = ""
    input_format: str = ""
    schema: str = ""
    sources: tuple[Source, ...] = ()
    shards: tuple[tuple[Piece, ...], ...] = ()

    @property
    def total_rows(self) -> int:
        return sum(piece.rows for shard in self.shards for piece in shard)


class Segment(_Struct, frozen=True, kw_only=True):
    """A natural piece of the file with that index, and how many rows it has."""

    source: int
    start: int
    stop: int
    first_row: int
    rows: int


def encode(record: RunRecord) -> bytes:
    """JSON."""
    return msgspec.json.encode(record)


def decode(data: bytes, uri: str) -> RunRecord:
    """Raises UserError on anything else: people can write into an output, too."""
    try:
        record = msgspec.json.decode(data, type=RunRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{uri} is not a record of a run: {error}; use an output of its own for each job") from error
    if record.version != VERSION:
        raise UserError(f"{uri} was written by another release (version {record.version}, this one reads {VERSION})")
    return record


def cut(
    segments: Sequence[Segment], *, bytes_per_row: float, shard_bytes: int, min_shards: int
) -> tuple[tuple[Piece, ...], ...]:
    """Shards of about `shard_bytes` of output, at least `min_shards` where there is enough to do.

    Every row is in exactly one piece, in order. Small segments are put together, large ones are cut by rows. There is
    always one shard, so that an output without rows has a part that tells its columns.
    """
    total = sum(segment.rows for segment in segments)
    share = max(total * bytes_per_row / max(min_shards, 1), _SMALLEST_BYTES)
    rows = max(1, int(min(share, shard_bytes) / max(bytes_per_row, 1e-9)))
    shards: list[tuple[Piece, ...]] = []
    current: list[Piece] = []
    room = rows
    for segment in segments:
        low, end = segment.first_row, segment.first_row + segment.rows
        while low < end:
            # A rest that is a little too large is taken along: it costs less than reading the segment twice.
            high = end if end - low <= room * 1.25 else low + room
            current.append(_piece(segment, low, high))
            room -= high - low
            low = high
            if room <= rows // 8:
                shards.append(tuple(current))
                current, room = [], rows
    if current or not shards:
        shards.append(tuple(current))
    return tuple(shards)


def _piece(segment: Segment, low: int, high: int) -> Piece:
    return Piece(
        source=segment.source,
        start=segment.start,
        stop=segment.stop,
        first_row=segment.first_row,
        low=low,
        high=high,
    )
