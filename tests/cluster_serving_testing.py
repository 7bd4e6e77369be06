"""Services on a cluster, and who may call them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore

from cluster_testing import Namespace
from s3_testing import S3
from yard_testing import write_onnx

Object = dict[str, Any]


@contextmanager
def models(folder: Path, address: str) -> Iterator[S3]:
    """A bucket `models` with two models, which add 1 and 2."""
    with S3(folder / "s3", address) as server:
        store = server.store("models")
        for plus in (1.0, 2.0):
            write_onnx(folder / "model.onnx", plus)
            obstore.put(store, f"plus-{plus:g}.onnx", (folder / "model.onnx").read_bytes())
        yield server


def secret(name: str, values: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def model(name: str, uri: str, **spec: Any) -> Object:
    body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "Model", "metadata": {"name": name}}
    return {**body, "spec": {"uri": uri, "credentials": "lake", **spec}}


def service(name: str, model_name: str, **spec: Any) -> Object:
    body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelService", "metadata": {"name": name}}
    return {**body, "spec": {"model": {"name": model_name}, **spec}}


def may_call(namespace: Namespace, account: str, *services: str) -> str:
    """A token of a ServiceAccount that may call these services."""
    rules = [{"apiGroups": ["modelyard.dev"], "resources": ["modelservices"], "verbs": ["predict"]}]
    rules[0]["resourceNames"] = list(services)
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace.name}
    group = "rbac.authorization.k8s.io"
    namespace.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": account}, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": account},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
            "subjects": [subject],
        },
    )
    return token(namespace, account)


def token(namespace: Namespace, account: str, audience: str = "modelyard") -> str:
    return namespace("create", "token", account, "--audience", audience).strip()
