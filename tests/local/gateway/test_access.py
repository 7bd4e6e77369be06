"""Whose tokens are believed, what callers are told, and that Envoy and `admits` mean the same."""

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

import access_testing
import tokens_testing as tokens
from access_testing import ACCESS, HOLDERS, Holder, headers, known
from gateway_testing import Upstream
from modelyard.control.ir.access import OPEN, Access, Caller, Claim
from modelyard.control.ir.admission import admits, narrows
from modelyard.control.ir.platform import ACCOUNTS, OWN, Issuer, Platform
from modelyard.control.ir.values import Key
from modelyard.control.render import xds_access
from modelyard.testing.gateway_suite import ANA, IRIS, acknowledged, only, route
from tokens_testing import claims, signer, token

from .conftest import EnvoyRig, Lasting, bearing, becomes, serve, stand

INFER = "/v2/models/iris/infer"
KEYS = access_testing.KEYS | {OWN: signer(kid=OWN), ACCOUNTS: signer(kid=ACCOUNTS)}
ISSUERS = tuple(tokens.issuer(name, key) for name, key in KEYS.items())
ANYONE = Access(callers=tuple(Caller(issuer=each) for each in sorted(KEYS)))


async def guarded(rig: EnvoyRig, access: Access, **platform: Any) -> Upstream:
    """A route with this access, once that and the platform are in force."""
    await stand(rig, Platform(**{"issuers": ISSUERS, **platform}))
    wanted = route(IRIS, "a", access=access)
    await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, wanted)
    return rig.upstreams["a"]


async def said(rig: EnvoyRig, **headers: str) -> tuple[int, str, str]:
    """(status, the error or the unit, WWW-Authenticate)."""
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    status, body, answered = await rig.request("POST", INFER, data=b"{}", headers=sent)
    return status, body.get("error") or body["unit"], answered.get("www-authenticate", "")


@pytest.mark.parametrize("name", KEYS)
async def test_tokens_of_each_issuer_are_believed_whatever_they_are_signed_with(rig: EnvoyRig, name: str) -> None:
    await guarded(rig, Access(callers=(Caller(issuer=name),)))
    assert (await said(rig, authorization=f"Bearer {token(name, KEYS[name])}"))[0] == 200
    assert (await said(rig, authorization=f"bearer {token(name, KEYS[name])}"))[0] == 200
    assert (await said(rig, x_api_key=token(name, KEYS[name])))[0] == 200
    others = [each for each in KEYS if each != name]
    for each in others:
        assert (await said(rig, authorization=f"Bearer {token(each, KEYS[each])}"))[0] == 403


def _now() -> int:
    return int(time.time())


REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "expired": (lambda: token("corp", exp=_now() - 120), "expired"),
    "without an end": (lambda: token("corp", exp=None), "verification fails"),
    "not yet valid": (lambda: token("corp", nbf=_now() + 600), "not yet valid"),
    "for others": (lambda: token("corp", aud="elsewhere"), "Audiences in Jwt are not allowed"),
    "for nobody": (lambda: token("corp", aud=None), "Audiences in Jwt are not allowed"),
    "of an unknown issuer": (lambda: token("corp", iss="https://elsewhere"), "of no issuer that is known here"),
    "of no issuer": (lambda: token("corp", iss=None), "of no issuer that is known here"),
    "of another issuer's key": (lambda: token("corp", KEYS["rs"]), "doesn't have key to match kid"),
    "of an unknown key": (lambda: token("corp", signer(kid="unknown")), "doesn't have key to match kid"),
    "of a key with a known name": (
        lambda: tokens.signed(tokens.Signer("ES256", "corp"), claims("corp")),
        "verification fails",
    ),
    "unsigned": (lambda: tokens.unsigned(claims("corp"), kid="corp"), "no JSON Web Token"),
    "unsigned, spelled otherwise": (lambda: tokens.unsigned(claims("corp"), "nOnE", "corp"), "no JSON Web Token"),
    "without its signature": (lambda: token("corp").rpartition(".")[0] + ".", "no JSON Web Token"),
    "with another body": (
        lambda: ".".join(
            (token("corp").split(".")[0], token("corp", sub="root").split(".")[1], token("corp").split(".")[2])
        ),
        "verification fails",
    ),
    "of HS256 with the public key of ES256": (lambda: tokens.confused(KEYS["corp"], claims("corp")), "kid or alg"),
    "of HS256 with the public key of RS256": (lambda: tokens.confused(KEYS["rs"], claims("rs")), "kid or alg"),
    "with its key inside": (
        lambda: tokens.signed(signer(kid="mine"), claims("corp"), jwk=signer(kid="mine").public),
        "doesn't have key",
    ),
    "no token": (lambda: "x", "no JSON Web Token"),
}


@pytest.mark.parametrize(("header", "prefix"), [("authorization", "Bearer "), ("x-api-key", "")])
async def test_a_token_that_is_not_in_order_is_refused_and_the_caller_told_why(
    rig: EnvoyRig, header: str, prefix: str
) -> None:
    up = await guarded(rig, ANYONE)
    for case, (make, why) in REFUSED.items():
        status, sentence, challenge = await said(rig, **{header: prefix + make()})
        assert (status, challenge) == (401, 'Bearer realm="modelyard", error="invalid_token"'), case
        assert sentence.startswith("the token is not accepted ("), case
        assert why in sentence, case
    assert up.requests == 0


async def test_a_token_of_a_clock_that_differs_a_little_is_believed(rig: EnvoyRig) -> None:
    await guarded(rig, ANYONE)
    for moved in ({"exp": _now() - 30}, {"nbf": _now() + 30}):
        assert (await said(rig, **bearing(token("corp", **moved))))[0] == 200


async def test_a_caller_without_a_token_and_one_who_may_not_are_told_the_next_step(rig: EnvoyRig) -> None:
    up = await guarded(rig, only("ana"))
    status, sentence, challenge = await said(rig)
    assert (status, challenge) == (401, 'Bearer realm="modelyard"')
    assert "'Authorization: Bearer <token>'" in sentence
    status, sentence, challenge = await said(rig, **bearing(token("corp", sub="bob")))
    assert (status, challenge) == (403, "")
    assert "kubectl auth can-i predict modelservices/<name>" in sentence
    assert INFER in sentence
    assert up.requests == 0


async def test_tokens_do_not_reach_replicas(rig: EnvoyRig) -> None:
    await guarded(rig, OPEN)
    headers = bearing(token("corp")) | {"x-api-key": token("ed", KEYS["ed"]), "x-auth-sub": "root"}
    _, body, _ = await rig.request("GET", "/v2/models/iris/echo", headers=headers)
    assert "authorization:" not in body["head"]
    assert "x-api-key:" not in body["head"]
    assert "x-auth-" not in body["head"]


async def test_two_tokens_are_never_mixed(rig: EnvoyRig) -> None:
    both = (Claim(path=("groups",), value="team", listed=True), Claim(path=("sub",), value="ana"))
    await guarded(rig, Access(callers=(Caller(issuer="corp", claims=both),)))
    assert (await said(rig, **bearing(token("corp", groups=["team"]))))[0] == 200
    in_team, by_name = token("corp", sub="bob", groups=["team"]), token("corp", sub="ana")
    for first, second in ((in_team, by_name), (by_name, in_team)):
        assert (await said(rig, authorization=f"Bearer {first}", x_api_key=second))[0] == 403
        twice = [("authorization", f"Bearer {first}"), ("authorization", f"Bearer {second}")]
        status, _, _ = await rig.request("POST", INFER, data=b"{}", headers=twice)
        assert status in (400, 401, 403)


async def test_groups_of_one_issuer_are_not_those_of_another_and_system_never_comes_from_outside(
    rig: EnvoyRig,
) -> None:
    callers = tuple(
        Caller(issuer=OWN, claims=(Claim(path=("groups",), value=each, listed=True),))
        for each in ("system:masters", "team")
    )
    await guarded(rig, Access(callers=callers))
    for group in ("system:masters", "team"):
        assert (await said(rig, **bearing(token(OWN, KEYS[OWN], groups=[group]))))[0] == 200
        assert (await said(rig, **bearing(token("corp", groups=[group], modelyard={"groups": [group]}))))[0] == 403


async def test_claims_cannot_pretend_to_be_what_the_gateway_keeps(rig: EnvoyRig) -> None:
    await guarded(rig, only("ana"))
    forged = {"corp": {"sub": "ana", "iss": "https://corp.example"}, "_token": {"alg": "ES256"}, "_failed": {}}
    assert (await said(rig, **bearing(token("ed", KEYS["ed"], **forged))))[0] == 403


async def test_a_revoked_token_is_refused_at_once(rig: EnvoyRig) -> None:
    await guarded(rig, ANYONE)
    bad, good = (bearing(token(OWN, KEYS[OWN], jti=each)) for each in ("bad", "good"))
    assert (await said(rig, **bad))[0] == 200
    up = await guarded(rig, ANYONE, revoked=("bad", "worse"))
    before = up.requests
    status, sentence, challenge = await said(rig, **bad)
    assert (status, challenge) == (401, 'Bearer realm="modelyard", error="invalid_token"')
    assert "revoked" in sentence
    assert up.requests == before
    assert (await said(rig, **good))[0] == 200
    assert (await said(rig, **bearing(token("corp", jti="bad"))))[0] == 200, "an id of another issuer"


async def test_a_token_of_an_account_that_is_gone_is_refused(rig: EnvoyRig) -> None:
    def account(uid: str) -> dict[str, str]:
        return bearing(token(ACCOUNTS, KEYS[ACCOUNTS], **{"kubernetes.io": {"serviceaccount": {"uid": uid}}}))

    await guarded(rig, ANYONE, accounts=("u1", "u2"))
    assert (await said(rig, **account("u2")))[0] == 200
    assert (await said(rig, **account("u3")))[:2] == (
        401,
        "the ServiceAccount of this token is no longer there: 'kubectl create token <name>' makes one for another",
    )
    assert (await said(rig, **bearing(token("corp"))))[0] == 200
    await guarded(rig, ANYONE, accounts=())
    assert (await said(rig, **account("u2")))[0] == 401


@pytest.mark.parametrize(
    "keys",
    [
        "",
        "no JSON",
        '{"keys": []}',
        json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "kid": "broken", "k": "c2VjcmV0"}]}),
    ],
)
async def test_an_issuer_whose_keys_are_of_no_use_lets_nobody_in_and_leaves_the_others_alone(
    rig: EnvoyRig, keys: str
) -> None:
    broken = Issuer(name="broken", url="https://broken.example", audiences=(tokens.AUDIENCE,), keys=keys)
    await guarded(rig, Access(callers=(*ANYONE.callers, Caller(issuer="broken"))), issuers=(*ISSUERS, broken))
    shared = tokens.symmetric(b"secret", "broken", claims("broken"))
    for each in (token("broken"), tokens.unsigned(claims("broken")), shared):
        assert (await said(rig, **bearing(each)))[0] == 401
    assert (await said(rig, **bearing(token("corp"))))[0] == 200


async def test_a_filter_that_envoy_refuses_shuts_callers_out_until_it_is_mended(
    rig: EnvoyRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await guarded(rig, ANYONE)
    good = bearing(token("corp"))
    assert (await said(rig, **good))[0] == 200
    monkeypatch.setattr(xds_access, "_keys", str)
    broken = Issuer(name="broken", url="https://broken.example", audiences=("x",), keys="no JSON")
    # Another filter changes with it, so that Envoy could refuse both together.
    rig.gateway.configure(Platform(issuers=(*ISSUERS, broken), revoked=("x",)))
    await becomes(partial(said, rig, **good), lambda answer: answer[0] == 401)
    assert "the gateway's filter authenticate was refused" in caplog.text
    assert (await rig.request("GET", "/v2/health/live"))[0] == 200
    await guarded(rig, ANYONE)
    assert (await said(rig, **good))[0] == 200


async def test_keys_change_without_losing_a_connection(rig: EnvoyRig) -> None:
    await guarded(rig, ANYONE)
    old, new = token("corp"), token("corp", signer(kid="newer"))
    assert [(await said(rig, **bearing(each)))[0] for each in (old, new)] == [200, 401]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(rig.gateway.url.rsplit(":", 1)[1]))
    try:
        assert await _asked(reader, writer, old) == 200
        await guarded(rig, ANYONE, issuers=(tokens.issuer("corp", signer(kid="newer")),))
        assert [await _asked(reader, writer, each) for each in (old, new)] == [401, 200]
    finally:
        writer.close()


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, given: str) -> int:
    head = f"GET /v2/models/iris/ready HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {given}\r\n\r\n"
    writer.write(head.encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    await reader.readexactly(int(answer.split("content-length: ")[1].split("\r\n")[0]))
    return int(answer.split(" ")[1])


async def called(rig: EnvoyRig, name: str, given: str = "", suffix: str = "") -> tuple[grpc.StatusCode, str]:
    """What a ModelInfer for a model meets."""
    message = service_pb2.ModelInferRequest(model_name=name).SerializeToString()
    metadata = (("authorization", f"Bearer {given}"),) if given else ()
    path = f"/inference.GRPCInferenceService/ModelInfer{suffix}"
    async with grpc.aio.insecure_channel(rig.gateway.url.removeprefix("http://")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path, bytes, bytes)(message, timeout=20, metadata=metadata)
    return caught.value.code(), caught.value.details() or ""


async def test_grpc_callers_get_a_status_of_grpc_and_the_same_sentence(rig: EnvoyRig) -> None:
    up = await guarded(rig, only("ana"))
    code, sentence = await called(rig, "iris")
    assert (code, sentence.startswith("a token is needed")) == (grpc.StatusCode.UNAUTHENTICATED, True)
    code, sentence = await called(rig, "iris", token("corp", exp=_now() - 600))
    assert (code, "Jwt is expired" in sentence) == (grpc.StatusCode.UNAUTHENTICATED, True)
    code, sentence = await called(rig, "iris", token("corp", sub="bob"))
    assert (code, "may not call" in sentence) == (grpc.StatusCode.PERMISSION_DENIED, True)
    assert (await called(rig, "nothing", token("corp")))[0] == grpc.StatusCode.PERMISSION_DENIED
    assert up.requests == 0


async def test_nothing_is_kept_of_calls_of_anonymous_callers_where_there_are_none(rig: EnvoyRig) -> None:
    await guarded(rig, OPEN, anonymous=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(rig.gateway.url.rsplit(":", 1)[1]))
    try:
        head = "POST /inference.GRPCInferenceService/ModelInfer HTTP/1.1\r\nHost: localhost\r\n"
        writer.write((head + "Content-Type: application/grpc\r\nContent-Length: 60000000\r\n\r\n").encode())
        async with asyncio.timeout(5):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert "grpc-status: 16" in answer
    finally:
        writer.close()
    for path in ("/v2", "/v2/models", "/v2/health/live", "/v2/health/ready"):
        assert (await rig.request("GET", path))[0] == 200


async def test_the_list_of_models_tells_only_what_everybody_may_call(rig: EnvoyRig) -> None:
    await stand(rig, Platform(issuers=ISSUERS))
    shut = route(Key(kind="ModelService", namespace="bank", name="fraud"), "a", access=only("ana"))
    await rig.gateway.publish((route(IRIS, "a"), shut), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, shut)
    listed = {"models": ["iris.default"]}
    await becomes(partial(rig.request, "GET", "/v2/models"), lambda answer: answer[1] == listed)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(accesses=st.lists(ACCESS, min_size=4, max_size=8), holders=st.lists(HOLDERS, min_size=4, max_size=8))
def test_envoy_admits_whom_the_rules_admit(lasting: Lasting, accesses: list[Access], holders: list[Holder]) -> None:
    lasting.run(_compare(lasting.rig, accesses, holders))


async def _compare(rig: EnvoyRig, accesses: list[Access], holders: list[Holder]) -> None:
    names = await serve(rig, accesses)
    for name, access in zip(names, accesses, strict=True):
        for holder in holders:
            status, _, _ = await rig.request("POST", f"/v2/models/{name}/infer", data=b"{}", headers=headers(holder))
            expected = 200 if admits(access, *known(holder)) else 403 if holder else 401
            assert status == expected, (access, holder)


@settings(max_examples=300)
@given(ACCESS, ACCESS, HOLDERS)
def test_what_does_not_narrow_admits_at_least_the_same(old: Access, new: Access, holder: Holder) -> None:
    if not narrows(old, new) and admits(old, *known(holder)):
        assert admits(new, *known(holder))


async def test_the_rig_bears_what_it_is_told(rig: EnvoyRig) -> None:
    await guarded(rig, only("ana"), issuers=rig.issuers)
    assert (await rig.ask("iris", ANA))[0] == 200
