import re
from typing import Any

from apiserver_testing import CUSTOM, KINDS
from modelyard.control.apiserver import openapi

GVK = "x-kubernetes-group-version-kind"
CORE = [KINDS[name] for name in ("Namespace", "ConfigMap", "Secret", "Event")]


def parts(value: Any) -> list[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict) else []
    return own + [part for each in inner for part in parts(each)]


def test_the_index_names_every_group_version_with_a_hash_that_follows_its_content() -> None:
    index = openapi.index(KINDS.values())["paths"]
    assert list(index) == [
        "api/v1",
        "apis/apps/v1",
        "apis/coordination.k8s.io/v1",
        "apis/modelyard.dev/v1alpha1",
        "apis/rbac.authorization.k8s.io/v1",
    ]
    url = index["apis/modelyard.dev/v1alpha1"]["serverRelativeURL"]
    assert re.fullmatch(r"/openapi/v3/apis/modelyard\.dev/v1alpha1\?hash=[0-9A-F]{64}", url)
    fewer = openapi.index(CUSTOM[:1])["paths"]["apis/modelyard.dev/v1alpha1"]["serverRelativeURL"]
    assert fewer != url
    assert openapi.index(KINDS.values())["paths"] == index


def test_every_reference_has_a_target() -> None:
    for kinds in (CUSTOM, CORE):
        document = openapi.document(kinds)
        schemas = document["components"]["schemas"]
        references = [part["$ref"] for part in parts(document) if "$ref" in part]
        assert references
        assert all(each.removeprefix("#/components/schemas/") in schemas for each in references)


def test_each_kind_is_found_by_group_version_and_kind() -> None:
    schemas = openapi.document(CUSTOM)["components"]["schemas"]
    service = schemas["dev.modelyard.v1alpha1.ModelService"]
    assert service[GVK] == [{"group": "modelyard.dev", "version": "v1alpha1", "kind": "ModelService"}]
    assert "$ref" in service["properties"]["metadata"]["allOf"][0]
    assert openapi.document(CORE)["components"]["schemas"]["io.k8s.api.core.v1.Secret"]


def test_the_patch_operation_takes_what_kubectl_asks_for() -> None:
    paths = openapi.document(CUSTOM)["paths"]
    operation = paths["/apis/modelyard.dev/v1alpha1/namespaces/{namespace}/modelservices/{name}"]["patch"]
    assert {each["name"] for each in operation["parameters"]} >= {"fieldValidation", "dryRun"}
    assert operation[GVK]["kind"] == "ModelService"
    assert "/api/v1/namespaces/{name}" in openapi.document(CORE)["paths"]


def test_everything_that_explain_prints_has_a_description() -> None:
    for kinds in (CUSTOM, CORE, [KINDS["Lease"]], [KINDS["ControllerRevision"]]):
        for name, schema in openapi.document(kinds)["components"]["schemas"].items():
            for part in parts(schema):
                for field, inner in part.get("properties", {}).items():
                    assert inner.get("description"), f"{name}: {field}"


def test_rules_of_the_server_are_not_shown() -> None:
    document = openapi.document(CUSTOM)
    assert not any("x-kubernetes-validations" in part for part in parts(document))
