"""What is stored of units and tasks, found by owner: kept up to date by watches and by our own writes."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from modelyard.control.drivers.kube import observe
from modelyard.control.drivers.kube.observe import Facts
from modelyard.control.ir import names
from modelyard.control.ir.observed import Observed, ObservedTask, ObservedUnit, Trouble
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Key

Object = dict[str, Any]
Place = tuple[str, str]
"""Namespace and name."""
UNITS, TASKS = ("Deployment", "ReplicaSet"), ("Job",)
_KINDS = {label: kind for kind, label in names.OWNER_LABELS.items()}


class Index:
    """changed: told the owner of what has changed."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._held: dict[tuple[str, Place], Object] = {}
        self._specs: dict[tuple[str, Place], tuple[str, Unit | Task]] = {}
        self._named: dict[str, tuple[str, Place]] = {}
        self._owned: dict[Key, set[tuple[str, Place]]] = {}
        self._pods: dict[tuple[str, Place], dict[Place, Object]] = {}
        self.words: dict[str, Trouble] = {}

    def workload_handler(self, kind: str) -> Callable[[Place, Object | None, Object | None], None]:
        """For a reflector."""

        def handle(place: Place, old: Object | None, new: Object | None) -> None:
            body = new or old
            if body is None:
                return
            if new is None:
                self._drop(kind, place, body)
            else:
                self._put(kind, place, new)
            self._tell(body)

        return handle

    def pod_handler(self, place: Place, old: Object | None, new: Object | None) -> None:
        """For a reflector."""
        body = new or old
        if body is None:
            return
        for label in (names.LABEL_UNIT, names.LABEL_TASK):
            short = _label(body, label)
            if short:
                siblings = self._pods.setdefault((label, (place[0], short)), {})
                if new is None:
                    siblings.pop(place, None)
                else:
                    siblings[place] = new
                if not siblings:
                    del self._pods[label, (place[0], short)]
                if label == names.LABEL_TASK:
                    self._remember(("Job", (place[0], short)))
        self._tell(body)

    def learn(self, kind: str, body: Object) -> None:
        """What a write of ours has made, before the watch brings it."""
        metadata = body["metadata"]
        self._put(kind, (metadata["namespace"], metadata["name"]), body)

    def unit(self, name: str) -> tuple[Unit, Object, str] | None:
        """By its name: what it is, what is stored of it, and as what."""
        at = self._named.get(name)
        found = self._specs.get(at) if at else None
        if at is None or found is None or not isinstance(found[1], Unit):
            return None
        return found[1], self._held[at], at[0]

    def task(self, name: str) -> tuple[Task, Object] | None:
        """By its name: what it is, and what is stored of it."""
        at = self._named.get(name)
        found = self._specs.get(at) if at else None
        if at is None or found is None or not isinstance(found[1], Task):
            return None
        return found[1], self._held[at]

    def all(self) -> Iterator[tuple[Unit | Task, Object, tuple[Object, ...]]]:
        """Units and tasks with what is stored of them and their pods."""
        for at, (_, what) in self._specs.items():
            yield what, self._held[at], self._pods_of(at)

    def units(self) -> Iterator[tuple[Unit, Object, tuple[Object, ...]]]:
        """All, with their pods."""
        for at, (_, what) in self._specs.items():
            if isinstance(what, Unit):
                yield what, self._held[at], self._pods_of(at)

    def tasks(self) -> Iterator[tuple[Task, Object, tuple[Object, ...]]]:
        """All, with their pods."""
        for at, (_, what) in self._specs.items():
            if isinstance(what, Task):
                yield what, self._held[at], self._pods_of(at)

    def observed(self, owner: Key | None, facts: Facts) -> Observed:
        """What runs, of one owner or of all."""
        at = tuple(self._specs) if owner is None else tuple(self._owned.get(owner, ()))
        units: list[ObservedUnit] = []
        tasks: list[ObservedTask] = []
        for each in at:
            _, what = self._specs[each]
            held, pods = self._held[each], self._pods_of(each)
            if isinstance(what, Unit):
                units.append(observe.unit(what, held, pods, facts))
            else:
                tasks.append(observe.task(what, held, pods, facts))
        return Observed(
            units=tuple(sorted(units, key=lambda found: found.unit.name)),
            tasks=tuple(sorted(tasks, key=lambda found: found.name)),
        )

    def tell_of(self, pod: Object) -> None:
        """Something about a pod changed that is not stored."""
        self._tell(pod)

    def _put(self, kind: str, place: Place, body: Object) -> None:
        at = (kind, place)
        held = self._held.get(at)
        if held is not None and _version(body) < _version(held):
            return  # the watch has not yet brought what we wrote
        self._held[at] = body
        text = observe.annotation(body, names.ANNOTATION_TASK if kind in TASKS else names.ANNOTATION_UNIT)
        before = self._specs.get(at)
        if before is not None and before[0] == text:
            return
        self._forget(at)
        what = _decoded(text, Task if kind in TASKS else Unit)
        if what is not None and names.kube(what.name) == place:
            self._specs[at] = (text, what)
            self._named[what.name] = at
            self._owned.setdefault(what.owner, set()).add(at)

    def _drop(self, kind: str, place: Place, body: Object) -> None:
        at = (kind, place)
        held = self._held.get(at)
        if held is not None and held["metadata"]["uid"] != body["metadata"]["uid"]:
            return  # another one of the same name, which we have just made
        self._held.pop(at, None)
        self.words.pop(body["metadata"]["uid"], None)
        self._forget(at)

    def _forget(self, at: tuple[str, Place]) -> None:
        before = self._specs.pop(at, None)
        if before is None:
            return
        what = before[1]
        self._named.pop(what.name, None)
        owned = self._owned.get(what.owner, set())
        owned.discard(at)
        if not owned:
            self._owned.pop(what.owner, None)

    def _pods_of(self, at: tuple[str, Place]) -> tuple[Object, ...]:
        """Those that it has made: labels alone anybody can write."""
        kind, place = at
        label = names.LABEL_TASK if kind in TASKS else names.LABEL_UNIT
        held = self._held[at]
        return tuple(pod for pod in self._pods.get((label, place), {}).values() if _made_by(kind, held, pod))

    def _remember(self, at: tuple[str, Place]) -> None:
        """The latest trouble of a Job's pods outlives them."""
        if at not in self._specs:
            return
        trouble = observe.task_trouble(self._pods_of(at), Facts(now=0.0))
        if trouble is not None:
            self.words[self._held[at]["metadata"]["uid"]] = trouble

    def _tell(self, body: Object) -> None:
        for label, kind in _KINDS.items():
            name = _label(body, label)
            if name:
                self._changed(Key(kind=kind, namespace=body["metadata"].get("namespace", ""), name=name))


def _decoded(text: str, kind: type[Unit] | type[Task]) -> Unit | Task | None:
    """None for what another program wrote, or a later release."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _made_by(kind: str, held: Object, pod: Object) -> bool:
    """A Deployment's pods are of a ReplicaSet that is named after it."""
    for each in pod["metadata"].get("ownerReferences") or ():
        if each.get("controller"):
            if kind == "Deployment":
                name = str(each.get("name", ""))
                return bool(each.get("kind") == "ReplicaSet" and name.rpartition("-")[0] == held["metadata"]["name"])
            return bool(each.get("uid") == held["metadata"]["uid"])
    return False


def _label(body: Object, label: str) -> str:
    text = (body["metadata"].get("labels") or {}).get(label, "")
    return text if isinstance(text, str) else ""


def _version(body: Object) -> int:
    text = body["metadata"].get("resourceVersion", "")
    return int(text) if text.isdecimal() else 0
