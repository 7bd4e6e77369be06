"""Which objects have to go because of others: owners that are gone, namespaces that end. Pure.

The graph holds the metadata of every object; `decide` looks at one object and says what has to be done to it now. What
was done comes back as a change and is looked at again, so a lost race needs no care. Source: the garbage collector and
the namespace controller of Kubernetes (pkg/controller/garbagecollector, pkg/controller/namespace).
"""

from collections import defaultdict
from dataclasses import dataclass, field

from modelyard.control.apiserver.database import Key
from modelyard.control.apiserver.lifecycle import FOREGROUND, ORPHAN
from modelyard.control.apiserver.requests import Propagation

_NAMESPACES = "namespaces"


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner reference. key None: of a kind that is not served here, so nobody can tell whether it exists."""

    uid: str
    key: Key | None
    blocking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What the graph knows of an object."""

    key: Key
    revision: int
    uid: str
    owners: tuple[Owner, ...] = ()
    finalizers: tuple[str, ...] = ()
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Ask for the deletion of the object."""

    propagation: Propagation


@dataclass(frozen=True, slots=True)
class DropOwners:
    """Take these owner references off."""

    uids: frozenset[str]


@dataclass(frozen=True, slots=True)
class DropFinalizer:
    """Nothing is left to wait for on account of this finalizer."""

    name: str


@dataclass(frozen=True, slots=True)
class EndNamespace:
    """The namespace is empty."""


Step = Delete | DropOwners | DropFinalizer | EndNamespace


@dataclass(slots=True)
class Graph:
    """All objects, by key, uid, owner and namespace."""

    _nodes: dict[Key, Node] = field(default_factory=dict)
    _by_uid: dict[str, Key] = field(default_factory=dict)
    _dependents: defaultdict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _content: defaultdict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))

    def keys(self) -> tuple[Key, ...]:
        """Every object."""
        return tuple(self._nodes)

    def revision(self, key: Key) -> int:
        """The version that decisions about the object are made on."""
        return self._nodes[key].revision

    def put(self, node: Node) -> set[Key]:
        """An object is new or changed; returns what has to be looked at again."""
        affected = self.remove(node.key) if node.key in self._nodes else set()
        self._nodes[node.key] = node
        self._by_uid[node.uid] = node.key
        self._content[node.key.namespace].add(node.key)
        for owner in node.owners:
            self._dependents[owner.uid].add(node.key)
        return affected | self._around(node)

    def remove(self, key: Key) -> set[Key]:
        """An object is gone; returns what has to be looked at again."""
        node = self._nodes.pop(key, None)
        if node is None:
            return set()
        if self._by_uid.get(node.uid) == key:
            del self._by_uid[node.uid]
        _discard(self._content, key.namespace, key)
        for owner in node.owners:
            _discard(self._dependents, owner.uid, key)
        return self._around(node) - {key}

    def _around(self, node: Node) -> set[Key]:
        near = {node.key} | {owner.key for owner in node.owners if owner.key is not None}
        near |= self._dependents.get(node.uid, set())
        near.add(Key(_NAMESPACES, "", node.key.namespace))
        if node.key.resource == _NAMESPACES and node.deleting:
            near |= self._content.get(node.key.name, set())
        return near

    def decide(self, key: Key) -> Step | None:
        """What has to be done to an object now."""
        node = self._nodes.get(key)
        if node is None:
            return None
        return self._by_owners(node) or self._by_finalizers(node) or self._by_namespace(node)

    def _by_owners(self, node: Node) -> Step | None:
        ending = [owner for owner in node.owners if self._ends(owner, node)]
        orphaning = frozenset(owner.uid for owner in node.owners if self._leaves(owner, node))
        if orphaning:
            return DropOwners(orphaning)
        if not ending:
            return None
        if len(ending) < len(node.owners):
            return DropOwners(frozenset(owner.uid for owner in ending))
        if node.deleting:
            return None
        # In the foreground an owner waits for its dependents' own dependents as well.
        waiting = any(self._present(owner, node) for owner in ending) and self._dependents.get(node.uid)
        return Delete("Foreground" if waiting else "Background")

    def _by_finalizers(self, node: Node) -> Step | None:
        if not node.deleting:
            return None
        dependents = [self._nodes[key] for key in self._dependents.get(node.uid, ())]
        mine = [each for each in dependents if any(self._owns(node, owner, each) for owner in each.owners)]
        if ORPHAN in node.finalizers and not mine:
            return DropFinalizer(ORPHAN)
        blocked = any(owner.blocking and owner.uid == node.uid for each in mine for owner in each.owners)
        if FOREGROUND in node.finalizers and not blocked:
            return DropFinalizer(FOREGROUND)
        return None

    def _by_namespace(self, node: Node) -> Step | None:
        if node.key.resource == _NAMESPACES:
            return EndNamespace() if node.deleting and not self._content.get(node.key.name) else None
        home = self._nodes.get(Key(_NAMESPACES, "", node.key.namespace))
        if node.key.namespace and not node.deleting and home is not None and home.deleting:
            return Delete("Background")
        return None

    def _present(self, owner: Owner, node: Node) -> bool:
        """Whether the owner exists where an owner may be: in the same namespace, or in none."""
        if owner.key is None:
            return True
        return self._by_uid.get(owner.uid) == owner.key and owner.key.namespace in ("", node.key.namespace)

    def _owns(self, owner_node: Node, owner: Owner, node: Node) -> bool:
        return owner.uid == owner_node.uid and self._present(owner, node)

    def _ends(self, owner: Owner, node: Node) -> bool:
        """Whether the owner is gone, or waits for this object to go first."""
        return not self._present(owner, node) or FOREGROUND in self._marks(owner)

    def _leaves(self, owner: Owner, node: Node) -> bool:
        return self._present(owner, node) and ORPHAN in self._marks(owner)

    def _marks(self, owner: Owner) -> tuple[str, ...]:
        found = self._nodes.get(owner.key) if owner.key is not None else None
        return found.finalizers if found is not None and found.deleting else ()


def _discard(index: defaultdict[str, set[Key]], word: str, key: Key) -> None:
    index[word].discard(key)
    if not index[word]:
        del index[word]
