"""Exactly-once, NATS to files: read without acknowledgements, committed as `files` says."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from modelyard.runtime.streams.files import FilesSink
from modelyard.runtime.streams.nats.broker import Broker
from modelyard.runtime.streams.nats.reader import PullReading
from modelyard.runtime.streams.nats.source import Identity, Source
from modelyard.runtime.streams.port import Outcome
from modelyard.runtime.streams.records import Group, Offset
from modelyard.wire.work import StreamWork


class FiledLink:
    """`port.Link` of one partition. sink: made for the stream that is read, as it is when the offset is read."""

    def __init__(
        self, broker: Broker, work: StreamWork, partition: int, sink: Callable[[int, Identity], FilesSink]
    ) -> None:
        self._source = Source(broker, work, partition)
        self._partition = partition
        self._make = sink
        self._sink: FilesSink | None = None

    async def recover(self) -> Offset | None:
        """As of `port.Link`. Refused where the source is not the stream that the files go on from."""
        self._sink = self._make(self._partition, await self._source.identity())
        return await self._sink.recover()

    async def begin(self) -> Outcome:
        """As of `port.Link`."""
        return await (await self._files()).begin(await self._source.start())

    def read(self, after: Offset) -> AbstractAsyncContextManager[PullReading]:
        """As of `port.Link`."""
        return self._source.read(after.position)

    async def commit(self, offset: Offset, group: Group, expired: int) -> Outcome:
        """As of `port.Link`."""
        return await (await self._files()).commit(offset, group, expired)

    async def _files(self) -> FilesSink:
        if self._sink is None:
            self._sink = self._make(self._partition, await self._source.identity())
        return self._sink
