"""`modelyard install` and `uninstall` on what is no Kubernetes; tests/cluster has what they do on one."""

import pytest

from cli_testing import Project, service
from modelyard.control.kube.resources import MODELSERVICES


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_server_of_a_laptop_is_left_alone(project: Project, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project.call(
        lambda client: client.create(MODELSERVICES, service() | {"metadata": {"name": "a", "namespace": "default"}})
    )
    monkeypatch.setenv("KUBECONFIG", str(project.root / ".modelyard/kubeconfig"))
    done = project.run(command, "--context", "modelyard")
    assert done.status == 1
    assert "is a server of 'modelyard up', which needs no installation" in done.err
    assert done.out.startswith("server https://127.0.0.1:")
    assert project.get(MODELSERVICES, "a")
