"""Remove what a stream that is gone has left at its broker. To do it twice, or after somebody else, is fine."""

from modelyard.runtime.streams.nats.broker import Broker
from modelyard.runtime.streams.nats.faults import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, ApiError, translate
from modelyard.runtime.streams.nats.session import Session
from modelyard.runtime.streams.nats.subjects import (
    CLAIMS_STREAM,
    CLAIMS_SUBJECT,
    claims_key,
    durable,
    offset_subject,
    opening_subject,
)
from modelyard.wire.work import StreamWork

_GONE = frozenset({CONSUMER_NOT_FOUND, STREAM_NOT_FOUND})


async def clean_source(broker: Broker, work: StreamWork) -> None:
    """Durable consumers. Raises Away and Refused."""
    session = await broker.session()
    for partition in range(work.partitions):
        await _ask(session, f"CONSUMER.DELETE.{work.source.stream}.{durable(work, partition)}")


async def clean_sink(broker: Broker, work: StreamWork) -> None:
    """Offsets; what was scored stays. Raises Away and Refused."""
    session = await broker.session()
    for partition in range(work.partitions):
        await _purge(session, work.sink.stream, opening_subject(work, partition))
        await _purge(session, work.sink.stream, offset_subject(work, partition))


async def clean_claims(broker: Broker, work: StreamWork) -> None:
    """Claims, presence and attempts. Raises Away and Refused."""
    await _purge(await broker.session(), CLAIMS_STREAM, f"{CLAIMS_SUBJECT}.{claims_key(work)}.>")


async def _purge(session: Session, stream: str, subject: str) -> None:
    await _ask(session, f"STREAM.PURGE.{stream}", {"filter": subject})


async def _ask(session: Session, what: str, body: dict[str, str] | None = None) -> None:
    try:
        await session.api(what, body)
    except ApiError as error:
        if error.code not in _GONE:
            raise translate(error, f"cleaning up ({what})") from None
