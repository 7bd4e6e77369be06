"""Strategic merge patch for the built-in kinds, whose only merged lists are finalizers and ownerReferences.

Source: k8s.io/apimachinery pkg/util/strategicpatch/patch.go and the patch strategies of metav1.ObjectMeta.
"""

from typing import Any

from modelyard.control.apiserver.status import bad_request

_PATCH = "$patch"
_RETAIN_KEYS = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_FINALIZERS = "metadata.finalizers"
_OWNERS = "metadata.ownerReferences"


def strategic_merge(current: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The merged object. Raises StatusError 400 for directives that cannot be followed."""
    return _merge(current, patch, "")


def _merge(current: Any, patch: dict[str, Any], path: str) -> dict[str, Any]:
    directive = patch.get(_PATCH, "merge")
    if directive not in ("merge", "replace", "delete"):
        raise bad_request(f"{path or 'the patch'}: {_PATCH} must be merge, replace or delete, not {directive!r}")
    plain = {key: value for key, value in patch.items() if not _is_directive(key)}
    if directive == "delete":
        return {}
    base = current if isinstance(current, dict) and directive == "merge" else {}
    merged = _retained(base, plain, patch[_RETAIN_KEYS], path) if _RETAIN_KEYS in patch else dict(base)
    for key in dict.fromkeys((*plain, *_lists_named(patch))):
        where = f"{path}.{key}" if path else key
        value = plain.get(key)
        if key in plain and value is None:
            merged.pop(key, None)
        elif where in (_FINALIZERS, _OWNERS):
            merged[key] = _merge_list(merged.get(key), value, patch, key, where)
        elif isinstance(value, dict):
            merged[key] = _merge(merged.get(key), value, where)
        elif key in plain:
            merged[key] = value
    return merged


def _is_directive(key: str) -> bool:
    return key in (_PATCH, _RETAIN_KEYS) or key.startswith((_ORDER, _DELETE))


def _lists_named(patch: dict[str, Any]) -> list[str]:
    """Lists that a directive orders or shortens."""
    return [key.partition("/")[2] for key in patch if key.startswith((_ORDER, _DELETE))]


def _retained(base: dict[str, Any], plain: dict[str, Any], keys: Any, path: str) -> dict[str, Any]:
    kept = _texts(keys, f"{path}: {_RETAIN_KEYS}")
    extra = [key for key in plain if key not in kept]
    if extra:
        raise bad_request(
            f"{path or 'the patch'}: {_RETAIN_KEYS} must contain all keys of the patch, and {extra} are not"
        )
    return {key: value for key, value in base.items() if key in kept}


def _merge_list(current: Any, value: Any, patch: dict[str, Any], key: str, path: str) -> list[Any]:
    before = current if isinstance(current, list) else []
    if value is not None and not isinstance(value, list):
        raise bad_request(f"{path}: expected a list")
    order = patch.get(f"{_ORDER}{key}")
    if path == _FINALIZERS:
        gone = _texts(patch.get(f"{_DELETE}{key}") or [], f"{_DELETE}{key}")
        merged = [each for each in dict.fromkeys(_texts([*before, *(value or [])], path)) if each not in gone]
        return _ordered(merged, _texts(order or [], f"{_ORDER}{key}"))
    if f"{_DELETE}{key}" in patch:
        raise bad_request(f"{path}: is not a list of texts, so {_DELETE}{key} does not apply")
    owners = _merge_owners(before, value or [], path)
    wanted = [_uid(each, f"{_ORDER}{key}") for each in order or []]
    return [owners[uid] for uid in _ordered(list(owners), wanted)]


def _merge_owners(before: list[Any], value: list[Any], path: str) -> dict[str, Any]:
    owners: dict[str, Any] = {_uid(each, path): each for each in before}
    for item in value:
        uid = _uid(item, path)
        if item.get(_PATCH) == "delete":
            owners.pop(uid, None)
        else:
            owners[uid] = _merge(owners.get(uid), item, f"{path}[]")
    return owners


def _uid(item: Any, path: str) -> str:
    uid = item.get("uid") if isinstance(item, dict) else None
    if not isinstance(uid, str):
        raise bad_request(f"{path}: every item must name its uid, by which items are merged")
    return uid


def _texts(items: Any, path: str) -> list[str]:
    if not isinstance(items, list) or not all(isinstance(each, str) for each in items):
        raise bad_request(f"{path}: expected a list of texts")
    return items


def _ordered(items: list[str], order: list[str]) -> list[str]:
    """Items that the order names come in its order; the others keep their places behind those before them."""
    named = [each for each in order if each in items]
    return [*named, *(each for each in items if each not in named)] if named else items
