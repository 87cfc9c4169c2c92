"""Which objects a LIST answers with: from the cache when it can, from the store for an old revision.

`select_page` decides; rendering.py makes bytes of it. Every page of a list is as of one revision.

Spec: Kubernetes docs, "Resource versions: semantics for get and list".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from tiphys.base.errors import bad_request, gateway_timeout
from tiphys.store.interface import Compacted, FutureRevision, Store


@dataclass(frozen=True, slots=True)
class Selected:
    """One page. `whole` means that the page is all of the newest state, so that it may be remembered."""

    objects: Sequence[CachedObject]
    revision: int
    token: str = ""
    remaining: int | None = None
    whole: bool = False

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
    except TimeoutError as error:
        if revision:
            raise too_large_revision(revision, cache.revision()) from error
        raise gateway_timeout("the watch cache does not keep up with the store; try again") from error


async def select_page(cache: WatchCache, store: Store, options: ListOptions, timeout_s: float) -> Selected:
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
        return _page(selection, candidates(resource, selection), cache.revision(), after, limit)
    await cache.refresh(timeout_s)
    if exact > cache.revision():
        raise too_large_revision(exact, cache.revision())
    if exact >= max(resource.changed_at, store.compacted_revision()):
        return _page(selection, candidates(resource, selection), exact, after, limit)
    entries = await _old_objects(store, options, exact, after)
    return _page(selection, entries, exact, after, limit)


async def _old_objects(store: Store, options: ListOptions, revision: int, after: str) -> list[CachedObject]:
    selection = options.selection
    base = selection.kind.storage_prefix()
    prefix = _listed_prefix(selection)
    try:
        page = await store.list(prefix, start_after=prefix + after if after else "", revision=revision)
    except Compacted as error:
        raise (ContinueExpired(encode_token(NEWEST, after)) if options.token else list_too_old()) from error
    except FutureRevision as error:
        raise too_large_revision(revision, error.current) from error
    objects = []
    for entry in page.entries:
        namespace, _, name = entry.key[len(base) :].rpartition("/")
        objects.append(CachedObject(entry.key, namespace, name, entry.value, entry.revision))
    return objects


def _listed_prefix(selection: Selection) -> str:
    prefix = selection.kind.storage_prefix()
    return f"{prefix}{selection.namespace}/" if selection.namespace else prefix


def candidates(resource: ResourceCache, selection: Selection) -> Sequence[CachedObject]:
    """Return objects of the cache among which all selected ones are, in key order."""
    name = selection.name
    if name and (selection.namespace or not selection.kind.namespaced):
        found = resource.get(selection.namespace, name)
        return [found] if found is not None else []
    return resource.objects(selection.namespace)


def _page(selection: Selection, objects: Sequence[CachedObject], revision: int, after: str, limit: int) -> Selected:
    prefix = _listed_prefix(selection)
    if after:
        start = prefix + after
        objects = [obj for obj in objects if obj.key > start]
    total: int | None = None
    chosen: Sequence[CachedObject]
    if selection.everything:
        total = len(objects)
        chosen = objects[:limit] if limit else objects
        more = bool(limit) and total > limit
    else:
        chosen = _take((obj for obj in objects if selection.matches(obj)), limit + 1 if limit else 0)
        more = bool(limit) and len(chosen) > limit
        chosen = chosen[:limit] if more else chosen
    if not more:
        return Selected(chosen, revision, whole=not after and not limit)
    token = encode_token(revision, chosen[-1].key[len(prefix) :])
    return Selected(chosen, revision, token, total - limit if total is not None else None)


def _take(objects: Iterable[CachedObject], limit: int) -> list[CachedObject]:
    taken: list[CachedObject] = []
    for obj in objects:
        taken.append(obj)
        if len(taken) == limit:
            break
    return taken
