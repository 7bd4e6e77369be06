"""How many messages left a source before they were read. Pure.

A stream drops its oldest messages (`max_age`, `max_msgs`) whoever has read them, and a consumer goes over the gap in
silence. What is known: the first sequence that is left, how many unread messages match, and what was read. Where only
a part of the stream is read, there are gaps of its own too: no more is counted than was seen to wait unread, and at the
first look, when nobody has seen anything, whatever has gone since the offset.
"""

from array import array

_MOST_POSITIONS = 65_536


class Expiry:
    """Of one reading, which goes on after `position`."""

    def __init__(self, position: int) -> None:
        self._cursor = position
        self._pending: int | None = None
        self._read = array("Q")

    def arrived(self, position: int) -> None:
        """A message was read."""
        if len(self._read) >= _MOST_POSITIONS:  # nobody has asked for long: take it that these were there in time
            self._cursor = self._read[_MOST_POSITIONS // 2]
            self._read = self._read[_MOST_POSITIONS // 2 + 1 :]
        self._read.append(position)

    def looked(self, first: int, pending: int, *, whole: bool) -> int:
        """How many were lost since this was called last.

        first: the first sequence that the stream had before `pending` messages were found to wait unread. whole: every
        message of the stream is read, which makes it exact.
        """
        lost = 0
        if first > self._cursor + 1:
            gone = first - 1 - self._cursor
            read = sum(1 for each in self._read if each < first)
            lost = gone - read
            if not whole and self._pending is not None:
                lost = min(lost, self._pending - read)
        if self._read:
            self._cursor = max(self._cursor, self._read[-1])
        self._cursor = max(self._cursor, first - 1)
        self._read = array("Q")
        self._pending = pending
        return max(0, lost)
