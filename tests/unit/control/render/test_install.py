"""Modelyard itself as Kubernetes objects."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from modelyard.api.schema import crds
from modelyard.control.render import install_access, xds_bootstrap
from modelyard.control.render.documents import documents
from modelyard.control.render.install import manifests
from modelyard.control.render.install_options import Options

Object = dict[str, Any]
PLAIN = Options(version="1.2.3")
ORDER = ("Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "Role", "ConfigMap", "Deployment")


def made(options: Options = PLAIN) -> tuple[Object, ...]:
    return manifests(options, crds())


def one(kind: str, name: str, options: Options = PLAIN) -> Object:
    (found,) = [each for each in made(options) if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod(name: str, options: Options = PLAIN) -> Object:
    found: Object = one("Deployment", f"modelyard-{name}", options)["spec"]["template"]["spec"]
    return found


def verbs(rules: list[Object], group: str, resource: str) -> set[str]:
    return {
        verb
        for rule in rules
        if group in rule.get("apiGroups", ()) and resource in rule.get("resources", ())
        for verb in rule["verbs"]
    }


def test_what_others_need_comes_before_them() -> None:
    kinds = [each["kind"] for each in made()]
    places = [kinds.index(kind) for kind in ORDER]
    assert places == sorted(places)
    names = [(each["kind"], each["metadata"]["name"]) for each in made()]
    assert len(set(names)) == len(names)


def test_documents_hold_the_same_objects() -> None:
    assert list(yaml.safe_load_all(documents(made()))) == list(made())


def test_settings_are_their_owners() -> None:
    names = {each["metadata"]["name"] for each in made() if each["kind"] == "ConfigMap"}
    assert names == {"modelyard-gateway", "modelyard-install"}


@pytest.mark.parametrize("name", ["operator", "gateway"])
def test_pods_meet_the_restricted_profile(name: str) -> None:
    found = pod(name)
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = found["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert {next(iter(each.keys() - {"name"})) for each in found["volumes"]} <= {"emptyDir", "configMap", "secret"}
    assert container["resources"]["limits"]["memory"] == "1Gi"


def test_the_namespace_admits_nothing_less() -> None:
    labels = one("Namespace", "modelyard-system")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_only_the_operator_may_ask_the_api() -> None:
    assert pod("operator")["automountServiceAccountToken"] is True
    assert pod("gateway")["automountServiceAccountToken"] is False
    bound = [each["subjects"] for each in made() if each["kind"].endswith("Binding")]
    assert {subject["name"] for subjects in bound for subject in subjects} == {"modelyard-operator"}


def test_pods_of_the_installation_are_not_taken_for_those_of_models() -> None:
    for each in made():
        assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "modelyard-install"
    for name in ("operator", "gateway"):
        template = one("Deployment", f"modelyard-{name}")["spec"]["template"]
        assert "app.kubernetes.io/managed-by" not in template["metadata"]["labels"]


def test_selectors_stay_the_same_from_version_to_version() -> None:
    for name in ("operator", "gateway"):
        newer = one("Deployment", f"modelyard-{name}", replace(PLAIN, version="9.9.9", managed_by="Helm"))
        assert newer["spec"]["selector"] == one("Deployment", f"modelyard-{name}")["spec"]["selector"]
        assert "9.9.9" not in str(newer["spec"]["template"]["metadata"])


def test_the_operator_reads_secrets_of_its_own_namespace_only() -> None:
    wide, home = install_access.everywhere(), install_access.at_home()
    assert not verbs(wide, "", "secrets")
    assert not verbs(wide, "", "configmaps")
    assert not verbs(wide, "", "pods/log") | verbs(home, "", "pods/log")
    assert not verbs(wide, "", "pods/exec") | verbs(home, "", "pods/exec")
    assert verbs(home, "", "secrets") == {"get", "list", "watch", "create", "update"}


def test_the_operator_never_writes_what_people_declare() -> None:
    wide = install_access.everywhere()
    for resource in ("modelservices", "accesspolicies", "runtimes"):
        assert verbs(wide, "modelyard.dev", resource) == {"get", "list", "watch"}
    assert not [rule for rule in wide if "*" in str(rule)]


@pytest.mark.parametrize(
    ("role", "into", "allowed"),
    [
        ("modelyard-view", "view", {"get", "list", "watch"}),
        ("modelyard-edit", "edit", {"create", "update", "patch", "delete", "deletecollection"}),
        ("modelyard-predict", "edit", {"predict"}),
    ],
)
def test_people_get_what_their_roles_say(role: str, into: str, allowed: set[str]) -> None:
    found = one("ClusterRole", role)
    assert found["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{into}"] == "true"
    assert verbs(found["rules"], "modelyard.dev", "modelservices") == allowed


def test_gateways_find_the_leader_before_it_is_ready() -> None:
    spec = one("Service", "modelyard-xds")["spec"]
    assert spec["selector"]["modelyard.dev/leader"] == "true"
    assert spec["publishNotReadyAddresses"] is True


def test_a_gateway_that_ends_goes_on_answering_for_a_while() -> None:
    found = pod("gateway")
    (container,) = found["containers"]
    seconds = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert found["terminationGracePeriodSeconds"] >= seconds + 5
    assert not container.keys() & {"livenessProbe", "startupProbe"}


def test_ports_of_services_and_policies_are_those_of_the_pods() -> None:
    for name in ("operator", "gateway"):
        (container,) = pod(name)["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        policy = one("NetworkPolicy", f"modelyard-{name}")["spec"]
        opened = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
        assert opened == set(ports.values())
    services = [each["spec"] for each in made() if each["kind"] == "Service"]
    named = {port["targetPort"] for spec in services for port in spec["ports"]}
    assert named == {"gateway", "internal", "xds"}


def test_options_go_where_they_belong() -> None:
    options = replace(
        PLAIN,
        image_prefix="registry.example.com/yard/",
        operator_replicas=1,
        gateway_replicas=5,
        service_type="LoadBalancer",
        pull_policy="Always",
        pull_secrets=("registry", "mirror"),
        network_policies=False,
        gateway_resources={"limits": {"memory": "2Gi"}},
    )
    assert not [each for each in made(options) if each["kind"] == "NetworkPolicy"]
    assert one("Deployment", "modelyard-operator", options)["spec"]["replicas"] == 1
    assert one("Deployment", "modelyard-gateway", options)["spec"]["replicas"] == 5
    assert one("Service", "modelyard-gateway", options)["spec"]["type"] == "LoadBalancer"
    assert one("Service", "modelyard-gateway-internal", options)["spec"]["type"] == "ClusterIP"
    operator = pod("operator", options)
    (container,) = operator["containers"]
    assert container["image"] == "registry.example.com/yard/operator:1.2.3"
    assert container["imagePullPolicy"] == "Always"
    assert operator["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert env["MODELYARD_IMAGE_PREFIX"] == "registry.example.com/yard/"
    assert env["MODELYARD_IMAGE_PULL_SECRETS"] == "registry,mirror"
    heap = xds_bootstrap.limits(2 * 2**30).heap_bytes
    assert str(heap) in one("ConfigMap", "modelyard-gateway", options)["data"]["bootstrap.yaml"]


def test_another_bootstrap_is_another_pod() -> None:
    def annotations(options: Options) -> Object:
        template = one("Deployment", "modelyard-gateway", options)["spec"]["template"]
        found: Object = template["metadata"]["annotations"]
        return found

    assert annotations(PLAIN) == annotations(replace(PLAIN, version="2"))
    assert annotations(PLAIN) != annotations(replace(PLAIN, gateway_resources={"limits": {"memory": "2Gi"}}))
