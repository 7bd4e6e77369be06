"""Roles, bindings, accounts and tokens with real kubectl."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_testing import Kubectl, Output, Server, running

pytestmark = pytest.mark.timeout(900)  # the first test may have to build kubectl
MODELS = "/apis/modelyard.dev/v1alpha1/models"
SERVICE = """
apiVersion: modelyard.dev/v1alpha1
kind: ModelService
metadata: {name: iris}
spec: {model: {name: iris-v1}, replicas: 1}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("access") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def kubectl(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    return Kubectl(server.kubeconfig, tmp_path_factory.mktemp("home"))


class Space:
    """The owner's kubectl in a namespace of one test."""

    def __init__(self, kubectl: Kubectl, server: Server, name: str) -> None:
        self.kubectl, self.server, self.name = kubectl, server, name

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        return self.kubectl(*arguments, "-n", self.name, stdin=stdin)

    def can(self, *arguments: str) -> str:
        return self.kubectl.run("auth", "can-i", *arguments, "-n", self.name, code=None).out.strip()

    def token(self, account: str, *arguments: str) -> str:
        return self("create", "token", account, *arguments).strip()


class Bearer:
    """kubectl of somebody who has a token and nothing else."""

    def __init__(self, space: Space, token: str, folder: Path) -> None:
        config = json.loads(space("config", "view", "--raw", "--minify", "-o", "json"))
        config["users"][0]["user"] = {"token": token}
        file = folder / f"{uuid.uuid4().hex}.kubeconfig"
        file.write_text(json.dumps(config))
        self._kubectl, self._namespace = Kubectl(file, folder), space.name

    def run(self, *arguments: str, stdin: str | None = None, code: int | None = 0) -> Output:
        return self._kubectl.run(*arguments[:1], "-n", self._namespace, *arguments[1:], stdin=stdin, code=code)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        return self.run(*arguments, stdin=stdin).out

    def fails(self, *arguments: str, stdin: str | None = None) -> str:
        return self.run(*arguments, stdin=stdin, code=1).err


@pytest.fixture
def space(kubectl: Kubectl, server: Server) -> Iterator[Space]:
    name = f"n{uuid.uuid4().hex[:10]}"
    kubectl("create", "namespace", name)
    yield Space(kubectl, server, name)
    kubectl("delete", "namespace", name, "--timeout=20s")


def test_the_owner_is_told_who_they_are(space: Space) -> None:
    found = json.loads(space("auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert found == {"username": "owner", "groups": ["system:masters", "system:authenticated"]}
    assert space.can("*", "*") == "yes"


def test_who_may_predict_is_answered_by_role_and_binding(space: Space) -> None:
    space("create", "role", "users", "--verb=predict", "--resource=modelservices", "--resource-name=iris")
    space(
        "create",
        "rolebinding",
        "users",
        "--role=users",
        "--user=ana",
        "--group=team",
        f"--serviceaccount={space.name}:bot",
    )
    assert space.can("predict", "modelservices/iris", "--as", "ana") == "yes"
    assert space.can("predict", "modelservices/rain", "--as", "ana") == "no"
    assert space.can("delete", "modelservices/iris", "--as", "ana") == "no"
    assert space.can("predict", "modelservices/iris", "--as", "eve") == "no"
    assert space.can("predict", "modelservices/iris", "--as", "eve", "--as-group", "team") == "yes"
    assert space.can("predict", "modelservices/iris", "--as", f"system:serviceaccount:{space.name}:bot") == "yes"
    listed = space.can("--list", "--as", "ana")
    assert "modelservices.modelyard.dev" in listed
    assert "[iris]" in listed
    assert "users" in space("get", "role,rolebinding", "-o", "wide")
    assert "modelservices.modelyard.dev" in space("describe", "role", "users")
    space("delete", "rolebinding", "users")
    assert space.can("predict", "modelservices/iris", "--as", "ana") == "no"


def test_a_token_may_do_what_its_account_is_allowed_and_nothing_else(space: Space, tmp_path: Path) -> None:
    space("apply", "-f", "-", stdin=SERVICE)
    space("create", "serviceaccount", "ana")
    ana = Bearer(space, space.token("ana"), tmp_path)
    name = f"system:serviceaccount:{space.name}:ana"
    assert json.loads(ana("auth", "whoami", "-o", "json"))["status"]["userInfo"]["username"] == name
    assert (
        f'Error from server (Forbidden): modelservices.modelyard.dev is forbidden: User "{name}" cannot list resource '
        f'"modelservices" in API group "modelyard.dev" in the namespace "{space.name}"'
    ) in ana.fails("get", "modelservices")
    space("create", "rolebinding", "ana", "--clusterrole=view", f"--serviceaccount={space.name}:ana")
    assert "iris" in ana("get", "modelservices")
    assert "iris" in ana("describe", "modelservice", "iris")
    assert "cannot get resource" in ana.fails("get", "secret", "s")
    assert "cannot delete resource" in ana.fails("delete", "modelservice", "iris")
    assert 'cannot patch resource "modelservices/scale"' in ana.fails("scale", "modelservice", "iris", "--replicas=2")
    assert 'in the namespace "default"' in ana.fails("get", "modelservices", "-n", "default")
    assert "at the cluster scope" in ana.fails("get", "modelservices", "-A")
    assert 'cannot create resource "serviceaccounts/token"' in ana.fails("create", "token", "ana")
    assert ana.run("auth", "can-i", "list", "models").out == "yes\n"
    space("delete", "rolebinding", "ana")
    space("create", "rolebinding", "ana", "--clusterrole=edit", f"--serviceaccount={space.name}:ana")
    assert "scaled" in ana("scale", "modelservice", "iris", "--replicas=2")
    assert "configured" in ana("apply", "-f", "-", stdin=SERVICE.replace("replicas: 1", "replicas: 3"))
    assert "deleted" in ana("delete", "modelservice", "iris")


def test_a_token_ends_with_its_account(space: Space, tmp_path: Path) -> None:
    space("create", "serviceaccount", "ana")
    ana = Bearer(space, space.token("ana", "--duration=10m"), tmp_path)
    assert "ana" in ana("auth", "whoami")
    other = Bearer(space, space.token("ana", "--audience=https://elsewhere"), tmp_path)
    assert "Unauthorized" in other.fails("auth", "whoami")
    space("delete", "serviceaccount", "ana")
    assert "Unauthorized" in ana.fails("auth", "whoami")
    space("create", "serviceaccount", "ana")
    assert "Unauthorized" in ana.fails("auth", "whoami")
    refused = space.kubectl.run("create", "token", "ana", "--duration=1s", "-n", space.name, code=1).err
    assert "at least 10 minutes" in refused


def test_tokens_survive_a_restart_of_the_server(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        owner = Kubectl(server.kubeconfig, tmp_path)
        owner("create", "serviceaccount", "ana")
        token = owner("create", "token", "ana").strip()
        assert (server.path / "accounts.key").stat().st_mode & 0o777 == 0o600
    with running(tmp_path / "data") as server:
        owner = Kubectl(server.kubeconfig, tmp_path)
        ana = Bearer(Space(owner, server, "default"), token, tmp_path)
        assert "system:serviceaccount:default:ana" in ana("auth", "whoami")


def test_nobody_grants_what_they_do_not_hold(space: Space, tmp_path: Path) -> None:
    space("create", "serviceaccount", "ana")
    space("create", "rolebinding", "ana", "--clusterrole=admin", f"--serviceaccount={space.name}:ana")
    ana = Bearer(space, space.token("ana"), tmp_path)
    ana("create", "role", "readers", "--verb=get,list", "--resource=models")
    ana("create", "rolebinding", "readers", "--role=readers", "--user=bob")
    ana("create", "rolebinding", "viewers", "--clusterrole=view", "--user=bob")
    shown = ana.fails("create", "role", "more", "--verb=get,delete", "--resource=leases")
    assert "is attempting to grant RBAC permissions not currently held" in shown
    assert "leases" in shown
    shown = ana.fails("create", "rolebinding", "root", "--clusterrole=cluster-admin", "--user=ana")
    assert "permissions not currently held" in shown
    shown = ana.fails("create", "clusterrolebinding", "root", "--clusterrole=view", "--user=ana")
    assert 'cannot create resource "clusterrolebindings"' in shown
    patch = '[{"op": "add", "path": "/rules/0/verbs/-", "value": "steal"}]'
    assert "not currently held" in ana.fails("patch", "role", "readers", "--type=json", "-p", patch)
    ana("label", "role", "readers", "team=search")
    space(
        "create",
        "clusterrole",
        f"{space.name}-bind",
        "--verb=bind",
        "--resource=clusterroles",
        "--resource-name=cluster-admin",
    )
    space("create", "rolebinding", "binders", f"--clusterrole={space.name}-bind", f"--serviceaccount={space.name}:ana")
    ana("create", "rolebinding", "root", "--clusterrole=cluster-admin", "--user=bob")
    assert space.can("delete", "leases", "--as", "bob") == "yes"
    space("delete", "clusterrole", f"{space.name}-bind")


def test_impersonation_is_for_who_may(space: Space, tmp_path: Path) -> None:
    space("create", "serviceaccount", "ana")
    ana = Bearer(space, space.token("ana"), tmp_path)
    assert 'cannot impersonate resource "users"' in ana.fails("get", "--raw", MODELS, "--as", "bob")
    role = f"{space.name}-imp"
    space("create", "clusterrole", role, "--verb=impersonate", "--resource=users,groups")
    space("create", "clusterrolebinding", role, f"--clusterrole={role}", f"--serviceaccount={space.name}:ana")
    assert "bob" in ana("auth", "whoami", "--as", "bob")
    assert "names of the system are for the owner" in ana.fails(
        "get", "--raw", MODELS, "--as", "bob", "--as-group", "system:masters"
    )
    assert "names of the system are for the owner" in ana.fails("get", "--raw", MODELS, "--as", "system:anonymous")
    space("delete", "clusterrole,clusterrolebinding", role)


def test_the_roles_that_come_with_the_server_cannot_be_changed(space: Space) -> None:
    kubectl = space.kubectl
    assert {"view", "edit", "admin", "cluster-admin"} <= set(
        kubectl("get", "clusterroles", "-o", "jsonpath={.items[*].metadata.name}").split()
    )
    for arguments in (
        ("delete", "clusterrole", "view"),
        ("label", "clusterrole", "view", "a=b"),
        ("delete", "clusterrolebinding", "system:discovery"),
        ("create", "clusterrole", "system:mine", "--verb=get", "--resource=models"),
        ("create", "role", "system:mine", "--verb=get", "--resource=models"),
    ):
        assert "this name belongs to Modelyard" in kubectl.run(*arguments, code=1).err


def test_wrong_roles_and_bindings_are_refused_with_all_reasons(space: Space) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "r"},
        "rules": [{"verbs": [], "nonResourceURLs": ["/x"]}, {"verbs": ["get"]}],
    }
    shown = space.kubectl.run("create", "-n", space.name, "-f", "-", stdin=json.dumps(role), code=1).err
    for word in ("rules[0].verbs", "namespaced rules cannot apply", "rules[1].apiGroups", "rules[1].resources"):
        assert word in shown
    space("create", "rolebinding", "b", "--clusterrole=view", "--user=ana")
    patch = '{"roleRef": {"name": "edit"}}'
    refused = space.kubectl.run("patch", "rolebinding", "b", "-n", space.name, "-p", patch, code=1).err
    assert "cannot change roleRef" in refused
    refused = space.kubectl.run("create", "clusterrole", "sum", "--aggregation-rule=a=b", code=1).err
    assert 'unknown field "aggregationRule"' in refused


def test_roles_can_be_applied_again_and_explained(space: Space) -> None:
    text = space("create", "role", "r", "--verb=get", "--resource=models", "--dry-run=client", "-o", "yaml")
    text += "---\n" + space("create", "rolebinding", "r", "--role=r", "--user=a", f"--serviceaccount={space.name}:b",
                            "--dry-run=client", "-o", "yaml")  # fmt: skip
    text = text.replace("  creationTimestamp: null\n", "")
    assert "created" in space("apply", "-f", "-", stdin=text)
    assert [line.split()[-1] for line in space("apply", "-f", "-", stdin=text).splitlines()] == ["unchanged"] * 2
    assert "configured" in space("apply", "-f", "-", stdin=text.replace("- get", "- list"))
    for word in ("role.rules", "rolebinding.subjects", "clusterrolebinding.roleRef", "serviceaccount"):
        assert "<no description>" not in space("explain", word)
