"""What watchers see of changing objects, from which revision on, and in which order.

Spec: upstream's tests "Watchers": label selectors, starting and restarting at a revision, objects that stop meeting a
selector, concurrent watches that see the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from direct_api import Api, Watch

Json = dict[str, Any]
LABEL = "watch-this-configmap"


class ConfigMaps:
    """The ConfigMaps of a namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.path = f"/api/v1/namespaces/{namespace}/configmaps"

    def create(self, name: str, label: str) -> Json:
        metadata = {"name": name, "labels": {LABEL: label}}
        return self.api.create(self.path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    def set_mutation(self, name: str, number: int, label: str = "") -> Json:
        def edit(thing: Json) -> None:
            thing["data"] = {"mutation": str(number)}
            if label:
                thing["metadata"]["labels"][LABEL] = label

        return self.api.change(f"{self.path}/{name}", edit)

    def delete(self, name: str) -> Json:
        return self.api.delete(f"{self.path}/{name}")

    def watch(self, *labels: str, revision: str = "") -> Watch:
        query = {"labelSelector": f"{LABEL} in ({','.join(labels)})"}
        if revision:
            query["resourceVersion"] = revision
        return self.api.watch(self.path, **query)


@pytest.fixture
def maps(api: Api, namespace: str) -> Iterator[ConfigMaps]:
    yield ConfigMaps(api, namespace)


def _expect(watch: Watch, kind: str, thing: Json) -> None:
    """The next event is of this kind, and tells this object as it was answered (a deletion: with a newer revision)."""
    seen_kind, seen = watch.next()
    assert seen_kind == kind
    wanted = {**thing, "metadata": {**thing["metadata"]}}
    if kind == "DELETED":
        seen["metadata"].pop("resourceVersion")
        wanted["metadata"].pop("resourceVersion")
    assert seen == wanted


def test_each_selector_sees_its_own(maps: ConfigMaps) -> None:
    with ExitStack() as stack:
        watch_a = stack.enter_context(maps.watch("a"))
        watch_b = stack.enter_context(maps.watch("b"))
        watch_both = stack.enter_context(maps.watch("a", "b"))
        first = maps.create("a", "a")
        changed = maps.set_mutation("a", 1)
        again = maps.set_mutation("a", 2)
        maps.delete("a")
        other = maps.create("b", "b")
        maps.delete("b")
        for watch in (watch_a, watch_both):
            _expect(watch, "ADDED", first)
            _expect(watch, "MODIFIED", changed)
            _expect(watch, "MODIFIED", again)
            _expect(watch, "DELETED", again)
        for watch in (watch_b, watch_both):
            _expect(watch, "ADDED", other)
            _expect(watch, "DELETED", other)


def test_a_watch_begins_at_a_revision(maps: ConfigMaps) -> None:
    maps.create("m", "from-resource-version")
    first = maps.set_mutation("m", 1)
    second = maps.set_mutation("m", 2)
    maps.delete("m")
    with maps.watch("from-resource-version", revision=first["metadata"]["resourceVersion"]) as watch:
        _expect(watch, "MODIFIED", second)
        _expect(watch, "DELETED", second)


def test_a_watch_goes_on_where_another_ended(maps: ConfigMaps) -> None:
    with maps.watch("watch-closed-and-restarted") as watch:
        made = maps.create("m", "watch-closed-and-restarted")
        first = maps.set_mutation("m", 1)
        _expect(watch, "ADDED", made)
        _expect(watch, "MODIFIED", first)
    second = maps.set_mutation("m", 2)
    with maps.watch("watch-closed-and-restarted", revision=first["metadata"]["resourceVersion"]) as watch:
        maps.delete("m")
        _expect(watch, "MODIFIED", second)
        _expect(watch, "DELETED", second)


def test_an_object_that_stops_meeting_the_selector_is_deleted(maps: ConfigMaps) -> None:
    value = "label-changed-and-restored"
    with maps.watch(value) as watch:
        made = maps.create("m", value)
        first = maps.set_mutation("m", 1)
        maps.set_mutation("m", 1, "wrong-value")
        _expect(watch, "ADDED", made)
        _expect(watch, "MODIFIED", first)
        kind, last = watch.next()
        assert kind == "DELETED"
        assert last["data"] == first["data"]
        assert last["metadata"]["labels"][LABEL] == value
        maps.set_mutation("m", 2)
        restored = maps.set_mutation("m", 2, value)
        third = maps.set_mutation("m", 3)
        maps.delete("m")
        _expect(watch, "ADDED", restored)
        _expect(watch, "MODIFIED", third)
        _expect(watch, "DELETED", third)


def test_concurrent_watches_see_the_same_order(api: Api, maps: ConfigMaps) -> None:
    revision = api.get(maps.path)["metadata"]["resourceVersion"]
    count = 12
    with ExitStack() as stack:
        watches = [stack.enter_context(api.watch(maps.path, resourceVersion=revision))]
        for number in range(count):
            name = f"cm-{number % 3}"
            if number < 3:
                maps.create(name, "x")
            elif number % 5:
                maps.set_mutation(name, number)
            else:
                maps.delete(name)
                maps.create(name, "y")
            seen = watches[0].next()[1]["metadata"]["resourceVersion"]
            for watch in watches[1:]:
                assert watch.next()[1]["metadata"]["resourceVersion"] == seen
            if number >= 3 and not number % 5:
                seen = {watch.next()[1]["metadata"]["resourceVersion"] for watch in watches}.pop()
            watches.append(stack.enter_context(api.watch(maps.path, resourceVersion=seen)))


def test_a_watch_begins_with_the_state_when_it_is_asked_to(maps: ConfigMaps) -> None:
    made = {maps.create(name, "x")["metadata"]["name"] for name in ("a", "b", "c")}
    query = {"sendInitialEvents": "true", "allowWatchBookmarks": "true", "resourceVersionMatch": "NotOlderThan"}
    with maps.api.watch(maps.path, labelSelector=f"{LABEL}=x", **query) as watch:
        seen = set()
        while True:
            kind, thing = watch.next()
            if kind == "BOOKMARK":
                assert thing["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
                break
            assert kind == "ADDED"
            seen.add(thing["metadata"]["name"])
        assert seen == made
        added = maps.create("d", "x")
        _expect(watch, "ADDED", added)
