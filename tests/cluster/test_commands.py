"""Every command works on a cluster, by the context that is named, however that proves who somebody is."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster_serving_testing import may_call, model, models, secret, service
from cluster_testing import HOST, Cluster, Namespace
from cluster_testing import namespace as fresh
from installation_testing import Installation
from kubectl_testing import until
from modelyard.cli import main

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def team(installed: Installation, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """A namespace with a service of one replica."""
    with models(tmp_path_factory.mktemp("models"), HOST) as s3, fresh(cluster) as found:
        manifest = tmp_path_factory.mktemp("manifests") / "all.yaml"
        bodies = (
            secret("lake", s3.credentials()),
            model("plus-1", "s3://models/plus-1.onnx"),
            service("plus", "plus-1"),
        )
        manifest.write_text(yaml.safe_dump_all(bodies))
        installed.run("apply", "-f", str(manifest), "-n", found.name, "--wait")
        yield found


def test_a_service_is_looked_at_and_changed(installed: Installation, team: Namespace) -> None:
    def run(*arguments: str) -> str:
        return installed.run(*arguments, "-n", team.name).out

    assert "plus" in run("get", "modelservices")
    described = run("describe", "modelservice", "plus")
    assert "plus-svc-00001" in described
    assert "Ready and serving" in run("why", "plus")
    assert "digest" in run("get", "model", "plus-1", "-o", "yaml")
    assert run("logs", "plus", "--tail", "3")
    assert "same content as before" in run("refresh", "plus")
    assert "plus-svc-00002" in run("restart", "plus") + run("get", "modelservices", "-o", "wide")


def test_requests_are_where_the_gateway_writes_them(installed: Installation) -> None:
    assert "kubectl logs -n modelyard-system" in installed.run("requests", code=1).err


def test_whoever_may_call_does(installed: Installation, team: Namespace, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(may_call(team, "app", "plus"))
    arguments = ("predict", f"plus.{team.name}", "--data", "[[1, 2]]", "-o", "json", "--token-file", str(token))
    until(lambda: installed.run(*arguments, "--url", installed.url, code=None).code == 0, 30)
    assert json.loads(installed.run(*arguments, "--url", installed.url).out) == {"y": [[2.0, 3.0]]}
    refused = installed.run("predict", f"plus.{team.name}", "--data", "[[1, 2]]", "--url", installed.url, code=1)
    assert "token" in refused.err


def test_from_outside_a_name_of_the_cluster_leads_nowhere(installed: Installation, team: Namespace) -> None:
    found = installed.run("predict", f"plus.{team.name}", "--data", "[[1, 2]]", code=None)
    assert found.code == 3
    assert "kubectl port-forward -n modelyard-system service/modelyard-gateway" in found.err


def test_a_token_is_made_by_whoever_may_read_the_issuers_key(installed: Installation, team: Namespace) -> None:
    made = installed.run("token", "create", "--user", "ana", "--ttl", "5m")
    assert made.out.count(".") == 2
    team("create", "rolebinding", "ana", "--clusterrole=edit", "--user=ana")
    arguments = ("predict", f"plus.{team.name}", "--data", "[[1, 2]]", "--url", installed.url, "--token-file", "-")
    path = Path(installed.cluster.kubeconfig).parent / "ana.token"
    path.write_text(made.out)
    called = (*arguments[:-1], str(path))
    try:
        until(lambda: installed.run(*called, code=None).code == 0, 30)
    finally:
        path.unlink()


def test_a_program_of_the_kubeconfig_gives_credentials(
    installed: Installation,
    team: Namespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    team("create", "serviceaccount", "viewer")
    team("create", "rolebinding", "viewer", "--clusterrole=view", f"--serviceaccount={team.name}:viewer")
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": team("create", "token", "viewer").strip()},
    }
    (tmp_path / "credential.json").write_text(json.dumps(credential))
    body = yaml.safe_load(Path(installed.cluster.kubeconfig).read_text())
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", f"print(open({str(tmp_path / 'credential.json')!r}).read())"],
        "interactiveMode": "Never",
    }
    body["users"] = [{"name": "viewer", "user": {"exec": plugin}}]
    cluster = body["clusters"][0]["name"]
    body["contexts"] = [{"name": "viewer", "context": {"cluster": cluster, "user": "viewer", "namespace": team.name}}]
    body["current-context"] = ""
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(body))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    assert main(["get", "modelservices", "--context", "viewer"]) == 0
    assert "plus" in capsys.readouterr().out
    assert main(["why", "plus", "--context", "viewer"]) == 0
    assert main(["delete", "modelservice", "plus", "--context", "viewer"]) == 1
    assert "forbidden" in capsys.readouterr().err


def test_what_is_deleted_is_gone(installed: Installation, team: Namespace) -> None:
    """The last test of its module."""
    installed.run("delete", "modelservice", "plus", "-n", team.name, "--wait")
    until(lambda: team.all("deployments") == [], 30)  # Kubernetes' collector takes what the service owned
