"""What clients are told about the served kinds."""

from typing import Any

from modelyard.api.schema import crds
from modelyard.control.apiserver import definitions, discovery, kinds
from modelyard.control.apiserver.requests import Catalog

CATALOG = Catalog((*kinds.builtin(), *map(kinds.from_crd, crds()), definitions.KIND, *kinds.questions()))


def answer(path: str) -> dict[str, Any]:
    found = discovery.answer(path, CATALOG, "127.0.0.1:1")
    assert found is not None
    return found


def test_every_group_that_is_listed_can_be_discovered() -> None:
    groups = answer("/apis")["groups"]
    assert {each["name"] for each in groups} == {
        "apps",
        "coordination.k8s.io",
        "rbac.authorization.k8s.io",
        "modelyard.dev",
        "apiextensions.k8s.io",
        "authorization.k8s.io",
        "authentication.k8s.io",
    }
    for group in groups:
        assert answer(f"/apis/{group['name']}")["preferredVersion"] == group["preferredVersion"]
        for version in group["versions"]:
            found = answer(f"/apis/{version['groupVersion']}")
            assert found["groupVersion"] == version["groupVersion"]
            assert found["resources"]


def test_a_service_has_a_short_name_a_category_and_subresources() -> None:
    resources = {each["name"]: each for each in answer("/apis/modelyard.dev/v1alpha1")["resources"]}
    assert resources["modelservices"]["shortNames"] == ["msvc"]
    assert resources["modelservices"]["categories"] == ["modelyard"]
    assert resources["modelservices/scale"]["kind"] == "Scale"
    assert "modelservices/status" in resources
    assert "models/scale" not in resources


def test_definitions_can_only_be_read() -> None:
    (found,) = answer("/apis/apiextensions.k8s.io/v1")["resources"]
    assert found["verbs"] == ["get", "list", "watch"]


def test_other_paths_are_not_discovery() -> None:
    for path in ("/", "/api/v2", "/apis/unknown", "/apis/apps/v9", "/api/v1/namespaces"):
        assert discovery.answer(path, CATALOG, "h") is None
