"""The connection to a broker: ways to log in, what may not be done, losing it and having it again."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats.broker import Broker, connect
from modelyard.runtime.streams.nats.claims import Claims
from modelyard.runtime.streams.nats.fenced import FencedLink
from modelyard.runtime.streams.nats.keys import KNOWN, login
from modelyard.runtime.streams.nats.setup import prepare_sink, prepare_source
from modelyard.runtime.streams.port import Away, Committed
from modelyard.wire.work import LOCAL_BROKER
from nats_keys_testing import Authority, Operated, user
from nats_testing import Nats, Wire, free_port, scored, stream_work, until

SECRET = "never-to-be-seen"


async def works(uri: str, keys: dict[str, str], scratch: Path) -> None:
    """A stream can be made there."""
    async with connect(uri, keys, "", scratch, name="a test") as broker:
        await prepare_sink(broker, stream_work(uri, "works"))
        assert broker.connected
    assert _hidden(scratch) == []  # no key stays in a file


def _hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


async def refused(uri: str, keys: dict[str, str], scratch: Path) -> Refused:
    with pytest.raises(Refused) as found:
        await works(uri, keys, scratch)
    assert SECRET not in found.value.message
    return found.value


async def test_user_and_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Nats(tmp_path / "s", f'authorization {{ user: u, password: "{SECRET}" }}') as server:
        await works(server.uri, {"username": "u", "password": SECRET}, tmp_path)
        wrong = await refused(server.uri, {"username": "u", "password": SECRET + "x"}, tmp_path)
        assert wrong.reason == Reason.BROKER_REFUSED
        assert f"127.0.0.1:{server.port} refuses these credentials" in wrong.message
        assert "asks for credentials, and none are given" in (await refused(server.uri, {}, tmp_path)).message
    assert SECRET not in caplog.text


async def test_token(tmp_path: Path) -> None:
    with Nats(tmp_path / "s", f'authorization {{ token: "{SECRET}" }}') as server:
        await works(server.uri, {"token": SECRET}, tmp_path)
        assert (await refused(server.uri, {"token": "other"}, tmp_path)).reason == Reason.BROKER_REFUSED


async def test_nkey(tmp_path: Path) -> None:
    mine, other = user(), user()
    with Nats(tmp_path / "s", f"authorization {{ users: [ {{ nkey: {mine.public} }} ] }}") as server:
        await works(server.uri, {"nkey": f"{mine.seed}\n"}, tmp_path)
        assert (await refused(server.uri, {"nkey": other.seed}, tmp_path)).reason == Reason.BROKER_REFUSED


async def test_credentials_file_with_a_jwt(tmp_path: Path) -> None:
    operated = Operated.new()
    with Nats(tmp_path / "s", operated.options) as server:
        await works(server.uri, {"user.creds": operated.creds}, tmp_path)
        other = {"user.creds": Operated.new().creds}
        assert (await refused(server.uri, other, tmp_path)).reason == Reason.BROKER_REFUSED


def tls(folder: Path, authority: Authority, more: str = "") -> str:
    folder.mkdir()
    signed = authority.sign("server")
    (folder / "ca.crt").write_text(authority.crt)
    (folder / "server.crt").write_text(signed.crt)
    (folder / "server.key").write_text(signed.key)
    return f'tls {{ cert_file: "{folder}/server.crt", key_file: "{folder}/server.key" {more} }}'


async def test_tls_with_an_own_authority(tmp_path: Path) -> None:
    authority = Authority()
    options = tls(tmp_path / "tls", authority) + '\nauthorization { user: u, password: "p" }'
    with Nats(tmp_path / "s", options) as server:
        keys = {"username": "u", "password": "p"}
        uri = server.uri.replace("nats://", "tls://")
        await works(uri, {**keys, "ca.crt": authority.crt}, tmp_path)
        await works(server.uri, {**keys, "ca.crt": authority.crt}, tmp_path)  # asked for by the Secret
        for each in (keys, {**keys, "ca.crt": Authority().crt}):
            wrong = await refused(uri, each, tmp_path)
            assert "is not trusted" in wrong.message
            assert "ca.crt" in wrong.message


async def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    authority = Authority()
    options = tls(tmp_path / "tls", authority, f', ca_file: "{tmp_path}/tls/ca.crt", verify: true')
    with Nats(tmp_path / "s", options) as server:
        uri = server.uri.replace("nats://", "tls://")
        mine = authority.sign("client")
        await works(uri, {"ca.crt": authority.crt, "tls.crt": mine.crt, "tls.key": mine.key}, tmp_path)
        with pytest.raises((Refused, Away)):
            await works(uri, {"ca.crt": authority.crt}, tmp_path)


async def test_no_password_is_sent_without_tls_where_tls_was_asked_for(tmp_path: Path) -> None:
    """nats-py takes `tls://` for a wish: it goes on in clear where the server does not ask for TLS."""
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","headers":true,"auth_required":true}\r\n')
        while data := await reader.read(1000):
            heard.extend(data)
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        wrong = await refused(f"tls://127.0.0.1:{port}", {"username": "u", "password": SECRET}, tmp_path)
        await gone.wait()
    assert "does not ask for TLS" in wrong.message
    assert heard == b""


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"username": SECRET}, "it lacks password"),
        ({"password": SECRET}, "it lacks username"),
        ({"tls.key": SECRET}, "it lacks tls.crt"),
        ({"tls.key": SECRET, "tls.crt": SECRET}, "tls.crt and tls.key are no certificate"),
        ({"user": "u", "pass": SECRET}, "it holds pass, user, which NATS does not know"),
        ({"token": SECRET, "nkey": SECRET}, "it holds token and nkey"),
        ({"nkey": SECRET}, "nkey has no seed"),
        ({"user.creds": SECRET}, "user.creds is no credentials file"),
        ({"ca.crt": SECRET}, "ca.crt has no certificates"),
    ],
)
async def test_keys_that_cannot_be_used_are_named(tmp_path: Path, keys: dict[str, str], named: str) -> None:
    with pytest.raises(Refused, match=named) as found:
        login(keys, tls=False, scratch=tmp_path)
    assert SECRET not in found.value.message
    assert found.value.reason == Reason.BROKER_REFUSED
    if "does not know" in named:
        assert all(each in found.value.message for each in KNOWN)


@pytest.mark.parametrize("uri", ["http://a:1", "nats://u:p@a:1", "nats://", "nats://a:x", "a:4222"])
async def test_a_uri_that_is_none_of_a_broker_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(Refused, match="nats://HOST:PORT"):
        async with connect(uri, {}, "", tmp_path):
            pass


async def test_the_local_broker_is_found_by_its_file_each_time(server: Nats, tmp_path: Path) -> None:
    file = tmp_path / "broker.json"
    async with connect(LOCAL_BROKER, {}, str(file), tmp_path) as broker:
        with pytest.raises(Away, match="is being started"):
            await broker.session()
        file.write_text(json.dumps({"url": f"nats://127.0.0.1:{free_port()}"}))
        await until(lambda: _fails(broker, "cannot be reached"))
        file.write_text(json.dumps({"url": server.uri, "user": "u", "password": "p"}))
        session = await until(lambda: _session(broker))
        assert session.version >= (2, 12)
        file.unlink()
        assert await broker.session() is session


async def test_a_server_without_jetstream_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with Nats(tmp_path / "s", jetstream=None) as server:
        wrong = await refused(server.uri, {}, tmp_path)
        assert "has no JetStream; start it with `-js`" in wrong.message
    accounts = "accounts { A { users: [ {user: u, password: p} ] } }"
    with Nats(tmp_path / "t", accounts) as server:
        wrong = await refused(server.uri, {"username": "u", "password": "p"}, tmp_path)
        assert "JetStream is not enabled for this account" in wrong.message


def allowing(publish: str, subscribe: str = '">"') -> str:
    permissions = f"publish: {{ {publish} }}, subscribe: {subscribe}"
    return f"authorization {{ users: [ {{user: u, password: p, permissions: {{ {permissions} }} }} ] }}"


async def test_what_may_not_be_published_is_named_at_once(tmp_path: Path) -> None:
    keys = {"username": "u", "password": "p"}
    with Nats(
        tmp_path / "s", allowing('deny: ["May.Dead", "may.fence.>", "$JS.API.STREAM.CREATE.none_out"]')
    ) as server:
        async with connect(server.uri, keys, "", tmp_path) as broker, server.client(user="u", password="p") as bare:
            with pytest.raises(Refused) as found:
                await prepare_sink(broker, stream_work(server.uri, "none"))
            assert found.value.reason == Reason.STREAM_NOT_FOUND
            assert "$JS.API.STREAM.CREATE.none_out" in found.value.message
            assert '"subjects": ["none.out", "none.dead", "none.out.__offset.>"]' in found.value.message
            work = stream_work(server.uri, "may", dead_letter="May.Dead")
            await prepare_source(broker, work)
            await prepare_sink(broker, work)
            await bare.fill("may.in", ["a", "b", "c"])
            link = FencedLink(broker, broker, work, 0)
            outcome = await link.begin()
            assert isinstance(outcome, Committed)
            async with asyncio.timeout(4):  # less than any wait for an answer
                async with link.read(outcome.offset) as reading:
                    messages = [(await reading.next(1))[0] for _ in range(3)]
                for dead in ([1], [2], [3]):  # first, in the middle, before the offset
                    with pytest.raises(Refused, match=r"may not publish to (May\.Dead|may\.dead)"):
                        await link.commit(outcome.offset, scored(messages, dead), 0)
            assert "may.out" not in await bare.subjects("may_out")
            assert isinstance(await link.commit(outcome.offset, scored(messages), 0), Committed)


async def test_an_offset_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    with Nats(tmp_path / "s", allowing('deny: ["deny.out.__offset.>"]')) as server:
        async with connect(server.uri, {"username": "u", "password": "p"}, "", tmp_path) as broker:
            work = stream_work(server.uri, "deny")
            await prepare_source(broker, work)
            await prepare_sink(broker, work)
            with pytest.raises(Refused, match=r"may not publish to deny\.out\.__offset\.default\.deny\.0"):
                await FencedLink(broker, broker, work, 0).begin()


async def test_answers_that_may_not_be_heard_are_named(tmp_path: Path) -> None:
    with Nats(tmp_path / "s", allowing('allow: [">"]', '["mine.>"]')) as server:
        wrong = await refused(server.uri, {"username": "u", "password": "p"}, tmp_path)
        assert "may not subscribe to _INBOX.>" in wrong.message


async def test_an_account_that_may_do_only_what_it_must_is_enough(tmp_path: Path) -> None:
    allowed = [
        "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.STREAM.MSG.DELETE.MODELYARD_CLAIMS",
        "$JS.API.STREAM.PURGE.MODELYARD_CLAIMS", "$JS.API.CONSUMER.CREATE.least_in.>",
        "$JS.API.CONSUMER.MSG.NEXT.least_in.*", "$JS.API.CONSUMER.INFO.least_in.*",
        "$JS.API.CONSUMER.DELETE.least_in.*", "least.out", "least.dead", "least.out.__offset.>", "modelyard.claims.>",
    ]  # fmt: skip
    users = (
        f'{{user: u, password: p, permissions: {{ publish: {json.dumps(allowed)}, subscribe: ["_INBOX.>"] }} }}, '
        "{user: admin, password: p}"
    )
    with Nats(tmp_path / "s", f"authorization {{ users: [ {users} ] }}") as server:
        work = stream_work(server.uri, "least")
        async with connect(server.uri, {"username": "admin", "password": "p"}, "", tmp_path) as broker:
            await prepare_source(broker, work)
            await prepare_sink(broker, work)
            await Claims(broker, work, "admin").show()
        async with (
            connect(server.uri, {"username": "u", "password": "p"}, "", tmp_path) as broker,
            server.client(user="admin", password="p") as bare,
        ):
            await prepare_source(broker, work)
            await prepare_sink(broker, work)
            claims = Claims(broker, work, "r")
            assert await claims.claim(0)
            await claims.attempts(0, 1)
            await claims.progressed(0)
            link = FencedLink(broker, broker, work, 0)
            outcome = await link.begin()
            assert isinstance(outcome, Committed)
            await bare.fill("least.in", ["a"])
            async with link.read(outcome.offset) as reading:
                messages = await reading.next(1)
                assert isinstance(await link.commit(outcome.offset, scored(messages), 0), Committed)
            await claims.release(0)


async def test_a_broker_that_is_away_fails_fast_and_is_found_when_it_is_back(tmp_path: Path) -> None:
    with Nats(tmp_path / "s") as server:
        async with connect(server.uri, {}, "", tmp_path) as broker:
            first = await broker.session()
            await asyncio.to_thread(server.kill)
            await until(lambda: _fails(broker, "cannot be reached"))
            assert not broker.connected
            async with asyncio.timeout(1):
                for _ in range(200):  # nearly all of them in a pause
                    with pytest.raises(Away):
                        await broker.session()
            await asyncio.to_thread(server.start)
            second = await until(lambda: _session(broker))
            assert second is not first
            with pytest.raises(Away, match="is lost"):
                await first.request("$JS.API.INFO")


async def test_calls_under_way_fail_as_soon_as_the_connection_is_lost(server: Nats, tmp_path: Path) -> None:
    async with Wire(server.port) as wire, connect(wire.uri, {}, "", tmp_path) as broker:
        session = await broker.session()
        wire.answers = False
        async with asyncio.timeout(2):
            waiting = [asyncio.create_task(session.request("$JS.API.INFO", seconds=60)) for _ in range(100)]
            await asyncio.sleep(0)
            wire.cut()
            for each in waiting:
                with pytest.raises(Away, match="is lost"):
                    await each
        assert session._expected == {}
        assert session._scopes == set()


async def test_a_broker_that_falls_silent_is_away(server: Nats, tmp_path: Path) -> None:
    async with Wire(server.port) as wire, connect(wire.uri, {}, "", tmp_path) as broker:
        session = await broker.session()
        wire.answers = False
        with pytest.raises(Away, match="does not answer"):
            await session.request("$JS.API.INFO", seconds=0.2)
        wire.answers = True
        await session.request("$JS.API.INFO")
        wire.cut()
        wire.answers = False
        await until(lambda: _lost(broker))
        with pytest.raises(Away, match="cannot be reached"):
            await broker.session()  # connects, and hears nothing


async def test_publishing_to_a_connection_that_takes_nothing_ends(server: Nats, tmp_path: Path) -> None:
    """nats-py waits for its buffer without end, and swallows being cancelled there."""
    async with Wire(server.port) as wire, connect(wire.uri, {}, "", tmp_path) as broker:
        session = await broker.session()
        wire.flows.clear()

        async def flood() -> None:
            async with session.scope(1.0):
                for _ in range(200):
                    await session.publish("nobody", b"x" * 500_000)

        async with asyncio.timeout(5):
            with pytest.raises(Away, match="does not answer"):
                await flood()
        async with asyncio.timeout(5):
            flooding = asyncio.create_task(flood())
            await asyncio.sleep(0.2)
            wire.flows.set()
            wire.cut()
            with pytest.raises(Away):
                await flooding


async def _session(broker: Broker) -> object:
    try:
        return await broker.session()
    except Away:
        return None


async def _fails(broker: Broker, text: str) -> bool:
    try:
        await broker.session()
    except Away as error:
        return text in error.message
    return False


async def _lost(broker: Broker) -> bool:
    return not broker.connected
