"""Streams into files through a whole server: what is there already is gone on with, or refused with the next step."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from jobs_testing import API, Object, s3_filesystem, secret, slow_model
from nats_testing import Nats
from s3_testing import S3
from yard_testing import Yard, wait_until


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    with Nats(tmp_path_factory.mktemp("nats")) as found:
        yield found


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder: Path = tmp_path_factory.mktemp("yard")
    with Yard(folder) as found:
        found.apply(*slow_model(folder, 0.0), wait=True)
        yield found


def stream(nats: Nats, name: str, uri: str = "", source: str = "", **spec: Any) -> Object:
    """From `<name>.in.>` of stream `<name>` into the folder of that name."""
    source = source or name
    sink = {"uri": uri or f"lake/{name}", "keep": ["id"], **spec.pop("sink", {})}
    return {
        "apiVersion": API,
        "kind": "ModelStream",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "model": {"name": "slow"},
            "source": {"uri": nats.uri, "stream": source, "subjects": [f"{source}.in.*.>"]},
            "sink": sink,
            "deadLetter": {},
            "batch": {"rows": 100, "wait": "50ms"},
            "start": {"from": "earliest"},
            **spec,
        },
    }


def publish(nats: Nats, source: str, first: int, last: int, x: float | None = None) -> None:
    """Records of these numbers, in partitions 0 and 1 by turns."""

    async def publish() -> None:
        async with nats.client() as bare:
            await bare.stream(source, [f"{source}.in.>"])
            for number in range(first, last):
                body = {"id": number, "key": f"k{number}", "x": float(number) if x is None else x}
                await bare.publish(f"{source}.in.{number % 2}.k", json.dumps(body).encode())

    asyncio.run(publish())


def table(folder: Path, format_name: str = "parquet") -> pa.Table:
    """As any reader finds it."""
    if not list(folder.glob("part-*")):
        return pa.table({"id": []})
    return ds.dataset(folder, format=format_name).to_table()


def ids(folder: Path, format_name: str = "parquet") -> list[int]:
    return sorted(table(folder, format_name)["id"].to_pylist())


def dead(folder: Path) -> list[int]:
    lines = [line for each in folder.glob("_stream/*/*/dead/*.ndjson") for line in each.read_text().splitlines()]
    return sorted(json.loads(json.loads(line)["payload"])["id"] for line in lines)


def delete(yard: Yard, name: str) -> None:
    yard.cli("delete", "modelstream", name)
    wait_until(lambda: f'"{name}"' not in yard.cli("get", "modelstreams", "-o", "json"), f"{name} is gone")


def told(yard: Yard, name: str, reason: str) -> str:
    """What `why` says when the stream is not Ready for that reason."""
    wait_until(lambda: yard.condition(name, kind="modelstream").get("reason") == reason, f"{name}: {reason}")
    return yard.cli("why", name, check=False)


def test_a_stream_that_is_deleted_and_applied_again_goes_on_from_its_files(yard: Yard, nats: Nats) -> None:
    folder = yard.folder / "lake/again"
    publish(nats, "again", 0, 10)
    two: Object = {"partitions": 2, "key": {"token": 3}}
    yard.apply(stream(nats, "again", **two), wait=False)
    wait_until(lambda: ids(folder) == list(range(10)), "all are there")
    delete(yard, "again")
    publish(nats, "again", 10, 20)
    yard.apply(stream(nats, "again", start={"from": "latest"}, **two), wait=False)
    wait_until(lambda: ids(folder) == list(range(20)), "those that came meanwhile are there, too")
    delete(yard, "again")
    yard.apply(stream(nats, "again"), wait=False)
    said = told(yard, "again", "OutputInUse")
    assert "holds files of a stream of this name with 2 partitions of again.in.*.> by token 3" in said
    assert "apply it as it was, or give it another prefix" in said
    delete(yard, "again")
    publish(nats, "again", 20, 22)
    yard.apply(stream(nats, "again", **two), wait=False)
    wait_until(lambda: ids(folder) == list(range(22)), "it goes on")


def test_another_stream_at_the_prefix_is_refused(yard: Yard, nats: Nats) -> None:
    folder = yard.folder / "lake/mine"
    publish(nats, "mine", 0, 3)
    yard.apply(stream(nats, "mine"), wait=False)
    wait_until(lambda: ids(folder) == [0, 1, 2], "all are there")
    yard.apply(stream(nats, "yours", uri="lake/mine", source="mine"), wait=False)
    said = told(yard, "yours", "OutputInUse")
    assert "holds the files of stream default.mine" in said
    assert "give each stream a prefix of its own" in said
    assert ids(folder) == [0, 1, 2]


def test_files_of_a_source_that_was_made_anew_are_not_gone_on_with(yard: Yard, nats: Nats) -> None:
    folder = yard.folder / "lake/anew"
    publish(nats, "anew", 0, 3)
    yard.apply(stream(nats, "anew"), wait=False)
    wait_until(lambda: ids(folder) == [0, 1, 2], "all are there")
    delete(yard, "anew")

    async def remove() -> None:
        async with nats.client() as bare:
            await bare.api("STREAM.DELETE.anew")

    asyncio.run(remove())
    publish(nats, "anew", 0, 9)
    yard.apply(stream(nats, "anew"), wait=False)
    assert "give the stream another name and another prefix" in told(yard, "anew", "SourceReplaced")
    assert ids(folder) == [0, 1, 2]


def test_fields_that_are_kept_later_can_be_read_with_what_was_there(yard: Yard, nats: Nats) -> None:
    folder = yard.folder / "lake/fields"
    publish(nats, "fields", 0, 0)
    for number, keep in enumerate((["id"], ["id", "key"], ["key", "id"], ["id"])):
        yard.apply(stream(nats, "fields", sink={"keep": keep}), wait=True)
        publish(nats, "fields", 10 * number, 10 * number + 10)
        wait_until(lambda: len(ids(folder)) == 10 * number + 10, "all are there")  # noqa: B023  called at once
    assert ids(folder) == list(range(40))
    files = sorted(str(each) for each in folder.glob("part-*"))
    schema = pa.unify_schemas([ds.dataset(each).schema for each in files])
    found = ds.dataset(folder, schema=schema).to_table().sort_by("id")
    assert found["key"].to_pylist() == [None] * 10 + [f"k{each}" for each in range(10, 30)] + [None] * 10
    assert np.array_equal(found["y"].to_numpy(), 3.0 * np.arange(40) + 1)


@pytest.mark.parametrize(("format_name", "known"), [("jsonl", "json"), ("csv", "csv"), ("parquet", "parquet")])
def test_bad_records_alone_leave_nothing_that_a_reader_stumbles_over(
    format_name: str, known: str, yard: Yard, nats: Nats
) -> None:
    name = f"bad-{format_name}"
    folder = yard.folder / "lake" / name
    publish(nats, name, 0, 2, x=-2.0)
    body = stream(nats, name, sink={"format": format_name})
    yard.apply(body, wait=False)
    wait_until(lambda: dead(folder) == [0, 1], "they are put aside")
    publish(nats, name, 2, 3, x=-2.0)
    wait_until(lambda: dead(folder) == [0, 1, 2], "another one")
    yard.cli("suspend", f"modelstream/{name}")
    wait_until(lambda: yard.condition(name, kind="modelstream").get("reason") == "Suspended", "it is paused")
    publish(nats, name, 3, 5)
    yard.cli("resume", f"modelstream/{name}")
    wait_until(lambda: ids(folder, known) in ([3, 4], ["3", "4"]), "the good ones are there")
    publish(nats, name, 5, 6, x=-2.0)
    wait_until(lambda: dead(folder) == [0, 1, 2, 5], "nobody was put aside twice")
    publish(nats, name, 6, 7)
    wait_until(lambda: len(ids(folder, known)) == 3, "the last one is there")
    assert dead(folder) == [0, 1, 2, 5]


def test_wrong_keys_of_a_store_are_told_with_what_to_do(
    yard: Yard, nats: Nats, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with S3(tmp_path_factory.mktemp("weed")) as s3:
        publish(nats, "keys", 0, 5)
        wrong = s3.credentials() | {"AWS_SECRET_ACCESS_KEY": "wrong"}
        yard.apply(
            secret("lake", wrong), stream(nats, "keys", uri="s3://data/keys", sink={"credentials": "lake"}), wait=False
        )
        said = told(yard, "keys", "AccessDenied")
        assert "s3://data/keys: access is denied" in said
        assert "correct the Secret that spec.sink.credentials names, then: modelyard restart keys" in said
        yard.apply(secret("lake", s3.credentials()), wait=False)
        yard.cli("restart", "modelstream/keys")

        def there() -> bool:
            try:
                found = ds.dataset("data/keys", filesystem=s3_filesystem(s3)).to_table()
            except OSError:
                return False
            return sorted(found["id"].to_pylist()) == list(range(5))

        wait_until(there, "it goes on with the right keys", 60)
        delete(yard, "keys")


def test_a_file_where_a_folder_should_be_is_told(yard: Yard, nats: Nats) -> None:
    path = yard.folder / "lake/single"
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    publish(nats, "single", 0, 1)
    yard.apply(stream(nats, "single"), wait=False)
    assert "is a single object, and files need a folder or prefix" in told(yard, "single", "Invalid")
    assert not list(path.parent.glob("part-*")), "nothing is written beside it"
