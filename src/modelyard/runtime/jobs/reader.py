"""Reads the pieces of shards, one after the other, and goes on where it is if the next piece lies further on.

A large row group is cut into several pieces, and can only be read from its start: whoever takes them in order reads it
once and not once for each.
"""

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from modelyard.runtime.jobs import begin, formats
from modelyard.runtime.jobs.shards import Piece, RunRecord
from modelyard.runtime.scoring.mapping import Mapping
from modelyard.runtime.scoring.records import Batch, Wanted
from modelyard.storage.stores import Store

_MOST_ROWS = 64 * 1024
_MOST_BYTES = 32 * 2**20
_LARGER = 3.0
"""How much larger rows are taken to be in memory than in a file, until some were read."""


class Reader:
    """Of one lane; used in threads, by one at a time."""

    def __init__(self, store: Store, record: RunRecord, mapping: Mapping, batch_rows: int) -> None:
        self._store = store
        self._record = record
        self._mapping = mapping
        self._batch_rows = batch_rows
        self._row_bytes = 0.0
        """Of what was read last; 0: nothing yet."""
        self._rows_of = Counter[int]()
        for piece in (piece for shard in record.shards for piece in shard):
            self._rows_of[piece.source] += piece.rows
        self._segment: tuple[int, int, int] | None = None
        """What `_batches` reads: source, start, stop."""
        self._batches: Iterator[Batch] = iter(())
        self._next_row = 0
        self._held: Batch | None = None
        """Read already, with rows from `_next_row` on."""

    def rows(self, piece: Piece) -> Iterator[Batch]:
        """The rows of the piece and no others."""
        segment = (piece.source, piece.start, piece.stop)
        if self._segment != segment or self._next_row > piece.low:
            self._batches, self._held = self._open(piece), None
        self._segment = None  # until this piece is read to its end
        while True:
            batch = self._held or next(self._batches, None)
            self._held = None
            if batch is None:
                return
            if batch.table.num_rows:
                self._row_bytes = batch.table.nbytes / batch.table.num_rows
            taken = within(batch, piece.low, piece.high)
            if taken is not None:
                yield taken
            if batch.last_row >= piece.high - 1:
                break
        if batch.last_row >= piece.high:
            self._held = batch
        self._segment, self._next_row = segment, piece.high

    def _open(self, piece: Piece) -> Iterator[Batch]:
        source = self._record.sources[piece.source]
        wanted = Wanted(
            start=piece.start,
            stop=piece.stop,
            first_row=piece.first_row,
            schema=self._mapping.schema,
            columns=self._mapping.read_columns,
            batch_rows=self._rows_at_once(piece.source),
        )
        file = begin.open_source(self._store, source)
        return formats.read(self._record.input_format, file, source.key, wanted)

    def _rows_at_once(self, source: int) -> int:
        """More than one call of the model takes where rows are narrow, since a read costs; fewer where they are
        wide."""
        guess = _LARGER * self._record.sources[source].size_bytes / max(self._rows_of[source], 1)
        room = int(_MOST_BYTES / max(self._row_bytes or guess, 1.0))
        return max(1, min(max(self._batch_rows, _MOST_ROWS), room))


def within(batch: Batch, low: int, high: int) -> Batch | None:
    """The rows with numbers from low to high, without high; None if there are none."""
    keep = (batch.rows >= low) & (batch.rows < high)
    errors = tuple(each for each in batch.errors if low <= each.row < high)
    if keep.all() and len(errors) == len(batch.errors):
        return batch
    if not keep.any() and not errors:
        return None
    return Batch(table=batch.table.filter(pa.array(keep)), rows=batch.rows[keep], errors=errors)
