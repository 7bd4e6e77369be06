"""Envoys over the network: who is told what, what is open to whom, and when one is ready."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import tritonclient.grpc.aio as aio
from msgspec.structs import replace

from certificates_testing import Authority, Pair
from gateway_testing import becomes_true
from modelyard.control.gateway import descriptors
from modelyard.control.gateway.remote import Identity
from modelyard.control.ir.platform import Platform, Tls
from modelyard.control.render import xds, xds_bootstrap
from modelyard.testing.gateway_suite import IRIS, acknowledged, route
from network_testing import needs_network
from remote_testing import GatewayPod, RemoteRig, Switchboard, remote_rig

from .conftest import becomes

pytestmark = needs_network

UNIT = "iris-svc-00001.default"


@pytest.fixture
async def rig() -> AsyncIterator[RemoteRig]:
    async with remote_rig(1) as found:
        yield found


async def serve(rig: RemoteRig) -> None:
    await rig.gateway.publish((route(IRIS, UNIT),), (await rig.endpoints(UNIT),))
    await acknowledged(rig.gateway, route(IRIS, UNIT))


async def asked(rig: RemoteRig, shown: Pair | None) -> str:
    """What an Envoy that shows this is told about listeners: names, or why nothing."""
    credentials = grpc.ssl_channel_credentials(
        rig.trust.authority.pem.encode(),
        *((shown.key.encode(), shown.certificate.encode()) if shown else (None, None)),
    )
    options = (("grpc.ssl_target_name_override", xds_bootstrap.XDS_HOST), ("grpc.enable_retries", 0))
    request = descriptors.message_class("envoy.service.discovery.v3.DeltaDiscoveryRequest")
    answer = descriptors.message_class("envoy.service.discovery.v3.DeltaDiscoveryResponse")
    address = f"{rig.network.address}:{rig.gateway.port}"
    first: Any = request(node={"id": "tester"}, type_url=f"type.googleapis.com/{xds.LISTENER}")

    async def say() -> AsyncIterator[bytes]:
        yield first.SerializeToString()
        await asyncio.Event().wait()

    async with grpc.aio.secure_channel(address, credentials, options) as channel, asyncio.timeout(10):
        stream = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", bytes, bytes
        )(say())
        try:
            async for told in stream:
                found: Any = answer.FromString(told)
                return " ".join(sorted(each.name for each in found.resources))
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    return "nothing"


async def test_who_has_the_certificate_of_a_gateway_is_told_everything(rig: RemoteRig) -> None:
    assert await asked(rig, rig.trust.gateway()) == "gateway internal"


@pytest.mark.parametrize(
    "hosts", [(), ("gateway.modelyard.evil",), (xds_bootstrap.OPERATOR_SAN,), (xds_bootstrap.GATEWAY_SAN, "another")]
)
async def test_certificates_for_others_are_refused(rig: RemoteRig, hosts: tuple[str, ...]) -> None:
    stranger = rig.trust.authority.sign(xds_bootstrap.GATEWAY_SAN, hosts=hosts)
    assert await asked(rig, stranger) == "PERMISSION_DENIED: this certificate is not that of a gateway"


async def test_without_a_certificate_of_our_authority_nobody_connects(rig: RemoteRig) -> None:
    hosts = (xds_bootstrap.GATEWAY_SAN,)
    for shown in (None, Authority().sign("x", hosts=hosts), rig.trust.authority.sign("x", days=-1, hosts=hosts)):
        assert (await asked(rig, shown)).startswith("UNAVAILABLE")


async def test_a_gateway_is_told_nothing_by_whoever_is_not_the_operator(rig: RemoteRig) -> None:
    await serve(rig)
    pod = await rig.add_pod()
    other = rig.trust.authority.sign("x", hosts=("operator.modelyard", "modelyard-xds.modelyard-system.svc.evil"))
    rig.trust.identity = Identity(other.certificate, other.key, rig.trust.authority.pem)
    await becomes_true(lambda: "CERTIFICATE_VERIFY_FAILED" in pod.log)
    assert not await pod.is_ready()


async def test_renewed_certificates_are_used_without_a_restart() -> None:
    async with remote_rig(0) as rig, Switchboard(rig.network.address) as board:
        board.behind = rig.network.address, rig.gateway.port
        pod = await rig.add_pod(board.port)
        await serve(rig)
        await pod.ready()
        old, new = rig.trust.authority, Authority("the next one")
        both = old.pem + new.pem
        rig.trust.identity = rig.trust.identity._replace(authority=both)
        rig.trust.authority = new
        renewed = rig.trust.gateway()
        pod.mount(renewed, both)
        operator = rig.trust.operator()._replace(authority=both)
        await becomes(
            lambda: shown_by(pod, operator), lambda found: found == ssl.PEM_cert_to_DER_cert(renewed.certificate)
        )
        rig.trust.identity = operator._replace(authority=new.pem)  # of the old ones, nothing is trusted any more
        board.drop()
        await becomes_true(lambda: rig.gateway.nodes == ())
        await becomes_true(lambda: rig.gateway.nodes == (pod.name,))
        await rig.gateway.publish((route(IRIS, "b"),), (await rig.endpoints("b"),))
        await acknowledged(rig.gateway, route(IRIS, "b"))


def context(identity: Identity, folder: Path) -> ssl.SSLContext:
    found = ssl.create_default_context(cadata=identity.authority)
    found.check_hostname = False
    path = folder / "caller.pem"
    path.write_text(f"{identity.certificate}\n{identity.key}")
    found.load_cert_chain(path)
    return found


async def shown_by(pod: GatewayPod, identity: Identity) -> bytes | None:
    """The certificate of its statistics' listener."""
    tls = context(identity, pod.folder)
    try:
        _, writer = await asyncio.open_connection(pod.address, xds_bootstrap.STATS_PORT, ssl=tls)
    except OSError:
        return None
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


async def stats(pod: GatewayPod, identity: Identity, method: str, path: str) -> int:
    """The status; 0: the connection was refused."""
    url = f"https://{pod.address}:{xds_bootstrap.STATS_PORT}{path}"
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, ssl=context(identity, pod.folder)) as answer,
        ):
            return answer.status
    except (aiohttp.ClientError, OSError):
        return 0


async def test_what_is_counted_is_told_to_the_operator_alone(rig: RemoteRig) -> None:
    pod, operator = rig.pods[0], rig.trust.identity
    gateway = rig.trust.gateway()
    assert await stats(pod, operator, "GET", "/stats?usedonly") == 200
    assert await stats(pod, operator, "GET", "/stats/prometheus") == 200
    for method, path in (("POST", "/stats"), ("GET", "/config_dump"), ("POST", "/quitquitquit"), ("GET", "/stats/x")):
        assert await stats(pod, operator, method, path) == 404
    assert await stats(pod, Identity(gateway.certificate, gateway.key, operator.authority), "GET", "/stats") == 0
    nobody = Authority().sign("x", hosts=(xds_bootstrap.OPERATOR_SAN,))
    assert await stats(pod, Identity(nobody.certificate, nobody.key, operator.authority), "GET", "/stats") == 0


async def test_anybody_may_ask_whether_it_is_ready_and_nothing_else(rig: RemoteRig) -> None:
    url = f"http://{rig.pods[0].address}:{xds_bootstrap.HEALTH_PORT}"
    async with aiohttp.ClientSession() as session:
        for method, path, status in (
            ("GET", "/ready", 200),
            ("POST", "/ready", 404),
            ("GET", "/stats", 404),
            ("GET", "/", 404),
            ("POST", "/quitquitquit", 404),
        ):
            async with session.request(method, url + path) as answer:
                assert (path, answer.status) == (path, status)


async def test_only_what_must_be_is_open_to_the_network(rig: RemoteRig) -> None:
    pod = rig.pods[0]
    assert pod.process is not None
    table = await asyncio.to_thread(Path(f"/proc/{pod.process.pid}/net/tcp").read_text)
    listening = re.findall(r"^ *\d+: [0-9A-F]{8}:([0-9A-F]{4}) [0-9A-F:]+ 0A ", table, re.MULTILINE)
    assert {int(each, 16) for each in listening} == {8080, 8090, 9901, 9902}
    assert (pod.folder / "admin.sock").stat().st_mode & 0o777 == 0o600


async def test_a_gateway_is_ready_when_it_has_all_routes_and_not_before() -> None:
    async with remote_rig(0) as rig:
        pod = await rig.add_pod()
        await becomes_true(lambda: rig.gateway.nodes == (pod.name,))
        await asyncio.sleep(1)
        assert not await pod.is_ready()
        with socket.socket() as probe:
            assert probe.connect_ex((pod.address, xds_bootstrap.PUBLIC_PORT)) != 0
        await serve(rig)
        await pod.ready()
        assert await rig.ask("iris") == (200, UNIT)


async def test_internal_services_answer_at_the_internal_listener_alone(rig: RemoteRig) -> None:
    inside = replace(route(IRIS, UNIT), internal=True)
    await rig.gateway.publish((inside,), (await rig.endpoints(UNIT),))
    await acknowledged(rig.gateway, inside)
    assert (await rig.ask("iris"))[0] == 404
    url = f"{rig.pods[0].internal_url}/v2/models/iris/infer"
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as answer:
        assert (answer.status, await answer.json()) == (200, {"unit": UNIT, "bytes": 2})


async def test_the_settings_may_say_by_which_name_callers_come(rig: RemoteRig) -> None:
    rig.gateway.configure(Platform(authentication="none", address="https://elsewhere.example"))
    assert rig.gateway.url == "https://elsewhere.example"
    rig.gateway.configure(Platform(authentication="none"))
    assert rig.gateway.url == "http://models.example.com"


async def test_the_public_listener_speaks_tls_where_the_settings_say_so(rig: RemoteRig) -> None:
    await serve(rig)
    assert rig.gateway.url == "http://models.example.com"
    pair = Authority().sign("models")
    rig.gateway.configure(Platform(authentication="none", tls=Tls(certificate=pair.certificate, key=pair.key)))
    assert rig.gateway.url == "https://models.example.com"
    url = f"https://{rig.pods[0].address}:{xds_bootstrap.PUBLIC_PORT}/v2/models/iris/infer"

    async def status() -> int:
        try:
            async with aiohttp.ClientSession() as session, session.post(url, data=b"{}", ssl=False) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0

    await becomes(status, lambda found: found == 200)


async def test_who_decides_no_more_is_left_at_once_and_gateways_go_on(rig: RemoteRig) -> None:
    await serve(rig)
    rig.gateway.stop_serving()
    await becomes_true(lambda: rig.gateway.nodes == ())
    assert (await asked(rig, rig.trust.gateway())).startswith("UNAVAILABLE: somebody else decides")
    assert await rig.ask("iris") == (200, UNIT)
    assert rig.gateway.observe(IRIS).acknowledged == route(IRIS, UNIT)


async def test_what_a_gateway_counted_stays_counted_when_it_ends(rig: RemoteRig) -> None:
    await serve(rig)
    one = rig.pods[0]
    for _ in range(3):
        assert await rig.ask("iris") == (200, UNIT)
    await becomes_true(lambda: UNIT in rig.gateway.load() and rig.gateway.load()[UNIT].answered == 3)
    text = await rig.gateway.metrics()
    assert f'modelyard_gateway_answers_total{{model="iris.default",code="200",grpc="",gateway="{one.name}"}} 3' in text
    assert f'requests_total{{model="iris.default",revision="{UNIT}",outcome="answered"}} 3' in text
    await one.end()
    rig.pods.clear()
    pod = await rig.add_pod()
    await becomes_true(lambda: rig.gateway.nodes == (pod.name,))
    await pod.ready()
    assert await rig.ask("iris") == (200, UNIT)
    await becomes_true(lambda: rig.gateway.load()[UNIT].answered == 4)


async def test_requests_are_logged_to_standard_output(rig: RemoteRig) -> None:
    await serve(rig)
    assert await rig.ask("iris") == (200, UNIT)
    await becomes_true(lambda: f'"revision":"{UNIT}"' in rig.pods[0].access_log)


async def test_grpc_callers_learn_that_the_server_lives(rig: RemoteRig) -> None:
    async with aio.InferenceServerClient(f"{rig.pods[0].address}:{xds_bootstrap.PUBLIC_PORT}") as client:
        assert await client.is_server_live()
