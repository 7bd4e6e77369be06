"""From the work of a stream to its broker, its sink, and who else works on it."""

import hashlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.encode import Codec
from modelyard.runtime.streams.files import FilesSink
from modelyard.runtime.streams.nats.acked import AckedLink
from modelyard.runtime.streams.nats.broker import Broker, connect
from modelyard.runtime.streams.nats.claims import Claims
from modelyard.runtime.streams.nats.clean import clean_claims, clean_sink, clean_source
from modelyard.runtime.streams.nats.fenced import FencedLink
from modelyard.runtime.streams.nats.filed import FiledLink
from modelyard.runtime.streams.nats.setup import prepare_claims, prepare_sink, prepare_source
from modelyard.runtime.streams.nats.source import Identity
from modelyard.runtime.streams.port import Away, Link
from modelyard.runtime.streams.prefix import Target
from modelyard.storage import identity as identities
from modelyard.storage.errors import StoreRefused, StoreUnavailable
from modelyard.storage.stores import Store
from modelyard.wire.place import Place
from modelyard.wire.work import StreamWork

Keys = Mapping[str, Mapping[str, str]]
"""Role (source, sink) -> key -> value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wiring:
    """link: of a partition. files: the sink takes files. most_bytes: of a message that the sink takes, 0: any."""

    claims: Claims
    link: Callable[[int], Link]
    files: bool
    most_bytes: int
    brokers: tuple[Broker, ...]

    @property
    def connected(self) -> bool:
        return all(each.connected for each in self.brokers)


@asynccontextmanager
async def wired(work: StreamWork, place: Place, keys: Keys, codec: Codec) -> AsyncIterator[Wiring]:
    """Connected, with streams as they must be. Raises Away, and Refused for what somebody must change."""
    if codec.files:
        async with connect(work.source.uri, keys["source"], place.broker, Path(place.scratch), _name(work)) as source:
            await prepare_source(source, work)
            await prepare_claims(await source.session())
            yield Wiring(
                claims=Claims(source, work, _runner(place)),
                link=partial(_filed, source, work, await _store(work, place, keys), codec),
                files=True,
                most_bytes=0,
                brokers=(source,),
            )
        return
    async with _brokers(work, place, keys) as (source, sink):
        await prepare_source(source, work)
        await prepare_claims(await sink.session())
        most_bytes = await prepare_sink(sink, work)
        link = FencedLink if work.delivery == "exactlyOnce" else AckedLink
        yield Wiring(
            claims=Claims(sink, work, _runner(place)),
            link=partial(link, source, sink, work),
            files=False,
            most_bytes=most_bytes,
            brokers=(source, sink),
        )


def _filed(broker: Broker, work: StreamWork, store: Store, codec: Codec, partition: int) -> FiledLink:
    def sink(number: int, identity: Identity) -> FilesSink:
        target = Target(
            stream=work.name,
            partition=number,
            partitions=work.partitions,
            subjects=work.source.subjects,
            key=work.key_token,
            format=codec.format,
            empty=codec.empty,
            kept=tuple(work.sink.keep),
            source=identity.stream,
            created=identity.created,
        )
        return FilesSink(store, target)

    return FiledLink(broker, work, partition, sink)


async def _store(work: StreamWork, place: Place, keys: Keys) -> Store:
    """Raises Away and Refused: the errors of stores in the words of streams."""
    try:
        identity = identities.of(place.account, os.environ)
        store = Store.open(work.sink.uri, root=place.root, credentials=keys["sink"], identity=identity)
        single = (await store.settled()).single
    except StoreUnavailable as error:
        raise Away(Reason.STORE_UNREACHABLE, error.message) from error
    except StoreRefused as error:
        raise Refused(Reason(error.reason), error.message) from error
    if single:
        raise Refused(
            Reason.INVALID,
            f"{store.uri} is a single object, and files need a folder or prefix; name another, or move it",
        )
    return store


async def clean(work: StreamWork, place: Place, keys: Keys) -> None:
    """Remove what the stream has left at its broker. Files stay, with what tells where they end. Raises Away and
    Refused."""
    async with _brokers(work, place, keys) as (source, sink):
        await clean_source(source, work)
        if work.sink.stream:
            await clean_sink(sink, work)
        await clean_claims(sink, work)


@asynccontextmanager
async def _brokers(work: StreamWork, place: Place, keys: Keys) -> AsyncIterator[tuple[Broker, Broker]]:
    """Of source and sink; of a sink of files that of the source, where claims lie then. One connection where they are
    the same and no other keys are given for the sink."""
    scratch = Path(place.scratch)
    async with AsyncExitStack() as stack:
        found = connect(work.source.uri, keys["source"], place.broker, scratch, _name(work))
        source = await stack.enter_async_context(found)
        same = work.sink.uri == work.source.uri and keys["sink"] in ({}, keys["source"])
        if same or not work.sink.stream:
            yield source, source
            return
        found = connect(work.sink.uri, keys["sink"], place.broker, scratch, _name(work))
        yield source, await stack.enter_async_context(found)


def _name(work: StreamWork) -> str:
    """Shown at the broker."""
    return f"modelyard {work.name}"


def _runner(place: Place) -> str:
    """The same for the process that comes after one that ended, so that it takes over at once what that one held."""
    if not place.socket:
        return secrets.token_hex(8)
    return hashlib.blake2s(f"{socket.gethostname()}:{place.socket}".encode(), digest_size=12).hexdigest()
