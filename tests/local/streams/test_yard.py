"""Streams through a whole server: keys of brokers in Secrets, bytes as they are, and records that end runners."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jobs_testing import API, Object, secret, slow_model
from nats_keys_testing import Operated, user
from nats_testing import Bare, Nats
from nats_testing import until as true
from yard_testing import Yard


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """With the Models `slow` (x -> y = 3 x + 1) and `shout` (text -> text!)."""
    folder: Path = tmp_path_factory.mktemp("yard")
    shout(folder / "shout.onnx")
    model = {"apiVersion": API, "kind": "Model", "metadata": {"name": "shout"}, "spec": {"uri": "shout.onnx"}}
    with Yard(folder) as found:
        found.apply(*slow_model(folder, 0.0), model)
        yield found


def shout(path: Path) -> None:
    """A text in, the same with an exclamation mark out; BYTES [-1]."""
    mark = numpy_helper.from_array(np.array(["!"], dtype=object), "mark")
    node = helper.make_node("StringConcat", ["text", "mark"], ["loud"])
    text, loud = (helper.make_tensor_value_info(name, TensorProto.STRING, [None]) for name in ("text", "loud"))
    graph = helper.make_graph([node], "shout", [text], [loud], [mark])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))


def stream(name: str, model: str, uri: str, *, keys: str = "", source: Object | None = None, **spec: Any) -> Object:
    """From `<name>.in` of stream `<name>_in` to `<name>.out` of `<name>_out`, exactly once, from the first record."""
    known = {"credentials": keys} if keys else {}
    takes = {"uri": uri, "stream": f"{name}_in", "subjects": [f"{name}.in"], **known, **(source or {})}
    gives = {"uri": uri, "stream": f"{name}_out", "subject": f"{name}.out", **known}
    base = {"model": {"name": model}, "source": takes, "sink": gives, "start": {"from": "earliest"}}
    exact = {"delivery": "exactlyOnce", "batch": {"wait": "20ms"}, **spec}
    return {"apiVersion": API, "kind": "ModelStream", "metadata": {"name": name}, "spec": {**base, **exact}}


async def scored(bare: Bare, name: str, subjects: dict[str, int]) -> list[bytes]:
    """What lies on the subject for results, when the sink holds so many on its subjects, offsets aside."""

    async def there() -> bool:
        return await bare.subjects(f"{name}_out", f"{name}.*") == subjects

    await true(there, seconds=40)
    return [payload for _, payload, _ in await bare.read(f"{name}_out", f"{name}.out")]


async def test_a_broker_that_asks_for_an_nkey_is_used_with_that_of_a_secret(yard: Yard, tmp_path: Path) -> None:
    key, password = user(), "of the test alone"
    users = f'{{ nkey: {key.public} }}, {{ user: test, password: "{password}" }}'
    with Nats(tmp_path, f"authorization {{ users: [ {users} ] }}") as server:
        yard.apply(secret("seed", {"nkey": key.seed}), stream("signed", "slow", server.uri, keys="seed"))
        async with server.client(user="test", password=password) as bare:
            await bare.publish("signed.in", '{"x": 2}')
            assert [json.loads(each) for each in await scored(bare, "signed", {"signed.out": 1})] == [{"y": 7.0}]
        yard.cli("delete", "modelstream", "signed")
    assert key.seed not in (yard.folder / "up.log").read_text()


async def test_a_broker_with_accounts_is_used_with_the_credentials_file_of_a_secret(yard: Yard, tmp_path: Path) -> None:
    operated = Operated.new()
    (tmp_path / "test.creds").write_text(operated.creds)
    with Nats(tmp_path, operated.options) as server:
        keys = secret("creds", {"user.creds": operated.creds})
        yard.apply(keys, stream("vouched", "slow", server.uri, keys="creds"))
        async with server.client(user_credentials=str(tmp_path / "test.creds")) as bare:
            await bare.publish("vouched.in", '{"x": 2}')
            assert [json.loads(each) for each in await scored(bare, "vouched", {"vouched.out": 1})] == [{"y": 7.0}]
        yard.cli("delete", "modelstream", "vouched")


async def test_raw_messages_are_bytes_for_the_model_and_from_it(yard: Yard, server: Nats) -> None:
    yard.apply(stream("raw", "shout", server.uri, source={"format": "raw"}))
    async with server.client() as bare:
        texts = ["hear", "", '{"not": "JSON to anybody"}', "grüß dich"]
        for each in texts:
            await bare.publish("raw.in", each, {"Trace": "kept"})
        found = await scored(bare, "raw", {"raw.out": len(texts)})
        assert [each.decode() for each in found] == [f"{each}!" for each in texts]
        ((_, _, headers), *_) = await bare.read("raw_out", "raw.out")
        assert headers["Trace"] == "kept"


async def test_a_record_that_kills_its_runner_again_and_again_is_put_aside_and_the_others_are_scored(
    yard: Yard, server: Nats
) -> None:
    yard.apply(stream("deadly", "slow", server.uri, deadLetter={"subject": "deadly.dead"}, maxDeliver=1))
    async with server.client() as bare:
        await bare.fill("deadly.in", [json.dumps({"x": x}) for x in (1, -3, 2)])
        found = await scored(bare, "deadly", {"deadly.out": 2, "deadly.dead": 1})
        assert [json.loads(each)["y"] for each in found] == [4.0, 7.0]
        ((_, payload, headers),) = await bare.read("deadly_out", "deadly.dead")
        assert json.loads(payload) == {"x": -3}
        assert headers["Modelyard-Error-Code"] == "MaxDeliver"
        assert headers["Modelyard-Error"].endswith("runners or more, and is not tried again")
