"""The fan-out of watches: each change is matched and encoded once for all watchers that want the same.

Watchers with the same kind, selection and rendering form a group. A batch of changes becomes one buffer a group, and
the same buffer goes to every sink of it (`wire/broadcast.py`). A watcher leaves when its time is over, when its peer goes,
when it has not taken more than `pending_bytes` (a slow reader is closed and comes back with its last revision), or
when the cache lost events.

Where a webhook converts what a group wants, its batches wait in order until the webhook has answered (`Group.waiting`);
watchers of such groups begin each at its own revision, so none gets what waited before it came. Batches wait too while
an object is encoded that is so large that it is done in a thread; nobody joins the group until they are sent.

The file is long because a watch's way from its first state to live events is one story.

Invariant: a watcher gets every event after its revision once and in order, and all of one batch in one `send`; a
bookmark never names a revision whose events were not sent before it.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tiphys.api.selectors import FieldRequirement
from tiphys.apiserver.cache import ResourceCache, WatchCache
from tiphys.apiserver.cached import CachedEvent, CachedObject, in_version
from tiphys.apiserver.continuation import watch_too_old
from tiphys.apiserver.conversion import Converter
from tiphys.apiserver.lists import candidates
from tiphys.apiserver.options import ListOptions, Selection
from tiphys.apiserver.rendering import Rendering
from tiphys.apiserver.slices import SLICE_OBJECTS, is_one_slice, take_turns, weighed_slices
from tiphys.base.errors import ApiError
from tiphys.base.metrics import Series, exponential
from tiphys.wire.broadcast import Broadcast
from tiphys.wire.message import Sink

log = logging.getLogger(__name__)
BOOKMARK_S = 60.0
"""Seconds between bookmarks."""
BOOKMARKS_A_TURN = 200
"""Groups of watches that are sent a bookmark in one turn of the loop."""
EVENT_BYTES = exponential(1024, 2, 8)
"""Sizes by which events are counted."""
CHECK_BYTES = 256 * 1024
"""Bytes sent to a group between two checks for slow readers."""
INITIAL_BYTES = 256 * 1024
"""About the size of one piece of a watch's initial state."""
WAITING_EVENTS = 4_096
"""Events that may wait for a webhook; with more its watches end and come back."""
INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}


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
    opening: asyncio.Task[None] | None = None
    """Sends a large initial state; the watcher is in no group until it is done."""
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
    sinks: Broadcast = field(default_factory=Broadcast)
    """Those of the watchers."""
    converts: bool = False
    """A webhook may have to be asked for what this group wants."""
    waiting: list[CachedEvent] = field(default_factory=list)
    """Events that wait for a webhook, oldest first; not more than WAITING_EVENTS."""
    pump: asyncio.Task[None] | None = None
    """Converts and sends what waits."""
    frames: int = 0
    """Of the last batch."""

    def encode(self, events: Sequence[CachedEvent]) -> bytes:
        """Return the frames of the events that concern this group, b"" if none does."""
        frames: list[bytes] = []
        for event, kind, obj, columns in self._shown(events):
            key = (self.rendering.key, kind, columns)
            frame = event.encoded.get(key)
            if frame is None:
                frame = event.encoded[key] = self._frame(kind, obj, columns)
            frames.append(frame)
        self.frames = len(frames)
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _shown(self, events: Sequence[CachedEvent]) -> Iterator[tuple[CachedEvent, str, CachedObject, bool]]:
        """Yield the events that concern this group: what each is to it, the object, and whether columns go with it."""
        columns = self.columns
        for event in events:
            if event.revision <= self.after:
                continue
            found = transition(self.selection, event)
            if found is not None:
                yield event, found[0], found[1], columns
                columns = False

    def _frame(self, kind: str, obj: CachedObject, columns: bool) -> bytes:
        return self.rendering.frame(kind, self.rendering.single(obj, columns=columns))

    def has_large(self, events: Sequence[CachedEvent]) -> bool:
        """Tell whether encoding some events could hold the loop for too long."""
        limit = self.rendering.slice_bytes
        return any(len(event.object.value) > limit for event in events)

    async def encode_large(self, events: Sequence[CachedEvent]) -> None:
        """Encode in a thread what would hold the loop; `encode` then finds it done. Others run meanwhile."""
        made: list[tuple[CachedEvent, Hashable, bytes]] = []
        for event, kind, obj, columns in list(self._shown(events)):
            if len(obj.value) > self.rendering.slice_bytes:
                frame = await asyncio.to_thread(self._frame, kind, obj, columns)
                made.append((event, (self.rendering.key, kind, columns), frame))
        for event, key, frame in made:
            event.encoded[key] = frame

    def take(self, watcher: Watcher) -> None:
        """Put a watcher in."""
        watcher.group = self
        self.watchers[watcher] = None
        self.sinks.add(watcher.sink)

    def release(self, watcher: Watcher) -> None:
        """Take a watcher out; it still gets what was sent before."""
        watcher.group = None
        self.watchers.pop(watcher, None)
        self.sinks.discard(watcher.sink)

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None = None) -> bytes:
        single = self.rendering.bookmark(revision, annotations, columns=self.columns)
        return self.rendering.frame("BOOKMARK", single)


@dataclass(slots=True, eq=False)
class Opening:
    """A watch that is being brought up to date."""

    watcher: Watcher
    options: ListOptions
    rendering: Rendering
    revision: int
    """What has been sent shows this revision."""
    columns: bool = True
    """What is sent next is the first."""

    def group(self, after: int) -> Group:
        return make_group(self.options.selection, self.rendering, self.options.bookmarks, after, self.columns)


class Fanout:
    """The groups of one resource."""

    def __init__(self, resource: ResourceCache, cache: WatchCache, pending_bytes: int, converter: Converter) -> None:
        self.resource = resource
        self._converter = converter
        self._cache = cache
        self._pending_bytes = pending_bytes
        self._opening: set[Watcher] = set()
        """Watchers that are still sent a large state."""
        self._groups: dict[Hashable, Group] = {}
        self._anywhere: dict[Hashable, Group] = {}
        """Groups that any event may concern."""
        self._by_field: dict[str, dict[str, dict[Hashable, Group]]] = {}
        """Groups that want one value of a field, by field and value: thousands of nodes watch each their own pods."""
        self.sent: dict[str, Series] = {}
        """Sizes of the events that were sent to watchers, by version of the kind: for metrics. Those of one batch count
        with their mean."""

    def join(self, watcher: Watcher, template: Group) -> None:
        """Put a watcher into the group that is like the template."""
        if not self._groups:
            self.resource.listeners.add(self.deliver)
            self.resource.on_reset.add(self.close_all)
        group = self._groups.get(template.key)
        if group is None:
            group = self._groups[template.key] = template
            self._shelf(group, make=True)[group.key] = group
        group.take(watcher)

    def leave(self, watcher: Watcher) -> None:
        """Take a watcher out. Idempotent."""
        group = watcher.group
        if group is None:
            return
        group.release(watcher)
        if not group.watchers and self._groups.get(group.key) is group:
            if group.pump is not None:
                group.pump.cancel()
            del self._groups[group.key]
            self._unshelve(group)
            if not self._groups:
                self.resource.listeners.discard(self.deliver)
                self.resource.on_reset.discard(self.close_all)

    def _shelf(self, group: Group, *, make: bool = False) -> dict[Hashable, Group]:
        """Return the index in which a group is."""
        for requirement in self._indexed(group):
            if requirement.operator == "=":
                values = self._by_field.setdefault(requirement.field, {}) if make else self._by_field[requirement.field]
                return values.setdefault(requirement.value, {}) if make else values[requirement.value]
        return self._anywhere

    def _indexed(self, group: Group) -> Sequence[FieldRequirement]:
        """Return the fields by one of which a group may be found: none where they are known after a conversion only."""
        return () if group.converts else group.selection.fields.requirements

    def _unshelve(self, group: Group) -> None:
        self._shelf(group).pop(group.key)
        for requirement in self._indexed(group):
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
        largest = max([len(event.object.value) for event in events])
        for group in self._concerned(events):
            if group.converts or group.pump is not None or largest > group.rendering.slice_bytes:
                self._send_prepared(group, events)
            elif self._send(group, events) and group.columns:
                begun.append(group)
        for group in begun:  # not before every group has this batch
            self._move(group, columns=False)
        _forget_frames(events)

    def _send(self, group: Group, events: Sequence[CachedEvent]) -> bool:
        """Send a batch to a group; tell whether any of it concerned it."""
        data = self._encode(group, events)
        if not data:
            return False
        group.sinks.send(data)
        self._count(group.selection.kind.version, group.frames * len(group.watchers), len(data) * len(group.watchers))
        group.unchecked_bytes += len(data)
        if group.unchecked_bytes >= CHECK_BYTES:
            self._close_slow(group)
        return True

    def _count(self, version: str, events: int, size_bytes: int) -> None:
        sent = self.sent.get(version)
        if sent is None:
            sent = self.sent[version] = Series(EVENT_BYTES)
        if events:
            sent.counts[bisect_left(EVENT_BYTES, size_bytes / events)] += events
            sent.total += size_bytes

    def _send_prepared(self, group: Group, events: Sequence[CachedEvent]) -> None:
        """Send a batch to a group at once if nothing of it has to be converted or encoded first, or else queue it."""
        if group.pump is None and not group.has_large(events) and not self._unready(group.selection, events):
            if self._send(group, events):
                group.columns = False  # nobody else joins this group: the cache is beyond its revision
            return
        group.waiting += events
        if len(group.waiting) > WAITING_EVENTS:
            log.warning("preparing the changes of %s does not keep up; their watches end", self.resource.prefix)
            for watcher in list(group.watchers):
                self.close(watcher)
        elif group.pump is None:
            if not group.converts:
                self._register(group, (group.key, object()))  # a key that nobody asks for
            group.pump = asyncio.get_running_loop().create_task(self._pump(group), name="watch-conversion")

    def _register(self, group: Group, key: Hashable) -> None:
        """Have a group found by another key."""
        del self._groups[group.key]
        self._unshelve(group)
        group.key = key
        self._groups[key] = self._shelf(group, make=True)[key] = group

    async def _pump(self, group: Group) -> None:
        """Prepare and send what waits for a group. A worker boundary: its watches end when that fails."""
        watchers: list[Watcher] = []
        try:
            while group.waiting:
                events, group.waiting = group.waiting, []
                if group.converts:
                    await self._prepare(group.selection, events)
                await group.encode_large(events)
                if self._send(group, events):
                    group.columns = False
                _forget_frames(events)
        except ApiError as error:
            watchers = list(group.watchers)
            for watcher in watchers:
                watcher.sink.send(_error_frame(group.rendering, error))
        except Exception:
            log.exception("preparing changes of %s failed; the watches that wanted them end", self.resource.prefix)
            watchers = list(group.watchers)
        group.pump = None
        for watcher in watchers:
            self.close(watcher)
        if not group.converts:
            self._move(group, columns=group.columns)  # to those who came meanwhile

    def _unready(self, selection: Selection, events: Sequence[CachedEvent]) -> list[CachedObject]:
        """Return the objects that a webhook has to convert before it is known what a watch shows of some events."""
        kind = selection.kind
        if selection.looks_inside:
            both = [obj for event in events for obj in (event.object, event.previous) if obj is not None]
            missing = [obj for obj in both if in_version(kind, obj) is None]
            if missing:
                return missing
        shown = (found[1] for event in events if (found := transition(selection, event)) is not None)
        return [obj for obj in shown if in_version(kind, obj) is None]

    async def _prepare(self, selection: Selection, events: Sequence[CachedEvent]) -> bool:
        """Convert what a watch shows of some events; tell whether others ran meanwhile. Raises ApiError."""
        waited = False
        while missing := self._unready(selection, events):
            waited = await self._converter.prepare(selection.kind, missing)
        return waited

    def _encode(self, group: Group, events: Sequence[CachedEvent]) -> bytes:
        """Encode a batch for a group. The request boundary of its watches: they end if it fails, others do not."""
        try:
            return group.encode(events)
        except Exception:
            log.exception("encoding changes of %s failed; the watches that wanted them end", self.resource.prefix)
            for watcher in list(group.watchers):
                self.close(watcher)
            return b""

    def _move(self, group: Group, *, columns: bool) -> None:
        """Have the watchers of a group go on in the one that others join: without columns after their first event."""
        for watcher in list(group.watchers):
            self.leave(watcher)
            self.join(watcher, make_group(group.selection, group.rendering, group.bookmarks, group.after, columns))

    def _close_slow(self, group: Group) -> None:
        group.unchecked_bytes = 0
        for watcher in list(group.watchers):
            if watcher.sink.pending_bytes() > watcher.limit_bytes:
                self.close(watcher)

    async def send_bookmarks(self) -> None:
        """Tell every watcher that asked for bookmarks how far it is. Others run between groups: nodes have one each."""
        for number, group in enumerate(list(self._groups.values()), 1):
            revision = self._cache.revision()
            if group.bookmarks and revision > group.after and group.pump is None:
                group.sinks.send(group.bookmark(revision))
            if number % BOOKMARKS_A_TURN == 0:
                await asyncio.sleep(0)

    def end(self, watcher: Watcher) -> None:
        """Close a watcher whose time is over, with a last bookmark if it wants them."""
        group, revision = watcher.group, self._cache.revision()
        if group is not None and group.bookmarks and revision > group.after and group.pump is None:
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
        if watcher.opening is not None:
            watcher.opening.cancel()
        self._opening.discard(watcher)
        self.leave(watcher)

    def close_all(self) -> None:
        for watcher in list(self._opening):
            self.close(watcher)
        for group in list(self._groups.values()):
            for watcher in list(group.watchers):
                self.close(watcher)

    def count(self) -> int:
        return len(self._opening) + sum(len(group.watchers) for group in self._groups.values())

    def open(self, sink: Sink, options: ListOptions, rendering: Rendering, timeout_s: float) -> Watcher:
        """Start a watch: send what it has missed or the whole state, then keep it until it ends."""
        watcher = Watcher(sink, self._pending_bytes)
        opening = Opening(watcher, options, rendering, self._cache.revision())
        try:
            initial, events = self._missed(options)
        except ApiError as error:
            self._refuse(opening, error)
            return watcher
        watcher.timer = asyncio.get_running_loop().call_later(timeout_s, self.end, watcher)
        if initial is None and events:
            opening.revision = options.revision
        short = is_one_slice(initial or [event.object for event in events], rendering.slice_bytes)
        if not short or ((initial or events) and self._converts(rendering, options)):
            self._opening.add(watcher)
            task = self._open_slowly(opening, initial)
            watcher.opening = asyncio.get_running_loop().create_task(task, name="watch-state")
            return watcher
        if initial is not None:
            self._send_state(opening, initial)
            self._end_state(opening)
        self._send_events(opening, events)
        self._go_live(opening)
        return watcher

    def _missed(self, options: ListOptions) -> tuple[Sequence[CachedObject] | None, Sequence[CachedEvent]]:
        """Return objects among which is the state to begin with (None: not wanted), or the events since the given
        revision. Raises 410."""
        wants_state = options.initial_events
        if wants_state is None:
            wants_state = not options.revision
        if wants_state:
            return candidates(self.resource, options.selection), ()
        if not options.revision:
            return None, ()
        return None, self._events_after(options.revision)

    def _events_after(self, revision: int) -> Sequence[CachedEvent]:
        events = self.resource.events_after(revision)
        if events is None:
            raise watch_too_old(revision, self.resource.oldest)
        return events

    def _converts(self, rendering: Rendering, options: ListOptions) -> bool:
        return self._converter.may_call(options.selection.kind) and (rendering.whole or options.selection.looks_inside)

    async def _open_slowly(self, opening: Opening, initial: Sequence[CachedObject] | None) -> None:
        """Send a large state, or many missed events, in slices as the client takes them; then what happened meanwhile.

        A worker boundary. What happened meanwhile is in the ring, which is allowed to grow for it; should it not
        suffice, the client is told to begin again."""
        watcher, selection = opening.watcher, opening.options.selection
        converts = self._converts(opening.rendering, opening.options)
        release = self.resource.hold(opening.revision)
        try:
            if initial is not None:
                for number, some in enumerate(weighed_slices(initial, opening.rendering.slice_bytes)):
                    if number:
                        await self._take_turns(watcher)
                    if converts:
                        await self._converter.prepare(selection.kind, some)
                    if len(some) == 1 and len(some[0].value) > opening.rendering.slice_bytes:
                        await self._send_large(opening, some[0])
                    else:
                        self._send_state(opening, some)
                self._end_state(opening)
            while events := self._events_after(opening.revision):
                cut = _cut(events, opening.rendering.slice_bytes)
                waited = converts and await self._prepare(selection, events[:cut])
                group = opening.group(0)
                if group.has_large(events[:cut]):
                    await group.encode_large(events[:cut])
                    waited = True
                self._send_events(opening, events[:cut])
                opening.revision = events[:cut][-1].revision
                if cut >= len(events) and not waited:
                    break
                await self._take_turns(watcher)
            self._go_live(opening)
        except ApiError as error:
            self._refuse(opening, error)
        except TimeoutError:
            log.info("a watch of %s takes nothing of its first state; it ends", self.resource.prefix)
            watcher.sink.close()
        except Exception:
            log.exception("sending the state of %s failed; the watch ends", self.resource.prefix)
            watcher.sink.close()
        finally:
            release()
            self._opening.discard(watcher)
            watcher.opening = None

    async def _take_turns(self, watcher: Watcher) -> None:
        """Let others run, and wait until the client has taken what it was sent."""
        await take_turns(watcher.sink)
        watcher.limit_bytes = self._pending_bytes

    def _refuse(self, opening: Opening, error: ApiError) -> None:
        """Tell within the stream why the watch cannot go on, and end it."""
        watcher = opening.watcher
        watcher.sink.send(_error_frame(opening.rendering, error))
        watcher.closed = True
        watcher.sink.close()

    def _send_state(self, opening: Opening, objects: Sequence[CachedObject]) -> None:
        """Send the selected ones of some objects as ADDED, in pieces."""
        selection, watcher, rendering = opening.options.selection, opening.watcher, opening.rendering
        everything = selection.everything
        frames: list[bytes] = []
        size = 0
        for obj in objects:
            if not everything and not selection.matches(obj):
                continue
            frame = rendering.frame("ADDED", rendering.single(obj, columns=opening.columns))
            opening.columns = False
            frames.append(frame)
            size += len(frame)
            if size >= INITIAL_BYTES:
                watcher.sink.send(b"".join(frames))
                watcher.limit_bytes += size
                self._count(selection.kind.version, len(frames), size)
                frames, size = [], 0
        if frames:
            watcher.sink.send(b"".join(frames))
            watcher.limit_bytes += size
            self._count(selection.kind.version, len(frames), size)

    async def _send_large(self, opening: Opening, obj: CachedObject) -> None:
        """Send one object as ADDED if it is selected, encoded in a thread."""
        if not opening.options.selection.matches(obj):
            return
        rendering, watcher = opening.rendering, opening.watcher
        single = await asyncio.to_thread(rendering.single, obj, columns=opening.columns)
        frame = rendering.frame("ADDED", single)
        opening.columns = False
        watcher.sink.send(frame)
        watcher.limit_bytes += len(frame)
        self._count(opening.options.selection.kind.version, 1, len(frame))

    def _end_state(self, opening: Opening) -> None:
        """Tell that the initial state is complete, where that was asked for."""
        options = opening.options
        if options.initial_events and options.bookmarks:
            data = opening.rendering.bookmark(opening.revision, INITIAL_EVENTS_END, columns=opening.columns)
            opening.watcher.sink.send(opening.rendering.frame("BOOKMARK", data))
            opening.columns = False

    def _send_events(self, opening: Opening, events: Sequence[CachedEvent]) -> None:
        """Send events that were missed."""
        if not events:
            return
        data = opening.group(0).encode(events)
        _forget_frames(events)
        if data:
            opening.watcher.limit_bytes += len(data)
            opening.columns = False
            opening.watcher.sink.send(data)

    def _go_live(self, opening: Opening) -> None:
        """Join the watchers that get every further event."""
        # Groups of watches that are up to date share one floor, so that they can be one group.
        wanted, revision = opening.options.revision, self._cache.revision()
        after = wanted if wanted > revision else 0
        group = opening.group(after)
        if self._converts(opening.rendering, opening.options):
            group = opening.group(max(wanted, revision))
            group.converts = True
        self.join(opening.watcher, group)


def _error_frame(rendering: Rendering, error: ApiError) -> bytes:
    return rendering.frame("ERROR", rendering.status(error.status()))


def _cut(events: Sequence[CachedEvent], limit_bytes: int) -> int:
    """Return how many of the events are sent in one turn. The events of one commit stay together."""
    size_bytes = 0
    for number, event in enumerate(events):
        size_bytes += len(event.object.value)
        full = number >= SLICE_OBJECTS or (number and size_bytes > limit_bytes)
        if full and event.revision != events[number - 1].revision:
            return number
    return len(events)


def _forget_frames(events: Sequence[CachedEvent]) -> None:
    """Drop encoded events: they are kept for one round of sending, not for as long as the ring holds the event."""
    for event in events:
        event.encoded.clear()


def make_group(selection: Selection, rendering: Rendering, bookmarks: bool, after: int, columns: bool) -> Group:
    """Return an empty group."""
    columns = columns and not rendering.stable
    key = (selection.key, rendering.key, bookmarks, after, columns)
    return Group(key, selection, rendering, bookmarks, after, columns)
