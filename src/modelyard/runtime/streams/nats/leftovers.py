"""What a broken commit left: the outputs that are visible though their offset is not.

An atomic batch is refused as a whole for everything that the broker checks first: the fence, limits of the stream. What
it finds out while it stores the messages one by one (the storage of the account or the server is used up, the disk is
full) ends the batch in the middle, without an answer: what was stored stays (measured on 2.15.1; `kill -9` never did
that in 200 tries). So a batch opens with a message of its own subject, of which there is only one. If that is newer
than the offset, the messages of that batch that follow it are such leftovers, and the next commit leaves them out. They
are not removed: somebody may have read them.
"""

import base64
from dataclasses import dataclass

import msgspec

from modelyard.runtime.streams.letters import SEQUENCE
from modelyard.runtime.streams.nats.faults import NO_MESSAGE, ApiError, translate
from modelyard.runtime.streams.nats.session import Request, Session, ask_all, decoded
from modelyard.runtime.streams.nats.setup import stream_info
from modelyard.runtime.streams.nats.stored import last
from modelyard.runtime.streams.records import Outgoing

Key = tuple[int, bool]
"""Of a message of the sink: the position that it is made of, and whether it is a dead letter."""

_AT_ONCE = 100


class Opening(msgspec.Struct, frozen=True):
    """The payload of the message that opens a batch. visible: what earlier batches after the same offset left."""

    batch: str
    visible: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Subjects:
    stream: str
    opening: str
    dead: str


def key_of(outgoing: Outgoing) -> Key:
    return (outgoing.position, outgoing.dead)


def opening(subject: str, found: Opening) -> Request:
    """The message that opens a batch."""
    return Request(subject, msgspec.json.encode(found), {"Nats-TTL": "never", "Nats-Rollup": "sub"})


async def leftovers(session: Session, subjects: Subjects, fence: int) -> frozenset[Key]:
    """What is visible of batches that came after the offset. Raises Away and Refused."""
    mark = await last(session, subjects.stream, subjects.opening)
    if mark is None or mark.sequence < fence:
        return frozenset()
    opened = msgspec.json.decode(mark.payload, type=Opening)
    found = set(opened.visible)
    info = await stream_info(session, subjects.stream)
    end = int(info["state"]["last_seq"]) if info is not None else 0
    for start in range(mark.sequence + 1, end + 1, _AT_ONCE):
        stored = await _stored(session, subjects, range(start, min(start + _AT_ONCE, end + 1)), opened.batch)
        found |= {each for each in stored if each is not None}
        if len(stored) < _AT_ONCE:
            break
    return frozenset(found)


async def _stored(session: Session, subjects: Subjects, sequences: range, batch: str) -> list[Key | None]:
    """Messages of the batch, which has no gaps but for what has expired (None)."""
    name = f"$JS.API.STREAM.MSG.GET.{subjects.stream}"
    answers = await ask_all(session, (Request(name, msgspec.json.encode({"seq": each})) for each in sequences))
    found: list[Key | None] = []
    for answer in answers:
        try:
            message = decoded(answer)["message"]
        except ApiError as error:
            if error.code != NO_MESSAGE:
                raise translate(error, f"reading stream {subjects.stream}") from None
            found.append(None)
            continue
        headers = _headers(message.get("hdrs") or "")
        if headers.get("Nats-Batch-Id") != batch:
            break
        found.append((int(headers.get(SEQUENCE, "0")), message["subject"] == subjects.dead))
    return found


def _headers(text: str) -> dict[str, str]:
    lines = base64.b64decode(text).decode(errors="replace").split("\r\n")[1:]
    return {name: value.strip() for name, _, value in (each.partition(":") for each in lines) if value}
