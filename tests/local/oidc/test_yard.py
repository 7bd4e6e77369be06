"""`modelyard up` with a real OpenID provider, real kubectl and our own issuer: who is believed, and what outages do."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import yard_testing
from kubectl_testing import Kubectl
from oidc_testing import RealProvider
from yard_testing import Yard, service, wait_until, write_onnx

NAMESPACE = ("-n", "modelyard-system")
pytestmark = pytest.mark.timeout(900)  # the first test may have to build kubectl


class Place:
    """A server with one model, told to believe a provider."""

    def __init__(self, yard: Yard, kubectl: Kubectl) -> None:
        self.yard = yard
        self.kubectl = kubectl

    def settle(self, *issuers: dict[str, Any], **gateway: Any) -> None:
        """Make these the platform's settings."""
        text = json.dumps({"issuers": issuers, "gateway": {"authentication": "required", **gateway}})
        self.write(text)

    def write(self, text: str, key: str = "settings.yaml") -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "modelyard", "namespace": "modelyard-system"},
            "data": {key: text},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def grant(self, name: str, *subject: str) -> None:
        """Let somebody predict with `iris`."""
        self.kubectl("create", "rolebinding", name, "--role=iris-users", *subject)

    def call(self, token: str = "") -> int:
        return yard_testing.call(self.yard.url, "iris", token)

    def becomes(self, token: str, status: int) -> None:
        wait_until(lambda: self.call(token) == status, f"a call that is answered with {status}")

    def token(self, *arguments: str, stdin: str | None = None) -> str:
        """What `modelyard token` prints on standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "modelyard", "token", *arguments],
            cwd=self.yard.folder,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def events(self) -> str:
        return self.kubectl("describe", "configmap", "modelyard", *NAMESPACE)


def issuer(provider: RealProvider, name: str = "corp", **more: Any) -> dict[str, Any]:
    return {"name": name, "url": provider.url, "audiences": ["modelyard"], **more}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    write_onnx(tmp_path / "models/iris.onnx", 1.0)
    with Yard(tmp_path) as yard:
        kubectl = Kubectl(yard.data / "kubeconfig", tmp_path)
        yard.apply(service("iris", model={"uri": "models/iris.onnx"}))
        kubectl("create", "role", "iris-users", "--verb=predict", "--resource=modelservices.modelyard.dev")
        yield Place(yard, kubectl)


def test_users_of_a_provider_may_do_what_roles_say_and_its_outages_are_survived(place: Place) -> None:
    assert place.call() == 200  # a laptop is open
    with RealProvider() as provider:
        provider.do("down")
        place.settle(issuer(provider))
        place.becomes("", 401)
        wait_until(lambda: "IssuerUnreachable" in place.events(), "the event about the provider")
        provider.do("up")
        ana, bo = provider.token("ana"), provider.token("bo")
        place.becomes(ana, 403)
        place.grant("analysts", "--group=corp:analysts")
        place.becomes(ana, 200)
        assert place.call(bo) == 403
        place.grant("bo", "--user=corp:bo")
        place.becomes(bo, 200)
        assert place.call(provider.token("ana", "EdDSA")) == 200
        assert place.call(provider.token("ana", audience="another")) == 401

        # Down, and the server is started again meanwhile: the keys that were known count.
        provider.do("down")
        place.yard.stop()
        place.yard.start()
        place.becomes(ana, 200)
        assert place.call() == 401
        provider.do("up")

        provider.do("slow 2000")
        assert place.call(ana) == 200
        provider.do("slow 0")
        provider.do("rotate")
        rotated = provider.token("ana")
        place.becomes(rotated, 200)
        place.becomes(ana, 401)


def test_the_same_names_of_another_provider_or_of_nobody_are_not_the_same_people(place: Place) -> None:
    with RealProvider() as corp, RealProvider() as partner:
        place.settle(issuer(corp), issuer(partner, "partner"))
        place.grant("analysts", "--group=corp:analysts", "--user=ana")
        place.kubectl("create", "rolebinding", "all", "--role=iris-users", "--group=partner:nobody")
        place.becomes(corp.token("ana"), 200)
        place.becomes(partner.token("ana"), 403)
        assert place.call(place.token("create", "--user", "ana")) == 200
        assert place.call(place.token("create", "--user", "bo", "--group", "analysts")) == 403
        assert place.call(corp.token("bo")) == 403


def test_our_own_tokens_can_be_made_rotated_and_revoked(place: Place) -> None:
    place.settle()
    place.grant("ana", "--user=ana", "--group=team")
    ana, bo = place.token("create", "--user", "ana"), place.token("create", "--user", "bo", "-g", "team")
    owner = place.token("create")
    for token in (ana, bo, owner):
        place.becomes(token, 200)
    assert place.call(place.token("create", "--user", "cy")) == 403

    place.token("revoke", "-", stdin=f"{ana}\n")
    place.becomes(ana, 401)
    made = json.loads(place.token("create", "--user", "ana", "-o", "json"))
    place.becomes(made["token"], 200)
    place.token("revoke", made["id"])
    place.becomes(made["token"], 401)
    assert place.call(bo) == 200

    place.token("rotate", "--grace", "10m")
    again = place.token("create", "--user", "ana")
    place.becomes(again, 200)
    assert place.call(bo) == 200
    assert place.call(ana) == 401
    place.token("rotate", "--grace", "0")
    for token in (again, bo, owner, ana):
        place.becomes(token, 401)
    place.kubectl("delete", "secret", "modelyard-issuer", *NAMESPACE)
    wait_until(lambda: place.kubectl.run("get", "secret", "modelyard-issuer", *NAMESPACE, code=None).code == 0, "a key")
    place.becomes(place.token("create", "--user", "ana"), 200)
    assert not [each for each in place.yard.data.rglob("*.log") if "eyJ" in each.read_text(errors="replace")]


def test_a_service_account_is_believed_as_long_as_it_exists(place: Place) -> None:
    place.settle()
    place.kubectl("create", "serviceaccount", "robot")
    token = place.kubectl("create", "token", "robot").strip()
    place.becomes(token, 403)
    robot = ("--as", "system:serviceaccount:default:robot")
    assert "no" in place.kubectl.run("auth", "can-i", "get", "secret/modelyard-issuer", *NAMESPACE, *robot, code=1).out
    place.grant("robot", "--serviceaccount=default:robot")
    place.becomes(token, 200)
    place.kubectl("delete", "serviceaccount", "robot")
    wait_until(lambda: place.call(token) in (401, 403), "the account's end")
    place.kubectl("create", "serviceaccount", "robot")
    place.becomes(place.kubectl("create", "token", "robot").strip(), 200)
    assert place.call(token) in (401, 403)


def test_settings_that_cannot_be_read_or_are_gone_change_nothing_at_a_start_either(place: Place) -> None:
    place.settle()
    owner = place.token("create")
    place.becomes("", 401)
    place.write("gateway: {authentication: maybe}\nissuers: 5\n")
    wait_until(lambda: "SettingsInvalid" in place.events(), "the event")
    told = place.events()
    assert "gateway.authentication: input should be" in told
    assert "issuers: expected a list" in told
    assert "the last good settings stay in force" in told
    assert (place.call(), place.call(owner)) == (401, 200)
    place.yard.stop()
    place.yard.start()
    place.becomes(owner, 200)
    assert place.call() == 401
    place.write("gateway: {}", key="settings.yml")
    place.kubectl("delete", "configmap", "modelyard", *NAMESPACE)
    wait_until(lambda: "modelyard-system/modelyard is gone" in place.kubectl("get", "events", *NAMESPACE), "the event")
    assert (place.call(), place.call(owner)) == (401, 200)
    place.write("{}")
    place.becomes("", 200)
