"""Files as a sink on a real S3 server: races, replies that get lost, and a reader of the plain prefix."""

import asyncio
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from jobs_testing import s3_filesystem
from modelyard.runtime.streams.files import FilesSink
from modelyard.runtime.streams.port import Committed, Fenced, Outcome
from modelyard.runtime.streams.prefix import Target
from modelyard.runtime.streams.records import Group, Message, Offset, Outgoing
from modelyard.storage.stores import Store
from s3_testing import S3, LossyProxy

EMPTY = pa.schema([("id", pa.string()), ("y", pa.float64())])
FORMATS = ("parquet", "csv", "jsonl", "arrow")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("weed")) as found:
        yield found


def sink(s3: S3, format_name: str, port: int | None = None) -> FilesSink:
    store = Store.open(f"s3://data/{format_name}", credentials=s3.credentials(port))
    return FilesSink(
        store,
        Target(
            stream="default.fraud", partition=0, format=format_name, empty=EMPTY, kept=("id",), source="in", created="t"
        ),
    )


def group(first: int, last: int) -> Group:
    """One record at each position; the last one is bad."""
    good = list(range(first, last))
    return Group(
        messages=tuple(Message(position=each, subject="in.0", payload=b"") for each in range(first, last + 1)),
        outgoing=(Outgoing(position=last, payload=b"{}", headers={"Modelyard-Error": "bad"}, dead=True),),
        records=last + 1 - first,
        dead_letters=1,
        tables=(pa.table({"id": good, "y": [each / 2 for each in good]}),) if good else (),
    )


def committed(outcome: Outcome) -> Offset:
    assert isinstance(outcome, Committed), outcome
    return outcome.offset


@pytest.mark.parametrize("format_name", FORMATS)
async def test_parts_are_committed_once_under_races_and_lost_replies(s3: S3, format_name: str) -> None:
    parts: list[bytes] = []

    def decide(head: bytes) -> str:
        """The first answer about a part is lost, and every third one after it."""
        line = head.partition(b"\r\n")[0]
        if not line.startswith(b"PUT") or b"/part-" not in line:
            return "pass"
        parts.append(line)
        return "drop-reply" if len(parts) % 3 == 1 else "pass"

    proxy = LossyProxy(s3.port, decide)
    one, other = sink(s3, format_name, proxy.port), sink(s3, format_name)
    assert await one.recover() is None
    offset = committed(await one.begin(0))
    assert await other.begin(7) == Fenced()
    assert await other.recover() == offset
    for number in range(4):
        first = offset.position + 1
        outcomes = await asyncio.gather(
            one.commit(offset, group(first, first + 3), 0), other.commit(offset, group(first, first + 1 + number), 0)
        )
        (offset,) = (each.offset for each in outcomes if isinstance(each, Committed))
        assert outcomes.count(Fenced()) == 1
        assert await one.recover() == await other.recover() == await sink(s3, format_name).recover() == offset
    proxy.close()
    assert proxy.dropped
    if format_name in ("parquet", "arrow"):
        found = ds.dataset(f"data/{format_name}", format=format_name, filesystem=s3_filesystem(s3)).to_table()
        ids = [int(each) for each in found["id"].to_pylist()]
        assert len(ids) == len(set(ids)) == offset.records - offset.dead_letters
    keys = [each.key for each in await Store.open(f"s3://data/{format_name}", credentials=s3.credentials()).list()]
    assert sum("/dead/" in key for key in keys) == sum(key.startswith("part-") for key in keys) == 4
    assert not any("staging" in key for key in keys)
