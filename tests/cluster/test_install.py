"""Modelyard is installed into a real cluster, with no more rights than it needs."""

import json
from typing import Any

import pytest
import yaml

from cluster_testing import Namespace
from installation_testing import ACCOUNT, SYSTEM, Installation, warnings
from kubectl_testing import until
from modelyard.cli import rollout

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(600)


def identities(installed: Installation) -> dict[str, str]:
    """Every object of the installation -> the version that is stored."""
    listed = json.loads(installed.kubectl("get", "-f", "-", "-o", "json", stdin=installed.printed()))
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["resourceVersion"] for each in listed["items"]
    }


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--gateway-service", "LoadBalancer", "--gateway-replicas", "5", "--operator-replicas", "3"),
        ("--image-prefix", "registry.example.com/ml/", "--pull-secret", "registry", "--no-network-policies"),
    ],
    ids=["defaults", "more", "registry"],
)
def test_the_api_server_takes_every_manifest_without_a_warning(
    installed: Installation, options: tuple[str, ...]
) -> None:
    apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
    done = installed.kubectl.run(*apply, stdin=installed.printed(*options))
    expected = len(list(yaml.safe_load_all(installed.printed(*options))))
    assert done.out.count("serverside-applied (server dry run)") == expected
    assert warnings(done.err) == []


def test_installing_again_changes_nothing(installed: Installation) -> None:
    installed.install()
    before = pods(installed)
    told = installed.install().out
    objects = [
        line for line in told.splitlines() if "/" in line and line.endswith(("created", "configured", "unchanged"))
    ]
    assert len(objects) == len(list(yaml.safe_load_all(installed.printed())))
    assert {line.rsplit(" ", 1)[1] for line in objects} == {"unchanged"}
    assert "is ready" in told
    assert pods(installed) == before


def pods(installed: Installation) -> set[str]:
    return {pod["metadata"]["uid"] for name in ("operator", "gateway") for pod in installed.pods(name)}


def test_kubectl_may_apply_the_same_and_changes_nothing_either(installed: Installation) -> None:
    before = pods(installed)
    installed.kubectl("apply", "-f", "-", stdin=installed.printed())

    def settled() -> bool:
        found = installed.find("deployment", "modelyard-operator"), installed.find("deployment", "modelyard-gateway")
        return all(rollout.rolled_out(each) for each in found)

    until(settled, 60)
    versions = identities(installed)
    told = installed.kubectl("apply", "-f", "-", stdin=installed.printed()).splitlines()
    # kubectl sends the selector of a disruption budget each time, since that is replaced as a whole; it stays the same.
    assert {line.split("/")[0] for line in told if not line.endswith(" unchanged")} <= {"poddisruptionbudget.policy"}
    changed = {name for name, version in identities(installed).items() if versions[name] != version}
    assert changed <= {"Deployment/modelyard-operator", "Deployment/modelyard-gateway"}, "only their status may change"
    assert pods(installed) == before


ALLOWED = """
list modelservices.modelyard.dev -A
update modelservices.modelyard.dev --subresource=status -A
create models.modelyard.dev -A
create deployments.apps -A
patch jobs.batch -A
watch pods -A
list rolebindings.rbac.authorization.k8s.io -A
get secrets -n modelyard-system
update leases.coordination.k8s.io -n modelyard-system
patch pods -n modelyard-system
"""
FORBIDDEN = """
get secrets -A
list secrets -A
get secrets -n kube-system
get configmaps -A
get pods --subresource=log -A
create pods --subresource=exec -A
create pods -A
patch pods -n default
delete secrets -n modelyard-system
update modelservices.modelyard.dev -A
patch modelservices.modelyard.dev -A
delete modelservices.modelyard.dev -A
predict modelservices.modelyard.dev -A
create serviceaccounts --subresource=token -A
create rolebindings.rbac.authorization.k8s.io -A
update clusterroles.rbac.authorization.k8s.io
impersonate users
get nodes
create namespaces
update leases.coordination.k8s.io -n kube-system
create customresourcedefinitions.apiextensions.k8s.io
"""


def may(installed: Installation, question: str, *who: str) -> bool:
    return installed.kubectl.run("auth", "can-i", *question.split(), *who, code=None).out.strip() == "yes"


def test_the_operator_may_do_what_it_must_and_nothing_else(installed: Installation) -> None:
    questions = [(line, True) for line in ALLOWED.strip().splitlines()]
    questions += [(line, False) for line in FORBIDDEN.strip().splitlines()]
    wrong = [line for line, expected in questions if may(installed, line, "--as", ACCOUNT) is not expected]
    assert not wrong


def test_gateways_may_do_nothing_and_bear_no_token(installed: Installation) -> None:
    account = f"system:serviceaccount:{SYSTEM}:modelyard-gateway"
    for line in (
        "get secrets -n modelyard-system",
        "list pods -n modelyard-system",
        "list modelservices.modelyard.dev -A",
    ):
        assert not may(installed, line, "--as", account)
    for pod in installed.pods("gateway"):
        assert "kube-api-access" not in json.dumps(pod["spec"])


@pytest.mark.parametrize(
    ("role", "yes", "no"),
    [
        ("view", ["list models", "get modelservices"], ["create models", "predict modelservices", "patch modeljobs"]),
        (
            "edit",
            ["create models", "delete modelstreams", "predict modelservices"],
            ["update modelservices --subresource=status"],
        ),
        ("admin", ["create models", "predict modelservices"], ["update modelservices --subresource=status"]),
    ],
)
def test_the_roles_of_kubernetes_know_our_kinds(
    installed: Installation, namespace: Namespace, role: str, yes: list[str], no: list[str]
) -> None:
    namespace("create", "rolebinding", "ana", f"--clusterrole={role}", "--user=ana")
    who = ("--as", "ana", "-n", namespace.name)
    until(lambda: may(installed, yes[0], *who))
    assert [line for line in yes if not may(installed, line, *who)] == []
    assert [line for line in no if may(installed, line, *who)] == []


def test_pods_of_the_installation_run_in_a_namespace_that_admits_nothing_less(installed: Installation) -> None:
    labels = json.loads(installed.kubectl("get", "namespace", SYSTEM, "-o", "json"))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for component in ("operator", "gateway"):
        found = installed.pods(component)
        assert len(found) == 2
        assert {each["status"]["phase"] for each in found} == {"Running"}
    events = json.loads(installed.kubectl("-n", SYSTEM, "get", "events", "-o", "json"))["items"]
    assert not [each["message"] for each in events if "PodSecurity" in each.get("message", "")]


def test_nodes_are_drained_one_pod_at_a_time(installed: Installation) -> None:
    def allowed() -> bool:
        found = [
            installed.find("poddisruptionbudget", f"modelyard-{name}")["status"] for name in ("operator", "gateway")
        ]
        return all((each["expectedPods"], each["disruptionsAllowed"]) == (2, 1) for each in found)

    until(allowed)


def test_options_are_remembered_and_what_they_leave_out_goes(installed: Installation) -> None:
    try:
        told = installed.run("install", "--no-network-policies", "--gateway-service", "NodePort").out
        assert "network-policies: yes -> no" in told
        assert "gateway-service: ClusterIP -> NodePort" in told
        assert "networkpolicy/modelyard-gateway deleted" in told
        assert installed.kubectl("-n", SYSTEM, "get", "networkpolicies", "-o", "name") == ""
        before = pods(installed)
        again = installed.run("install").out
        assert "as before: --gateway-service=NodePort --no-network-policies" in again
        assert "configured" not in again
        assert pods(installed) == before
        printed = yaml.safe_load_all(installed.run("install", "--print").out)
        (service,) = [each for each in printed if (each["kind"], name_of(each)) == ("Service", "modelyard-gateway")]
        assert service["spec"]["type"] == "NodePort", "--print with a context takes them, too"
        back = installed.run("install", "--defaults").out
        assert "gateway-service: NodePort -> ClusterIP" in back
        assert "networkpolicy/modelyard-gateway created" in back
    finally:
        installed.install()


def test_what_a_former_version_has_installed_goes_and_what_only_looks_like_it_stays(installed: Installation) -> None:
    labels = installed.find("serviceaccount", "modelyard-operator")["metadata"]["labels"]

    def made(kind: str, name: str, manager: str, version: str = "v1", **more: Any) -> str:
        place = {} if kind.startswith("Cluster") else {"namespace": SYSTEM}
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels, **place}, **more}
        apply = ("apply", "--server-side", "--field-manager", manager, "-f", "-")
        installed.kubectl(*apply, stdin=json.dumps(body))
        return f"{kind.lower()}/{name}"

    former = made("ClusterRole", "modelyard-former", "modelyard-install", "rbac.authorization.k8s.io/v1", rules=[])
    account = made("ServiceAccount", "modelyard-former", "modelyard-install")
    copied, secret = made("ConfigMap", "copied", "kubectl"), made("Secret", "modelyard-keys", "modelyard-install")
    try:
        done = installed.run("install")
        for gone in (former, account):
            assert f"{gone} deleted: it is not needed any more" in done.out
            assert installed.kubectl.run("-n", SYSTEM, "get", gone, code=None).code == 1
        assert f"{copied} is not of this version, and was not made by this command: it stays" in done.err
        assert installed.kubectl("-n", SYSTEM, "get", copied, secret, "-o", "name").split() == [copied, secret]
    finally:
        installed.kubectl("-n", SYSTEM, "delete", copied, secret)


def name_of(body: Object) -> str:
    return str(body["metadata"]["name"])


def test_an_image_that_is_nowhere_is_told_with_the_next_step(installed: Installation) -> None:
    try:
        done = installed.run("install", "--image-tag", "is-not-there", "--timeout", "20s", code=3)
        assert "ImagePull" in done.err or "ErrImage" in done.err
        assert "--image-prefix" in done.err
        for name in ("operator", "gateway"):
            ready = [pod for pod in installed.pods(name) if is_ready(pod)]
            assert len(ready) == 2, "those of the version before stay until the new ones are ready"
    finally:
        installed.install()


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
