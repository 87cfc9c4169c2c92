"""Which objects a LIST answers with: from the cache when it can, from the store for an old revision.

`select_page` decides; rendering.py makes bytes of it. Every page of a list is as of one revision.

Spec: Kubernetes docs, "Resource versions: semantics for get and list".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tiphys.apiserver.cache import ResourceCache, WatchCache
from tiphys.apiserver.cached import CachedObject
from tiphys.apiserver.continuation import (
    NEWEST,
    ContinueExpired,
    decode_token,
    encode_token,
    list_too_old,
    too_large_revision,
)
from tiphys.apiserver.options import EXACT, ListOptions, Selection
from tiphys.apiserver.slices import weighed_slices
from tiphys.base.errors import ApiError, bad_request
from tiphys.store.interface import Compacted, FutureRevision, Store

OLD_PIECE = 1000
"""Objects that are read from the store at once."""


@dataclass(frozen=True, slots=True)
class Selected:
    """One page. `whole` means that the page is all of the newest state, so that it may be remembered."""

    objects: Sequence[CachedObject]
    revision: int
    token: str = ""
    remaining: int | None = None
    whole: bool = False
    changed_at: int = 0
    """Revision of the resource's last change when a whole page was taken: what a memo of it is good for."""

    def metadata(self) -> dict[str, object]:
        """Return the ListMeta."""
        metadata: dict[str, object] = {"resourceVersion": str(self.revision)}
        if self.token:
            metadata["continue"] = self.token
        if self.remaining:
            metadata["remainingItemCount"] = self.remaining
        return metadata


async def await_revision(cache: WatchCache, resource_version: str, revision: int, timeout_s: float) -> None:
    """Return when the cache may answer for a resourceVersion: "" newest, "0" any, else not older. Raises 504."""
    if resource_version == "0":
        return
    try:
        if revision:
            await cache.wait_for(revision, timeout_s)
        else:
            await cache.refresh(timeout_s)
    except ApiError as error:
        if revision:
            raise too_large_revision(revision, cache.revision()) from error
        raise


Prepare = Callable[[Sequence[CachedObject]], Awaitable[object]]
"""Brings objects into the version in which selectors look at them."""


async def select_page(
    cache: WatchCache, store: Store, options: ListOptions, timeout_s: float, prepare: Prepare | None = None
) -> Selected:
    """Return the objects that a list asks for. Raises ApiError 400, 410 and 504."""
    selection, limit = options.selection, options.limit
    resource = cache.resource(selection.kind.storage_prefix())
    after = ""
    exact = options.revision if options.match == EXACT or (limit and not options.match) else 0
    if options.token:
        token_revision, after = decode_token(options.token)
        if options.resource_version not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        exact = max(token_revision, 0)
    elif options.resource_version == "0":
        limit = 0  # any revision will do: the whole is at hand
    if not exact:
        await await_revision(cache, options.resource_version if not options.token else "", options.revision, timeout_s)
        return await _newest_page(resource, _Wanted(selection, cache.revision(), after, limit, prepare))
    await cache.refresh(timeout_s)
    if exact > cache.revision():
        raise too_large_revision(exact, cache.revision())
    wanted = _Wanted(selection, exact, after, limit, prepare)
    if exact >= max(resource.changed_at, store.compacted_revision()):
        return await _newest_page(resource, wanted)
    return await _old_page(store, resource, wanted, paged=bool(options.token))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A page: what is selected at a revision, at most `limit` (0: all) behind a key relative to what is listed."""

    selection: Selection
    revision: int
    after: str
    limit: int
    prepare: Prepare | None


async def _newest_page(resource: ResourceCache, wanted: _Wanted) -> Selected:
    """Return a page of what the cache holds now; taken at once, whatever happens while it is looked through."""
    selection, changed_at = wanted.selection, resource.changed_at
    if not selection.everything:
        objects = candidates(resource, selection, wanted.after)
        return await _page(wanted, objects, len(objects), changed_at)
    total = resource.count(selection.namespace, wanted.after)
    return await _page(wanted, resource.objects(selection.namespace, wanted.after, wanted.limit), total, changed_at)


async def _old_page(store: Store, resource: ResourceCache, wanted: _Wanted, *, paged: bool) -> Selected:
    """Return a page of what was at an earlier revision, read from the store in pieces until there is enough of it.

    How many remain is told from what there is now: clients may only show that number."""
    selection, limit = wanted.selection, wanted.limit
    chosen: list[CachedObject] = []
    after, complete = wanted.after, False
    while not complete and (not limit or len(chosen) <= limit):
        piece = await _old_objects(store, wanted, after, paged)
        complete = len(piece) < OLD_PIECE
        after = piece[-1].key[len(_listed_prefix(selection)) :] if piece else after
        if wanted.prepare is not None and selection.looks_inside:
            await wanted.prepare(piece)
        chosen += piece if selection.everything else await matching(selection, piece)
    if not limit or len(chosen) <= limit:
        return Selected(chosen, wanted.revision)
    chosen = chosen[:limit]
    last = chosen[-1].key[len(_listed_prefix(selection)) :]
    remaining = max(resource.count(selection.namespace, last), 1) if selection.everything else None
    return Selected(chosen, wanted.revision, encode_token(wanted.revision, last), remaining)


async def _old_objects(store: Store, wanted: _Wanted, after: str, paged: bool) -> list[CachedObject]:
    """Return the next objects behind a key, at most OLD_PIECE. Raises ApiError 410 and 504."""
    base = wanted.selection.kind.storage_prefix()
    prefix = _listed_prefix(wanted.selection)
    start_after = prefix + after if after else ""
    try:
        page = await store.list(prefix, start_after=start_after, limit=OLD_PIECE, revision=wanted.revision)
    except Compacted as error:
        raise (ContinueExpired(encode_token(NEWEST, wanted.after)) if paged else list_too_old()) from error
    except FutureRevision as error:
        raise too_large_revision(wanted.revision, error.current) from error
    objects = []
    for entry in page.entries:
        namespace, _, name = entry.key[len(base) :].rpartition("/")
        objects.append(CachedObject(entry.key, namespace, name, entry.value, entry.revision))
    return objects


def _listed_prefix(selection: Selection) -> str:
    prefix = selection.kind.storage_prefix()
    return f"{prefix}{selection.namespace}/" if selection.namespace else prefix


def candidates(resource: ResourceCache, selection: Selection, after: str = "") -> Sequence[CachedObject]:
    """Return objects of the cache, in key order, among which are all selected ones behind a continue token's key."""
    name = selection.name
    if name and (selection.namespace or not selection.kind.namespaced):
        found = resource.get(selection.namespace, name)
        return [found] if found is not None and name > after else []
    return resource.objects(selection.namespace, after)


async def matching(selection: Selection, objects: Sequence[CachedObject], limit: int = 0) -> list[CachedObject]:
    """Return the objects that are selected, the first `limit` of them if not 0. Others run while many are looked at."""
    found: list[CachedObject] = []
    for number, some in enumerate(weighed_slices(objects)):
        if number:
            await asyncio.sleep(0)
        found += [obj for obj in some if selection.matches(obj)]
        if limit and len(found) >= limit:
            return found[:limit]
    return found


async def _page(wanted: _Wanted, objects: Sequence[CachedObject], total: int, changed_at: int) -> Selected:
    """Return the page out of `objects`; `total` counts all that are there if everything is selected."""
    selection, limit = wanted.selection, wanted.limit
    everything = selection.everything
    if everything:
        chosen = objects[:limit] if limit else objects
        more = bool(limit) and total > limit
    else:
        if wanted.prepare is not None and selection.looks_inside:
            await wanted.prepare(objects)
        chosen = await matching(selection, objects, limit + 1 if limit else 0)
        more = bool(limit) and len(chosen) > limit
        chosen = chosen[:limit] if more else chosen
    if not more:
        return Selected(chosen, wanted.revision, whole=not wanted.after and not limit, changed_at=changed_at)
    token = encode_token(wanted.revision, chosen[-1].key[len(_listed_prefix(selection)) :])
    return Selected(chosen, wanted.revision, token, total - limit if everything else None)
