"""The last message of a subject, as the leader of its stream has it.

By `STREAM.MSG.GET` and not by a direct get, which any replica answers with what it knows so far.
"""

import base64
from dataclasses import dataclass
from typing import Any

from modelyard.runtime.streams.nats.faults import NO_MESSAGE, STREAM_NOT_FOUND, ApiError, translate
from modelyard.runtime.streams.nats.session import Session
from modelyard.runtime.streams.nats.source import missing


@dataclass(frozen=True, slots=True)
class Stored:
    sequence: int
    payload: bytes


async def last(session: Session, stream: str, subject: str) -> Stored | None:
    """None if there is none. Raises Away, and Refused where the stream is gone."""
    try:
        return await fetched(session, stream, subject)
    except ApiError as error:
        if error.code == STREAM_NOT_FOUND:
            raise missing(stream) from None
        raise translate(error, f"reading {subject} of stream {stream}") from None


async def fetched(session: Session, stream: str, subject: str) -> Stored | None:
    """As `last`, and ApiError for whoever judges it."""
    try:
        found: dict[str, Any] = await session.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    except ApiError as error:
        if error.code == NO_MESSAGE:
            return None
        raise
    message = found["message"]
    return Stored(int(message["seq"]), base64.b64decode(message.get("data") or ""))
