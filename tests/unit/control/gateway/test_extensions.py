"""A filter that Envoy refuses shuts out, whatever it was before."""

from typing import Any

import pytest

import tokens_testing as tokens
from modelyard.base.errors import UserError
from modelyard.control.gateway.extensions import Extensions
from modelyard.control.ir.platform import Issuer, Platform
from modelyard.control.render import xds, xds_access

OPEN = Platform(authentication="none")


class Envoy:
    """Has what it is told, but for what the test refuses."""

    def __init__(self) -> None:
        self.told: dict[str, dict[str, Any]] = {}
        self.refuses: set[str] = set()

    def put(self, kind: str, name: str, body: dict[str, Any]) -> None:
        assert kind == xds.EXTENSION
        if "unsayable" in str(body):
            raise UserError("it cannot be said")
        self.told[name] = body

    def remove(self, kind: str, name: str) -> None:
        raise AssertionError((kind, name))

    def holds(self, kind: str, name: str) -> bool:
        return not self.refusal(kind, name)

    def refusal(self, kind: str, name: str) -> str:
        assert kind == xds.EXTENSION
        return "bad" if name in self.refuses and self.told[name] != xds_access.closed(name) else ""


@pytest.mark.parametrize("name", xds_access.EXTENSIONS)
def test_what_is_refused_becomes_closed_until_the_platform_changes(name: str, caplog: pytest.LogCaptureFixture) -> None:
    envoy = Envoy()
    extensions = Extensions(envoy)
    extensions.aim(OPEN)
    extensions.settle()
    assert extensions.in_force()
    assert envoy.told == xds_access.extensions(OPEN)
    envoy.refuses = {name}
    changed = Platform(issuers=(tokens.issuer("corp"),), local_only=True, revoked=("x",), accounts=())
    extensions.aim(changed)
    extensions.settle()
    extensions.settle()
    extensions.aim(changed)
    assert envoy.told == xds_access.extensions(changed) | {name: xds_access.closed(name)}
    assert caplog.text.count(f"the gateway's filter {name} was refused") == 1
    envoy.refuses = set()
    extensions.aim(OPEN)
    assert envoy.told == xds_access.extensions(OPEN)


def test_what_cannot_be_said_becomes_closed() -> None:
    envoy = Envoy()
    extensions = Extensions(envoy)
    extensions.aim(Platform(authentication="none", revoked=("unsayable",)))
    assert envoy.told[xds_access.DOORMAN] == xds_access.closed(xds_access.DOORMAN)
    assert envoy.told[xds_access.ALLOW] == xds_access.extensions(OPEN)[xds_access.ALLOW]


def test_before_anything_is_known_nobody_is_believed_and_nobody_admitted() -> None:
    found = xds_access.extensions(Platform())
    assert "providers" not in found[xds_access.AUTHENTICATE]["typed_config"]
    assert found[xds_access.ALLOW]["typed_config"]["rules"]["policies"].keys() == {"nobody"}


def test_an_issuer_that_lacks_keys_or_audiences_is_not_believed() -> None:
    for issuer in (
        Issuer(name="corp", url="https://corp", audiences=("x",)),
        Issuer(name="corp", url="https://corp", audiences=("x",), keys='{"keys": []}'),
        Issuer(name="corp", url="https://corp", audiences=("x",), keys='{"keys": [{"kty": "oct", "k": "AAAA"}]}'),
        Issuer(name="corp", url="https://corp", audiences=(), keys='{"keys": []}'),
    ):
        found = xds_access.extensions(Platform(issuers=(issuer,)))[xds_access.AUTHENTICATE]
        assert "providers" not in found["typed_config"]
