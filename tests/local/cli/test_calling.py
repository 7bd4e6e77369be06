"""As whom commands call models."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates_testing import Authority, server_context
from modelyard.cli import main
from sdk_testing import Gateway, gateway

TOKEN = "ey.test.token"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.chdir(tmp_path)
    for name in ("MODELYARD_TOKEN", "MODELYARD_CA", "MODELYARD_CERT"):
        monkeypatch.delenv(name, raising=False)
    authority = Authority()
    Path("ca.crt").write_text(authority.pem)
    with gateway(server_context(authority.sign("gateway"), tmp_path)) as found:
        found.token = TOKEN
        yield found


def predict(server: Gateway, *options: str) -> int:
    return main(["predict", "digits", "--url", server.url, "--ca", "ca.crt", "--data", "[1, 2]", *options])


def test_a_token_comes_from_a_file_or_the_environment(
    server: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ana.token").write_text(f"{TOKEN}\n")
    assert predict(server, "--token-file", "ana.token") == 0
    monkeypatch.setenv("MODELYARD_TOKEN", TOKEN)
    assert predict(server) == 0
    monkeypatch.setenv("MODELYARD_TOKEN", "other")
    assert predict(server, "--token-file", "ana.token") == 0
    assert TOKEN not in capsys.readouterr().err


def test_without_a_token_one_learns_how_to_give_it(server: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(server) == 1
    assert capsys.readouterr().err == "error: a token is needed; give it by --token-file FILE or MODELYARD_TOKEN\n"


def test_a_token_that_is_not_accepted_is_named_by_where_it_came_from(
    server: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELYARD_TOKEN", "another.one")
    assert predict(server) == 1
    error = capsys.readouterr().err
    assert error == "error: a token is needed (the token is that of MODELYARD_TOKEN)\n"
    assert "another.one" not in error


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * 17_000, b"two words"])
def test_a_file_without_a_token_is_refused(server: Gateway, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd").write_bytes(content)
    assert predict(server, "--token-file", "odd") == 1
    assert "as 'modelyard token create' prints it" in capsys.readouterr().err
    assert predict(server, "--token-file", "gone") == 1
    assert "--token-file gone: cannot be read (No such file or directory)" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_the_same_without_the_token_being_printed(
    server: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELYARD_TOKEN", TOKEN)
    Path("ana.token").write_text(TOKEN)
    for options, header in ([], "$MODELYARD_TOKEN"), (["--token-file", "ana.token"], "$(cat ana.token)"):
        assert predict(server, "--curl", *options) == 0
        command = capsys.readouterr().out
        assert f'-H "Authorization: Bearer {header}"' in command
        assert TOKEN not in command
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert '"label"' in done.stdout


def test_the_authority_may_be_in_the_environment(server: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CA", "ca.crt")
    monkeypatch.setenv("MODELYARD_TOKEN", TOKEN)
    assert main(["predict", "digits", "--url", server.url, "--data", "[1, 2]"]) == 0


def test_a_token_in_plain_text_to_another_machine_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELYARD_TOKEN", TOKEN)
    # Nothing answers there: an address that is kept for documentation.
    main(["predict", "digits", "--url", "http://192.0.2.1:9", "--data", "[1, 2]", "--timeout", "0.1"])
    error = capsys.readouterr().err
    assert "warning: the token goes to 192.0.2.1 in plain text" in error
    assert TOKEN not in error
