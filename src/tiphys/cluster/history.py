"""The whole history of a simulated cluster: every write with its virtual time and its author, and what the nodes did.

Fed by the store's commits (faultystore.py), so it is the truth: it survives restarts of the API server and misses
nothing that a watch may miss. Read by checks.py and by people: `story` tells the life of one object.

Invariant: `changes` are in the order of their revisions; `live` holds what the last of them left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

AUTHOR: ContextVar[str] = ContextVar("author", default="")
"""Who asked for what is being written now: component, method and path."""
STORY_LINES = 120
FAULT = "fault"
"""Instead of a node's name: what went wrong on purpose."""
_HEARTBEATS = ("/registry/coordination.k8s.io/leases/", "/registry/core/events/")


@dataclass
class Change:
    """One write of one object."""

    at_s: float
    """Virtual time since the start."""
    revision: int
    key: str
    before: bytes | None
    after: bytes | None
    author: str

    @property
    def resource(self) -> str:
        """The plural, e.g. `pods`."""
        return self.key.split("/")[3]

    @cached_property
    def obj(self) -> dict[str, Any]:
        """The object after the change, {} if it is gone."""
        return orjson.loads(self.after) if self.after else {}

    @cached_property
    def was(self) -> dict[str, Any]:
        """The object before the change, {} if there was none."""
        return orjson.loads(self.before) if self.before else {}

    @property
    def any(self) -> dict[str, Any]:
        """The newest state that there is."""
        return self.obj or self.was

    def is_heartbeat(self) -> bool:
        """Return whether this only says that somebody lives (leases, times in a node's conditions) or is an Event."""
        if self.key.startswith(_HEARTBEATS):
            return True
        return self.resource == "nodes" and bool(self.was) and bool(self.obj) and _beats(self.was) == _beats(self.obj)


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """Something that happened to a container or sandbox of a simulated runtime, or on purpose (a fault: no pod)."""

    at_s: float
    node: str
    what: str
    """STARTED, STOPPED of a container; otherwise a sentence."""
    namespace: str = ""
    pod: str = ""
    uid: str = ""
    container: str = ""


@dataclass(slots=True)
class History:
    """See the module's docstring."""

    changes: list[Change] = field(default_factory=list)
    node_events: list[NodeEvent] = field(default_factory=list)
    live: dict[str, Change] = field(default_factory=dict)

    def write(self, at_s: float, revision: int, key: str, after: bytes | None) -> None:
        """Take in one write that the store has made."""
        last = self.live.get(key)
        change = Change(at_s, revision, key, last.after if last else None, after, AUTHOR.get())
        self.changes.append(change)
        if after is None:
            self.live.pop(key, None)
        else:
            self.live[key] = change

    def note(self, event: NodeEvent) -> None:
        self.node_events.append(event)

    def is_faultless(self) -> bool:
        """Return whether nothing went wrong on purpose."""
        return all(event.node != FAULT for event in self.node_events)

    def of(self, resource: str) -> Iterator[Change]:
        """Return the changes of one resource (plural)."""
        return (change for change in self.changes if change.resource == resource)

    def objects(self, resource: str, namespace: str = "") -> list[dict[str, Any]]:
        """Return what there is of a resource now, by key."""
        found = [change for change in self.live.values() if change.resource == resource]
        found.sort(key=lambda change: change.key)
        return [c.obj for c in found if not namespace or c.obj["metadata"].get("namespace") == namespace]

    def get(self, resource: str, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """Return an object as it is now, None if there is none."""
        end = f"/{resource}/{namespace}/{name}" if namespace else f"/{resource}/{name}"
        return next((change.obj for key, change in self.live.items() if key.endswith(end)), None)

    def lines(self) -> Iterator[str]:
        """Return everything as text, one line a write: equal for equal histories."""
        for c in self.changes:
            digest = hashlib.sha256(c.after or b"").hexdigest()[:16]
            yield f"{c.at_s:.6f} {c.revision} {c.key} {digest} {c.author}"

    def digest(self) -> str:
        """Return a hash of the whole history."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()

    def story(self, part: str) -> str:
        """Tell what happened to the objects whose key ends with `part` (`pods/default/web-0`), and on their nodes."""
        told = [(c.at_s, c.revision, _line(c)) for c in self.changes if c.key.endswith(part)]
        name = part.rpartition("/")[2]
        told += [
            (e.at_s, 0, f"{e.node}: {e.what} {e.container} {e.uid[:8]}".rstrip())
            for e in self.node_events
            if e.pod in ("", name)
        ]
        told.sort(key=lambda item: item[:2])
        cut = [f"... {len(told) - STORY_LINES} lines before"] if len(told) > STORY_LINES else []
        return "\n".join([f"story of {part}", *cut, *(f"{at:10.3f} {text}" for at, _, text in told[-STORY_LINES:])])


class Violation(AssertionError):
    """A promise was broken. `parts` name the objects whose stories explain it."""

    def __init__(self, text: str, *parts: str) -> None:
        super().__init__(text)
        self.parts = parts

    def told(self, history: History) -> str:
        """Return the sentence and the stories."""
        return "\n\n".join([str(self), *(history.story(part) for part in self.parts)])


def part_of(obj: dict[str, Any]) -> str:
    """Return `namespace/name` or `name` of an object."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Say how two decoded values differ, a short text a place."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            if key not in ("managedFields",):
                yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path}: {_short(old)} -> {_short(new)}"


def _line(change: Change) -> str:
    if not change.was:
        what = "created " + _short(change.obj.get("spec"), 200)
    elif not change.obj:
        what = "gone"
    else:
        what = "; ".join(differences(change.was, change.obj))[:600]
    return f"r{change.revision} [{change.author}] {what}"


def _short(value: Any, longest: int = 160) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= longest else text[:longest] + "…"


def _beats(node: dict[str, Any]) -> Any:
    status = {**node.get("status", {})}
    dropped = ("lastHeartbeatTime",)
    conditions = status.pop("conditions", [])
    kept = [{k: v for k, v in c.items() if k not in dropped} for c in conditions]
    meta = {k: v for k, v in node["metadata"].items() if k != "managedFields"}
    return (meta, node.get("spec"), status, kept)
