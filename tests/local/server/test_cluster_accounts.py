"""Whose ServiceAccount tokens count, as the API server of a cluster tells it."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from kube_testing import Request, ScriptedServer, answering, until
from modelyard.base.clock import SystemClock
from modelyard.control.engine.standing import Place
from modelyard.control.kube.client import Client
from modelyard.server.cluster_accounts import ClusterAccounts
from modelyard.server.deciding import tasks
from modelyard.wire import jose

ISSUER = "https://kubernetes.default.svc.cluster.local"


def key_set(*keys: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    return {"keys": [jose.public_jwk(each.public_key()) for each in keys]}


def telling(issuer: object, keys: Callable[[], dict[str, Any]]) -> Callable[[Request], Any]:
    def answer(request: Request) -> Any:
        bodies = {"/.well-known/openid-configuration": {"issuer": issuer}, "/openid/v1/jwks": keys()}
        return answering(200, bodies[request.path])

    return answer


async def test_issuer_and_keys_are_those_of_the_cluster_and_news_are_told(tmp_path: Path) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1())]
    server = ScriptedServer(always=telling(ISSUER, lambda: key_set(*keys)))
    told: list[Place] = []
    async with server, Client(server.config) as client:
        accounts = ClusterAccounts(client, tmp_path, SystemClock())
        assert accounts.place() == Place(loopback=False, accounts="", accounts_url="modelyard")
        accounts.follow(lambda: told.append(accounts.place()))
        async with tasks(accounts.keys.run()):
            await accounts.first(10)
            found = accounts.place()
            assert (found.accounts_url, json.loads(found.accounts)) == (ISSUER, key_set(*keys))
            keys.append(ec.generate_private_key(ec.SECP256R1()))
            accounts.keys.hint()  # a token names a key that nobody knows
            await until(lambda: len(told) > 1, 20)
        assert json.loads(told[-1].accounts) == key_set(*keys)


async def test_who_cannot_be_asked_is_not_waited_for_without_end(tmp_path: Path) -> None:
    server = ScriptedServer(always=lambda _: answering(403, {"reason": "Forbidden", "message": "no"}))
    async with server, Client(server.config) as client:
        accounts = ClusterAccounts(client, tmp_path, SystemClock())
        async with tasks(accounts.keys.run()), asyncio.timeout(10):
            await accounts.first(0.1)
        assert accounts.place().accounts == ""


async def test_an_answer_without_issuer_makes_nobody_believed(tmp_path: Path) -> None:
    for issuer in (None, "", 5, "x" * 5000):
        server = ScriptedServer(always=telling(issuer, lambda: key_set(ec.generate_private_key(ec.SECP256R1()))))
        async with server, Client(server.config) as client:
            accounts = ClusterAccounts(client, tmp_path, SystemClock())
            async with tasks(accounts.keys.run()):
                await until(lambda asked=server.requests: bool(asked))  # type: ignore[misc]
                await accounts.first(0.1)
            assert accounts.place() == Place(loopback=False)


async def test_keys_that_the_disk_had_already_are_waited_for_no_longer_than_new_ones(tmp_path: Path) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1())]
    server = ScriptedServer(always=telling(ISSUER, lambda: key_set(*keys)))
    async with server, Client(server.config) as client:
        for _ in range(2):
            accounts = ClusterAccounts(client, tmp_path, SystemClock())
            async with tasks(accounts.keys.run()), asyncio.timeout(20):
                await accounts.first(1000)
                await until(lambda: any(tmp_path.iterdir()))
            assert json.loads(accounts.place().accounts) == key_set(*keys)
