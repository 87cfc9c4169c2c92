"""Creating and deleting pods of a controller: many in parallel, never more than were meant.

Writes go out in slow-start batches (1, 2, 4, ...), so that a quota that refuses one refuses few more. A pod's name is
drawn before its create is sent and is kept while the outcome is unknown (lost answer): the next round repeats the create
under the same name, and AlreadyExists then means that it is ours. A crash in between loses the kept names, but a fresh
start lists the pods before it decides, so it counts them.

Spec: pods of ReplicaSets, Jobs and DaemonSets carry `generateName`, the controller's owner reference and the
template's labels, annotations and finalizers.

Invariant: a name is uncertain only as long as no plan has counted its pod (`PodNames.settle`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tiphys.api.views.meta import ObjectMeta
from tiphys.base.clock import Randomness
from tiphys.base.errors import ApiError
from tiphys.client.interface import Resource
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.selection import controller_of, owner_reference
from tiphys.controllers.views import Pod, decode_template

T = TypeVar("T")
LONGEST_BASE = 58
"""A generated name is at most 63 characters; 5 are the suffix."""


async def run_slow_start(items: Sequence[T], action: Callable[[T], Awaitable[None]]) -> tuple[int, Exception | None]:
    """Run `action` on all items in growing batches; stop after the first batch with a failure.

    Returns how many succeeded and the first failure (an ApiError, or OSError when the server was not reached).
    """
    done, size = 0, 1
    while done < len(items):
        batch = items[done : done + size]
        results = await asyncio.gather(*(action(item) for item in batch), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            for failure in failures:
                if not isinstance(failure, ApiError | OSError):
                    raise failure
            first = failures[0]
            assert isinstance(first, Exception)
            return done + len(batch) - len(failures), first
        done += len(batch)
        size *= 2
    return done, None


def make_pod(
    template: bytes,
    owner_resource: Resource,
    owner: ObjectMeta,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    finalizers: Sequence[str] = (),
    spec: Mapping[str, Any] | None = None,
    generate_name: str = "",
) -> dict[str, Any]:
    """Return a new pod from a template. Labels, annotations, finalizers and `spec` fields are added to the template's."""
    source = decode_template(template)
    meta = source.get("metadata") or {}
    metadata: dict[str, Any] = {"name": name, "namespace": owner.namespace}
    if generate_name:
        metadata["generateName"] = generate_name
    if all_labels := {**(meta.get("labels") or {}), **(labels or {})}:
        metadata["labels"] = all_labels
    if all_annotations := {**(meta.get("annotations") or {}), **(annotations or {})}:
        metadata["annotations"] = all_annotations
    if all_finalizers := [*(meta.get("finalizers") or ()), *finalizers]:
        metadata["finalizers"] = all_finalizers
    metadata["ownerReferences"] = [owner_reference(owner_resource, owner)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**source.get("spec", {}), **(spec or {})},
    }


class PodNames:
    """Draws pod names and remembers those whose create had no answer. One for each controller."""

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness
        self._uncertain: dict[str, list[str]] = {}
        """Slot (the owner's uid, or `uid/part`) -> names whose create may or may not have happened."""

    def draw(self, slot: str, base: str) -> tuple[str, bool]:
        """Return a name for a new pod, an uncertain one first, and whether it was uncertain."""
        kept = self._uncertain.get(slot)
        if kept:
            name = kept.pop()
            if not kept:
                del self._uncertain[slot]
            return name, True
        return base[:LONGEST_BASE] + self._randomness.suffix(), False

    def keep(self, slot: str, name: str) -> None:
        """Remember a name whose create had no answer."""
        self._uncertain.setdefault(slot, []).append(name)

    def settle(self, owner_uid: str, counted: Iterable[Pod]) -> None:
        """Forget names of pods that are about to be counted: their create happened, and the next one needs a new name.

        To be called with what a plan is made from, right before it: a name that is left was not counted.
        """
        if not self._uncertain:
            return
        there = {pod.metadata.name for pod in counted}
        for slot in self._slots(owner_uid):
            kept = [name for name in self._uncertain[slot] if name not in there]
            if kept:
                self._uncertain[slot] = kept
            else:
                del self._uncertain[slot]

    def forget(self, owner_uid: str) -> None:
        """Forget all names of an owner that is gone."""
        for slot in self._slots(owner_uid):
            del self._uncertain[slot]

    def _slots(self, owner_uid: str) -> list[str]:
        return [slot for slot in self._uncertain if slot.partition("/")[0] == owner_uid]


async def create_pod(
    pods: Mirror[Pod], names: PodNames, slot: str, base: str, make: Callable[[str], dict[str, Any]]
) -> Pod:
    """Create the pod that `make` returns for a drawn name, and return it.

    A pod that is there already counts as created if its create was ours and had no answer; else another name is drawn.
    """
    while True:
        name, is_uncertain = names.draw(slot, base)
        pod = make(name)
        namespace = pod["metadata"]["namespace"]
        try:
            return await pods.create(namespace, pod)
        except OSError:
            names.keep(slot, name)
            raise
        except ApiError as error:
            if error.reason in ("Timeout", "ServerTimeout"):
                names.keep(slot, name)
            if error.reason != "AlreadyExists":
                raise
            if not is_uncertain:
                continue
            found = pods.note(await pods.client.get(pods.resource, namespace, name))
            owner = controller_of(found.metadata)
            if owner is not None and owner.uid == pod["metadata"]["ownerReferences"][0]["uid"]:
                return found


def is_namespace_ending(error: Exception) -> bool:
    """Return whether a create failed because its namespace is being deleted: then nothing is told and retried."""
    if not isinstance(error, ApiError):
        return False
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
