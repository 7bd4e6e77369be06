"""Fetch the keys of one issuer: its discovery document names its key set, which is read and filtered.

Source: OpenID Connect Discovery 1.0 section 4, RFC 8414, RFC 7517. Nothing that is sent back is trusted: sizes, times
and redirects are bounded, and the issuer that a document names must be the one that was asked.
"""

import asyncio
import ipaddress
import re
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec

from modelyard.base.errors import RetryLater
from modelyard.control.ir.platform import KeySource
from modelyard.wire import jwks

DISCOVERY = "/.well-known/openid-configuration"
FETCH_SECONDS = 10.0
"""For one document, from the name's look-up to its last byte."""
_MOST_REDIRECTS = 3
_LARGEST_DISCOVERY_BYTES = 64 * 1024
_LONGEST_URL = 2048
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:$|[\s,])", re.IGNORECASE)
_EXPECTED = "expected https://, or http:// on a loopback address"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """keys: a key set with sound keys only. lifetime: seconds that the issuer allows to keep it, if it says so."""

    keys: str
    lifetime: float | None = None
    skipped: tuple[str, ...] = ()


async def fetch(source: KeySource, seconds: float = FETCH_SECONDS) -> Fetched:
    """The keys as they are now. Raises RetryLater with what was wrong, for whatever reason: issuers come back."""
    trust = await asyncio.to_thread(_trust, source.certificate_authority)
    connector = aiohttp.TCPConnector(ssl=trust, force_close=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        place = source.jwks_uri or await _discovered(session, source.url, seconds)
        body, lifetime = await _get(session, place, jwks.LARGEST_BYTES, seconds)
    try:
        found = jwks.read(body)
    except ValueError as error:
        raise RetryLater(f"the key set {place} cannot be used: {error}") from error
    return Fetched(keys=found.text, lifetime=lifetime, skipped=found.skipped)


async def _discovered(session: aiohttp.ClientSession, issuer: str, seconds: float) -> str:
    """Where the keys are."""
    url = issuer.rstrip("/") + DISCOVERY
    body, _ = await _get(session, url, _LARGEST_DISCOVERY_BYTES, seconds)
    try:
        return place_of_keys(issuer, body)
    except ValueError as error:
        raise RetryLater(f"the discovery document {url} {error}") from error


def place_of_keys(issuer: str, document: bytes) -> str:
    """What a discovery document says. Raises ValueError with what is wrong with the document."""
    try:
        found: Any = msgspec.json.decode(document)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise ValueError("is not JSON") from None
    said = found.get("issuer") if isinstance(found, dict) else None
    if said != issuer:
        raise ValueError(f"is of the issuer {_shown(said)}: put that into issuers[].url if it is meant")
    place = found.get("jwks_uri")
    if not isinstance(place, str) or len(place) > _LONGEST_URL:
        raise ValueError("has no jwks_uri")
    if not is_safe(place, issuer):
        raise ValueError(f"names {_shown(place)} as jwks_uri: {_EXPECTED}")
    return place


async def _get(session: aiohttp.ClientSession, url: str, limit: int, seconds: float) -> tuple[bytes, float | None]:
    """-> a document and its lifetime."""
    try:
        async with asyncio.timeout(seconds):
            return await _followed(session, url, limit)
    except TimeoutError:
        raise RetryLater(f"{url} did not answer within {seconds:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise RetryLater(f"{url} cannot be read: {_told(error)}") from error


async def _followed(session: aiohttp.ClientSession, url: str, limit: int) -> tuple[bytes, float | None]:
    place = url
    for _ in range(_MOST_REDIRECTS + 1):
        if not is_safe(place, url):
            raise RetryLater(f"{url} leads to {_shown(place)}: {_EXPECTED}")
        # What is compressed could grow without bounds; key sets are small.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with session.get(place, headers=headers, allow_redirects=False) as answer:
            if answer.status in _REDIRECTS:
                place = urljoin(place, answer.headers.get("Location", ""))[:_LONGEST_URL]
                continue
            if answer.status != 200:
                raise RetryLater(f"{place} answered with status {answer.status}")
            if "Content-Encoding" in answer.headers:
                raise RetryLater(f"{place} answered with Content-Encoding, which was not asked for")
            return await _body(answer, limit), lifetime(answer.headers.get("Cache-Control", ""))
    raise RetryLater(f"{url} redirects more than {_MOST_REDIRECTS} times")


async def _body(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    parts, size = [], 0
    async for chunk in answer.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            raise RetryLater(f"{answer.url} answered with more than {limit} bytes")
    return b"".join(parts)


def is_safe(place: str, origin: str) -> bool:
    """Only https, or this machine; and from https no way back."""
    try:
        parts = urlsplit(place)
        host = parts.hostname or ""
    except ValueError:
        return False
    plain = parts.scheme == "http" and _is_loopback(host) and urlsplit(origin).scheme == "http"
    return bool(host) and (parts.scheme == "https" or plain) and parts.username is None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def lifetime(cache_control: str) -> float | None:
    """Seconds for which a Cache-Control allows to keep an answer; None where it does not say."""
    if re.search(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,=])", cache_control, re.IGNORECASE):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else None


def _trust(authority: str) -> ssl.SSLContext:
    """Only those authorities where some are given. Raises RetryLater."""
    try:
        return ssl.create_default_context(cadata=authority or None)
    except (ssl.SSLError, ValueError) as error:
        raise RetryLater(f"certificateAuthority holds no certificates in PEM: {error}") from error


def _told(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:300]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
