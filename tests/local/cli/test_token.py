"""`modelyard token`, against the embedded API server."""

import io
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cli_testing import Project
from modelyard.api import issuer
from modelyard.api.issuer import OwnIssuer
from modelyard.control.kube.resources import SECRETS
from modelyard.wire import jose

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(autouse=True)
def issuing(project: Project) -> None:
    """What a server makes when it starts."""
    project.call(lambda client: client.create(SECRETS, issuer.secret(OwnIssuer(key=KEY))))


def stored(project: Project) -> OwnIssuer:
    return issuer.read(project.call(lambda client: client.get(SECRETS, "modelyard-system", issuer.NAME)))


def claims(token: str) -> dict[str, Any]:
    found = jose.claims(token.strip(), KEY.public_key())
    assert found is not None
    return found


def test_a_token_is_all_that_standard_output_gets(project: Project) -> None:
    done = project.run("token", "create", "--user", "ana", "-g", "team", "-g", "all", "-g", "team", "--ttl", "8h")
    assert done.status == 0, done.err
    said = claims(done.out)
    assert done.out.count("\n") == 1
    assert (said["iss"], said["aud"], said["sub"]) == ("modelyard:users", ["modelyard"], "ana")
    assert said["groups"] == ["team", "all"]
    assert abs(said["exp"] - said["nbf"] - 8 * 3600) < 1
    assert abs(said["nbf"] - time.time()) < 30
    assert f"token {said['jti']} of user ana, groups team, all; it ends at 20" in done.err
    assert done.out.strip() not in done.err


def test_programs_get_json(project: Project) -> None:
    found = json.loads(project.run("token", "create", "--user", "ana", "-o", "json").out)
    assert found.keys() == {"token", "id", "user", "groups", "expires"}
    assert claims(found["token"])["jti"] == found["id"]


def test_without_a_name_it_is_the_owners_who_may_do_everything(project: Project) -> None:
    said = claims(project.run("token", "create").out)
    assert (said["sub"], said["groups"]) == ("owner", ["system:masters"])
    assert round(said["exp"] - said["nbf"]) == 3600


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--user", "corp:ana"), 1, "--user 'corp:ana': expected up to 253 printable characters without ':'"),
        (("--user", "system:admin"), 1, "--user 'system:admin': expected"),
        (("--user", " "), 1, "--user ' ': expected"),
        (("--user", "a\nb"), 1, "--user 'a\\nb': expected"),
        (("--user", "a" * 254), 1, "expected up to 253"),
        (("--user", "ana", "-g", "system:masters"), 1, "--group 'system:masters': expected"),
        (("-g", "team"), 1, "--group: name the --user whose groups these are"),
        (("--user", "ana", "--ttl", "59s"), 1, "at least 1m and at most 2160h (90 days)"),
        (("--user", "ana", "--ttl", "2161h"), 1, "at least 1m and at most 2160h (90 days)"),
        (("--user", "ana", "--ttl", "tomorrow"), 2, "'tomorrow' is not a duration"),
        (("--user", "ana", *(part for each in range(65) for part in ("-g", f"g{each}"))), 1, "at most 64 groups"),
    ],
)
def test_what_a_token_cannot_say_is_refused(
    project: Project, arguments: tuple[str, ...], status: int, told: str
) -> None:
    done = project.run("token", "create", *arguments)
    assert (done.status, done.out) == (status, "")
    assert told in done.err


def test_a_rotation_makes_a_new_key_and_keeps_the_earlier_one_for_its_grace(project: Project) -> None:
    done = project.run("token", "rotate", "--grace", "10m")
    assert done.status == 0, done.err
    assert done.out == "a new key signs; earlier tokens end in 10m\n"
    found = stored(project)
    (former,) = found.previous
    assert former.key == jose.public_jwk(KEY.public_key())
    assert abs(former.not_after - time.time() - 600) < 30
    assert project.run("token", "rotate", "--grace", "0").out == "a new key signs; all tokens end\n"
    assert stored(project).previous == ()
    assert project.run("token", "rotate", "--grace", "9999h").status == 1


def test_a_token_is_revoked_by_its_id_or_as_it_is_but_never_on_a_command_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(project.run("token", "create", "--user", "ana", "-o", "json").out)
    second = project.run("token", "create", "--user", "ana").out
    assert project.run("token", "revoke", first["id"]).out == f"token {first['id']} is revoked\n"
    refused = project.run("token", "revoke", second.strip())
    assert refused.status == 1
    assert "give it on standard input" in refused.err
    assert second.strip() not in refused.err
    monkeypatch.setattr("sys.stdin", io.StringIO(second))
    assert project.run("token", "revoke", "-").status == 0
    gone = {each.id: each.expires for each in stored(project).revoked}
    assert gone.keys() == {first["id"], claims(second)["jti"]}
    # The gateway takes tokens for a minute after their end.
    assert gone[claims(second)["jti"]] > claims(second)["exp"] + 60


@pytest.mark.parametrize("text", ["", "nonsense", "a.b.c", jose.signed(KEY, {"sub": "x"})[:-3]])
def test_what_is_no_token_of_ours_cannot_be_revoked(
    project: Project, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    done = project.run("token", "revoke", "-")
    assert done.status == 1
    assert "neither the id of a token" in done.err


def test_a_token_that_has_expired_needs_no_revoking(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(jose.signed(KEY, {"exp": 5, "jti": "x"})))
    assert "that token has expired already" in project.run("token", "revoke", "-").err


def test_before_the_server_has_made_its_key_one_is_told_to_wait(project: Project) -> None:
    project.call(lambda client: client.delete(SECRETS, "modelyard-system", issuer.NAME))
    done = project.run("token", "create")
    assert done.status == 3
    assert "the server makes it when it starts" in done.err


@pytest.mark.parametrize("name", ["create", "rotate", "revoke"])
def test_each_part_explains_itself_with_an_example(project: Project, name: str) -> None:
    assert f"Example: modelyard token {name}" in project.run("token", name, "--help").out
