"""A declared `podTemplate` over the template that is made: field by field, as a strategic merge patch does.

Source: the patch strategies and merge keys of k8s.io/api/core/v1 types.go.
"""

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]
_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "topologySpreadConstraints": "topologyKey",
    "hostAliases": "ip",
    "resourceClaims": "name",
}
"""Lists whose items are merged by one of their fields; all other lists are replaced."""
_ONE_OF = frozenset({"volumes"})
"""Whose items say one of several things: what is declared replaces an item as a whole (`retainKeys`)."""
_HANDLERS = frozenset({"exec", "httpGet", "tcpSocket", "grpc"})


def merge(base: Object, overlay: Mapping[str, Any]) -> Object:
    """A new object; neither is changed. A null takes a field away."""
    merged = dict(base)
    if _HANDLERS & overlay.keys():
        merged = {name: value for name, value in merged.items() if name not in _HANDLERS}
    for name, value in overlay.items():
        before = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[name] = merge(dict(before), value)
        elif isinstance(value, list) and isinstance(before, list) and name in _KEYS:
            merged[name] = _items(before, value, _KEYS[name], whole=name in _ONE_OF)
        else:
            merged[name] = value
    return merged


def _items(before: list[Any], after: list[Any], key: str, *, whole: bool) -> list[Any]:
    """Those that were there keep their places; new ones follow."""
    found = {each[key]: each for each in before if isinstance(each, Mapping) and key in each}
    for each in after:
        if isinstance(each, Mapping) and key in each:
            known = found.get(each[key])
            found[each[key]] = each if known is None or whole else merge(dict(known), each)
    return list(found.values())
