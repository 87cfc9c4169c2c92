"""The graph of who owns whom, and what follows from it: the pure part of the garbage collector.

In: the metadata of every object, as it changes. Out: `Verdict`s for one object at a time. The graph holds one small
record an object; dependents are found by the owner's uid.

Invariant (`check`): an object is listed as a dependent exactly under the uids of its owner references.

Spec: Kubernetes docs, "Garbage Collection" (background, foreground, orphan), "Owners and Dependents"; that a circle of
owners holds nobody is upstream's conformance test "should not be blocked by dependency circle".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from tiphys.api.views.meta import ObjectMeta, OwnerReference
from tiphys.client.interface import Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(slots=True)
class Item:
    """One object of the cluster."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    owners: tuple[OwnerReference, ...] = ()
    deleting: bool = False
    finalizers: tuple[str, ...] = ()

    def waits_for_dependents(self) -> bool:
        return self.deleting and FOREGROUND in self.finalizers


class OwnerState(Enum):
    """What an owner reference stands for."""

    SOLID = "solid"
    """The owner exists."""
    ABSENT = "absent"
    """No object of that uid exists."""
    WAITING = "waiting"
    """The owner is being deleted in the foreground: it waits for its dependents to go first."""


class Action(Enum):
    KEEP = "keep"
    UNREFERENCE = "unreference"
    """Remove the owner references in `references`."""
    DELETE = "delete"
    """Delete with `propagation`."""
    FREE = "free"
    """Remove the foreground finalizer: nothing blocks any more."""
    WAIT = "wait"
    """Being deleted in the foreground: its dependents go first."""
    UNBLOCK = "unblock"
    """As WAIT, but it waits for itself in the end: it no longer blocks the owners in `references`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with one object, and why."""

    action: Action
    reason: str
    propagation: str = ""
    references: tuple[str, ...] = ()
    """Uids of owners whose references go."""


@dataclass(slots=True)
class Graph:
    """All objects by uid, and dependents by the uid of their owner."""

    items: dict[str, Item] = field(default_factory=dict)
    dependents: dict[str, set[str]] = field(default_factory=dict)

    def put(self, resource: Resource, meta: ObjectMeta) -> Item:
        """Take the newest metadata of an object."""
        item = self.items.get(meta.uid)
        if item is None:
            item = Item(resource, meta.namespace, meta.name, meta.uid)
            self.items[meta.uid] = item
        if item.owners != meta.owner_references:
            self._unlink(item)
            item.owners = meta.owner_references
            for owner in item.owners:
                self.dependents.setdefault(owner.uid, set()).add(item.uid)
        item.deleting = meta.deletion_timestamp is not None
        item.finalizers = meta.finalizers
        return item

    def drop(self, uid: str) -> list[Item]:
        """Forget an object that is gone; return its dependents, which now have an owner less."""
        item = self.items.pop(uid, None)
        if item is not None:
            self._unlink(item)
        return self.dependents_of(uid)

    def dependents_of(self, uid: str) -> list[Item]:
        return [self.items[other] for other in sorted(self.dependents.get(uid, ())) if other in self.items]

    def blockers_of(self, uid: str) -> list[Item]:
        """Return the dependents that keep an owner from going in the foreground."""
        return [
            item
            for item in self.dependents_of(uid)
            if any(owner.uid == uid and owner.block_owner_deletion for owner in item.owners)
        ]

    def circular_owners(self, item: Item) -> tuple[str, ...]:
        """Return the uids of owners that wait for an item, which waits for them: directly or through others."""
        return tuple(owner for owner in self._blocked_owners(item) if self._waits_for(owner, item.uid))

    def _blocked_owners(self, item: Item) -> list[str]:
        owners = (owner.uid for owner in item.owners if owner.block_owner_deletion)
        return [uid for uid in owners if uid in self.items and self.items[uid].waits_for_dependents()]

    def _waits_for(self, uid: str, end: str) -> bool:
        """Tell whether the chain of owners that are blocked, from one item on, leads to another."""
        seen, todo = set(), [uid]
        while todo:
            current = todo.pop()
            if current == end:
                return True
            if current not in seen:
                seen.add(current)
                todo += self._blocked_owners(self.items[current])
        return False

    def check(self) -> None:
        """Assert the invariant."""
        expected: dict[str, set[str]] = {}
        for item in self.items.values():
            for owner in item.owners:
                expected.setdefault(owner.uid, set()).add(item.uid)
        assert expected == {uid: found for uid, found in self.dependents.items() if found}

    def _unlink(self, item: Item) -> None:
        for owner in item.owners:
            found = self.dependents.get(owner.uid)
            if found is not None:
                found.discard(item.uid)
                if not found:
                    del self.dependents[owner.uid]


def plan_item(item: Item, states: Callable[[OwnerReference], OwnerState], graph: Graph) -> Verdict:
    """Return what to do with an object, given what its owner references stand for."""
    if item.waits_for_dependents():
        blockers = graph.blockers_of(item.uid)
        circle = graph.circular_owners(item) if blockers else ()
        if circle:
            return Verdict(Action.UNBLOCK, "its owners wait for it, and it for them", references=circle)
        if blockers:
            return Verdict(Action.WAIT, f"{len(blockers)} dependents block its deletion")
        return Verdict(Action.FREE, "no dependent blocks its deletion any more")
    if item.deleting:
        return Verdict(Action.KEEP, "it is being deleted already")
    if not item.owners:
        return Verdict(Action.KEEP, "nobody owns it")
    known = [(owner, states(owner)) for owner in item.owners]
    solid = [owner for owner, state in known if state is OwnerState.SOLID]
    waiting = [owner for owner, state in known if state is OwnerState.WAITING]
    lost = tuple(owner.uid for owner, state in known if state is not OwnerState.SOLID)
    if solid:
        if lost:
            return Verdict(Action.UNREFERENCE, f"{len(lost)} of its owners are gone, others are not", references=lost)
        return Verdict(Action.KEEP, "its owners exist")
    if waiting and graph.dependents_of(item.uid):
        return Verdict(Action.DELETE, f"its owner {waiting[0].name} waits for it", "Foreground")
    return Verdict(
        Action.DELETE, f"its owner {item.owners[0].kind} {item.owners[0].name} is gone", _propagation(item.finalizers)
    )


def _propagation(finalizers: Iterable[str]) -> str:
    found = set(finalizers)
    if ORPHAN in found:
        return "Orphan"
    return "Foreground" if FOREGROUND in found else "Background"
