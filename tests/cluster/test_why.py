"""Conditions on a real cluster name the real cause, and `modelyard why` says what to do."""

from collections.abc import Iterator
from typing import Any

import pytest

from cluster_serving_testing import model, models, secret, service
from cluster_testing import HOST, Cluster, Namespace
from installation_testing import Installation
from kubectl_testing import until
from s3_testing import S3

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def lake(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    _ = cluster.node  # pods reach this machine from our node only
    with models(tmp_path_factory.mktemp("models"), HOST) as s3:
        yield s3


def ready(namespace: Namespace, kind: str, name: str) -> Object:
    """The main condition, {} while there is none."""
    found = namespace.find(kind, name)
    wanted = "Complete" if kind == "modeljob" else "Ready"
    return next((each for each in found.get("status", {}).get("conditions", ()) if each["type"] == wanted), {})


def overlay(**spec: Any) -> Object:
    return {"podTemplate": {"spec": spec}}


def quota(namespace: Namespace) -> None:
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "small"},
            "spec": {"hard": {"requests.memory": "1Mi"}},
        }
    )


CASES: dict[str, tuple[Object, str, str, str]] = {
    "a path of one machine": (
        {"model": {"uri": "models/forest.onnx"}},
        "LocalPath",
        "modelyard push models/forest.onnx",
        "modelyard push PATH",
    ),
    "a forbidden overlay": (
        {"model": {"name": "plus"}, **overlay(hostNetwork=True, volumes=[{"name": "h", "hostPath": {"path": "/"}}])},
        "OverlayForbidden",
        "spec.podTemplate.spec.volumes[0].hostPath",
        "correct the manifest",
    ),
    "no node that suits": (
        {"model": {"name": "plus"}, **overlay(nodeSelector={"disk": "gold"})},
        "Unschedulable",
        "node affinity/selector",
        "kubectl describe nodes",
    ),
    "too many devices": (
        {"model": {"name": "plus"}, "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}},
        "Unschedulable",
        "Insufficient nvidia.com/mig-1g.5gb",
        "spec.resources",
    ),
    "an image that is nowhere": (
        {
            "model": {"name": "plus"},
            **overlay(
                containers=[
                    {
                        "name": "logs",
                        "image": "localhost/modelyard-nowhere:1",
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ]
            ),
        },
        "ImagePullFailed",
        "localhost/modelyard-nowhere:1",
        "imagePullSecrets",
    ),
    "more memory than the limit": (
        {"model": {"name": "plus"}, "resources": {"requests": {"memory": "8Mi"}, "limits": {"memory": "24Mi"}}},
        "OutOfMemory",
        "memory",
        "raise spec.resources.limits.memory",
    ),
}


@pytest.mark.parametrize(("spec", "reason", "message", "step"), CASES.values(), ids=CASES.keys())
def test_a_service_says_why_it_is_not_ready(
    installed: Installation, namespace: Namespace, lake: S3, spec: Object, reason: str, message: str, step: str
) -> None:
    service_of = {**service("digits", "plus"), "spec": spec}
    namespace.apply(secret("lake", lake.credentials()), model("plus", "s3://models/plus-1.onnx"), service_of)
    found = reason_of(namespace, "modelservice", "digits", reason, 120)
    assert message in found
    why = installed.run("why", "digits", "-n", namespace.name).out
    assert f"not Ready: {reason}" in why
    assert step in why


def reason_of(namespace: Namespace, kind: str, name: str, reason: str, seconds: float) -> str:
    """The message, once the reason is this one."""
    until(lambda: ready(namespace, kind, name).get("reason") == reason, seconds)
    return str(ready(namespace, kind, name)["message"])


def test_a_quota_is_named_where_it_forbids_pods(installed: Installation, namespace: Namespace, lake: S3) -> None:
    namespace.apply(secret("lake", lake.credentials()), model("plus", "s3://models/plus-1.onnx"))
    namespace("wait", "model/plus", "--for=condition=Ready", "--timeout=90s")
    quota(namespace)
    namespace.apply(service("digits", "plus", resources={"limits": {"memory": "256Mi"}}))
    message = reason_of(namespace, "modelservice", "digits", "QuotaExceeded", 60)
    assert "exceeded quota: small" in message
    assert "kubectl describe resourcequota" in installed.run("why", "digits", "-n", namespace.name).out


def test_a_store_that_refuses_the_keys_is_named_in_the_model(
    installed: Installation, namespace: Namespace, lake: S3
) -> None:
    wrong = {**lake.credentials(), "AWS_SECRET_ACCESS_KEY": "wrong"}
    namespace.apply(secret("lake", wrong), model("plus", "s3://models/plus-1.onnx"), service("digits", "plus"))
    reason_of(namespace, "modelservice", "digits", "AccessDenied", 90)
    why = installed.run("why", "digits", "-n", namespace.name).out
    assert "correct the Secret that spec.credentials names" in why


def test_a_secret_that_is_not_there_is_named(installed: Installation, namespace: Namespace) -> None:
    namespace.apply(model("plus", "s3://models/plus-1.onnx"), service("digits", "plus"))
    reason_of(namespace, "model", "plus", "SecretNotFound", 90)
    assert "lake" in installed.run("why", "model/plus", "-n", namespace.name).out


def test_a_job_with_paths_of_one_machine_has_failed_and_names_them_all(
    installed: Installation, namespace: Namespace
) -> None:
    job = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelJob",
        "metadata": {"name": "score"},
        "spec": {"score": {"model": {"uri": "m.onnx"}, "input": {"uri": "in"}, "output": {"uri": "out"}}},
    }
    namespace.apply(job)
    message = reason_of(namespace, "modeljob", "score", "LocalPath", 30)
    for path in ("spec.score.model.uri", "spec.score.input.uri", "spec.score.output.uri"):
        assert path in message
    assert (
        "then: modelyard delete modeljob score, and apply it again"
        in installed.run("why", "score", "-n", namespace.name).out
    )
