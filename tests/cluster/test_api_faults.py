"""Watches of a real API server behind a proxy that fails in every way that a network and a server do."""

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import operator_process
from cluster_serving_testing import model, secret, service
from cluster_testing import Cluster, Namespace
from faulty_proxy_testing import FaultyProxy
from installation_testing import SYSTEM
from kube_testing import Fault, Request, answering, half_open, resetting
from kubectl_testing import until as happens
from stand_in_image_testing import PREFIX, VERSION
from watch_faults_testing import FAULTS, Break, check, check_bookmark, connection_is_reset, following

Object = dict[str, Any]


@pytest.fixture
def proxy(cluster: Cluster, namespace: Namespace) -> FaultyProxy:
    return FaultyProxy(upstream=cluster.config, namespace=namespace.name)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_the_cache_ends_right_after(proxy: FaultyProxy, fault: Break) -> None:
    await check(proxy, fault)


async def test_a_bookmark_spares_the_list_after_a_compaction(proxy: FaultyProxy, namespace: Namespace) -> None:
    async with following(proxy) as it:
        namespace("create", "configmap", "other")
        found = namespace.find("configmap", "other")
        proxy.version = int(found["metadata"]["resourceVersion"])
        await check_bookmark(it)


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_connections_that_are_cut_in_an_event_lose_none(proxy: FaultyProxy, twice: bool) -> None:
    async with following(proxy) as it:
        proxy.faults += [proxy.cutting(lines, twice=twice) for lines in (0, 3, 1)]
        await connection_is_reset(proxy)
        await it.catches_up()
        for _ in range(2):
            await proxy.churn()
            await it.catches_up()
        assert it.reflector.relists == 1


async def test_watches_that_stall_are_given_up(proxy: FaultyProxy) -> None:
    async with following(proxy, watch_seconds=0.1, idle_grace=0.3) as it:
        proxy.faults += [half_open, half_open, proxy.slow(0.4)]
        await connection_is_reset(proxy)
        await it.catches_up()


async def test_what_a_restarted_server_has_forgotten_is_listed_again(proxy: FaultyProxy, cluster: Cluster) -> None:
    """Nothing is played here: the real server answers that the version is too old."""
    async with following(proxy) as it:
        await proxy.stop()
        await proxy.churn()
        node = cluster.node
        node.kill("kube-apiserver")
        node.start("kube-apiserver")
        ready = partial(cluster.kubectl.run, "get", "--raw", "/readyz", code=None)
        await asyncio.to_thread(happens, lambda: ready().code == 0, 60)
        await proxy.start()
        await it.mirror.until(proxy.values, 30)
        assert it.reflector.relists > 1


@pytest.fixture
def undecided(defined: Cluster) -> Iterator[Cluster]:
    """Nobody decides: an operator that is installed rests meanwhile."""
    defined.kubectl.run("create", "namespace", SYSTEM, code=None)
    rest = ("-n", SYSTEM, "scale", "deployment", "modelyard-operator")
    installed = defined.kubectl.run(*rest, "--replicas=0", code=None).code == 0
    holder = ("-n", SYSTEM, "get", "lease", "modelyard-operator", "-o", "jsonpath={.spec.holderIdentity}")
    happens(lambda: not defined.kubectl.run(*holder, code=None).out, 40)
    try:
        yield defined
    finally:
        if installed:
            defined.kubectl(*rest, "--replicas=2")
            defined.kubectl("-n", SYSTEM, "rollout", "status", "deployment/modelyard-operator", "--timeout=55s")


class Sick:
    """Every third answer is wrong in some way; the seed says which. Only those about the Lease are right: without it an
    operator ends, as it must."""

    def __init__(self, proxy: FaultyProxy, seed: int) -> None:
        self._random, self._proxy = random.Random(seed), proxy
        self.failed = 0

    def __call__(self, request: Request) -> Fault | None:
        if "/leases" in request.path or self._random.random() > 1 / 3:
            return None
        self.failed += 1
        faults = [resetting, answering(500), answering(503), answering(429, Retry_After="1"), self._proxy.slow(0.3)]
        if request.watches:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            lines = self._random.randrange(6)
            faults += [self._proxy.cutting(lines), self._proxy.cutting(lines, twice=True), answering(410, gone)]
        return self._random.choice(faults)


@asynccontextmanager
async def operator(proxy: FaultyProxy, folder: Path) -> AsyncIterator["asyncio.Task[str]"]:
    """A process that knows the API server by the proxy alone, with pods of the stand-in image; gives what it says."""
    cluster = {"name": "proxy", "cluster": {"server": proxy.config.server}}
    context = {"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}
    user = {"name": "proxy", "user": {"token": "none"}}
    body = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "proxy"}
    (folder / "kubeconfig").write_text(yaml.safe_dump(body))
    images = {"MODELYARD_IMAGE_PREFIX": PREFIX, "MODELYARD_VERSION": VERSION, "MODELYARD_IMAGE_PULL_POLICY": "Never"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, operator_process.__file__, "--kubeconfig", str(folder / "kubeconfig")),
        *("--http", "127.0.0.1:0", "--data", str(folder / "data")),
        env={**os.environ, **images, "REAL_PODS": "yes"},
        stdout=asyncio.subprocess.PIPE,
    )
    reading = asyncio.create_task(_rest(process))
    try:
        yield reading
        process.terminate()
        async with asyncio.timeout(20):
            await reading
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        reading.cancel()


async def _rest(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.read()).decode()


def condition(namespace: Namespace) -> Object:
    found = namespace.find("modelservice", "plus").get("status", {})
    ready: Object = next((each for each in found.get("conditions", ()) if each["type"] == "Ready"), {})
    return {**ready, "ready": found.get("readyReplicas")}


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("stand_in")
async def test_an_operator_converges_in_spite_of_it(
    undecided: Cluster, namespace: Namespace, proxy: FaultyProxy, tmp_path: Path
) -> None:
    proxy.always = sick = Sick(proxy, 7)
    plus = service("plus", "plus", replicas=2, resources={"requests": {"cpu": "10m", "memory": "16Mi"}})
    async with proxy, operator(proxy, tmp_path) as said:
        await asyncio.to_thread(namespace.apply, secret("lake", {"key": "x"}), model("plus", "s3://models/x"), plus)
        await happening(lambda: condition(namespace).get("status") == "True", 90)
        await asyncio.to_thread(namespace, "scale", "modelservice", "plus", "--replicas=1")
        await happening(lambda: len(pods(namespace)) == 1 and condition(namespace).get("status") == "True", 60)
        await asyncio.to_thread(namespace, "delete", "modelservice", "plus", "--wait=false")
        await happening(lambda: namespace.all("deployments") == [], 60)
        assert sick.failed > 20
        proxy.always = lambda _: None
    assert "this operator decides" in said.result()
    assert "Traceback" not in said.result()


async def happening(fact: Callable[[], bool], seconds: float) -> None:
    """Beside the proxy, which must go on."""
    await asyncio.to_thread(lambda: happens(fact, seconds))


def pods(namespace: Namespace) -> list[Object]:
    """Of the service, that are not going."""
    found = namespace.all("pods", "-l", "modelyard.dev/service=plus")
    return [each for each in found if "deletionTimestamp" not in each["metadata"]]
