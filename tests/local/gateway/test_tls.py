"""TLS and client certificates at the gateway's public listener."""

import asyncio
import http.client
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import msgspec
import pytest

from certificates_testing import Authority, Pair
from gateway_testing import Load, becomes_true, upstream
from modelyard.base.clock import SystemClock
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.ir.platform import Platform, Tls
from modelyard.control.ir.route import Endpoints
from modelyard.control.render import xds_door
from modelyard.testing.gateway_suite import IRIS, acknowledged, route

LAPTOP = Platform(authentication="none", local_only=True)
INFER = "/v2/models/iris/infer"
LIVE = "/inference.GRPCInferenceService/ServerLive"


class Secured:
    """A gateway with one model, and an authority that signs its certificates."""

    def __init__(self, gateway: EnvoyGateway, folder: Path, logs: Path) -> None:
        self.gateway = gateway
        self.folder = folder
        self.logs = logs
        self.authority = Authority()

    @property
    def port(self) -> int:
        return int(self.gateway.url.rpartition(":")[2])

    def show(self, pair: Pair, client_ca: str = "") -> None:
        tls = Tls(certificate=pair.certificate, key=pair.key, client_ca=client_ca)
        self.gateway.configure(msgspec.structs.replace(LAPTOP, tls=tls))

    def plain(self) -> None:
        self.gateway.configure(LAPTOP)

    def shown(self, context: ssl.SSLContext | None = None) -> str:
        """Whose certificate a new connection gets; "" when there is none to be had."""
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), 5) as plain,
                (context or self.authority.context()).wrap_socket(plain, server_hostname="localhost") as secured,
            ):
                names = dict(pair[0] for pair in secured.getpeercert()["subject"])  # type: ignore[index,misc]
                return str(names["commonName"])
        except OSError:
            return ""

    async def shows(self, name: str) -> None:
        """Wait until new connections get it."""
        async with asyncio.timeout(20):
            while await asyncio.to_thread(self.shown) != name:  # noqa: ASYNC110  what others see, not an event
                await asyncio.sleep(0.02)

    async def ask(self, context: ssl.SSLContext | None = None) -> int:
        """The status of a request on a new connection."""
        connector = aiohttp.TCPConnector(ssl=context or self.authority.context(), force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(self.gateway.url + INFER, data=b"{}") as answer,
        ):
            return answer.status

    def speaks_plain_text(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/v2/health/live")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def log(self) -> str:
        return (self.logs / "envoy.log").read_text()


@pytest.fixture
async def secured(run_folder: Path, tmp_path: Path) -> AsyncIterator[Secured]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(upstream(run_folder / "a.sock", "a"))
        gateway = EnvoyGateway(host="127.0.0.1", port=0, run=run_folder, logs=tmp_path, clock=SystemClock())
        gateway.configure(LAPTOP)
        await stack.enter_async_context(gateway)
        await gateway.publish((route(IRIS, "a"),), (Endpoints(unit="a", addresses=(one.address,)),))
        await acknowledged(gateway, route(IRIS, "a"))
        yield Secured(gateway, run_folder, tmp_path)


async def test_a_certificate_turns_plain_text_off_and_without_it_comes_back(secured: Secured) -> None:
    assert secured.speaks_plain_text()
    secured.show(secured.authority.sign("first"))
    await secured.shows("first")
    assert secured.gateway.url == f"https://127.0.0.1:{secured.port}"
    assert await secured.ask() == 200
    assert not await asyncio.to_thread(secured.speaks_plain_text)
    secured.plain()
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(secured.speaks_plain_text):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert secured.gateway.url.startswith("http://")


async def test_a_gateway_that_has_its_certificate_from_the_start_never_speaks_plain_text(
    run_folder: Path, tmp_path: Path
) -> None:
    authority = Authority()
    gateway = EnvoyGateway(host="127.0.0.1", port=0, run=run_folder, logs=tmp_path, clock=SystemClock())
    pair = authority.sign("first")
    gateway.configure(msgspec.structs.replace(LAPTOP, tls=Tls(certificate=pair.certificate, key=pair.key)))
    async with gateway:
        found = Secured(gateway, run_folder, tmp_path)
        found.authority = authority
        assert not await asyncio.to_thread(found.speaks_plain_text)
        await found.shows("first")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_old_versions_of_tls_are_refused_and_http2_is_offered(secured: Secured) -> None:
    secured.show(secured.authority.sign("first"))
    await secured.shows("first")
    old = secured.authority.context()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert secured.shown(old) == ""
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")):
        context = secured.authority.context()
        context.set_alpn_protocols(offered)
        with (
            socket.create_connection(("127.0.0.1", secured.port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as found,
        ):
            assert found.selected_alpn_protocol() == chosen


async def test_grpc_and_http_share_the_port(secured: Secured) -> None:
    secured.show(secured.authority.sign("first"))
    await secured.shows("first")
    credentials = grpc.ssl_channel_credentials(secured.authority.pem.encode())
    async with grpc.aio.secure_channel(f"localhost:{secured.port}", credentials) as channel:
        live = channel.unary_unary(LIVE, request_serializer=None, response_deserializer=None)
        assert await live(b"", timeout=10) == b"\x08\x01"
    assert await secured.ask() == 200


async def test_a_renewed_certificate_loses_no_request_and_no_connection(secured: Secured) -> None:
    secured.show(secured.authority.sign("first"))
    await secured.shows("first")
    url = secured.gateway.url + INFER
    kept = http.client.HTTPSConnection("localhost", secured.port, timeout=10, context=secured.authority.context())

    def asked() -> int:
        kept.request("POST", INFER, b"{}")
        answer = kept.getresponse()
        answer.read()
        return answer.status

    assert await asyncio.to_thread(asked) == 200
    before = kept.sock
    async with (
        Load(url, tls=secured.authority.context()) as steady,
        Load(url, 2, tls=secured.authority.context(), afresh=True) as fresh,
    ):
        for number in range(10):
            secured.show(secured.authority.sign(f"renewed {number}"))
            await secured.shows(f"renewed {number}")
        goal = steady.answered["a"] + 50
        await becomes_true(lambda: steady.answered["a"] > goal)
    assert await asyncio.to_thread(asked) == 200
    assert kept.sock is before, "the connection was kept"
    kept.close()
    assert (steady.failures, fresh.failures) == ([], [])
    print(f"{steady.answered['a'] + fresh.answered['a']} requests")


async def test_a_certificate_that_envoy_refuses_leaves_the_one_before(
    secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = secured.authority.sign("first"), secured.authority.sign("second")
    secured.show(first)
    await secured.shows("first")
    secured.show(Pair(second.certificate, first.key))
    await becomes_true(lambda: "the one before is still shown" in caplog.text)
    assert await asyncio.to_thread(secured.shown) == "first"
    secured.show(Pair("no certificate", first.key))
    await becomes_true(lambda: caplog.text.count("the one before is still shown") == 2)
    assert await secured.ask() == 200
    secured.show(second)
    await secured.shows("second")
    assert _inner(first.key) not in caplog.text + secured.log()


def _inner(key: str) -> str:
    return key.splitlines()[1][:40]


async def test_a_first_certificate_that_envoy_refuses_opens_nothing(
    secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = secured.authority.sign("first"), secured.authority.sign("second")
    secured.show(Pair(second.certificate, first.key))
    await becomes_true(lambda: "nobody can connect until it is mended" in caplog.text)
    assert not await asyncio.to_thread(secured.speaks_plain_text)
    assert await asyncio.to_thread(secured.shown) == ""
    secured.show(second)
    await secured.shows("second")
    assert _inner(first.key) not in caplog.text + secured.log()


async def test_where_no_certificate_can_be_read_nobody_can_connect(secured: Secured) -> None:
    secured.show(Pair("", ""))
    async with asyncio.timeout(20):
        while await asyncio.to_thread(secured.speaks_plain_text):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await asyncio.to_thread(secured.shown) == ""


async def test_callers_must_show_a_certificate_of_the_named_authority(secured: Secured) -> None:
    people, strangers = Authority("people"), Authority("strangers")
    secured.show(secured.authority.sign("first"), people.pem)
    ana = secured.authority.context(people.sign("ana"), secured.folder)
    async with asyncio.timeout(20):
        while await asyncio.to_thread(secured.shown, ana) != "first":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await secured.ask(ana) == 200
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await secured.ask()
    for pair in (strangers.sign("eve"), people.sign("late", days=-2)):
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await secured.ask(secured.authority.context(pair, secured.folder))
    secured.show(secured.authority.sign("second"), strangers.pem)
    eve = secured.authority.context(strangers.sign("eve"), secured.folder)
    async with asyncio.timeout(20):
        while await asyncio.to_thread(secured.shown, eve) != "second":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await secured.ask(eve) == 200
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await secured.ask(secured.authority.context(people.sign("ana"), secured.folder))


async def test_who_is_connected_by_a_certificate_of_a_former_authority_is_soon_asked_to_leave(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xds_door, "_LONGEST_TRUST", "2s")
    people, others = Authority("people"), Authority("others")
    secured.show(secured.authority.sign("first"), people.pem)
    ana = secured.authority.context(people.sign("ana"), secured.folder)
    async with asyncio.timeout(20):
        while await asyncio.to_thread(secured.shown, ana) != "first":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    kept = http.client.HTTPSConnection("localhost", secured.port, timeout=10, context=ana)

    def asked() -> tuple[int, str | None]:
        kept.request("POST", INFER, b"{}")
        answer = kept.getresponse()
        answer.read()
        return answer.status, answer.getheader("Connection")

    assert await asyncio.to_thread(asked) == (200, None)
    secured.show(secured.authority.sign("second"), others.pem)
    async with asyncio.timeout(20):
        while (await asyncio.to_thread(asked))[1] != "close":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    kept.close()
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await secured.ask(ana)


async def test_a_session_that_is_taken_up_again_shows_its_certificate_again(secured: Secured) -> None:
    people = Authority("people")
    secured.show(secured.authority.sign("first"), people.pem)
    ana = secured.authority.context(people.sign("ana"), secured.folder)
    async with asyncio.timeout(20):
        while await asyncio.to_thread(secured.shown, ana) != "first":  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def resumes(session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        with (
            socket.create_connection(("127.0.0.1", secured.port), 5) as plain,
            ana.wrap_socket(plain, server_hostname="localhost", session=session) as found,
        ):
            found.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b"200" in found.recv(100)  # tickets come with the first answer
            return bool(found.session_reused), found.session

    _, session = await asyncio.to_thread(resumes, None)
    assert (await asyncio.to_thread(resumes, session))[0] is False


async def test_after_envoy_was_killed_it_shows_its_certificate_again(secured: Secured) -> None:
    secured.show(secured.authority.sign("first"))
    await secured.shows("first")
    pid = secured.gateway.pid
    secured.gateway._envoy.kill()
    await becomes_true(lambda: secured.gateway.pid not in (0, pid))
    await secured.shows("first")
    assert not await asyncio.to_thread(secured.speaks_plain_text)


async def test_who_is_connected_in_plain_text_is_asked_to_leave_when_there_is_a_certificate(secured: Secured) -> None:
    kept = http.client.HTTPConnection("127.0.0.1", secured.port, timeout=10)

    def asked() -> tuple[int, str | None]:
        kept.request("POST", INFER, b"{}")
        answer = kept.getresponse()
        answer.read()
        return answer.status, answer.getheader("Connection")

    assert await asyncio.to_thread(asked) == (200, None)
    secured.show(secured.authority.sign("first"))
    await secured.shows("first")
    assert await asyncio.to_thread(asked) == (200, "close")
    kept.close()
    assert not await asyncio.to_thread(secured.speaks_plain_text)
