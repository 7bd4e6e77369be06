"""What is wrong with a broker is named with what to do about it, and heals as soon as it is mended."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nats_keys_testing import Authority
from nats_testing import Bare, Nats
from nats_testing import until as true
from yard_testing import Yard, wait_until, write_onnx

PASSWORD = "a password that nobody may see"
EXACT = {"allow_atomic": True, "allow_msg_ttl": True, "allow_rollup_hdrs": True}


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """With the Model `plus`, which adds 1 to the fields a and b."""
    folder: Path = tmp_path_factory.mktemp("yard")
    write_onnx(folder / "plus.onnx", 1.0)
    with Yard(folder) as found:
        found.apply(_object("Model", "plus", spec={"uri": "plus.onnx"}))
        yield found


def _object(kind: str, name: str, **parts: Any) -> dict[str, Any]:
    version = "v1" if kind == "Secret" else "modelyard.dev/v1alpha1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **parts}


def stream(name: str, uri: str, credentials: str = "", **spec: Any) -> dict[str, Any]:
    """From `<name>.in` of stream `<name>_in` to `<name>.out` of `<name>_out`, exactly once, from the first record."""
    keys = {"credentials": credentials} if credentials else {}
    source = {"uri": uri, "stream": f"{name}_in", "subjects": [f"{name}.in"], "columns": ["a", "b"], **keys}
    sink = {"uri": uri, "stream": f"{name}_out", "subject": f"{name}.out", **keys}
    base = {"model": {"name": "plus"}, "source": source, "sink": sink, "start": {"from": "earliest"}}
    return _object("ModelStream", name, spec={**base, "delivery": "exactlyOnce", **spec})


def secret(name: str, **values: str) -> dict[str, Any]:
    return _object("Secret", name, stringData=values)


def until(yard: Yard, name: str, reason: str) -> str:
    """Wait for the reason of Ready. Returns what `modelyard why` says then."""

    def said() -> bool:
        """By the server: it writes every change of Ready."""
        words = [line.split() for line in (yard.folder / "up.log").read_text().splitlines()]
        mine = [each for each in words if each[1:3] == ["ModelStream", f"{name}:"]]
        return bool(mine) and mine[-1][4:5] == [reason]

    wait_until(said, f"{name} {reason}", 40)
    return yard.cli("why", name)


@asynccontextmanager
async def broker(server: Nats, name: str, **sink: Any) -> AsyncIterator[Bare]:
    """A connection, with the streams of `name`."""
    async with server.client() as bare:
        await bare.stream(f"{name}_in", [f"{name}.in"])
        await bare.stream(f"{name}_out", [f"{name}.out", f"{name}.out.__offset.>"], **sink)
        yield bare


async def holds(bare: Bare, name: str, messages: dict[str, int]) -> bool:
    """Whether so many lie on the subjects of the sink, offsets aside."""
    return await bare.subjects(f"{name}_out", f"{name}.*") == messages


async def change(bare: Bare, name: str, **changes: Any) -> None:
    config = (await bare.info(name))["config"]
    answer = await bare.api(f"STREAM.UPDATE.{name}", {**config, **changes})
    assert "error" not in answer, answer


def test_wrong_credentials_are_told_with_their_secret_and_never_shown(yard: Yard, tmp_path: Path) -> None:
    with Nats(tmp_path, f'authorization {{ users = [ {{ user: me, password: "{PASSWORD}" }} ] }}') as server:
        yard.apply(stream("anonymous", server.uri), wait=False)
        yard.apply(
            secret("login", username="me", password=f"not {PASSWORD}"),
            stream("locked", server.uri, "login"),
            wait=False,
        )
        told = until(yard, "locked", "BrokerRefused")
        assert f"127.0.0.1:{server.port} refuses these credentials" in told
        assert "correct Secret login, then: modelyard restart locked" in told
        assert PASSWORD not in told + yard.cli("describe", "modelstream", "locked") + yard.cli("logs", "locked")
        yard.apply(secret("login", username="me", password=PASSWORD), wait=False)
        yard.cli("restart", "locked")
        assert "is Ready and following" in yard.cli("why", "locked")
        told = until(yard, "anonymous", "BrokerRefused")
        assert "asks for credentials, and none are given" in told
        assert "name a Secret in spec.source.credentials" in told
        yard.cli("delete", "modelstream", "locked", "anonymous", "--no-wait")
    assert PASSWORD not in (yard.folder / "up.log").read_text()


def test_a_broker_with_a_ca_of_its_own_is_reached_with_a_secret(yard: Yard, tmp_path: Path) -> None:
    authority = Authority()
    signed = authority.sign("127.0.0.1")
    (tmp_path / "tls.crt").write_text(signed.crt)
    (tmp_path / "tls.key").write_text(signed.key)
    tls = f'tls {{ cert_file: "{tmp_path / "tls.crt"}", key_file: "{tmp_path / "tls.key"}" }}'
    with Nats(tmp_path, tls) as server:
        uri = server.uri.replace("nats://", "tls://")
        yard.apply(stream("sealed", uri), wait=False)
        told = until(yard, "sealed", "BrokerRefused")
        assert f"the certificate of 127.0.0.1:{server.port} is not trusted" in told
        assert "put its CA into ca.crt of the Secret" in told
        yard.apply(secret("ca", **{"ca.crt": authority.crt}), stream("sealed", uri, "ca"))
        yard.cli("delete", "modelstream", "sealed", "--no-wait")


async def test_settings_that_a_sink_lacks_are_named_until_they_are_there(yard: Yard, server: Nats) -> None:
    async with broker(server, "bare") as bare:
        yard.apply(stream("bare", server.uri), wait=False)
        told = until(yard, "bare", "StreamUnsuitable")
        assert "stream bare_out lacks the settings allow_atomic: true" in told
        await change(bare, "bare_out", **EXACT)
        until(yard, "bare", "Following")


async def test_a_full_sink_is_told_and_nothing_is_lost_when_there_is_room_again(yard: Yard, server: Nats) -> None:
    async with broker(server, "full", max_bytes=4000, discard="new", **EXACT) as bare:
        yard.apply(stream("full", server.uri))
        await bare.fill("full.in", ['{"a": 1, "b": 2}'] * 50)
        assert "the broker has no room" in until(yard, "full", "BrokerFull")
        await change(bare, "full_out", max_bytes=4_000_000)
        until(yard, "full", "Following")
        assert await holds(bare, "full", {"full.out": 50})


async def test_a_purged_sink_stops_the_stream(yard: Yard, server: Nats) -> None:
    async with broker(server, "purged", **EXACT) as bare:
        yard.apply(stream("purged", server.uri))
        await bare.publish("purged.in", '{"a": 1, "b": 2}')
        await true(lambda: holds(bare, "purged", {"purged.out": 1}))
        await bare.api("STREAM.PURGE.purged_out")
        await bare.publish("purged.in", '{"a": 1, "b": 2}')
        told = until(yard, "purged", "OffsetLost")
        assert "apply a ModelStream of another name" in told
        assert await bare.subjects("purged_out") == {}


async def test_a_bad_record_stops_the_stream_until_there_are_dead_letters(yard: Yard, server: Nats) -> None:
    yard.apply(stream("strict", server.uri))
    async with server.client() as bare:
        await bare.fill("strict.in", ['{"a": 1, "b": 2}', '{"a": 1}', '{"a": 3, "b": 4}'])
        told = until(yard, "strict", "RecordFailed")
        assert "message 2 of strict_in cannot be scored: there is no field b" in told
        assert "set spec.deadLetter" in told
        assert await holds(bare, "strict", {"strict.out": 1})
        # The stream was made by Modelyard, so that it also takes the new subject.
        yard.apply(stream("strict", server.uri, deadLetter={"subject": "strict.dead"}))
        await true(lambda: holds(bare, "strict", {"strict.out": 2, "strict.dead": 1}))


def test_a_broker_that_goes_and_comes_is_found_again(yard: Yard, tmp_path: Path) -> None:
    server = Nats(tmp_path)
    yard.apply(stream("late", server.uri), wait=False)
    told = until(yard, "late", "BrokerUnreachable")
    assert f"see that {server.uri} answers from this machine" in told
    with server:
        until(yard, "late", "Following")
        server.kill()
        until(yard, "late", "BrokerUnreachable")
        server.start()
        until(yard, "late", "Following")
        yard.cli("delete", "modelstream", "late", "--no-wait")


def test_a_stream_that_never_reached_its_broker_is_deleted_without_it(yard: Yard) -> None:
    yard.apply(stream("typo", "nats://127.0.0.1:1"), wait=False)
    until(yard, "typo", "BrokerUnreachable")
    yard.cli("delete", "modelstream", "typo", "--timeout", "60s")
