"""The fan-out of watches: each change is matched and encoded once for all watchers that want the same.

Watchers with the same kind, selection and rendering form a group. A batch of changes becomes one buffer a group, and
the same buffer goes to every sink of it: one call each. A watcher leaves when its time is over, when its peer goes,
when it has not taken more than `pending_bytes` (a slow reader is closed and comes back with its last revision), or
when the cache lost events.

Invariant: a watcher gets every event after its revision once and in order, and all of one batch in one `send`; a
bookmark never names a revision whose events were not sent before it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from tiphys.apiserver.cache import ResourceCache, WatchCache
from tiphys.apiserver.cached import CachedEvent, CachedObject
from tiphys.apiserver.continuation import watch_too_old
from tiphys.apiserver.lists import candidates
from tiphys.apiserver.options import ListOptions, Selection
from tiphys.apiserver.rendering import Rendering
from tiphys.base.errors import ApiError
from tiphys.wire.message import Sink

log = logging.getLogger(__name__)
BOOKMARK_S = 60.0
"""Seconds between bookmarks."""
CHECK_BYTES = 256 * 1024
"""Bytes sent to a group between two checks for slow readers."""
INITIAL_BYTES = 256 * 1024
"""About the size of one piece of a watch's initial state."""
INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}


def encode_frame(kind: str, obj: bytes) -> bytes:
    """Return one line of a watch."""
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), obj)


def transition(selection: Selection, event: CachedEvent) -> tuple[str, CachedObject] | None:
    """Return what a change is to a watcher of a selection: it may enter or leave it. None: it does not concern it."""
    before = event.previous is not None and selection.matches(event.previous)
    after = not event.deleted and selection.matches(event.object)
    if after:
        return ("MODIFIED" if before else "ADDED"), event.object
    return ("DELETED", event.departed) if before else None


@dataclass(slots=True, eq=False)
class Watcher:
    """One open watch."""

    sink: Sink
    limit_bytes: int
    """Bytes that may be pending before it counts as slow: the bound, and room for its initial state."""
    group: Group | None = None
    timer: asyncio.TimerHandle | None = None
    closed: bool = False


@dataclass(slots=True, eq=False)
class Group:
    """Watchers that get the same bytes."""

    key: Hashable
    selection: Selection
    rendering: Rendering
    bookmarks: bool
    after: int
    """Only events after this revision are sent; above the cache's revision only for watches from the future."""
    columns: bool
    """The next event is these watchers' first: a table then carries its columns, and they move to another group."""
    watchers: dict[Watcher, None] = field(default_factory=dict)
    unchecked_bytes: int = 0
    sends: list[Callable[[bytes], None]] | None = None
    """Bound methods of the sinks, made again after a change of `watchers`."""

    def encode(self, events: Sequence[CachedEvent]) -> bytes:
        """Return the frames of the events that concern this group, b"" if none does."""
        frames: list[bytes] = []
        columns = self.columns
        for event in events:
            if event.revision <= self.after:
                continue
            found = transition(self.selection, event)
            if found is None:
                continue
            kind, obj = found
            key = (self.rendering.key, kind, columns)
            frame = event.encoded.get(key)
            if frame is None:
                frame = encode_frame(kind, self.rendering.single(obj, columns=columns))
                event.encoded[key] = frame
            frames.append(frame)
            columns = False
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def send(self, data: bytes) -> None:
        """Send one buffer to every watcher."""
        sends = self.sends
        if sends is None:
            sends = self.sends = [watcher.sink.send for watcher in self.watchers]
        for send in sends:
            send(data)

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None = None) -> bytes:
        return encode_frame("BOOKMARK", self.rendering.bookmark(revision, annotations, columns=self.columns))


class Fanout:
    """The groups of one resource."""

    def __init__(self, resource: ResourceCache, cache: WatchCache, pending_bytes: int) -> None:
        self.resource = resource
        self._cache = cache
        self._pending_bytes = pending_bytes
        self._groups: dict[Hashable, Group] = {}
        self._anywhere: dict[Hashable, Group] = {}
        """Groups that any event may concern."""
        self._by_field: dict[str, dict[str, dict[Hashable, Group]]] = {}
        """Groups that want one value of a field, by field and value: thousands of nodes watch each their own pods."""

    def join(self, watcher: Watcher, template: Group) -> None:
        """Put a watcher into the group that is like the template."""
        if not self._groups:
            self.resource.listeners.add(self.deliver)
            self.resource.on_reset.add(self.close_all)
        group = self._groups.get(template.key)
        if group is None:
            group = self._groups[template.key] = template
            self._shelf(group, make=True)[group.key] = group
        group.watchers[watcher] = None
        group.sends = None
        watcher.group = group

    def leave(self, watcher: Watcher) -> None:
        """Take a watcher out. Idempotent."""
        group = watcher.group
        if group is None:
            return
        watcher.group = None
        group.watchers.pop(watcher, None)
        group.sends = None
        if not group.watchers and self._groups.get(group.key) is group:
            del self._groups[group.key]
            self._unshelve(group)
            if not self._groups:
                self.resource.listeners.discard(self.deliver)
                self.resource.on_reset.discard(self.close_all)

    def _shelf(self, group: Group, *, make: bool = False) -> dict[Hashable, Group]:
        """Return the index in which a group is."""
        for requirement in group.selection.fields.requirements:
            if requirement.operator == "=":
                values = self._by_field.setdefault(requirement.field, {}) if make else self._by_field[requirement.field]
                return values.setdefault(requirement.value, {}) if make else values[requirement.value]
        return self._anywhere

    def _unshelve(self, group: Group) -> None:
        self._shelf(group).pop(group.key)
        for requirement in group.selection.fields.requirements:
            if requirement.operator == "=":
                values = self._by_field[requirement.field]
                if not values[requirement.value]:
                    del values[requirement.value]
                if not values:
                    del self._by_field[requirement.field]
                return

    def _concerned(self, events: Sequence[CachedEvent]) -> list[Group]:
        """Return the groups that a batch may concern."""
        groups = list(self._anywhere.values())
        for label, by_value in self._by_field.items():
            kind = next(iter(next(iter(by_value.values())).values())).selection.kind
            values: dict[str, None] = {}
            for event in events:
                values[event.object.field(kind, label)] = None
                if event.previous is not None:
                    values[event.previous.field(kind, label)] = None
            for value in values:
                groups += by_value.get(value, {}).values()
        return groups

    def deliver(self, events: Sequence[CachedEvent]) -> None:
        """Send a batch to every group that it concerns."""
        begun: list[Group] = []
        for group in self._concerned(events):
            data = self._encode(group, events)
            if not data:
                continue
            group.send(data)
            group.unchecked_bytes += len(data)
            if group.unchecked_bytes >= CHECK_BYTES:
                self._close_slow(group)
            if group.columns:
                begun.append(group)
        for group in begun:  # not before every group has this batch
            self._move(group)
        _forget_frames(events)

    def _encode(self, group: Group, events: Sequence[CachedEvent]) -> bytes:
        """Encode a batch for a group. The request boundary of its watches: they end if it fails, others do not."""
        try:
            return group.encode(events)
        except Exception:
            log.exception("encoding changes of %s failed; the watches that wanted them end", self.resource.prefix)
            for watcher in list(group.watchers):
                self.close(watcher)
            return b""

    def _move(self, group: Group) -> None:
        """After their first event, watchers of tables go on in the group without columns."""
        for watcher in list(group.watchers):
            self.leave(watcher)
            self.join(watcher, make_group(group.selection, group.rendering, group.bookmarks, group.after, False))

    def _close_slow(self, group: Group) -> None:
        group.unchecked_bytes = 0
        for watcher in list(group.watchers):
            if watcher.sink.pending_bytes() > watcher.limit_bytes:
                self.close(watcher)

    def send_bookmarks(self) -> None:
        """Tell every watcher that asked for bookmarks how far it is."""
        revision = self._cache.revision()
        for group in list(self._groups.values()):
            if group.bookmarks and revision > group.after:
                group.send(group.bookmark(revision))

    def end(self, watcher: Watcher) -> None:
        """Close a watcher whose time is over, with a last bookmark if it wants them."""
        group, revision = watcher.group, self._cache.revision()
        if group is not None and group.bookmarks and revision > group.after:
            watcher.sink.send(group.bookmark(revision))
        self.close(watcher)

    def close(self, watcher: Watcher) -> None:
        """Close a watcher. Idempotent."""
        self.forget(watcher)
        watcher.sink.close()

    def forget(self, watcher: Watcher) -> None:
        """Drop a watcher whose stream is over. Idempotent."""
        watcher.closed = True
        if watcher.timer is not None:
            watcher.timer.cancel()
        self.leave(watcher)

    def close_all(self) -> None:
        for group in list(self._groups.values()):
            for watcher in list(group.watchers):
                self.close(watcher)

    def count(self) -> int:
        return sum(len(group.watchers) for group in self._groups.values())

    def open(self, sink: Sink, options: ListOptions, rendering: Rendering, timeout_s: float) -> Watcher:
        """Start a watch: send what it has missed or the whole state, then keep it until it ends."""
        watcher = Watcher(sink, self._pending_bytes)
        columns = True
        try:
            initial, events = self._missed(options)
        except ApiError as error:
            sink.send(encode_frame("ERROR", orjson.dumps(error.status())))
            sink.close()
            watcher.closed = True
            return watcher
        selection = options.selection
        after = max(options.revision, self._cache.revision())
        if events:
            data = make_group(selection, rendering, options.bookmarks, options.revision, columns).encode(events)
            _forget_frames(events)
            if data:
                watcher.limit_bytes += len(data)
                columns = False
                sink.send(data)
        elif initial is not None:
            columns = self._send_state(watcher, initial, rendering, columns)
            if options.initial_events and options.bookmarks:
                data = rendering.bookmark(self._cache.revision(), INITIAL_EVENTS_END, columns=columns)
                sink.send(encode_frame("BOOKMARK", data))
                columns = False
        columns = columns and not rendering.stable
        # Groups of watches that are up to date share one floor, so that they can be one group.
        floor = after if after > self._cache.revision() else 0
        self.join(watcher, make_group(selection, rendering, options.bookmarks, floor, columns))
        watcher.timer = asyncio.get_running_loop().call_later(timeout_s, self.end, watcher)
        return watcher

    def _missed(self, options: ListOptions) -> tuple[Sequence[CachedObject] | None, Sequence[CachedEvent]]:
        """Return the state to begin with (None: not wanted), or the events since the given revision. Raises 410."""
        wants_state = options.initial_events
        if wants_state is None:
            wants_state = not options.revision
        if wants_state:
            selection = options.selection
            return [obj for obj in candidates(self.resource, selection) if selection.matches(obj)], ()
        if not options.revision:
            return None, ()
        events = self.resource.events_after(options.revision)
        if events is None:
            raise watch_too_old(options.revision, self.resource.oldest)
        return None, events

    def _send_state(
        self, watcher: Watcher, objects: Sequence[CachedObject], rendering: Rendering, columns: bool
    ) -> bool:
        """Send objects as ADDED, in pieces; return whether the next event is still the first."""
        frames: list[bytes] = []
        size = 0
        for obj in objects:
            frame = encode_frame("ADDED", rendering.single(obj, columns=columns))
            columns = False
            frames.append(frame)
            size += len(frame)
            if size >= INITIAL_BYTES:
                watcher.sink.send(b"".join(frames))
                watcher.limit_bytes += size
                frames, size = [], 0
        if frames:
            watcher.sink.send(b"".join(frames))
            watcher.limit_bytes += size
        return columns


def _forget_frames(events: Sequence[CachedEvent]) -> None:
    """Drop encoded events: they are kept for one round of sending, not for as long as the ring holds the event."""
    for event in events:
        event.encoded.clear()


def make_group(selection: Selection, rendering: Rendering, bookmarks: bool, after: int, columns: bool) -> Group:
    """Return an empty group."""
    columns = columns and not rendering.stable
    key = (selection.key, rendering.key, bookmarks, after, columns)
    return Group(key, selection, rendering, bookmarks, after, columns)
