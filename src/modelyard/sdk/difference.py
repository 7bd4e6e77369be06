"""What a manifest would change, field by field, and what would follow from that. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.api.effects import ONLY_PODS, Effect, effect
from modelyard.control.ir import names
from modelyard.sdk.merge import LAST_APPLIED
from modelyard.sdk.objects import Object, model_reference

_NOT_DECLARED = ("status",)
_OF_THE_SERVER = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "ownerReferences"}
)
_KEYS = ("name", "revision", "mountPath", "key")
"""Fields by which items of lists are told apart."""
_LONGEST = 160
_HIDDEN = "(not shown)"
_PLAIN: Mapping[Effect, str] = {
    Effect.ROUTE: "in force at once, no process is started",
    Effect.AT_ONCE: "in force at once",
    Effect.READ: "the artifact is read again; who uses it gets a new revision if what is found differs",
    Effect.USERS: "services and streams of this namespace that it runs get new revisions",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One field. before, after: as JSON; None: it is not there."""

    path: str
    before: str | None
    after: str | None

    def lines(self) -> tuple[str, ...]:
        """As a difference is usually shown."""
        sides = (("-", self.before), ("+", self.after))
        return tuple(f"{sign} {self.path}: {_short(value)}" for sign, value in sides if value is not None)


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> tuple[Change, ...]:
    """What people declare and its defaults; nothing that servers and controllers write. Values of Secrets stay hidden.

    before: None for a new object.
    """
    secret = after.get("kind") == "Secret"
    return tuple(_walk("", _declared(before or {}), _declared(after), secret))


def _declared(body: Mapping[str, Any]) -> Object:
    found = {key: value for key, value in body.items() if key not in (*_NOT_DECLARED, "apiVersion", "kind")}
    metadata = {key: value for key, value in (body.get("metadata") or {}).items() if key not in _OF_THE_SERVER}
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    for key in ("name", "namespace", "annotations", "finalizers"):
        metadata.pop(key, None)
    return {**found, "metadata": metadata | ({"annotations": annotations} if annotations else {})}


def _walk(path: str, before: Any, after: Any, secret: bool) -> Iterator[Change]:
    if before == after:
        return
    if isinstance(before, dict | None) and isinstance(after, dict | None) and (before or after):
        old, new = before or {}, after or {}
        for key in dict.fromkeys((*old, *new)):
            yield from _walk(_join(path, key), old.get(key), new.get(key), secret)
        return
    old_items, new_items = _keyed(before), _keyed(after)
    if old_items is not None and new_items is not None:
        for key in dict.fromkeys((*old_items, *new_items)):
            yield from _walk(f"{path}[{key}]", old_items.get(key), new_items.get(key), secret)
        return
    hidden = secret and path.partition(".")[0] in ("data", "stringData")
    texts = [None if each is None else _HIDDEN if hidden else json.dumps(each, ensure_ascii=False, sort_keys=True)
             for each in (before, after)]  # fmt: skip
    yield Change(path=path, before=texts[0], after=texts[1])


def _join(path: str, key: str) -> str:
    word = key if all(each.isalnum() or each in "-_" for each in key) else f"[{key!r}]"
    return f"{path}{word}" if word.startswith("[") or not path else f"{path}.{word}"


def _keyed(value: Any) -> dict[str, Any] | None:
    """A list by what tells its items apart; {} for none; None for what is no such list."""
    if value is None:
        return {}
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return None
    for key in _KEYS:
        found = {str(each[key]): each for each in value if key in each}
        if len(found) == len(value):
            return found
    return None


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."


def consequences(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], found: Sequence[Change], *, cluster: bool
) -> tuple[str, ...]:
    """What follows, in sentences. cluster: whether pods would run it."""
    kind = str(after.get("kind"))
    if before is None:
        return (_new(kind, after),)
    effects: dict[Effect, list[str]] = {}
    for each in found:
        field = ".".join(each.path.partition("[")[0].split(".")[:2])
        of = effect(kind, each.path)
        if not cluster and field.removeprefix("spec.") in ONLY_PODS:
            of = Effect.NONE
        effects.setdefault(_annotated(kind, each.path) or of, []).append(field)
    told = (_sentence(kind, before, after, of, dict.fromkeys(fields)) for of, fields in effects.items())
    sentences = tuple(each for each in told if each)
    return sentences or (("nothing runs otherwise",) if found else ())


def _annotated(kind: str, path: str) -> Effect | None:
    if names.ANNOTATION_RESTART in path and kind in ("ModelService", "ModelStream"):
        return Effect.REVISION
    return Effect.READ if names.ANNOTATION_REFRESH in path and kind == "Model" else None


def _new(kind: str, after: Mapping[str, Any]) -> str:
    spec = after.get("spec") or {}
    inline = (model_reference(after) or {}).get("uri")
    reads = f"{inline} is read as a Model of its own, then " if inline else ""
    count = spec.get("replicas", 1)
    if kind == "ModelService":
        return f"new: {reads}{_starting(count, 'replica')}"
    if kind == "ModelStream":
        return f"new: {reads}{_starting(count, 'runner')}" if not spec.get("suspend") else "new, suspended"
    if kind == "ModelJob":
        return f"new: {reads}it runs once" if not spec.get("suspend") else "new, suspended"
    return f"new: {spec.get('uri')} is read" if kind == "Model" else "new"


def _sentence(
    kind: str, before: Mapping[str, Any], after: Mapping[str, Any], of: Effect, fields: Mapping[str, Any]
) -> str:
    because = f"({', '.join(fields)})"
    if of is Effect.REVISION:
        return _revision(kind, before, after, because)
    if of is Effect.SCALE:
        return _scale(before, after, because)
    if of is Effect.RECORDED:
        started = (before.get("status") or {}).get("startTime")
        return f"{'no effect: the job has started' if started else 'in force when the job starts'} {because}"
    return f"{_PLAIN[of]} {because}" if of in _PLAIN else ""


def _revision(kind: str, before: Mapping[str, Any], after: Mapping[str, Any], because: str) -> str:
    metadata, status = after["metadata"], before.get("status") or {}
    latest = str(status.get("latestCreatedRevision") or "")
    number = int(latest.rpartition("-")[2]) + 1 if latest.rpartition("-")[2].isdecimal() else 1
    stream = kind == "ModelStream"
    name = (names.stream_revision if stream else names.revision)(str(metadata["name"]), number)
    spec = after.get("spec") or {}
    count = 0 if spec.get("suspend") else int(spec.get("replicas", 1))
    if not count:
        return f"makes revision {name} {because}: nothing runs now"
    word = "runner" if stream else "replica"
    serving = status.get("latestReadyRevision")
    does = "scores" if stream else "answers"
    stays = f" beside those of {serving}, which {does} until they are ready" if serving else ""
    return f"makes revision {name} {because}: its {_starting(count, word)}{stays}"


def _scale(before: Mapping[str, Any], after: Mapping[str, Any], because: str) -> str:
    old, new = before.get("spec") or {}, after.get("spec") or {}
    if bool(old.get("suspend")) != bool(new.get("suspend")):
        return f"{'stops what runs; what is done stays' if new.get('suspend') else 'goes on'} {because}"
    for field, word in (("replicas", "replica"), ("parallelism", "runner")):
        if old.get(field) != new.get(field):
            return f"{_counted(int(new.get(field, 1)), word)} instead of {old.get(field, 1)} {because}"
    return ""


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _starting(count: int, word: str) -> str:
    return f"{_counted(count, word)} start{'s' if count == 1 else ''}"
