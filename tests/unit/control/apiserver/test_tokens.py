"""Tokens of ServiceAccounts and the key that signs them."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.clock import ManualClock
from modelyard.base.errors import UserError
from modelyard.control.apiserver.tokens import Account, Tokens, key_in, made

ANA = Account("default", "ana", "u1")
KEY = made()


def payload(token: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return found


def test_a_token_says_whose_it_is_until_it_ends() -> None:
    clock = ManualClock()
    tokens = Tokens(KEY, clock)
    token, expires = tokens.issue(ANA, [], 600)
    found = tokens.read(token)
    assert found is not None
    assert (found.account, found.expires) == (ANA, expires)
    assert payload(token)["sub"] == "system:serviceaccount:default:ana"
    clock.advance(599)
    assert tokens.read(token) is not None
    clock.advance(1)
    assert tokens.read(token) is None


def test_a_token_of_a_clock_that_went_back_is_not_yet_valid() -> None:
    clock = ManualClock()
    token, _ = Tokens(KEY, clock).issue(ANA, [], 600)
    clock.jump(-60)
    assert Tokens(KEY, clock).read(token) is None


def test_another_audience_or_key_is_not_ours() -> None:
    clock = ManualClock()
    tokens = Tokens(KEY, clock)
    assert tokens.read(tokens.issue(ANA, ["elsewhere"], 600)[0]) is None
    assert tokens.read(tokens.issue(ANA, ["elsewhere", "modelyard"], 600)[0]) is not None
    assert Tokens(made(), clock).read(tokens.issue(ANA, [], 600)[0]) is None


TOKENS = Tokens(KEY, ManualClock())
TOKEN = TOKENS.issue(ANA, [], 600)[0]


@given(st.text(max_size=40), st.integers(0, len(TOKEN) - 1), st.characters())
def test_whatever_is_changed_in_a_token_it_is_not_taken(text: str, at: int, other: str) -> None:
    changed = TOKEN[:at] + other + TOKEN[at + 1 :]
    # The last character of a signature has bits that stand for nothing.
    assert TOKENS.read(changed) is None or changed[:-1] == TOKEN[:-1]
    for each in (
        text,
        f"{TOKEN}{text}." if text else "",
        f"{text}.{text}.{text}",
        f"{TOKEN.rpartition('.')[0]}.{text}",
    ):
        assert TOKENS.read(each) is None


def test_the_key_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "accounts.key"
    first = key_in(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_in(path).private_numbers() == first.private_numbers()


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_named_with_the_way_out(tmp_path: Path, content: str) -> None:
    path = tmp_path / "accounts.key"
    path.write_text(content)
    with pytest.raises(UserError, match="remove it to have a new one made"):
        key_in(path)
