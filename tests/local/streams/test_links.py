"""The links on a real broker keep to what lanes rely on."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from link_suite import LinkSuite
from modelyard.runtime.streams.files import FilesSink
from modelyard.runtime.streams.nats.acked import AckedLink
from modelyard.runtime.streams.nats.broker import Broker
from modelyard.runtime.streams.nats.fenced import FencedLink
from modelyard.runtime.streams.nats.filed import FiledLink
from modelyard.runtime.streams.nats.setup import prepare_sink, prepare_source
from modelyard.runtime.streams.nats.source import Identity
from modelyard.runtime.streams.port import Link
from modelyard.runtime.streams.prefix import Target
from modelyard.runtime.streams.records import Group, Message, Outgoing
from modelyard.storage.stores import Store
from modelyard.wire.work import StreamWork
from nats_testing import Bare, Nats, stream_work

_NUMBERS = itertools.count()


class NatsRig:
    """Source and sink on a broker."""

    def __init__(self, broker: Broker, bare: Bare, work: StreamWork, make: Callable[[], Link]) -> None:
        self._broker, self._bare, self._work, self._make = broker, bare, work, make

    async def publish(self, *payloads: bytes) -> None:
        for each in payloads:
            await self._bare.publish(self._work.source.subjects[0], each)

    async def link(self) -> Link:
        await prepare_source(self._broker, self._work)
        if self._work.sink.stream:
            await prepare_sink(self._broker, self._work)
        return self._make()

    def group(self, messages: Sequence[Message]) -> Group:
        outgoing = tuple(
            Outgoing(
                position=each.position,
                payload=each.payload,
                headers={"Modelyard-Source-Sequence": str(each.position)},
                dead=each.payload == b"bad",
            )
            for each in messages
        )
        bad = sum(each.dead for each in outgoing)
        return Group(messages=tuple(messages), outgoing=outgoing, records=len(messages), dead_letters=bad)

    async def committed(self) -> list[tuple[int, bool]]:
        found = []
        for subject in (self._work.sink.subject, self._work.dead_letter):
            for _, _, headers in await self._bare.read(self._work.sink.stream, subject):
                found.append((int(headers["Modelyard-Source-Sequence"]), subject == self._work.dead_letter))
        return found


class FilesRig(NatsRig):
    """The sink is a folder."""

    def __init__(self, broker: Broker, bare: Bare, work: StreamWork, folder: Path) -> None:
        store = Store.open("out", root=str(folder))
        self._folder = folder / "out"
        schema = pa.schema([pa.field("position", pa.int64())])

        def sink(partition: int, identity: Identity) -> FilesSink:
            target = Target(
                stream=work.name,
                partition=partition,
                format="parquet",
                empty=schema,
                source=identity.stream,
                created=identity.created,
            )
            return FilesSink(store, target)

        super().__init__(broker, bare, work, lambda: FiledLink(broker, work, 0, sink))

    def group(self, messages: Sequence[Message]) -> Group:
        good = [each.position for each in messages if each.payload != b"bad"]
        found = super().group(messages)
        return Group(
            messages=found.messages,
            outgoing=tuple(each for each in found.outgoing if each.dead),
            records=found.records,
            dead_letters=found.dead_letters,
            tables=(pa.table({"position": pa.array(good, pa.int64())}),) if good else (),
        )

    async def committed(self) -> list[tuple[int, bool]]:
        table = ds.dataset(self._folder, format="parquet", exclude_invalid_files=False).to_table()
        letters = [line for each in self._folder.rglob("*.ndjson") for line in each.read_text().splitlines()]
        bad = [(int(json.loads(each)["position"]), True) for each in letters]
        return [*((each, False) for each in table.column("position").to_pylist()), *bad]


def new_work(server: Nats, **changes: object) -> StreamWork:
    return stream_work(server.uri, f"link{next(_NUMBERS)}", **changes)


class TestFencedLink(LinkSuite):
    @pytest.fixture
    def rig(self, server: Nats, broker: Broker, bare: Bare) -> NatsRig:
        work = new_work(server)
        return NatsRig(broker, bare, work, lambda: FencedLink(broker, broker, work, 0))


class TestAckedLink(LinkSuite):
    fences = False

    @pytest.fixture
    def rig(self, server: Nats, broker: Broker, bare: Bare) -> NatsRig:
        work = new_work(server, delivery="atLeastOnce")
        return NatsRig(broker, bare, work, lambda: AckedLink(broker, broker, work, 0))


class TestFiledLink(LinkSuite):
    @pytest.fixture
    def rig(self, server: Nats, broker: Broker, bare: Bare, tmp_path: Path) -> FilesRig:
        (tmp_path / "files").mkdir()
        return FilesRig(broker, bare, new_work(server), tmp_path / "files")
