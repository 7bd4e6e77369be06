"""Gateways as in a cluster: each Envoy in a network of its own, with an address, probes and files like a pod's."""

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import tokens_testing as tokens
from certificates_testing import Authority, Pair
from gateway_testing import Upstream, upstream
from modelyard.base import launch
from modelyard.base.clock import SystemClock
from modelyard.control.gateway import process
from modelyard.control.gateway.remote import Identity, RemoteGateway
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints
from modelyard.control.ir.unit_secret import UnitSecret, none
from modelyard.control.render import xds_bootstrap
from modelyard.testing.gateway_suite import Bearer

MEMORY_BYTES = 512 * 2**20


class Pods:
    """A bridge, on which this machine has an address, and namespaces that are joined to it."""

    def __init__(self) -> None:
        tag = secrets.token_hex(3)
        self._tag = tag
        self._bridge = f"myb{tag}"
        self._subnet = f"10.{200 + int(tag[0], 16)}.{int(tag[1:3], 16)}"
        self.address = f"{self._subnet}.1"
        self._count = 1

    def begin(self) -> None:
        _ip(f"link add {self._bridge} type bridge", f"address add {self.address}/24 dev {self._bridge}")
        _ip(f"link set {self._bridge} up")

    def add(self) -> tuple[str, str]:
        """A namespace -> its name and its address."""
        self._count += 1
        name, here = f"my{self._tag}-{self._count}", f"mv{self._tag}{self._count}"
        address = f"{self._subnet}.{self._count}"
        _ip(
            f"netns add {name}",
            f"link add {here} type veth peer name eth0 netns {name}",
            f"link set {here} master {self._bridge} up",
            f"-n {name} address add {address}/24 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} link set lo up",
        )
        return name, address

    def cut(self, name: str) -> None:
        """No packet comes through any more, and nobody is told."""
        _ip(f"link set mv{name.removeprefix('my').replace('-', '')} down")

    def end(self) -> None:
        for number in range(2, self._count + 1):
            subprocess.run(["ip", "netns", "delete", f"my{self._tag}-{number}"], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", self._bridge], check=False, capture_output=True)


def _ip(*steps: str) -> None:
    for step in steps:
        done = subprocess.run(["ip", *step.split()], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"ip {step}: {done.stderr.strip()}")


@contextmanager
def pods() -> Iterator[Pods]:
    """Until left."""
    found = Pods()
    try:
        found.begin()
        yield found
    finally:
        found.end()


class Trust:
    """An authority, and what operator and gateways show."""

    def __init__(self) -> None:
        self.authority = Authority("modelyard")
        self.identity = self.operator()

    def operator(self) -> Identity:
        pair = self.authority.sign("operator", hosts=(xds_bootstrap.XDS_HOST, xds_bootstrap.OPERATOR_SAN))
        return Identity(pair.certificate, pair.key, self.authority.pem)

    def gateway(self) -> Pair:
        return self.authority.sign("gateway", hosts=(xds_bootstrap.GATEWAY_SAN,))


class GatewayPod:
    """An Envoy that starts as in a pod. name: of the pod. zone: of its node."""

    def __init__(self, pods: Pods, name: str, folder: Path, zone: str = "") -> None:
        self.name = name
        self.zone = zone
        self.folder = folder / name
        self.namespace, self.address = pods.add()
        self.process: asyncio.subprocess.Process | None = None
        (self.folder / "tls").mkdir(parents=True)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{xds_bootstrap.PUBLIC_PORT}"

    @property
    def internal_url(self) -> str:
        return f"http://{self.address}:{xds_bootstrap.INTERNAL_PORT}"

    @property
    def log(self) -> str:
        return (self.folder / "err.log").read_text()

    @property
    def access_log(self) -> str:
        return (self.folder / "out.log").read_text()

    def mount(self, pair: Pair, authority: str) -> None:
        """The Secret's files, changed in one step as the kubelet does."""
        new = self.folder / "tls" / f"..{secrets.token_hex(4)}"
        new.mkdir()
        for name, text in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", authority)):
            (new / name).write_text(text)
            link = self.folder / "tls" / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        (self.folder / "tls" / "..data_tmp").symlink_to(new.name)
        (self.folder / "tls" / "..data_tmp").rename(self.folder / "tls" / "..data")

    async def start(self, control_host: str, control_port: int) -> None:
        pod = xds_bootstrap.Pod(
            control_host=control_host, control_port=control_port, folder=str(self.folder), run=str(self.folder)
        )
        for name, text in xds_bootstrap.files(MEMORY_BYTES, pod).items():
            (self.folder / name).write_text(text)
        argv = ["ip", "netns", "exec", self.namespace, str(process._binary())]
        argv += ["-c", str(self.folder / "bootstrap.yaml"), "--service-node", self.name, *xds_bootstrap.ARGUMENTS]
        argv += ["--service-zone", self.zone]
        with (self.folder / "out.log").open("ab") as out, (self.folder / "err.log").open("ab") as err:
            self.process = await asyncio.create_subprocess_exec(
                *launch.command(argv, limits={"core": 0}), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    async def is_ready(self) -> bool:
        """As the kubelet finds out."""
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection(self.address, xds_bootstrap.HEALTH_PORT)
                writer.write(b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                line = await reader.readline()
                writer.close()
                return b" 200 " in line
        except (OSError, TimeoutError):
            return False

    async def ready(self, seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not await self.is_ready():
                assert self.process is not None
                assert self.process.returncode is None, self.log
                await asyncio.sleep(0.02)

    def send(self, signal: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal)

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class _Refused(Exception):
    """What a caller was told instead of an answer."""


class Callers:
    """Callers that find pods as by a Service: a new connection goes to one that is ready, and stays with it.

    Each keeps a connection for some requests, or until it is told to close it. What went wrong is in `failures`.
    """

    def __init__(self, pods: list[GatewayPod], path: str, count: int = 6, *, requests: int = 50) -> None:
        self.pods = pods
        self.failures: list[str] = []
        self.answered: Counter[str] = Counter()
        self.by_pod: Counter[str] = Counter()
        self.latest: dict[str, str] = {}
        self._path = path
        self._count = count
        self._requests = requests
        self._ready: list[GatewayPod] = []
        self._connected: Counter[str] = Counter()
        self._avoided: set[str] = set()
        self._is_over = False
        self._tasks = asyncio.TaskGroup()

    def avoid(self, pod: GatewayPod) -> None:
        """It gets no new connections."""
        self._avoided.add(pod.name)
        self._ready = [each for each in self._ready if each is not pod]

    def readmit(self, pod: GatewayPod) -> None:
        """It gets new connections."""
        self._avoided.discard(pod.name)

    def calls(self, pod: GatewayPod) -> bool:
        """Whether somebody has a connection to it."""
        return self._connected[pod.name] > 0

    async def __aenter__(self) -> "Callers":
        await self._look()
        await self._tasks.__aenter__()
        self._tasks.create_task(self._keep_looking())
        for number in range(self._count):
            self._tasks.create_task(self._call(number))
        return self

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._is_over = True
        await self._tasks.__aexit__(kind, error, trace)

    async def _look(self) -> None:
        found = [each for each in list(self.pods) if each.name not in self._avoided and await each.is_ready()]
        self._ready = [each for each in found if each.name not in self._avoided]

    async def _keep_looking(self) -> None:
        while not self._is_over:
            await self._look()
            await asyncio.sleep(0.02)

    async def _call(self, number: int) -> None:
        while not self._is_over:
            number += 1
            if not self._ready:
                await asyncio.sleep(0.01)
                continue
            pod = self._ready[number % len(self._ready)]
            self._connected[pod.name] += 1
            try:
                async with asyncio.timeout(20):
                    await self._connect(pod)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, _Refused) as error:
                self.failures.append(f"{pod.name}: {error!r}")
                await asyncio.sleep(0.01)
            finally:
                self._connected[pod.name] -= 1

    async def _connect(self, pod: GatewayPod) -> None:
        reader, writer = await asyncio.open_connection(pod.address, xds_bootstrap.PUBLIC_PORT)
        ask = f"POST {self._path} HTTP/1.1\r\nhost: models\r\ncontent-length: 2\r\n\r\n{{}}".encode()
        try:
            for _ in range(self._requests):
                writer.write(ask)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                body = await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0]))
                if " 200 " not in head.partition("\r")[0]:
                    raise _Refused(f"{head.partition(chr(13))[0]} {body.decode()[:200]}")
                unit = json.loads(body)["unit"]
                self.answered[unit] += 1
                self.by_pod[pod.name] += 1
                self.latest[pod.name] = unit
                if self._is_over or "connection: close" in head:
                    break
        finally:
            writer.close()


class Switchboard:
    """An address that stands for whichever server is behind it, as that of a Service."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.port = 0
        self.behind: tuple[str, int] | None = None
        self._pipes: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Switchboard":
        self._server = await asyncio.start_server(self._connect, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for each in self._pipes:
            each.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def drop(self) -> None:
        """All connections break."""
        for each in self._pipes:
            each.cancel()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.behind is None:
                return
            there, back = await asyncio.open_connection(*self.behind)
            async with asyncio.TaskGroup() as group:
                self._pipes |= {group.create_task(_copy(reader, back)), group.create_task(_copy(there, writer))}
        except OSError:
            pass
        finally:
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(2**16):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class RemoteRig:
    """A remote gateway, its pods and its upstreams by unit."""

    proxies: int

    def __init__(self, gateway: RemoteGateway, trust: Trust, network: Pods, stack: AsyncExitStack) -> None:
        self.gateway = gateway
        self.trust = trust
        self.network = network
        # Sockets have 107 bytes, and pytest's folders are long.
        self.folder = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
        self.pods: list[GatewayPod] = []
        self._count = 0
        self.upstreams: dict[str, Upstream] = {}
        self.issuers = (tokens.issuer("corp"), tokens.issuer("other"))
        self._stack = stack
        self._caller = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))

    async def add_pod(self, port: int = 0, zone: str = "") -> GatewayPod:
        """Another one, started and not waited for. port: where it finds who decides."""
        pod = GatewayPod(self.network, f"gateway-{self._count}", self.folder, zone)
        self._count += 1
        self.pods.append(pod)
        pod.mount(self.trust.gateway(), self.trust.authority.pem)
        await pod.start(self.network.address, port or self.gateway.port)
        return pod

    async def endpoints(self, unit: str) -> Endpoints:
        if unit not in self.upstreams:
            one = upstream(self.folder / f"{unit}.sock", unit)
            self.upstreams[unit] = await self._stack.enter_async_context(one)
        return Endpoints(unit=unit, addresses=(self.upstreams[unit].address,))

    async def ask(self, public_id: str, bearer: Bearer | None = None) -> tuple[int, str]:
        """All of them, which must agree."""
        answers = {await self.ask_pod(each, public_id, bearer) for each in self.pods}
        return answers.pop() if len(answers) == 1 else (0, f"they differ: {answers}")

    async def ask_pod(self, pod: GatewayPod, public_id: str, bearer: Bearer | None = None) -> tuple[int, str]:
        headers = {}
        if bearer is not None:
            headers["authorization"] = f"Bearer {tokens.token(bearer.issuer, **bearer.claims)}"
        url = f"{pod.url}/v2/models/{public_id}/infer"
        async with self._caller.post(url, data=b"{}", headers=headers) as answer:
            body = await answer.json()
            return answer.status, body["unit"] if answer.status == 200 else body["error"]

    async def end(self) -> None:
        await self._caller.close()
        for each in self.pods:
            await each.end()
        shutil.rmtree(self.folder)


@asynccontextmanager
async def remote_rig(count: int, secret: UnitSecret = none) -> AsyncIterator[RemoteRig]:
    """With so many pods, which are ready and know of no route. secret: of units."""
    trust = Trust()
    with pods() as network:
        async with AsyncExitStack() as stack:
            ups = await stack.enter_async_context(AsyncExitStack())
            gateway = RemoteGateway(
                listen=f"{network.address}:0",
                identity=lambda: trust.identity,
                clock=SystemClock(),
                address=lambda: "models.example.com",
                secret=secret,
            )
            gateway.configure(Platform(authentication="none"))
            await stack.enter_async_context(gateway)
            rig = RemoteRig(gateway, trust, network, ups)
            rig.proxies = count
            stack.push_async_callback(rig.end)
            for _ in range(count):
                await rig.add_pod()
            if count:
                await gateway.publish((), ())
            for each in rig.pods:
                await each.ready()
            yield rig
