import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.gateway import jwks

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLACES = st.text(max_size=40) | st.builds(
    "{}{}{}".format,
    st.sampled_from(("https://", "http://", "HTTP://", "file:///", "//", "")),
    st.sampled_from(
        ("keys.example", "127.0.0.1", "localhost", "[::1]", "[::", "a@keys.example", "localhost:1@k.example")
    ),
    st.text(max_size=10),
)


@given(st.binary(max_size=100) | ANY.map(lambda value: json.dumps(value).encode()))
def test_no_document_breaks_the_reader(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|names) "):
        jwks.place_of_keys("https://corp.example", document)


@given(st.sampled_from(("https://corp.example", "http://127.0.0.1:80")), PLACES | ANY)
def test_keys_are_only_ever_fetched_safely(issuer: str, place: Any) -> None:
    document = json.dumps({"issuer": issuer, "jwks_uri": place}).encode()
    try:
        found = urlsplit(jwks.place_of_keys(issuer, document))
    except ValueError:
        return
    assert found.username is None
    if found.scheme != "https":
        assert (found.scheme, issuer) == ("http", "http://127.0.0.1:80")
        assert found.hostname in ("127.0.0.1", "localhost", "::1")


@given(st.text(max_size=60))
def test_whatever_cache_control_says_it_is_seconds_or_nothing(text: str) -> None:
    found = jwks.lifetime(text)
    assert found is None or 0 <= found < 1e9
