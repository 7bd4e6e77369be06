"""Texts beside the API, such as `/metrics`: for whom a role lets see them."""

from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest

from apihttp_testing import TOKEN
from modelyard.api.schema import crds
from modelyard.base.clock import SystemClock
from modelyard.base.errors import RetryLater
from modelyard.control.apiserver.server import ApiServer
from modelyard.control.apiserver.store import Store
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.client import ApiError, Client

RULE = {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
OWNER = {"authorization": f"Bearer {TOKEN}"}
ANA = {**OWNER, "impersonate-user": "ana"}


async def metrics(query: Mapping[str, str]) -> str:
    if "later" in query:
        raise RetryLater("it is being started")
    return f"told {query.get('model', 'all')}\n"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    clock = SystemClock()
    async with Store.memory(clock) as store:
        server = ApiServer(store, crds(), token=TOKEN, tls=None, clock=clock, pages={"/metrics": metrics})
        async with server.listening("127.0.0.1", 0) as found:
            yield found


@pytest.fixture
async def caller() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as found:
        yield found


async def test_the_owner_sees_a_page_and_nobody_else_does(url: str, caller: aiohttp.ClientSession) -> None:
    async with caller.get(f"{url}/metrics?model=iris.default", headers=OWNER) as answer:
        assert (answer.status, await answer.text()) == (200, "told iris.default\n")
        assert answer.content_type == "text/plain"
    for headers, status in (({}, 401), ({"authorization": "Bearer x"}, 401), (ANA, 403)):
        async with caller.get(f"{url}/metrics", headers=headers) as answer:
            assert answer.status == status
            assert "told" not in await answer.text()


async def test_a_role_for_the_path_lets_it_be_read_and_not_more(url: str, caller: aiohttp.ClientSession) -> None:
    rbac = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": "m"}, "rules": [RULE]}
    reference = {"apiGroup": rbac, "kind": "ClusterRole", "name": "m"}
    subjects = [{"apiGroup": rbac, "kind": "User", "name": "ana"}]
    binding = {**role, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": subjects}
    del binding["rules"]
    for plural, body in (("clusterroles", role), ("clusterrolebindings", binding)):
        async with caller.post(f"{url}/apis/{rbac}/v1/{plural}", json=body, headers=OWNER) as answer:
            assert answer.status == 201, await answer.text()
    for method, path, status in (
        ("GET", "/metrics", 200),
        ("HEAD", "/metrics", 200),
        ("POST", "/metrics", 403),
        ("GET", "/metrics/x", 403),
        ("GET", "/api/v1/configmaps", 403),
    ):
        async with caller.request(method, f"{url}{path}", headers=ANA) as answer:
            assert answer.status == status, (method, path)


async def test_a_page_is_only_read(url: str, caller: aiohttp.ClientSession) -> None:
    async with caller.post(f"{url}/metrics", headers=OWNER) as answer:
        assert answer.status == 405


async def test_a_page_that_cannot_be_made_now_says_so(url: str) -> None:
    async with Client(ClientConfig(server=url, token=TOKEN)) as client:
        assert await client.text("/metrics", {}) == "told all\n"
        with pytest.raises(ApiError, match="it is being started; try again") as failure:
            await client.text("/metrics", {"later": "1"})
        assert failure.value.status == 503
    with pytest.raises(RetryLater, match="cannot be reached"):
        async with Client(ClientConfig(server="http://127.0.0.1:1", token=TOKEN)) as client:
            await client.text("/metrics", {})
