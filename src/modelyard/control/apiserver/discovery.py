"""What the server serves, as clients ask for it before anything else. Pure.

Source: metav1 APIVersions, APIGroupList and APIResourceList; apidiscovery.k8s.io is not offered, clients fall back.
"""

from typing import Any

from modelyard.control.apiserver.kinds import Kind
from modelyard.control.apiserver.requests import Catalog

Object = dict[str, Any]
_WRITES = ("create", "delete", "deletecollection", "patch", "update")
_READS = ("get", "list", "watch")
VERSION = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+modelyard",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}
"""The version of Kubernetes whose API is spoken: kubectl compares it with its own."""


def verbs(kind: Kind) -> frozenset[str]:
    """What may be done with a kind: definitions are only read, namespaces are deleted one by one."""
    if kind.plural == "customresourcedefinitions":
        return frozenset(_READS)
    if kind.question:
        return frozenset({"create"})
    return frozenset((*_READS, *_WRITES)) - ({"deletecollection"} if kind.plural == "namespaces" else set())


def answer(path: str, catalog: Catalog, host: str) -> Object | None:
    """The document at a path, None when there is none. host: as the client wrote it."""
    groups = {group: _group(group, catalog) for group in (kind.group for kind in catalog.kinds) if group}
    found: Object | None = None
    match path.strip("/").split("/"):
        case ["version"]:
            found = VERSION
        case ["api"]:
            addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}]
            found = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}
        case ["apis"]:
            found = {"kind": "APIGroupList", "apiVersion": "v1", "groups": list(groups.values())}
        case ["apis", group] if group in groups:
            found = {"kind": "APIGroup", "apiVersion": "v1", **groups[group]}
        case ["api", version]:
            found = _resources("", version, catalog)
        case ["apis", group, version]:
            found = _resources(group, version, catalog)
    return found


def _group(group: str, catalog: Catalog) -> Object:
    versions = list(dict.fromkeys(kind.version for kind in catalog.kinds if kind.group == group))
    found = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": found, "preferredVersion": found[0]}


def _resources(group: str, version: str, catalog: Catalog) -> Object | None:
    kinds = [kind for kind in catalog.kinds if (kind.group, kind.version) == (group, version)]
    if not kinds:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": kinds[0].api_version,
        "resources": [each for kind in kinds for each in (_resource(kind), *_subresources(kind))],
    }


def _resource(kind: Kind) -> Object:
    return {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(verbs(kind)),
        **({"shortNames": list(kind.short_names)} if kind.short_names else {}),
        **({"categories": list(kind.categories)} if kind.categories else {}),
    }


def _subresources(kind: Kind) -> list[Object]:
    found: list[Object] = []
    verbs = ["get", "patch", "update"]
    common = {"singularName": "", "namespaced": kind.namespaced, "verbs": verbs}
    if kind.status:
        found.append({"name": f"{kind.plural}/status", "kind": kind.kind, **common})
    if kind.tokens:
        place = {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"}
        found.append({**common, "name": f"{kind.plural}/token", **place, "verbs": ["create"]})
    if kind.scale is not None:
        found.append(
            {"name": f"{kind.plural}/scale", "group": "autoscaling", "version": "v1", "kind": "Scale", **common}
        )
    return found
