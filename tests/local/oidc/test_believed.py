"""Which tokens the gateway believes: those of a real provider, and those that attackers would try."""

import json
import time
from collections.abc import Callable
from typing import Any

import tokens_testing
from modelyard.control.gateway.jwks import fetch
from modelyard.control.ir.access import Access, Caller, Claim
from modelyard.control.ir.platform import ACCOUNTS, OWN, Issuer, KeySource, Platform
from oidc_testing import AUDIENCE, RealProvider
from tokens_testing import signer

ANALYSTS = Claim(path=("groups",), value="analysts", listed=True)
GROUP_OF_CORP = Access(callers=(Caller(issuer="corp", claims=(ANALYSTS,)),))


async def corp(provider: RealProvider, **more: Any) -> Issuer:
    """The provider as the gateway is told about it."""
    keys = (await fetch(KeySource(name="corp", url=provider.url))).keys
    return Issuer(name="corp", url=provider.url, audiences=(AUDIENCE,), prefix="corp:", keys=keys, **more)


async def test_tokens_of_a_real_provider_are_believed_whatever_it_signs_with(gate: Any, provider: RealProvider) -> None:
    await gate.hold(Platform(issuers=(await corp(provider),)), GROUP_OF_CORP)
    await gate.becomes(provider.token("ana"), 200)
    found = {
        alg: await gate.call(provider.token("ana", alg))
        for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
    }
    assert found == dict.fromkeys(found, 200)
    assert await gate.call(provider.token("ana"), "x-api-key") == 200
    assert await gate.call(provider.token("bo")) == 403


async def test_a_token_for_somebody_else_or_of_another_time_is_not(gate: Any, provider: RealProvider) -> None:
    await gate.hold(Platform(issuers=(await corp(provider, skew_seconds=1),)), GROUP_OF_CORP)
    short = provider.token("ana", seconds=2)
    await gate.becomes(provider.token("ana"), 200)
    assert await gate.call(provider.token("ana", audience="another")) == 401
    await gate.becomes(short, 401)
    assert await gate.call() == 401


async def test_after_a_rotation_only_tokens_of_the_new_keys_count(gate: Any) -> None:
    with RealProvider() as provider:
        before = provider.token("ana")
        await gate.hold(Platform(issuers=(await corp(provider),)), GROUP_OF_CORP)
        await gate.becomes(before, 200)
        provider.do("rotate")
        assert await gate.call(provider.token("ana")) == 401
        await gate.hold(Platform(issuers=(await corp(provider),)), GROUP_OF_CORP)
        await gate.becomes(provider.token("ana"), 200)
        assert await gate.call(before) == 401


KEY, OTHER, RSA = signer(kid="corp"), signer(kid="evil"), signer("RS256", "rsa")
NOW = int(time.time())  # when tests were collected: hours may have passed when one runs


def claims(**others: Any) -> dict[str, Any]:
    return tokens_testing.claims("corp", groups=["analysts"], **others)


ATTACKS: dict[str, Callable[[], str]] = {
    "no signature": lambda: tokens_testing.unsigned(claims(), kid="corp"),
    "no signature, spelled None": lambda: tokens_testing.unsigned(claims(), "None", kid="corp"),
    "the public key as a secret": lambda: tokens_testing.confused(KEY, claims()),
    "the public RSA key as a secret": lambda: tokens_testing.confused(RSA, claims()),
    "another's key under the right id": lambda: tokens_testing.signed(OTHER, claims(), kid="corp"),
    "another's key under its own id": lambda: tokens_testing.signed(OTHER, claims()),
    "its own key in the header": lambda: tokens_testing.signed(OTHER, claims(), jwk=OTHER.public, kid=None),
    "a signature cut off": lambda: tokens_testing.signed(KEY, claims())[:-8],
    "another algorithm than the key's": lambda: tokens_testing.signed(RSA, claims(), alg="ES256"),
    "expired": lambda: tokens_testing.signed(KEY, claims(exp=NOW - 120)),
    "without an end": lambda: tokens_testing.signed(KEY, claims(exp=None)),
    "not yet valid": lambda: tokens_testing.signed(KEY, claims(nbf=NOW + 86_400)),
    "for somebody else": lambda: tokens_testing.signed(KEY, claims(aud="another")),
    "for nobody": lambda: tokens_testing.signed(KEY, claims(aud=None)),
    "of another issuer": lambda: tokens_testing.signed(KEY, claims(iss="https://other.example")),
    "of no issuer": lambda: tokens_testing.signed(KEY, claims(iss=None)),
    "of the issuer with a slash more": lambda: tokens_testing.signed(KEY, claims(iss="https://corp.example/")),
    "signed by another issuer": lambda: tokens_testing.signed(signer(kid="partner"), claims()),
    "no token at all": lambda: "token",
    "three parts of nothing": lambda: "..",
}


async def test_a_token_that_an_attacker_makes_is_refused(gate: Any) -> None:
    issuers = (tokens_testing.issuer("corp", KEY, RSA), tokens_testing.issuer("partner"))
    await gate.hold(Platform(issuers=issuers), GROUP_OF_CORP)
    await gate.becomes(tokens_testing.signed(KEY, claims()), 200)
    assert await gate.call(tokens_testing.signed(RSA, claims())) == 200
    found = {name: await gate.call(attack()) for name, attack in ATTACKS.items()}
    assert found == dict.fromkeys(ATTACKS, 401)


async def test_the_same_names_from_another_issuer_are_somebody_else(gate: Any) -> None:
    masters = Caller(issuer=OWN, claims=(Claim(path=("groups",), value="system:masters", listed=True),))
    user = Caller(issuer="corp", claims=(Claim(path=("sub",), value="ana"),))
    access = Access(callers=(*GROUP_OF_CORP.callers, user, masters))
    issuers = tuple(tokens_testing.issuer(name) for name in ("corp", "partner", OWN))
    await gate.hold(Platform(issuers=issuers), access)
    await gate.becomes(tokens_testing.token("corp", groups=["analysts"], sub="x"), 200)
    assert await gate.call(tokens_testing.token("corp", sub="ana")) == 200
    assert await gate.call(tokens_testing.token("partner", groups=["analysts"], sub="ana")) == 403
    assert await gate.call(tokens_testing.token("partner", groups=["corp:analysts"], sub="corp:ana")) == 403
    assert await gate.call(tokens_testing.token("corp", groups=["system:masters"], sub="x")) == 403
    assert await gate.call(tokens_testing.token(OWN, groups=["system:masters"], sub="owner")) == 200
    assert await gate.call(tokens_testing.token(OWN, groups=["analysts"], sub="ana")) == 403


async def test_an_issuer_without_keys_believes_nothing_and_disturbs_no_other(gate: Any) -> None:
    down = Issuer(name="down", url="https://down.example", audiences=(tokens_testing.AUDIENCE,))
    await gate.hold(Platform(issuers=(down, tokens_testing.issuer("corp"))), GROUP_OF_CORP)
    await gate.becomes(tokens_testing.token("corp", groups=["analysts"]), 200)
    assert await gate.call(tokens_testing.token("down", groups=["analysts"])) == 401


async def test_a_revoked_token_is_refused_and_others_of_the_same_user_are_not(gate: Any) -> None:
    access = Access(callers=(Caller(issuer=OWN, claims=(Claim(path=("sub",), value="ana"),)),))
    first, second = (tokens_testing.token(OWN, jti=each) for each in ("first", "second"))
    await gate.hold(Platform(issuers=(tokens_testing.issuer(OWN),)), access)
    await gate.becomes(first, 200)
    await gate.hold(Platform(issuers=(tokens_testing.issuer(OWN),), revoked=("first",)), access)
    await gate.becomes(first, 401)
    assert await gate.call(second) == 200
    assert json.loads(tokens_testing.issuer(OWN).keys)["keys"]


async def test_the_keys_that_our_tokens_are_verified_with_are_public(gate: Any) -> None:
    issuers = (tokens_testing.issuer(OWN), tokens_testing.issuer(ACCOUNTS, signer(kid="k")), tokens_testing.issuer("x"))
    await gate.hold(Platform(issuers=issuers, anonymous=False), Access())
    found = await fetch(KeySource(name="us", url="-", jwks_uri=f"{gate.gateway.url}/.well-known/jwks.json"))
    assert [each["kid"] for each in json.loads(found.keys)["keys"]] == [OWN, "k"]
    assert found.lifetime == 300
