"""The cluster that the other tests stand on: pods under *restricted*, names, addresses, and what tests serve."""

import json
from typing import Any

import stand_in_image_testing
from cluster_testing import HOST, Cluster, Namespace
from kubectl_testing import until
from nats_testing import Nats
from s3_testing import S3

LOOK = """
import json, socket, sys
found = {}
for name, port in json.loads(sys.argv[1]):
    try:
        with socket.create_connection((name, port), timeout=5) as connection:
            found[f'{name}:{port}'] = connection.getpeername()[0]
    except OSError as error:
        found[f'{name}:{port}'] = str(error)
with open('/dev/termination-log', 'w') as file:
    json.dump(found, file)
"""


def looking(places: list[tuple[str, int]]) -> dict[str, Any]:
    """A pod that tries to connect to some places."""
    container = {
        "name": "main",
        "image": f"{stand_in_image_testing.PREFIX}runtime:{stand_in_image_testing.VERSION}",
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", LOOK, json.dumps(places)],
        "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "looks"}, "spec": spec}


def test_pods_find_services_by_name_and_reach_what_tests_serve(
    cluster: Cluster, namespace: Namespace, s3: S3, nats: Nats
) -> None:
    cluster.node.load(stand_in_image_testing.archive())
    api, dns, outside = "kubernetes.default.svc.cluster.local", "kube-dns.kube-system.svc", "example.org"
    namespace.apply(looking([(api, 443), (dns, 53), (HOST, s3.port), (HOST, nats.port), (outside, 443)]))

    def ended() -> Any:
        status = namespace.find("pod", "looks")["status"]
        states = status.get("containerStatuses") or [{}]
        return states[0].get("state", {}).get("terminated")

    found = json.loads(until(ended, 60)["message"])
    assert found[f"{api}:443"] == cluster.node.which.api
    assert found[f"{dns}:53"] == cluster.node.which.dns
    assert found[f"{HOST}:{s3.port}"] == found[f"{HOST}:{nats.port}"] == HOST
    assert "name resolution" in found[f"{outside}:443"], "nothing leaves this machine"


def test_components_can_be_killed_and_started_again(cluster: Cluster) -> None:
    node = cluster.node

    def answers() -> bool:
        return cluster.kubectl.run("get", "--raw", "/readyz", code=None).code == 0

    for name in ("kube-apiserver", "kubelet", "kube-controller-manager"):
        node.kill(name)
        if name == "kube-apiserver":
            until(lambda: not answers(), 20)
        node.start(name)
        until(answers, 60)
    cluster.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=50s")
