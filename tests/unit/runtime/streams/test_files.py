"""Whatever happens to runners and replies: each group is in one part, none is lost, and the last part is the offset."""

import asyncio
import io
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.files import FilesSink
from modelyard.runtime.streams.port import Away, Committed, Fenced, Outcome, Unknown
from modelyard.runtime.streams.prefix import Target
from modelyard.runtime.streams.records import Group, Message, Offset, Outgoing
from modelyard.storage.errors import StoreUnavailable
from modelyard.storage.stores import Entry, Store
from stores_testing import MemoryTwin

T = TypeVar("T")
EMPTY = pa.schema([("id", pa.string()), ("y", pa.float64())])
FORMATS = ("parquet", "csv", "jsonl", "arrow")


class _File(io.BytesIO):
    def size(self) -> int:
        return len(self.getvalue())


class Twin(MemoryTwin):
    """With objects as files."""

    def open_file(self, entry: Entry) -> Any:
        return _File(self._objects[entry.key][1])

    def keys(self, below: str = "") -> list[str]:
        return [key for key in sorted(self._objects) if key.startswith(below)]


class Killed(BaseException):
    """`kill -9`: nothing of the runner goes on."""


class Faulty:
    """The store of one runner. fault: asked before each operation, with its name and key."""

    def __init__(self, inner: Twin, fault: Callable[[str, str], str]) -> None:
        self.inner = inner
        self.uri = inner.uri
        self._fault = fault

    async def _do(self, name: str, key: str, work: Callable[[], Awaitable[T]]) -> T:
        fault = self._fault(name, key)
        await asyncio.sleep(0)
        if fault == "kill before":
            raise Killed
        if fault == "unreachable":
            raise StoreUnavailable(Reason.STORE_UNREACHABLE, "no answer")
        found = await work()
        await asyncio.sleep(0)
        if fault == "kill after":
            raise Killed
        if fault == "no answer":
            raise StoreUnavailable(Reason.STORE_UNREACHABLE, "no answer")
        if fault == "reply lost":
            found = await work()  # the client's own retry
        return found

    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        return await self._do("list", prefix, lambda: self.inner.list(prefix))

    async def head(self, key: str) -> Entry | None:
        return await self._do("head", key, lambda: self.inner.head(key))

    async def get(self, key: str, *, limit_bytes: int = 1 << 26) -> bytes | None:
        return await self._do("get", key, lambda: self.inner.get(key, limit_bytes=limit_bytes))

    async def create(self, key: str, body: bytes, *, staging: str = "") -> bool:
        return await self._do("create", key, lambda: self.inner.create(key, body))

    async def put(self, key: str, body: bytes) -> None:
        await self._do("put", key, lambda: self.inner.put(key, body))

    async def delete(self, keys: Any) -> None:
        gone = list(keys)
        await self._do("delete", ",".join(gone), lambda: self.inner.delete(gone))

    def open_file(self, entry: Entry) -> Any:
        return self.inner.open_file(entry)


def sink(store: Any, format_name: str = "parquet", **changes: Any) -> FilesSink:
    fields = {
        "stream": "default.fraud",
        "partition": 3,
        "subjects": ("in.>",),
        "format": format_name,
        "empty": EMPTY,
        "kept": ("id",),
        "source": "in",
        "created": "t",
    }
    return FilesSink(cast(Store, store), Target(**{**fields, **changes}))


def group(first: int, last: int, dead: int = 0, table: pa.Table | None = None) -> Group:
    """Messages at these positions, each with one record; the last `dead` of them are bad."""
    good = list(range(first, last + 1 - dead))
    letters = [
        Outgoing(position=each, payload=b"\xff" if each % 2 else b"{}", headers={"Modelyard-Error": "bad"}, dead=True)
        for each in range(last + 1 - dead, last + 1)
    ]
    rows = pa.table({"id": good, "y": [each / 2 for each in good]}) if table is None else table
    return Group(
        messages=tuple(Message(position=each, subject="in.3", payload=b"") for each in range(first, last + 1)),
        outgoing=tuple(letters),
        records=last + 1 - first,
        dead_letters=dead,
        tables=(rows,) if len(rows) else (),
    )


def ids(store: Twin, format_name: str) -> list[int]:
    """As any reader of the parts finds them."""
    found: list[int] = []
    for key in store.keys("part-"):
        body = store._objects[key][1]
        if format_name == "jsonl":
            found += [json.loads(line)["id"] for line in body.splitlines()]
        elif format_name == "csv":
            found += pacsv.read_csv(io.BytesIO(body))["id"].to_pylist()
        elif format_name == "parquet":
            found += pq.read_table(io.BytesIO(body))["id"].to_pylist()
        else:
            found += pa.ipc.open_file(body).read_all()["id"].to_pylist()
    return found


def committed(outcome: Outcome) -> Offset:
    assert isinstance(outcome, Committed), outcome
    return outcome.offset


async def begun(store: Any, format_name: str = "parquet", position: int = 100) -> tuple[FilesSink, Offset]:
    found = sink(store, format_name)
    assert await found.recover() is None
    return found, committed(await found.begin(position))


@pytest.mark.parametrize("format_name", FORMATS)
async def test_each_group_is_a_part_and_the_last_part_is_the_offset(format_name: str) -> None:
    store = Twin()
    files, offset = await begun(store, format_name)
    assert offset == await sink(store, format_name).recover() == Offset(position=100)
    offset = committed(await files.commit(offset, group(105, 110, dead=2), 4))
    assert offset == Offset(position=110, records=6, dead_letters=2, expired=4)
    offset = committed(await files.commit(offset, group(111, 111), 0))
    assert (
        await sink(store, format_name).recover() == offset == Offset(position=111, records=7, dead_letters=2, expired=4)
    )
    assert store.keys("part-") == [
        f"part-03-00000000000000000101.{format_name}",
        f"part-03-00000000000000000111.{format_name}",
    ]
    assert ids(store, format_name) == [105, 106, 107, 108, 111]
    others = [key for key in store.keys("") if not key.startswith("part-")]
    assert all(key.startswith("_stream/") and not key.endswith(format_name) for key in others)


async def test_dead_letters_lie_beside_and_their_part_names_them() -> None:
    store = Twin()
    files, offset = await begun(store)
    await files.commit(offset, group(101, 104, dead=2), 0)
    (dead,) = store.keys("_stream/default.fraud/03/dead/")
    part = pq.read_schema(io.BytesIO(store._objects["part-03-00000000000000000101.parquet"][1]))
    assert json.loads(part.metadata[b"modelyard.commit"])["dead"] == dead
    assert [json.loads(line) for line in store._objects[dead][1].splitlines()] == [
        {"position": 103, "headers": {"Modelyard-Error": "bad"}, "payloadBase64": "/w=="},
        {"position": 104, "headers": {"Modelyard-Error": "bad"}, "payload": "{}"},
    ]


@pytest.mark.parametrize("format_name", ["parquet", "arrow"])
async def test_dead_letters_alone_are_a_part_without_rows(format_name: str) -> None:
    store = Twin()
    files, offset = await begun(store, format_name)
    offset = committed(await files.commit(offset, group(101, 102, dead=2), 0))
    offset = committed(await files.commit(offset, group(103, 103), 0))
    assert await sink(store, format_name).recover() == offset
    assert ids(store, format_name) == [103], "what was a guess is not gone on with"


@pytest.mark.parametrize("format_name", ["csv", "jsonl"])
async def test_dead_letters_alone_are_no_file_where_one_without_rows_could_not_be_read(format_name: str) -> None:
    store = Twin()
    files, offset = await begun(store, format_name)
    offset = committed(await files.commit(offset, group(101, 102, dead=2), 3))
    assert (offset.position, offset.records, offset.dead_letters, offset.expired) == (102, 2, 2, 3)
    assert store.keys("part-") == []
    other = sink(store, format_name)
    assert await other.recover() == offset, "nobody scores them again"
    second = committed(await other.commit(offset, group(103, 103, dead=1), 0))
    assert await files.commit(offset, group(103, 104, dead=1), 0) == Fenced(), "the skip after it is there"
    assert await files.recover() == second
    third = committed(await files.commit(second, group(104, 106, dead=1), 0))
    assert store.keys("part-") == [f"part-03-00000000000000000101.{format_name}"]
    assert ids(store, format_name) == [104, 105]
    assert (third.records, third.dead_letters) == (6, 4)
    assert await sink(store, format_name).recover() == third
    assert len(store.keys("_stream/default.fraud/03/dead/")) == 3
    assert store.keys("_stream/default.fraud/03/skips/") == []
    assert await other.commit(second, group(104, 106, dead=3), 0) == Fenced(), "the part is there"
    assert len(store.keys("_stream/default.fraud/03/dead/")) == 3
    fourth = committed(await files.commit(third, group(107, 108), 0))
    assert store.keys("part-")[1:] == [f"part-03-00000000000000000107.{format_name}"]
    assert await sink(store, format_name).recover() == fourth


@pytest.mark.parametrize("format_name", ["csv", "jsonl"])
async def test_a_part_by_somebody_who_saw_no_skip_makes_it_void(format_name: str) -> None:
    inner = Twin()
    files, offset = await begun(inner, format_name)
    met: list[Offset] = []

    class Slow(Faulty):
        async def create(self, key: str, body: bytes, *, staging: str = "") -> bool:
            if key.startswith("part-"):
                met.append(committed(await files.commit(offset, group(101, 104, dead=4), 0)))
            return await super().create(key, body, staging=staging)

    winner = sink(Slow(inner, lambda name, key: ""), format_name)
    won = committed(await winner.commit(offset, group(101, 103, dead=1), 0))
    assert met[0].position == 104
    assert await files.commit(met[0], group(105, 106), 0) == Fenced()
    assert await files.recover() == won
    committed(await files.commit(won, group(104, 105), 0))
    assert ids(inner, format_name) == [101, 102, 104, 105]
    dead = inner.keys("_stream/default.fraud/03/dead/")
    assert [json.loads(line)["position"] for key in dead for line in _lines(inner, key)] == [103]


async def test_a_model_with_outputs_of_another_type_does_not_spoil_the_prefix() -> None:
    store = Twin()
    files, offset = await begun(store)
    offset = committed(await files.commit(offset, group(101, 102), 0))
    narrower = pa.schema([("id", pa.string()), ("y", pa.float32())])
    assert await sink(store, empty=narrower).recover() == offset
    more = pa.schema([("id", pa.string()), ("key", pa.string()), ("y", pa.float64()), ("label", pa.string())])
    assert await sink(store, empty=more, kept=("id", "key")).recover() == offset
    other = pa.schema([("id", pa.string()), ("y", pa.list_(pa.float64()))])
    with pytest.raises(Refused, match=r"y \(double there, list<item: double> now\); go back to the model") as caught:
        await sink(store, empty=other).recover()
    assert caught.value.reason is Reason.SCHEMA_MISMATCH


@pytest.mark.parametrize("format_name", FORMATS)
async def test_dead_letters_of_a_loser_that_nobody_knew_of_go_later(format_name: str) -> None:
    """Put after the winner had looked, by a runner that was killed before it had to know."""
    store = Twin()
    files, first = await begun(store, format_name)
    offset = first
    late = Faulty(store, lambda name, key: "kill before" if name == "create" and key.startswith("part-") else "")
    with pytest.raises(Killed):
        await sink(late, format_name).commit(first, group(101, 109, dead=8), 0)
    for last in (104, 106, 108):
        offset = committed(await files.commit(offset, group(offset.position + 1, last, dead=1), 0))
    assert len(store.keys("_stream/default.fraud/03/dead/")) == 4
    assert await sink(store, format_name).recover() == offset
    assert len(store.keys("_stream/default.fraud/03/dead/")) == 3


async def test_of_two_who_begin_one_decides_where() -> None:
    store = Twin()
    one, other = sink(store), sink(store)
    assert committed(await one.begin(100)) == Offset(position=100)
    assert await other.begin(200) == Fenced()
    assert await other.recover() == Offset(position=100)


@pytest.mark.parametrize("format_name", FORMATS)
async def test_of_two_who_commit_after_one_offset_one_succeeds(format_name: str) -> None:
    store = Twin()
    one, offset = await begun(store, format_name)
    other = sink(store, format_name)
    await other.recover()
    outcomes = await asyncio.gather(
        one.commit(offset, group(101, 110, dead=1), 0), other.commit(offset, group(101, 105, dead=1), 0)
    )
    assert sorted(type(each).__name__ for each in outcomes) == ["Committed", "Fenced"]
    (won,) = (each.offset for each in outcomes if isinstance(each, Committed))
    assert await other.recover() == won
    assert len(store.keys("_stream/default.fraud/03/dead/")) == 1, "the loser's are gone"
    assert await one.commit(offset, group(101, 102), 0) == Fenced(), "an old offset has been left behind"


@pytest.mark.parametrize("format_name", FORMATS)
async def test_a_lost_reply_is_no_lost_commit(format_name: str) -> None:
    inner = Twin()
    store = Faulty(inner, lambda name, key: "reply lost" if name in ("create", "put") else "")
    files, offset = await begun(store, format_name)
    assert offset == Offset(position=100)
    assert committed(await files.commit(offset, group(101, 103, dead=1), 0)).position == 103
    assert ids(inner, format_name) == [101, 102]


@pytest.mark.parametrize("when", ["no answer", "unreachable"])
async def test_where_nobody_knows_the_last_part_tells(when: str) -> None:
    inner = Twin()
    files, offset = await begun(inner)
    store = Faulty(inner, lambda name, key: when if name == "create" else "")
    assert isinstance(await sink(store).commit(offset, group(101, 103), 0), Unknown)
    found = await files.recover()
    assert found == Offset(position=103, records=3) if when == "no answer" else found == offset


async def test_a_store_that_is_away_is_told_with_its_reason() -> None:
    store = Faulty(Twin(), lambda name, key: "unreachable")
    with pytest.raises(Away) as caught:
        await sink(store).recover()
    assert caught.value.reason is Reason.STORE_UNREACHABLE
    with pytest.raises(Away):
        await sink(store).begin(1)


@pytest.mark.parametrize("format_name", FORMATS)
async def test_what_a_killed_runner_left_before_its_part_goes_with_the_next_commit(format_name: str) -> None:
    inner = Twin()
    _, offset = await begun(inner, format_name)
    dying = Faulty(inner, lambda name, key: "kill before" if name == "create" else "")
    with pytest.raises(Killed):
        await sink(dying, format_name).commit(offset, group(101, 110, dead=3), 0)
    assert len(inner.keys("_stream/default.fraud/03/dead/")) == 1
    files = sink(inner, format_name)
    assert await files.recover() == offset
    assert len(inner.keys("_stream/default.fraud/03/dead/")) == 1, "it may still be about to commit"
    offset = committed(await files.commit(offset, group(101, 105), 0))
    assert inner.keys("_stream/default.fraud/03/dead/") == []
    assert await files.recover() == offset


@pytest.mark.parametrize("format_name", FORMATS)
async def test_what_comes_too_late_is_not_believed(format_name: str) -> None:
    store = Twin()
    files, first = await begun(store, format_name)
    second = committed(await files.commit(first, group(101, 110), 0))
    late = Faulty(store, lambda name, key: "kill before" if name == "create" and key.startswith("part-") else "")
    with pytest.raises(Killed):
        await sink(late, format_name).commit(first, group(101, 104), 0)
    assert await sink(store, format_name).recover() == second
    third = committed(await files.commit(second, group(111, 112), 0))
    with pytest.raises(Killed):
        await sink(late, format_name).commit(first, group(101, 104), 0)
    await store.put("_stream/default.fraud/03/tail.json", b'{"first": 101}')  # by the same one, as late
    assert await sink(store, format_name).recover() == third


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("fate", ["", "kill before", "kill after"])
async def test_the_same_part_by_two_attempts_has_one_offset(format_name: str, fate: str) -> None:
    """Equal rows, and one attempt went on to further records, which are all dead letters."""
    store = Twin()
    one, offset = await begun(store, format_name)
    rows = pa.table({"id": [101], "y": [0.5]})
    longer, shorter = group(101, 110, dead=9, table=rows), group(101, 105, dead=4, table=rows)
    first = Faulty(store, lambda name, key: fate if name == "create" and key.startswith("part-") else "")
    outcomes: list[Outcome] = []
    if fate:
        with pytest.raises(Killed):
            await sink(first, format_name).commit(offset, longer, 0)
        outcomes.append(await one.commit(offset, shorter, 0))
    else:
        outcomes += await asyncio.gather(
            one.commit(offset, longer, 0), sink(first, format_name).commit(offset, shorter, 0)
        )
    found = await sink(store, format_name).recover()
    assert found is not None
    won = [each.offset for each in outcomes if isinstance(each, Committed)]
    assert won in ([], [found])
    dead = [store._objects[key][1] for key in store.keys("_stream/default.fraud/03/dead/")]
    assert [len(body.splitlines()) for body in dead] == [found.dead_letters], "those of the part, and no others"


async def test_the_last_part_is_found_without_a_hint_and_with_an_old_one() -> None:
    store = Twin()
    files, offset = await begun(store)
    for first in range(101, 111):
        offset = committed(await files.commit(offset, group(first, first), 0))
    await sink(store, partition=4).begin(10**9)
    await sink(store, partition=4).commit(Offset(position=10**9), group(10**9 + 1, 10**9 + 1), 0)
    for tail in (b'{"first": 103}', None):
        await store.delete(["_stream/default.fraud/03/tail.json"])
        if tail is not None:
            await store.put("_stream/default.fraud/03/tail.json", tail)
        assert await sink(store).recover() == offset
    await store.delete([f"part-03-{number:020d}.parquet" for number in range(101, 108)])
    await store.put("_stream/default.fraud/03/tail.json", b'{"first": 103}')
    assert await sink(store).recover() == offset, "earlier parts may be moved away"


@pytest.mark.parametrize("format_name", ["parquet", "jsonl"])
async def test_an_offset_that_was_removed_is_lost_and_no_new_beginning(format_name: str) -> None:
    store = Twin()
    files, offset = await begun(store, format_name)
    offset = committed(await files.commit(offset, group(101, 101), 0))
    await files.commit(offset, group(102, 102), 0)
    await store.delete(store.keys("part-03-00000000000000000102"))
    with pytest.raises(Refused) as caught:
        await sink(store, format_name).recover()
    assert caught.value.reason is Reason.OFFSET_LOST
    if format_name == "jsonl":
        await files.commit(offset, group(102, 102), 0)
        await store.delete(store.keys("_stream/default.fraud/03/notes/"))
        with pytest.raises(Refused, match=r"what tells where part-03-0+102.jsonl ends was removed"):
            await sink(store, format_name).recover()


async def test_another_stream_format_or_source_at_the_prefix_is_refused() -> None:
    store = Twin()
    files, offset = await begun(store)
    for changes, reason, told in (
        ({"stream": "default.other"}, Reason.OUTPUT_IN_USE, "memory: holds the files of stream default.fraud"),
        ({"format": "csv"}, Reason.OUTPUT_IN_USE, "holds parquet of this stream, and spec.sink.format is csv"),
        ({"source": "in2"}, Reason.SOURCE_REPLACED, "continues stream in, made t, and the source is in2"),
        ({"created": "later"}, Reason.SOURCE_REPLACED, "made later"),
        ({"partitions": 8}, Reason.OUTPUT_IN_USE, "with 1 partitions of in.>, and now it has 8 partitions of in.>"),
        ({"partition": 5, "partitions": 8}, Reason.OUTPUT_IN_USE, "now it has 8"),
        ({"subjects": ("out.>",)}, Reason.OUTPUT_IN_USE, "now it has 1 partitions of out.>"),
        ({"key": 2}, Reason.OUTPUT_IN_USE, "in.> by token 2: going on could"),
    ):
        with pytest.raises(Refused, match=told) as caught:
            await sink(store, **changes).recover()
        assert caught.value.reason is reason
    with pytest.raises(Refused, match="give each stream a prefix of its own"):
        await sink(store, stream="default.other").begin(1)
    await store.put("part-03-00000000000000000101.parquet", b"somebody's")
    with pytest.raises(Refused, match="was written by something else"):
        await files.commit(offset, group(101, 101), 0)
    await store.put("_stream/owner.json", b"?")
    with pytest.raises(Refused, match=r"owner.json was changed by somebody"):
        await files.recover()


async def test_types_stay_as_long_as_values_fit_them() -> None:
    store = Twin()
    files, offset = await begun(store)
    columns: list[Any] = [[1, 2], [1.5, None], [3, None], ["a", None], [True, 4]]
    kinds = []
    for number, values in enumerate(columns):
        table = pa.table({"id": values if number < 4 else ["true", "4"], "y": [0.0, 1.0]})
        offset = committed(await files.commit(offset, group(offset.position + 1, offset.position + 2, table=table), 0))
        files = sink(store)
        await files.recover()
        part = store._objects[store.keys("part-")[-1]][1]
        kinds.append(str(pq.read_schema(io.BytesIO(part)).field("id").type))
    assert kinds == ["int64", "double", "double", "string", "string"]
    files = sink(store)
    await files.recover()
    offset = committed(await files.commit(offset, group(200, 201, table=pa.table({"id": [7, None], "y": [0, 1]})), 0))
    part = store._objects[store.keys("part-")[-1]][1]
    assert pq.read_table(io.BytesIO(part)).to_pydict() == {"id": ["7", None], "y": [0.0, 1.0]}


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), format_name=st.sampled_from(FORMATS), runners=st.integers(1, 3))
def test_whatever_happens_every_record_is_there_once(seed: int, format_name: str, runners: int) -> None:
    chance = random.Random(seed)
    store, end, left = Twin(), 60, [25]
    bad = {each for each in range(1, end + 1) if chance.random() < 0.2}

    def fault(_name: str, _key: str) -> str:
        if left[0] and chance.random() < 0.15:
            left[0] -= 1
            return chance.choice(["kill before", "kill after", "unreachable", "no answer", "reply lost"])
        return ""

    async def live(files: FilesSink) -> None:
        """A runner, which goes on from the committed offset after whatever is not clear."""
        offset = await files.recover()
        while offset is None or offset.position < end:
            if offset is None:
                await files.begin(0)
                offset = await files.recover()
                continue
            first = offset.position + 1
            last = min(end, first + chance.randrange(12))
            good = [each for each in range(first, last + 1) if each not in bad]
            letters = [
                Outgoing(position=each, payload=b"", dead=True) for each in range(first, last + 1) if each in bad
            ]
            some = Group(
                messages=tuple(Message(position=each, subject="", payload=b"") for each in range(first, last + 1)),
                outgoing=tuple(letters),
                records=last + 1 - first,
                dead_letters=len(letters),
                tables=(pa.table({"id": good, "y": [0.0] * len(good)}),) if good else (),
            )
            outcome = await files.commit(offset, some, 1)
            offset = outcome.offset if isinstance(outcome, Committed) else await files.recover()

    async def driven() -> None:
        while True:
            try:
                await live(sink(Faulty(store, fault), format_name))
                return
            except (Killed, Away):
                await asyncio.sleep(0.01)

    async def scenario() -> None:
        await asyncio.gather(*(driven() for _ in range(runners)))
        offset = await sink(store, format_name).recover()
        assert offset is not None
        assert (offset.position, offset.records, offset.dead_letters) == (end, end, len(bad))
        if format_name in ("parquet", "arrow"):  # else there are commits without a part
            assert offset.expired == len(store.keys("part-"))

    asyncio.run(scenario())
    assert ids(store, format_name) == [each for each in range(1, end + 1) if each not in bad]
    dead = [
        json.loads(line)["position"] for key in store.keys("_stream/") if "/dead/" in key for line in _lines(store, key)
    ]
    assert sorted(dead) == sorted(bad) if end not in bad else set(dead) == bad  # what follows would decide that


def _lines(store: Twin, key: str) -> list[bytes]:
    return store._objects[key][1].splitlines()


async def test_a_folder_is_read_by_anybody_while_parts_come(tmp_path: Path) -> None:
    store = Store.open("out", root=str(tmp_path))
    files = sink(store)
    assert await files.recover() is None
    offset = committed(await files.begin(0))
    for number in range(1, 6):
        offset = committed(await files.commit(offset, group(2 * number - 1, 2 * number, dead=number % 2), 0))
        assert await sink(store).recover() == offset
        found = ds.dataset(tmp_path / "out", format="parquet").to_table()["id"].to_pylist()
        assert len(found) == len(set(found)) == offset.records - offset.dead_letters
    others = {each.relative_to(tmp_path / "out").parts[0] for each in (tmp_path / "out").rglob("*") if each.is_file()}
    assert {each for each in others if not each.startswith("part-")} == {"_stream"}
    assert not list((tmp_path / "out/_stream/default.fraud/staging").glob("*"))
