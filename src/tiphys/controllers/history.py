"""ControllerRevisions: the templates that a DaemonSet or a StatefulSet had, newest last.

In: an owner and its template. Decides which revision the template is (by equality of content, not of hash), whether a new
one is needed, and which old ones go. A revision that is used again gets the newest number, so that a rollback is a step
forward. The create is safe to repeat: its name is the template's hash.

Spec: Kubernetes docs, "Perform a Rolling Update on a DaemonSet", ControllerRevision API reference.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

import orjson

from tiphys.api.views.meta import LabelSelector, ObjectMeta, View
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.interface import Resource
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.replicaset import claim
from tiphys.controllers.revision import canonical, hash_bytes
from tiphys.controllers.selection import controller_of, created_s, owner_reference
from tiphys.controllers.shared import Shared
from tiphys.controllers.views import ControllerRevision, decode_template

REVISION_LABEL = "controller-revision-hash"


@lru_cache(maxsize=1024)
def revision_data(template: bytes) -> bytes:
    """Return the content of a revision: a patch that puts the template back as it was."""
    return canonical({"spec": {"template": {**decode_template(template), "$patch": "replace"}}})


@lru_cache(maxsize=1024)
def canonical_data(data: bytes) -> bytes:
    return canonical(orjson.loads(data))


def find_revision(revisions: Sequence[ControllerRevision], template: bytes) -> ControllerRevision | None:
    """Return the newest revision with the template's content."""
    wanted = revision_data(template)
    same = [r for r in revisions if canonical_data(bytes(r.data)) == wanted]
    return max(same, key=lambda r: (r.revision, created_s(r.metadata)), default=None)


def plan_forgotten(
    revisions: Sequence[ControllerRevision], live: Collection[str], limit: int | None
) -> list[ControllerRevision]:
    """Return the revisions beyond the history limit, oldest first. `live` are names still in use."""
    history = sorted((r for r in revisions if r.metadata.name not in live), key=lambda r: r.revision)
    surplus = len(history) - (10 if limit is None else limit)
    return history[:surplus] if surplus > 0 else []


class Histories:
    """The effects, for the owners of one kind."""

    def __init__(self, shared: Shared, resource: Resource) -> None:
        self.resource = resource
        self.mirror: Mirror[ControllerRevision] = shared.mirror(resources.CONTROLLERREVISIONS, ControllerRevision)

    async def of(self, owner: View, selector: LabelSelector | None) -> list[ControllerRevision]:
        """Return the owner's revisions, oldest first."""
        found = await claim(self.resource, owner, selector, self.mirror)
        return sorted(found, key=lambda r: (r.revision, r.metadata.name))

    async def current(
        self, meta: ObjectMeta, template: bytes, revisions: Sequence[ControllerRevision], collisions: int
    ) -> tuple[ControllerRevision | None, int]:
        """Return the revision of the template, made if needed, and the collision count (None: try again with it)."""
        newest = max((r.revision for r in revisions), default=0)
        found = find_revision(revisions, template)
        if found is not None:
            if found.revision < newest:
                found = await self.mirror.patch(found, {"revision": newest + 1})
            return found, collisions
        data = revision_data(template)
        digest = hash_bytes(data, collisions)
        labels = {**((decode_template(template).get("metadata") or {}).get("labels") or {}), REVISION_LABEL: digest}
        obj: dict[str, Any] = {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": f"{meta.name}-{digest}",
                "namespace": meta.namespace,
                "labels": labels,
                "ownerReferences": [owner_reference(self.resource, meta)],
            },
            "data": orjson.loads(data),
            "revision": newest + 1,
        }
        try:
            return await self.mirror.create(meta.namespace, obj), collisions
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        name = obj["metadata"]["name"]
        other = self.mirror.note(await self.mirror.client.get(resources.CONTROLLERREVISIONS, meta.namespace, name))
        owner = controller_of(other.metadata)
        if owner is not None and owner.uid == meta.uid and find_revision([other], template) is not None:
            return other, collisions
        return None, collisions + 1

    async def forget(self, revisions: Sequence[ControllerRevision], live: Collection[str], limit: int | None) -> None:
        for revision in plan_forgotten(revisions, live, limit):
            try:
                await self.mirror.delete(revision)
            except ApiError as error:
                if error.code != 404:
                    raise
