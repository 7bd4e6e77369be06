"""Roles, ServiceAccounts and AccessPolicies on a server as a user starts it, with real kubectl."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import yard_testing
from kubectl_testing import Kubectl
from yard_testing import Yard, service, wait_until, write_onnx

pytestmark = pytest.mark.timeout(900)  # the first test may have to build kubectl


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    write_onnx(tmp_path / "plus.onnx", 1.0)
    with Yard(tmp_path) as started:
        started.apply(*(service(name, model={"uri": "plus.onnx"}) for name in ("iris", "rain")))
        yield started


def policy(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "rule", "namespace": "default"}
    return {"apiVersion": "modelyard.dev/v1alpha1", "kind": "AccessPolicy", "metadata": metadata, "spec": spec}


def call(yard: Yard, name: str, token: str = "") -> int:
    return yard_testing.call(yard.url, name, token)


def becomes(yard: Yard, status: int, name: str = "iris", token: str = "") -> None:
    wait_until(lambda: call(yard, name, token) == status, f"{name}: an answer with {status}")


def test_a_service_is_shut_for_all_but_those_whom_roles_let_in(yard: Yard) -> None:
    kubectl = Kubectl(yard.data / "kubeconfig", yard.folder)
    assert (call(yard, "iris"), call(yard, "rain")) == (200, 200)
    yard.apply(policy(services=["iris"], authentication="required"))
    becomes(yard, 401)
    assert call(yard, "rain") == 200
    assert yard.condition("iris")["status"] == "True"
    assert "holds for 1 service" in yard.cli("why", "accesspolicy/rule")

    kubectl("create", "serviceaccount", "bot")
    token = kubectl("create", "token", "bot").strip()
    becomes(yard, 403, token=token)
    kubectl("create", "role", "callers", "--verb=predict", "--resource=modelservices", "--resource-name=iris")
    kubectl("create", "rolebinding", "callers", "--role=callers", "--serviceaccount=default:bot")
    becomes(yard, 200, token=token)
    claims, _, signature = token.rpartition(".")
    assert call(yard, "iris", f"{claims}.{signature[::-1]}") == 401

    yard.apply(policy(services=["iris"], authentication="required", issuers=["modelyard"]))
    becomes(yard, 403, token=token)
    yard.apply(policy(services=["iris"], authentication="required", issuers=["serviceaccounts"]))
    becomes(yard, 200, token=token)
    kubectl("delete", "rolebinding", "callers")
    becomes(yard, 403, token=token)
    kubectl("create", "clusterrolebinding", "all", "--clusterrole=edit", "--group=system:authenticated")
    becomes(yard, 200, token=token)
    kubectl("delete", "serviceaccount", "bot")
    becomes(yard, 401, token=token)
    kubectl("delete", "accesspolicy", "rule")
    becomes(yard, 200)


def test_what_a_policy_cannot_have_and_what_it_limits_is_told(yard: Yard) -> None:
    limit = {"requests": 2, "per": "1h", "by": "service"}
    yard.apply(policy(services=["rain"], rateLimits=[limit]), wait=False)
    becomes(yard, 429, "rain")
    assert call(yard, "iris") == 200
    yard.apply(policy(services=["rain", "snow"], issuers=["corp"], authentication="required"), wait=False)
    becomes(yard, 401, "rain")
    wait_until(lambda: yard.condition("rule", kind="accesspolicy")["reason"] == "IssuerNotFound", "it is said")
    told = yard.cli("why", "accesspolicy/rule")
    assert "there is no issuer 'corp'" in told
    assert "there is no ModelService snow" in told
    assert "IssuerNotFound" in yard.cli("get", "accesspolicies")
    yard.apply(policy(services=["rain"], authentication="none"), wait=False)
    becomes(yard, 200, "rain")
    wait_until(lambda: yard.condition("rule", "Open", "accesspolicy").get("status") == "True", "it is open")
    assert "anybody may call rain" in yard.cli("why", "rule")
