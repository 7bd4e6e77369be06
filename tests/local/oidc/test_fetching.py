"""Keys are fetched from issuers that are right, wrong, slow and down: over real sockets."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway_testing import becomes_true
from modelyard.base.clock import SystemClock
from modelyard.base.errors import RetryLater
from modelyard.control.apiserver import certificates
from modelyard.control.gateway.issuer_keys import IssuerKeys
from modelyard.control.gateway.jwks import Fetched, fetch
from modelyard.control.ir.platform import KeySource
from oidc_testing import FaultyIssuer, RealProvider, redirecting
from tokens_testing import signer

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
async def issuer() -> AsyncIterator[FaultyIssuer]:
    async with FaultyIssuer() as one:
        one.keys = [signer(kid="first").public]
        yield one


def source(issuer: FaultyIssuer, **more: Any) -> KeySource:
    return KeySource(name="corp", url=issuer.url, **more)


def files(folder: Path) -> list[Path]:
    return list(folder.glob("*.json"))


def ids(keys: str) -> list[str]:
    return [each["kid"] for each in json.loads(keys)["keys"]]


async def test_the_keys_of_a_real_provider_are_found_by_discovery() -> None:
    with RealProvider() as provider:
        found = await fetch(KeySource(name="corp", url=provider.url))
    assert [each["kty"] for each in json.loads(found.keys)["keys"]] == ["RSA", "EC", "EC", "OKP"]
    assert not found.skipped


async def test_without_discovery_the_settings_say_where_the_keys_are(issuer: FaultyIssuer) -> None:
    found = await fetch(source(issuer, jwks_uri=f"{issuer.url}/elsewhere"))
    assert ids(found.keys) == ["first"]
    assert issuer.asked == ["/elsewhere"]


async def test_keys_that_could_let_others_sign_are_left_out(issuer: FaultyIssuer) -> None:
    issuer.keys += [{"kty": "oct", "kid": "shared", "k": "c2VjcmV0"}, signer("RS256", "second").public]
    found = await fetch(source(issuer))
    assert ids(found.keys) == ["first", "second"]
    assert found.skipped == ("key 'shared' is not used: expected kty RSA, EC or OKP, not 'oct'",)


@pytest.mark.parametrize(
    ("header", "lifetime"),
    [
        ("", None),
        ("public, max-age=120", 120.0),
        ("no-store", 0.0),
        ("max-age=99999, no-cache", 0.0),
        ("max-age=minus", None),
        ("s-maxage=7", None),
    ],
)
async def test_it_is_kept_how_long_the_issuer_allows_to_keep_them(
    issuer: FaultyIssuer, header: str, lifetime: float | None
) -> None:
    issuer.headers = {"Cache-Control": header}
    assert (await fetch(source(issuer))).lifetime == lifetime


WRONG: list[tuple[dict[str, Any], str]] = [
    ({DISCOVERY: {"issuer": "https://other.example", "jwks_uri": "KEYS"}}, "is of the issuer 'https://other.example'"),
    ({DISCOVERY: {"issuer": "URL/", "jwks_uri": "KEYS"}}, "is of the issuer 'http://127.0.0.1:[0-9]+/'"),
    ({DISCOVERY: {"issuer": "URL"}}, "has no jwks_uri"),
    ({DISCOVERY: {"issuer": "URL", "jwks_uri": ["KEYS"]}}, "has no jwks_uri"),
    ({DISCOVERY: {"issuer": "URL", "jwks_uri": "http://keys.example/"}}, "expected https://, or http:// on a loopback"),
    ({DISCOVERY: {"issuer": "URL", "jwks_uri": "file:///etc/passwd"}}, "expected https://, or http:// on a loopback"),
    ({DISCOVERY: {"issuer": "URL", "jwks_uri": "http://localhost:1@a.example/"}}, "expected https://, or http://"),
    ({DISCOVERY: b"<html>"}, "is not JSON"),
    ({DISCOVERY: b"[" * 60_000}, "is not JSON"),
    ({DISCOVERY: b" " * 70_000}, "answered with more than 65536 bytes"),
    ({DISCOVERY: redirecting(DISCOVERY)}, "redirects more than 3 times"),
    ({DISCOVERY: redirecting("http://10.1.2.3/")}, "leads to 'http://10.1.2.3/': expected https://"),
    ({DISCOVERY: redirecting("")}, "redirects more than 3 times"),
    ({"/keys": b" " * 300_000}, "answered with more than 262144 bytes"),
    ({"/keys": b"{"}, "cannot be used: it is not JSON"),
    ({"/keys": {"keys": []}}, "has no key that can be used"),
    ({"/keys": {"keys": [{"kty": "oct", "k": "AQAB"}]}}, "has no key that can be used"),
]


@pytest.mark.parametrize(("documents", "why"), WRONG)
async def test_an_issuer_that_is_wrong_is_told_with_its_address(
    issuer: FaultyIssuer, documents: dict[str, Any], why: str
) -> None:
    for path, found in documents.items():
        if isinstance(found, dict):
            found = json.loads(json.dumps(found).replace("URL", issuer.url).replace("KEYS", f"{issuer.url}/keys"))
        issuer.documents[path] = found
    with pytest.raises(RetryLater, match=why) as told:
        await fetch(source(issuer))
    assert issuer.url in told.value.message


async def test_statuses_and_compressed_answers_are_refused(issuer: FaultyIssuer) -> None:
    async def busy(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    issuer.documents["/keys"] = busy
    with pytest.raises(RetryLater, match="answered with status 500"):
        await fetch(source(issuer))
    del issuer.documents["/keys"]
    issuer.headers = {"Content-Encoding": "identity"}
    with pytest.raises(RetryLater, match="Content-Encoding"):
        await fetch(source(issuer))


@pytest.mark.parametrize("how", ["held", "dripping"])
async def test_a_slow_issuer_is_left_after_a_time(issuer: FaultyIssuer, how: str) -> None:
    issuer.documents["/keys"] = getattr(issuer, how)
    with pytest.raises(RetryLater, match=r"/keys did not answer within 0.3 s"):
        await fetch(source(issuer), 0.3)


async def test_an_issuer_behind_a_private_authority_is_believed_only_with_that_authority(tmp_path: Path) -> None:
    context = certificates.server_context(tmp_path, (), SystemClock())

    async def answer(request: web.Request) -> web.StreamResponse:
        url = f"https://{request.host}"
        found = (
            {"issuer": url, "jwks_uri": f"{url}/keys"}
            if request.path == DISCOVERY
            else {"keys": [signer(kid="private").public]}
        )
        return web.json_response(found)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        authority = (tmp_path / certificates.CA_CERTIFICATE).read_text()
        found = await fetch(KeySource(name="corp", url=url, certificate_authority=authority))
        assert ids(found.keys) == ["private"]
        with pytest.raises(RetryLater, match=re.compile("certificate", re.IGNORECASE)):
            await fetch(KeySource(name="corp", url=url))
        with pytest.raises(RetryLater, match="certificateAuthority holds no certificates"):
            await fetch(KeySource(name="corp", url=url, certificate_authority="no PEM"))
        with pytest.raises(RetryLater, match="cannot be read"):
            await fetch(KeySource(name="corp", url=url.replace("https", "http")))
    finally:
        await runner.cleanup()
    assert isinstance(context, ssl.SSLContext)


class Kept:
    """An IssuerKeys that runs while the block does."""

    def __init__(self, folder: Path, *sources: KeySource, fetching: Any = fetch) -> None:
        self.news = 0
        self.keys = IssuerKeys(folder, SystemClock(), self._changed, fetching)
        self.keys.want(sources)

    def _changed(self) -> None:
        self.news += 1

    async def __aenter__(self) -> IssuerKeys:
        self._task = asyncio.create_task(self.keys.run())
        return self.keys

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_keys_that_were_known_count_from_the_start_while_the_issuer_is_down(tmp_path: Path) -> None:
    async with FaultyIssuer() as issuer:
        issuer.keys = [signer(kid="first").public]
        of = source(issuer)
        async with Kept(tmp_path, of) as keys:
            await becomes_true(lambda: "corp" in keys.known())
            await becomes_true(lambda: bool(files(tmp_path)))
    again = Kept(tmp_path, of)
    assert ids(again.keys.known()["corp"]) == ["first"]
    async with again as keys:
        await becomes_true(lambda: bool(keys.problems()))
        assert ids(keys.known()["corp"]) == ["first"]
        assert "the keys known before still count" in keys.problems()["corp"]
    assert Kept(tmp_path, KeySource(name="corp", url="http://127.0.0.1:1")).keys.known() == {}


async def test_an_issuer_that_is_down_at_the_start_is_taken_up_when_it_comes(
    tmp_path: Path, issuer: FaultyIssuer
) -> None:
    down = True

    async def fetching(of: KeySource) -> Fetched:
        if down:
            raise RetryLater("nobody listens")
        return await fetch(of)

    kept = Kept(tmp_path, source(issuer), fetching=fetching)
    async with kept as keys:
        await becomes_true(lambda: bool(keys.problems()))
        assert keys.problems()["corp"] == (
            "the keys of issuer corp cannot be fetched: nobody listens; none of its tokens is accepted, and it is "
            "asked again"
        )
        down = False
        await becomes_true(lambda: "corp" in keys.known())
        assert not keys.problems()
    assert kept.news == 2


async def test_a_slow_issuer_holds_up_no_other_and_is_asked_once_at_a_time(
    tmp_path: Path, issuer: FaultyIssuer
) -> None:
    async with FaultyIssuer() as slow:
        slow.documents[DISCOVERY] = slow.held
        async with Kept(tmp_path, KeySource(name="slow", url=slow.url), source(issuer)) as keys:
            await becomes_true(lambda: "corp" in keys.known())
            for _ in range(20):
                keys.hint()
                await asyncio.sleep(0.01)
            assert len(slow.asked) == 1


async def test_an_unknown_key_is_asked_for_but_not_for_each_token_that_names_one(
    tmp_path: Path, issuer: FaultyIssuer
) -> None:
    async with Kept(tmp_path, source(issuer)) as keys:
        await becomes_true(lambda: "corp" in keys.known())
        issuer.keys = [signer(kid="second").public]
        before = len(issuer.asked)
        while ids(keys.known()["corp"]) != ["second"]:
            keys.hint()
            await asyncio.sleep(0.05)
        assert len(issuer.asked) == before + 2  # discovery and keys, once each


async def test_an_issuer_that_is_not_wanted_any_more_is_forgotten(tmp_path: Path, issuer: FaultyIssuer) -> None:
    async with Kept(tmp_path, source(issuer)) as keys:
        await becomes_true(lambda: "corp" in keys.known())
        keys.want(())
        assert keys.known() == {}


async def test_a_file_that_cannot_be_read_is_fetched_anew(tmp_path: Path, issuer: FaultyIssuer) -> None:
    async with Kept(tmp_path, source(issuer)) as keys:
        await becomes_true(lambda: bool(files(tmp_path)))
    (file,) = files(tmp_path)
    file.write_text('{"keys": "{\\"keys\\": [{\\"kty\\": \\"oct\\"}]}", "fetched": 1}')
    async with Kept(tmp_path, source(issuer)) as keys:
        assert keys.known() == {}
        await becomes_true(lambda: "corp" in keys.known())
