"""What the API server holds, as typed values with the indexes that decisions need."""

import logging
from collections import defaultdict
from typing import Any

from modelyard.api import load
from modelyard.api.access import AccessPolicy
from modelyard.api.job import ModelJob
from modelyard.api.model import Model
from modelyard.api.runtime import Runtime
from modelyard.api.service import ModelService
from modelyard.api.stream import ModelStream
from modelyard.base.errors import UserError
from modelyard.control.ir.revision import JobRevision, Recorded, Revision
from modelyard.control.ir.values import Key
from modelyard.control.plan import model as models
from modelyard.control.render import kube as render

log = logging.getLogger(__name__)
Object = dict[str, Any]
_Place = tuple[str, str]
"""Namespace and name."""
_SERVICE, _POLICY = ModelService.__name__, AccessPolicy.__name__
User = ModelService | ModelJob | ModelStream
"""Kinds that refer to Models."""


class Objects:
    """Kept up to date by reflectors through `put`, which answers whom a change concerns.

    Every question is a lookup: ten thousand objects cost no more per decision than ten.
    """

    def __init__(self) -> None:
        self.raw: dict[Key, Object] = {}
        self.declared: dict[Key, load.Declared] = {}
        self.unreadable: dict[Key, str] = {}
        self._here: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._runtimes: dict[str, dict[str, Runtime]] = defaultdict(dict)
        self._users: dict[_Place, set[Key]] = defaultdict(set)
        self._owned: dict[str, set[Key]] = defaultdict(set)
        self._owners_by_uid: dict[str, Key] = {}
        self._revisions: dict[Key, dict[str, tuple[str, Recorded]]] = defaultdict(dict)
        self._revision_owners: dict[_Place, Key] = {}

    def put(self, kind: str, namespace: str, name: str, body: Object | None) -> set[Key]:
        """Take over one object (None: it is gone). Returns the keys that must be looked at again."""
        key = Key(kind=kind, namespace=namespace, name=name)
        concerned = self._concerned(key)
        if kind == _SERVICE and (key in self.raw) != (body is not None):
            concerned |= self._here.get((_POLICY, namespace), set())  # they count their services
        self._forget(key)
        if body is not None:
            self.raw[key] = body
            self._here[kind, namespace].add(key)
            try:
                self.declared[key] = load.decode(body)
            except UserError as error:
                self.unreadable[key] = error.message
            else:
                self._index(key, self.declared[key])
        return concerned | self._concerned(key)

    def put_revision(self, namespace: str, name: str, body: Object | None) -> set[Key]:
        """Take over one ControllerRevision; whom that concerns. The log tells of one that is not ours and is skipped.

        What it says about its owner must agree with where it lies: who may write in one namespace decides nothing in
        another.
        """
        touched: set[Key] = set()
        owner = self._revision_owners.pop((namespace, name), None)
        if owner is not None:
            touched.add(owner)
            self._revisions[owner].pop(name, None)
            if not self._revisions[owner]:
                del self._revisions[owner]
        found = None if body is None else _ours(namespace, name, body)
        if body is not None and found is not None:
            self._revisions[found.owner][name] = (_owner_uid(body), found)
            self._revision_owners[namespace, name] = found.owner
            touched.add(found.owner)
        return touched

    def keys(self) -> tuple[Key, ...]:
        """All objects, sorted."""
        return tuple(sorted(self.raw))

    def going(self, key: Key) -> bool:
        """Being deleted: only its finalizers and dependents keep it, so nothing may be made for it any more."""
        return bool(self.raw.get(key, {}).get("metadata", {}).get("deletionTimestamp"))

    def runtimes(self, namespace: str) -> tuple[Runtime, ...]:
        """The Runtimes of a namespace, by name."""
        kept = self._runtimes.get(namespace, {})
        return tuple(kept[name] for name in sorted(kept))

    def services(self, namespace: str) -> tuple[Key, ...]:
        """The ModelServices of a namespace, those included that cannot be read; by name."""
        return tuple(sorted(self._here.get((_SERVICE, namespace), ())))

    def meant(self, places: set[_Place]) -> set[Key]:
        """The ModelServices of these namespaces and names; a name "" means all of a namespace."""
        named = {Key(kind=_SERVICE, namespace=namespace, name=name) for namespace, name in places if name}
        return named.union(*(self._here.get((_SERVICE, namespace), ()) for namespace, name in places if not name))

    def policies(self, namespaces: set[str] | None) -> list[Key]:
        """The AccessPolicies of these namespaces; None: of all."""
        found = (keys for (kind, at), keys in self._here.items() if kind == _POLICY)
        if namespaces is not None:
            found = (self._here.get((_POLICY, at), set()) for at in sorted(namespaces))
        return [key for keys in found for key in sorted(keys)]

    def models_for(self, user: User) -> tuple[Model, ...]:
        """The Models that an object names, owns or makes, by name."""
        keys = set(self._owned.get(user.metadata.uid, ()))
        for name in _named(user):
            keys.add(Key(kind=models.KIND, namespace=user.metadata.namespace, name=name))
        found = (self.declared.get(key) for key in sorted(keys))
        return tuple(each for each in found if isinstance(each, Model))

    def revisions(self, owner: Key) -> tuple[Revision, ...]:
        """The recorded revisions of a service or stream; not those of an earlier one of its name, which are going."""
        return tuple(each for each in self._recorded(owner) if isinstance(each, Revision))

    def job_revision(self, owner: Key) -> JobRevision | None:
        """The recorded revision of a job, in the same way."""
        return next((each for each in self._recorded(owner) if isinstance(each, JobRevision)), None)

    def _recorded(self, owner: Key) -> tuple[Recorded, ...]:
        uid = self.raw.get(owner, {}).get("metadata", {}).get("uid", "")
        return tuple(each for owner_uid, each in self._revisions.get(owner, {}).values() if owner_uid == uid)

    def _index(self, key: Key, thing: load.Declared) -> None:
        if isinstance(thing, Runtime):
            self._runtimes[key.namespace][key.name] = thing
        elif isinstance(thing, User):
            self._owners_by_uid[thing.metadata.uid] = key
            for name in _named(thing):
                self._users[key.namespace, name].add(key)
        elif isinstance(thing, Model):
            for uid in _controllers(thing):
                self._owned[uid].add(key)

    def _forget(self, key: Key) -> None:
        self.raw.pop(key, None)
        _discard(self._here, (key.kind, key.namespace), key)
        self.unreadable.pop(key, None)
        thing = self.declared.pop(key, None)
        if isinstance(thing, Runtime):
            self._runtimes[key.namespace].pop(key.name, None)
        elif isinstance(thing, User):
            self._owners_by_uid.pop(thing.metadata.uid, None)
            for name in _named(thing):
                _discard(self._users, (key.namespace, name), key)
        elif isinstance(thing, Model):
            for uid in _controllers(thing):
                _discard(self._owned, uid, key)

    def _concerned(self, key: Key) -> set[Key]:
        thing = self.declared.get(key)
        keys = {key}
        if key.kind == models.KIND:
            keys |= self._users.get((key.namespace, key.name), set())
        if isinstance(thing, Model):
            owners = (self._owners_by_uid.get(uid) for uid in _controllers(thing))
            keys |= {owner for owner in owners if owner is not None}
        if isinstance(thing, Runtime):
            keys |= {other for other in self.raw if other.namespace == key.namespace}
        return keys


def _named(user: User) -> set[str]:
    """The Models that it refers to by name; that which a job makes, too."""
    if isinstance(user, ModelService | ModelStream):
        return {user.spec.model.name} if user.spec.model.name else set()
    score, run = user.spec.score, user.spec.run
    named = score.model.name if score else run.output_model.name if run and run.output_model else None
    return {named} if named else set()


def _ours(namespace: str, name: str, body: Object) -> Recorded | None:
    try:
        found = render.revision(body)
    except UserError as error:
        log.warning("%s", error)
        return None
    runs = found.task.owner if isinstance(found, JobRevision) else found.unit.owner
    of = found.name if isinstance(found, JobRevision) else found.unit.revision
    if (found.owner.namespace, found.name, runs, of) != (namespace, name, found.owner, name):
        log.warning("ControllerRevision %s/%s names another owner than its own; it is not used", namespace, name)
        return None
    return found


def _owner_uid(body: Object) -> str:
    references = body.get("metadata", {}).get("ownerReferences") or ()
    return next((str(each.get("uid", "")) for each in references if each.get("controller")), "")


def _controllers(model: Model) -> list[str]:
    return [reference.uid for reference in model.metadata.owner_references if reference.controller]


def _discard(index: dict[Any, set[Key]], at: object, key: Key) -> None:
    kept = index.get(at)
    if kept is not None:
        kept.discard(key)
        if not kept:
            del index[at]
