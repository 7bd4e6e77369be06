"""Client-side apply as kubectl does it: what was applied last, what is wanted now and what is there make a patch.

A field that the manifest no longer has is removed; a field that somebody else set stays. The last manifest is kept in
kubectl's own annotation, so that both tools may be used in turn.

Source: k8s.io/apimachinery/pkg/util/jsonmergepatch; RFC 7386.
"""

import json
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def annotated(body: Mapping[str, Any]) -> Object:
    """The manifest with itself in the annotation, spelled byte for byte as kubectl spells it."""
    metadata = dict(body.get("metadata") or {})
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    plain = {**body, "metadata": {**metadata, "annotations": annotations}}
    return {**body, "metadata": {**metadata, "annotations": {**annotations, LAST_APPLIED: _spell(plain)}}}


def last_applied(live: Mapping[str, Any]) -> Object:
    """What was applied last; empty if the object was made in another way or the annotation is damaged."""
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    if not isinstance(text, str):
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def patch(live: Mapping[str, Any], body: Mapping[str, Any]) -> Object:
    """The JSON merge patch that turns `live` into what the manifest `body` asks for; {} if it already is."""
    wanted = annotated(body)
    return _merge(_removed(last_applied(live), wanted), _changed(live, wanted))


def _changed(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> Object:
    """Fields to set. Lists are replaced as a whole; a null in a manifest asks for the field to be absent."""
    found: Object = {}
    for key, value in wanted.items():
        here = live.get(key)
        if isinstance(value, dict):
            # RFC 7386 drops nulls inside a new object, so an absent one is compared as an empty one.
            inner = _changed(here if isinstance(here, dict) else {}, value)
            if inner or not isinstance(here, dict):
                found[key] = inner
        elif value is None:
            if key in live:
                found[key] = None
        elif key not in live or not _equal(here, value):
            found[key] = value
    return found


def _equal(one: Any, other: Any) -> bool:
    """JSON equality: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_equal(left, right) for left, right in zip(one, other, strict=True))
    return bool(one == other)


def _removed(last: Mapping[str, Any], wanted: Mapping[str, Any]) -> Object:
    """Fields that the last manifest had and this one has not."""
    found: Object = {}
    for key, value in last.items():
        if key not in wanted:
            found[key] = None
        elif isinstance(value, dict) and isinstance(wanted[key], dict):
            inner = _removed(value, wanted[key])
            if inner:
                found[key] = inner
    return found


def _merge(removed: Object, changed: Object) -> Object:
    found = dict(removed)
    for key, value in changed.items():
        inner = found.get(key)
        found[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return found


def _spell(body: Mapping[str, Any]) -> str:
    """Go's encoding/json: sorted keys, no spaces, <, > and & escaped, a newline at the end."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text + "\n"
