"""What the gateway costs per request, beside a plain Envoy, and what a call costs as users make it, beside KServe.

    PYTHONPATH=src:tests python bench/gateway.py [--seconds 2] [--rounds 5] [--connections 32]

First table: processor time of Envoy per request before an upstream that costs nearly nothing. `plain` is an Envoy with
one route and nothing else; the gateway writes its access log in all of its rows. Second table: a tiny ONNX model behind
the gateway with JWT, RBAC and a rate limit, and the same arithmetic in KServe's Python server behind the same gateway;
then gRPC, KServe's behind a plain Envoy, since the gateway speaks HTTP/1.1 to replicas. KServe is installed into an
environment of its own, in the user's cache folder, at the first run. Rounds alternate; the medians of the ratios count.
The status is 1 when a target is missed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

import asker
import front
import front_testing
import tokens_testing as tokens
from asker import request
from modelyard.base.clock import SystemClock
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.ir.access import OPEN, Access, Caller, Claim, RateLimit, Subject
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.testing.gateway_suite import acknowledged, route
from rest import Measured

KSERVE = "kserve==0.21.0"
_HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "modelyard-bench" / KSERVE
_UV = Path(__file__).parents[1] / ".tools" / "uv" / "bin" / "uv"
_PATIENCE_SECONDS = 120.0
_ANSWER = b"[17.0,25.0,33.0]"
_ANYONE = Caller(issuer="corp")
_TEAM = Caller(issuer="corp", claims=(Claim(path=("groups",), value="team", listed=True),))
_LIMIT = RateLimit(requests=10**8, seconds=60, by="user", users=(Subject(issuer="corp", path=("sub",)),))
_EVERYTHING = Access(callers=(_TEAM,), limits=(_LIMIT,))


class Target(NamedTuple):
    """Something that is asked. processes: whose time counts; grpc: the port speaks gRPC."""

    name: str
    port: int
    model: str
    processes: tuple[psutil.Process, ...]
    token: str = ""
    grpc: bool = False


class Found(NamedTuple):
    """rate: requests per second; cpu: microseconds per request."""

    rate: float
    cpu: float


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def cpu(processes: tuple[psutil.Process, ...]) -> float:
    return sum(times.user + times.system for times in (each.cpu_times() for each in processes))


async def measured(target: Target, connections: int, seconds: float) -> Found:
    """One round: a program of its own asks."""
    wanted = [target.grpc, target.port, target.token, target.model, connections, seconds]
    argv = [sys.executable, asker.__file__, json.dumps(wanted)]
    before = cpu(target.processes)
    program = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    out, _ = await program.communicate()
    count, failures = json.loads(out)
    if failures or not count:
        raise SystemExit(f"{target.name}: {failures} of {count} requests failed")
    return Found(count / seconds, 1e6 * (cpu(target.processes) - before) / count)


async def compared(targets: list[Target], rounds: int, connections: int, seconds: float) -> dict[str, list[Found]]:
    """Everybody in turns; the first round warms up."""
    found: dict[str, list[Found]] = {each.name: [] for each in targets}
    for number in range(rounds + 1):
        for each in targets:
            one = await measured(each, connections, seconds if number else 0.3)
            if number:
                found[each.name].append(one)
    return found


def ratio(one: list[Found], other: list[Found], of: Callable[[Found], float]) -> float:
    """The median over rounds, whose two measurements are moments apart."""
    return statistics.median(of(a) / of(b) for a, b in zip(one, other, strict=True))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answers(port: int, data: bytes, wanted: bytes) -> None:
    """Wait until a request is answered as it should be."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(data)
                async with asyncio.timeout(5):
                    head = await reader.readuntil(b"\r\n\r\n")
                    body = await reader.read(2**16)
                writer.close()
                if b" 200 " in head.split(b"\r\n")[0] and wanted in body:
                    return
            await asyncio.sleep(0.1)


@contextmanager
def program(*argv: str, log: Path | None = None) -> Iterator[psutil.Process]:
    """Runs while the block does."""
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("wb")) if log else subprocess.DEVNULL
        started = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            yield psutil.Process(started.pid)
        finally:
            started.kill()
            started.wait()


def plain_envoy(port: int, upstream: Path | int, like: psutil.Process) -> list[str]:
    """The command of an Envoy with one route, written by hand; with as many threads as another one.

    upstream: a socket, or a port on which HTTP/2 is spoken.
    """
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]}
    connections = {
        "@type": manager,
        "stat_prefix": "plain",
        "route_config": {"name": "all", "virtual_hosts": [host]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}]}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    local = {"address": "127.0.0.1", "port_value": upstream}
    address = {"pipe": {"path": str(upstream)}} if isinstance(upstream, Path) else {"socket_address": local}
    endpoint = {"endpoint": {"address": address}}
    config = {
        "static_resources": {
            "listeners": [
                {
                    "name": "plain",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [chain],
                }
            ],
            "clusters": [
                {
                    "name": "upstream",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {} if isinstance(upstream, Path) else {options: http2},
                    "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]},
                }
            ],
        }
    }
    argv = like.cmdline()
    threads = argv[argv.index("--concurrency") + 1]
    argv = [like.exe(), "--config-yaml", json.dumps(config), "--concurrency", threads]
    return [*argv, "-l", "error", "--disable-hot-restart"]


@asynccontextmanager
async def gateway(folder: Path, routes: dict[str, tuple[Access, str]]) -> AsyncIterator[EnvoyGateway]:
    """With an issuer, and these models: who may call each, and the address of its replica."""
    running = EnvoyGateway(host="127.0.0.1", port=0, run=folder, logs=folder, clock=SystemClock())
    running.configure(Platform(issuers=(tokens.issuer("corp"),), authentication="required"))
    keys = {model: Key(kind="ModelService", namespace="default", name=model) for model in routes}
    wanted: list[Route] = [route(keys[model], f"u-{model}", access=access) for model, (access, _) in routes.items()]
    units = tuple(Endpoints(unit=f"u-{model}", addresses=(address,)) for model, (_, address) in routes.items())
    async with running:
        await running.publish(tuple(wanted), units)
        for each in wanted:
            await acknowledged(running, each)
        yield running


def port_of(gateway: EnvoyGateway) -> int:
    return int(gateway.url.rpartition(":")[2])


async def layers(folder: Path, options: argparse.Namespace, table: Measured) -> None:
    """The gateway's own cost, one feature after the other."""
    token, plain_port, upstream = tokens.token("corp", sub="ana", groups=["team"]), free_port(), folder / "hello.sock"
    async with AsyncExitStack() as stack:
        hello = stack.enter_context(program(sys.executable, front.__file__, "--run", "hello", str(upstream)))
        models = {
            "open": OPEN,
            "jwt": Access(callers=(_ANYONE,)),
            "rbac": Access(callers=(_TEAM,)),
            "all": _EVERYTHING,
        }
        address = f"unix:{upstream}"
        running = await stack.enter_async_context(
            gateway(folder, {model: (access, address) for model, access in models.items()})
        )
        envoy = (psutil.Process(running.pid),)
        plain = stack.enter_context(program(*plain_envoy(plain_port, upstream, envoy[0])))
        await answers(plain_port, request("open", ""), b"hello")
        names = ("gateway, open", "gateway, JWT", "gateway, JWT + RBAC", "gateway, JWT + RBAC + rate limit")
        targets = [Target("plain", plain_port, "open", (plain,))]
        for name, model in zip(names, models, strict=True):
            bearer = "" if model == "open" else token
            await answers(port_of(running), request(model, bearer), b"hello")
            targets.append(Target(name, port_of(running), model, envoy, bearer))
        found = await compared(targets, options.rounds, options.connections, options.seconds)
        assert hello.is_running()
    for name, rounds in found.items():
        rate, used = (statistics.median(values) for values in zip(*rounds, strict=True))
        times = ratio(rounds, found["plain"], of_cpu)
        say(f"  {name:<36}{rate:>8.0f} req/s{used:>8.0f} us of Envoy per request, {times:.2f} times plain")
    times = ratio(found[names[-1]], found["plain"], of_cpu)
    table.row("gateway with JWT + RBAC + rate limit, to plain", times, "x", 1.7)


def kserve() -> Path:
    """Python of an environment that has it; made at the first run."""
    python = _HOME / "bin" / "python"
    if not (_HOME / "complete").exists():
        say(f"installing {KSERVE} into {_HOME} ...")
        subprocess.run([_UV, "venv", "--quiet", "--clear", "--python", sys.executable, _HOME], check=True)
        subprocess.run([_UV, "pip", "install", "--quiet", "--python", python, KSERVE], check=True)
        (_HOME / "complete").touch()
    return python


async def as_users_call(folder: Path, options: argparse.Namespace, table: Measured) -> None:
    """Gateway and replica together: ours and KServe's."""
    token = tokens.token("corp", sub="ana", groups=["team"])
    http_port, grpc_port = free_port(), free_port()
    python = kserve()
    async with AsyncExitStack() as stack:
        model = front_testing.linear(folder / "tiny.onnx")
        (folder / "front").mkdir()
        ours = stack.enter_context(front_testing.Front(folder / "front", {"tiny": model}))
        server = str(Path(__file__).with_name("kserve_server.py"))
        theirs = stack.enter_context(
            program(str(python), server, "theirs", str(http_port), str(grpc_port), log=folder / "kserve.log")
        )
        routes = {
            "tiny": (_EVERYTHING, f"unix:{ours.socket}"),
            "theirs": (_EVERYTHING, f"127.0.0.1:{http_port}"),
        }
        running = await stack.enter_async_context(gateway(folder, routes))
        envoy, replica = psutil.Process(running.pid), psutil.Process(ours.process.pid)
        port = port_of(running)
        for name in routes:
            await answers(port, request(name, token), _ANSWER)
        plain_port = free_port()
        plain = stack.enter_context(program(*plain_envoy(plain_port, grpc_port, envoy)))
        targets = [
            Target("modelyard", port, "tiny", (envoy, replica), token),
            Target("KServe behind the same gateway", port, "theirs", (envoy, theirs), token),
            Target("modelyard, gRPC", port, "tiny", (envoy, replica), token, grpc=True),
            Target("KServe, gRPC, behind a plain Envoy", plain_port, "theirs", (plain, theirs), grpc=True),
        ]
        found = await compared(targets, options.rounds, options.connections, options.seconds)
    for name, rounds in found.items():
        rate, used = (statistics.median(values) for values in zip(*rounds, strict=True))
        say(f"  {name:<36}{rate:>8.0f} req/s{used / 1000:>8.2f} ms of gateway and replica per request")
    mine, theirs_http, my_calls, their_calls = (found[each.name] for each in targets)
    table.row("gateway + replica per request", statistics.median(one.cpu for one in mine) / 1000, "ms", 0.35)
    least(table, "KServe behind the same gateway, to ours", ratio(theirs_http, mine, of_cpu), 5)
    least(table, "KServe by gRPC behind plain Envoy, to ours", ratio(their_calls, my_calls, of_cpu), 3)


def of_cpu(one: Found) -> float:
    return one.cpu


def least(table: Measured, name: str, value: float, wanted: float) -> None:
    """A row whose value is to be large."""
    table.missed |= value < wanted
    verdict = "ok" if value >= wanted else "MISSED"
    say(f"{name:<46}{value:>10.2f} {'x':<4}{f'>= {wanted:g} x':>12}  {verdict}")


async def measure(options: argparse.Namespace) -> int:
    table = Measured()
    say(f"the machine's load is {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for part in (layers, as_users_call):
        with tempfile.TemporaryDirectory(prefix="gb-", dir="/tmp") as folder:
            await part(Path(folder), options, table)
    say(f"the machine's load is {os.getloadavg()[0]:.1f} now")
    return int(table.missed)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    return asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
