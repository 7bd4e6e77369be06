"""Tokens of Modelyard's own issuer, for people who have no identity provider.

Everything goes through the Secret that holds the issuer's key, so that roles say who may make tokens: on a laptop and
on Kubernetes, whoever may read Secrets in the system namespace; and who may change them can rotate and revoke.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.api import issuer
from modelyard.api.issuer import OwnIssuer, Revoked
from modelyard.api.settings import NAMESPACE
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.resources import SECRETS
from modelyard.sdk.objects import Object
from modelyard.wire import jose

OWNER = "owner"
MASTERS = "system:masters"
SHORTEST_SECONDS, LONGEST_SECONDS = 60, 90 * 24 * 3600
_SKEW_SECONDS = 300
"""A gateway whose clock differs takes tokens for a moment after their end: what revokes them must last longer."""
_MOST_GROUPS = 64
_MOST_ATTEMPTS = 5
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bearer:
    """Whom a token is for. No names: the owner of the server, who may call everything."""

    user: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A new token. expires: seconds since 1970. id: what `revoke` takes."""

    token: str
    id: str
    user: str
    groups: tuple[str, ...]
    expires: int

    def __repr__(self) -> str:
        return f"Made(id={self.id!r}, user={self.user!r})"  # the token belongs into no log


async def create(client: Client, bearer: Bearer, seconds: float, now: float) -> Made:
    """A token that counts from now for so many seconds. Raises UserError where a name or the time cannot be had."""
    user, groups = _names(bearer)
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise UserError(f"a token lasts at least 1m and at most {LONGEST_SECONDS // 3600}h (90 days)")
    found, _ = await _read(client)
    made = Made(token="", id=str(uuid.uuid4()), user=user, groups=groups, expires=int(now + seconds))
    claims = {
        "iss": issuer.URL,
        "sub": user,
        "groups": list(groups),
        "aud": [issuer.AUDIENCE],
        "iat": int(now),
        "nbf": int(now),
        "exp": made.expires,
        "jti": made.id,
    }
    return Made(token=jose.signed(found.key, claims), id=made.id, user=user, groups=groups, expires=made.expires)


async def rotate(client: Client, grace: float, now: float) -> None:
    """Sign with a new key from now on. Tokens of earlier keys count for `grace` seconds more; 0: all end at once."""
    if not 0 <= grace <= LONGEST_SECONDS:
        raise UserError(f"--grace: expected 0 to {LONGEST_SECONDS // 3600}h")
    key = ec.generate_private_key(ec.SECP256R1())
    await _change(client, lambda found: issuer.rotated(found, key, now, grace))


async def revoke(client: Client, text: str, now: float) -> str:
    """End one token, given by its id or as it is. -> its id. Raises UserError where the text is neither."""
    found, _ = await _read(client)
    token = _revoked(found, text.strip(), now)
    await _change(client, lambda latest: issuer.revoking(latest, token, now))
    return token.id


def _revoked(found: OwnIssuer, text: str, now: float) -> Revoked:
    """An id alone does not say when its token expires: it is remembered for as long as any token lasts."""
    if _ID.fullmatch(text):
        return Revoked(id=text, expires=now + LONGEST_SECONDS + _SKEW_SECONDS)
    keys = (found.key.public_key(), *(_public(each.key) for each in found.previous))
    said = next((claims for key in keys if (claims := jose.claims(text, key)) is not None), None)
    identity, end = (said or {}).get("jti"), (said or {}).get("exp")
    if not isinstance(identity, str) or not isinstance(end, int):
        raise UserError(
            "that is neither the id of a token (as 'modelyard token create' prints it) nor a token of this server's "
            "own issuer; tokens of other issuers are revoked where they were made"
        )
    if end + _SKEW_SECONDS <= now:
        raise UserError("that token has expired already")
    return Revoked(id=identity, expires=float(end + _SKEW_SECONDS))


def _public(jwk: dict[str, str]) -> ec.EllipticCurvePublicKey:
    x, y = (int.from_bytes(jose.decoded(jwk[each]), "big") for each in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _names(bearer: Bearer) -> tuple[str, tuple[str, ...]]:
    """-> user, groups. A colon would let a name look like that of another issuer, or of the system."""
    if not bearer.user:
        if bearer.groups:
            raise UserError("--group: name the --user whose groups these are")
        return OWNER, (MASTERS,)
    groups = tuple(dict.fromkeys(bearer.groups))
    if len(groups) > _MOST_GROUPS:
        raise UserError(f"--group: at most {_MOST_GROUPS} groups")
    for option, name in (("--user", bearer.user), *(("--group", each) for each in groups)):
        if not 1 <= len(name) <= 253 or name != name.strip() or not name.isprintable() or ":" in name:
            raise UserError(f"{option} {name!r}: expected up to 253 printable characters without ':'")
    return bearer.user, groups


async def _change(client: Client, decide: Callable[[OwnIssuer], OwnIssuer]) -> None:
    """Change the Secret as it is then; again where somebody else has changed it in the meantime."""
    for _ in range(_MOST_ATTEMPTS):
        found, body = await _read(client)
        version = {"resourceVersion": body["metadata"]["resourceVersion"]}
        try:
            changed = {"metadata": version, "data": issuer.data(decide(found))}
            await client.patch(SECRETS, NAMESPACE, issuer.NAME, changed)
            return
        except ApiError as error:
            if not error.conflict:
                raise
    raise RetryLater(f"{issuer.SUBJECT} is being changed by others; try again")


async def _read(client: Client) -> tuple[OwnIssuer, Object]:
    try:
        body = await client.get(SECRETS, NAMESPACE, issuer.NAME)
    except ApiError as error:
        if error.status != 404:
            raise
        raise RetryLater(f"there is no {issuer.SUBJECT} yet: the server makes it when it starts") from error
    return issuer.read(body), body
