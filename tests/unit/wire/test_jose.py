import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from modelyard.wire import jose

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
TOKEN = jose.signed(KEY, {"sub": "ana"})


def test_a_token_says_what_was_signed_and_only_its_key_vouches_for_it() -> None:
    assert jose.claims(TOKEN, KEY.public_key()) == {"sub": "ana"}
    assert jose.claims(TOKEN, OTHER.public_key()) is None


def test_the_id_of_a_key_follows_from_the_key() -> None:
    jwk = jose.public_jwk(KEY.public_key())
    assert jwk["kid"] == jose.key_id(KEY.public_key()) != jose.key_id(OTHER.public_key())
    assert "d" not in jwk


@given(st.integers(min_value=0, max_value=len(TOKEN) - 1), st.characters(codec="ascii"))
def test_a_token_that_was_changed_is_none(place: int, character: str) -> None:
    changed = TOKEN[:place] + character + TOKEN[place + 1 :]
    found = jose.claims(changed, KEY.public_key())
    # Of the last character some bits are padding.
    assert found is None or changed == TOKEN or place == len(TOKEN) - 1


@pytest.mark.parametrize("text", ["-_+A", "-_/A"])
def test_plain_base64_is_no_base64url(text: str) -> None:
    with pytest.raises(ValueError, match="not base64url"):
        jose.decoded(text)


@given(st.text(max_size=60))
def test_any_other_text_is_none(text: str) -> None:
    assert jose.claims(text, KEY.public_key()) is None
    assert jose.claims(f"{text}.{text}.{text}", KEY.public_key()) is None
