"""The client where the gateway wants to know who calls, and speaks TLS."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import modelyard
from certificates_testing import Authority, server_context
from modelyard.base.errors import RetryLater, UserError
from modelyard.sdk.client import NotAuthenticated
from sdk_testing import Gateway, gateway

TOKEN = "ey.test.token"


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "ca.crt"
    path.write_text(authority.pem)
    return path


@pytest.fixture
def secured(authority: Authority, tmp_path: Path) -> Iterator[Gateway]:
    with gateway(server_context(authority.sign("gateway"), tmp_path)) as found:
        yield found


def test_a_token_goes_with_every_request(secured: Gateway, ca: Path) -> None:
    secured.token = TOKEN
    with modelyard.Client(secured.url, token=TOKEN, ca=ca) as client:
        assert client.predict("double", [1]) == [2]
        assert client.ready("double")
    assert secured.borne == [f"Bearer {TOKEN}"] * 3
    assert TOKEN not in repr(client)


def test_without_a_token_none_is_sent(secured: Gateway, ca: Path) -> None:
    with modelyard.Client(secured.url, ca=ca) as client:
        client.predict("double", [1])
        secured.token = TOKEN
        with pytest.raises(NotAuthenticated, match=r"^a token is needed$"):
            client.predict("double", [1])
    assert set(secured.borne) == {None}


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "\xe9", "x" * 20_000])
def test_what_cannot_be_a_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(UserError, match="token: expected one word of printable ASCII") as refused:
        modelyard.Client("http://127.0.0.1:1", token=token)
    assert not token or token not in refused.value.message


def test_an_authority_that_is_not_known_is_said_with_what_to_do(secured: Gateway) -> None:
    with modelyard.Client(secured.url) as client, pytest.raises(UserError) as refused:
        client.predict("double", [1])
    assert f"the certificate of {secured.url} is not trusted" in refused.value.message
    assert "give the authority that signed it as ca" in refused.value.message


def test_a_caller_shows_its_certificate_where_that_is_wanted(authority: Authority, ca: Path, tmp_path: Path) -> None:
    ana, late = authority.sign("ana"), authority.sign("late", days=-1)
    paths = {}
    for name, pair in (("ana", ana), ("late", late)):
        paths[name] = tmp_path / f"{name}.pem"
        paths[name].write_text(pair.certificate + pair.key)
    with gateway(server_context(authority.sign("gateway"), tmp_path, authority.pem)) as mutual:
        with modelyard.Client(mutual.url, ca=ca, certificate=paths["ana"]) as client:
            assert client.predict("double", [1]) == [2]
        for certificate in (None, paths["late"]):
            with (
                modelyard.Client(mutual.url, ca=ca, certificate=certificate) as client,
                pytest.raises((UserError, RetryLater)) as refused,
            ):
                client.predict("double", [1])
            assert re.search("wants? (to see )?a certificate of the caller", refused.value.message)


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.pem"
    path.write_text("no PEM")
    url = "https://127.0.0.1:1"
    with pytest.raises(UserError, match=r"ca .*odd\.pem: cannot be used .*expected a PEM file of certificates"):
        modelyard.Client(url, ca=path)
    with pytest.raises(UserError, match=r"ca .*gone: cannot be used \(No such file or directory\)"):
        modelyard.Client(url, ca=tmp_path / "gone")
    with pytest.raises(UserError, match=r"certificate .*odd\.pem: cannot be used .*its key, without a password"):
        modelyard.Client(url, certificate=path)
    with pytest.raises(UserError, match="are for https"):
        modelyard.Client("http://127.0.0.1:1", ca=path)


def test_the_wrong_scheme_is_said(secured: Gateway, ca: Path) -> None:
    with gateway() as plain:
        swapped = plain.url.replace("http:", "https:")
        with modelyard.Client(swapped, ca=ca) as client, pytest.raises(UserError, match="does not speak TLS"):
            client.predict("double", [1])


def test_a_limit_is_waited_for_as_long_as_the_time_allows(secured: Gateway, ca: Path) -> None:
    limited = (429, {"Retry-After": "1"}, b'{"error":"asked too often"}')
    secured.script = [limited]
    with modelyard.Client(secured.url, ca=ca, timeout=20) as client:
        began = time.monotonic()
        assert client.predict("double", [1]) == [2]
        assert time.monotonic() - began >= 1
        secured.script = [(429, {"Retry-After": "3600"}, b'{"error":"asked too often"}')]
        with pytest.raises(RetryLater, match="asked too often") as refused:
            client.predict("double", [1])
    assert refused.value.retry_after_seconds == 3600
