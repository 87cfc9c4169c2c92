"""GET and LIST over a real store and cache."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest
from reads_world import CONFIG_MAP, POD, World, ask, make_kind, refused

from tiphys.api.kinds import builtin_kinds
from tiphys.api.kinds.fields import unsupported_field

# GET


async def test_get_answers_the_stored_bytes_with_the_revision(world: World) -> None:
    revision = await world.put("a")
    response = await world.reads.get_object(POD, "default", "a", ask())
    obj = orjson.loads(response.body_bytes())
    assert obj["metadata"] == {"resourceVersion": str(revision), "name": "a", "namespace": "default"}
    error = await refused(world.reads.get_object(POD, "default", "b", ask()))
    assert (error.code, error.message) == (404, 'pods "b" not found')


async def test_another_version_differs_in_its_api_version(world: World) -> None:
    stored = make_kind(group="apps", kind="Deployment", plural="deployments")
    other = make_kind(group="apps", kind="Deployment", plural="deployments", version="v1beta1", storage_version="v1")
    await world.put("a", kind=stored)
    obj = orjson.loads((await world.reads.get_object(other, "default", "a", ask())).body_bytes())
    assert (obj["apiVersion"], obj["metadata"]["name"]) == ("apps/v1beta1", "a")
    assert (await world.list(other))["apiVersion"] == "apps/v1beta1"


async def test_a_conversion_is_made_once_for_each_object_and_revision(world: World) -> None:
    calls = []

    def convert(obj: dict[str, Any], old: str, new: str) -> dict[str, Any]:
        calls.append((old, new))
        return {"spec": {"converted": True}, **{k: v for k, v in obj.items() if k != "spec"}}

    stored = make_kind(group="x.io", kind="Thing", plural="things", custom=True)
    other = make_kind(
        group="x.io", kind="Thing", plural="things", version="v2", storage_version="v1", convert=convert, custom=True
    )
    revision = await world.put("a", kind=stored)
    for _ in range(2):
        body = (await world.reads.get_object(other, "default", "a", ask())).body_bytes()
        assert body.startswith(b'{"apiVersion":"x.io/v2","kind":"Thing","metadata":{')
        obj = orjson.loads(body)
        assert (obj["spec"], obj["metadata"]["resourceVersion"]) == ({"converted": True}, str(revision))
    assert (await world.list(other))["items"] == [obj], "custom resources keep apiVersion and kind in lists"
    assert calls == [("x.io/v1", "x.io/v2")]


async def test_answers_for_people_are_indented(world: World) -> None:
    await world.put("a")
    for request in (ask(pretty="true"), ask(headers={"user-agent": "curl/8.5"})):
        response = await world.reads.get_object(POD, "default", "a", request)
        assert response.body_bytes().startswith(b'{\n  "apiVersion": "v1"')
        listed = await world.reads.list_objects(POD, "", request)
        assert b"\n  " in listed.body_bytes()
    response = await world.reads.get_object(
        POD, "default", "a", ask(headers={"user-agent": "curl/8.5"}, pretty="false")
    )
    assert b"\n" not in response.body_bytes()


# LIST


async def test_items_of_built_in_kinds_have_no_kind(world: World) -> None:
    revision = await world.put("a")
    assert await world.list() == {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": str(revision)},
        "items": [
            {
                "metadata": {"resourceVersion": str(revision), "name": "a", "namespace": "default"},
                "spec": {"nodeName": "n1"},
            }
        ],
    }
    assert (await world.list(CONFIG_MAP))["items"] == []


async def test_selectors_choose_objects(world: World) -> None:
    await world.put("a", labels={"app": "x"})
    await world.put("b", labels={"app": "y"}, node="n2")
    await world.put("c", "other", labels={"app": "x"}, node="n2")
    assert await world.names(labelSelector="app=x") == ["a", "c"]
    assert await world.names(labelSelector="app in (x),app!=y", namespace="other") == ["c"]
    assert await world.names(fieldSelector="spec.nodeName=n2") == ["b", "c"]
    assert await world.names(fieldSelector="spec.nodeName!=n2,metadata.namespace=default") == ["a"]
    assert await world.names(fieldSelector="metadata.name=b", namespace="default") == ["b"]
    assert await world.names(fieldSelector="metadata.name=b", namespace="other") == []
    error = await refused(world.list(fieldSelector="spec.x=1"))
    assert (error.code, error.message) == (400, "field label not supported: spec.x")
    selected = await world.reads.select(POD, "", ask(labelSelector="app=x"))
    assert [obj.name for obj in selected] == ["a", "c"]


async def test_pages_are_consistent_while_objects_change(world: World) -> None:
    for name in "abcde":
        await world.put(name)
    before = world.store.current_revision()
    page = await world.list(limit=2)
    assert page["metadata"]["remainingItemCount"] == 3
    names = [item["metadata"]["name"] for item in page["items"]]
    await world.delete("d")
    await world.put("cc")
    while token := page["metadata"].get("continue"):
        page = await world.list(**{"limit": 2, "continue": token})
        assert page["metadata"]["resourceVersion"] == str(before)
        names += [item["metadata"]["name"] for item in page["items"]]
    assert names == list("abcde")
    assert "remainingItemCount" not in page["metadata"]


async def test_pages_with_selectors_do_not_count_the_rest(world: World) -> None:
    for name in "abcd":
        await world.put(name, labels={"odd": str(name in "ac")})
    page = await world.list(limit=1, labelSelector="odd=True")
    assert "remainingItemCount" not in page["metadata"] and page["metadata"]["continue"]
    page = await world.list(**{"limit": 1, "labelSelector": "odd=True", "continue": page["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in page["items"]] == ["c"]
    assert "continue" not in page["metadata"]


async def test_an_expired_token_offers_an_inconsistent_one(world: World) -> None:
    for name in "abcd":
        await world.put(name)
    token = (await world.list(limit=2))["metadata"]["continue"]
    await world.delete("c")
    newest = await world.put("e")
    await world.store.compact(newest)
    error = await refused(world.list(**{"limit": 2, "continue": token}))
    status = error.status()
    assert (status["code"], status["reason"]) == (410, "Expired")
    assert status["message"].startswith("The provided continue parameter is too old to display a consistent list")
    page = await world.list(**{"continue": status["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in page["items"]] == ["d", "e"]
    assert page["metadata"]["resourceVersion"] == str(newest)


async def test_an_expired_token_is_told_even_if_the_resource_did_not_change(world: World) -> None:
    for name in "abc":
        await world.put(name)
    token = (await world.list(limit=2))["metadata"]["continue"]
    await world.store.compact(await world.put("x", kind=CONFIG_MAP))
    assert (await refused(world.list(**{"limit": 2, "continue": token}))).code == 410


@pytest.mark.parametrize("token", ["!!", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0", "aGVsbG8"])
async def test_broken_tokens_are_refused(world: World, token: str) -> None:
    error = await refused(world.list(**{"continue": token}))
    assert error.code == 400 and "continue key is not valid" in error.message


async def test_resource_versions_of_lists(world: World) -> None:
    first = await world.put("a")
    second = await world.put("b")
    await world.put("x", kind=CONFIG_MAP)
    await world.cache.refresh()
    assert await world.names(resourceVersion="0", limit=1) == ["a", "b"], "any revision: no pages"
    assert await world.names(resourceVersion=first) == ["a", "b"]
    assert await world.names(resourceVersion=first, resourceVersionMatch="NotOlderThan") == ["a", "b"]
    exact = await world.list(resourceVersion=first, resourceVersionMatch="Exact")
    assert [i["metadata"]["name"] for i in exact["items"]] == ["a"]
    assert exact["metadata"]["resourceVersion"] == str(first)
    assert await world.names(resourceVersion=first, limit=5) == ["a"], "limit without match means exact"
    await world.store.compact(second)
    error = await refused(world.list(resourceVersion=first, resourceVersionMatch="Exact"))
    assert (error.code, error.message) == (410, "The resourceVersion for the provided list is too old.")


async def test_a_future_revision_is_a_timeout_that_says_so() -> None:
    world = World(fresh_timeout_s=0.01)
    await world.store.start()
    await world.cache.start()
    for query in ({}, {"resourceVersionMatch": "Exact"}):
        error = await refused(world.list(resourceVersion="99", **query))
        status = error.status()
        assert (status["code"], status["reason"]) == (504, "Timeout")
        assert status["message"] == "Timeout: Too large resource version: 99, current: 1"
        assert status["details"] == {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }
    await world.cache.stop()
    await world.store.stop()


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        (
            {"resourceVersionMatch": "Exact"},
            422,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422, 'is forbidden for resourceVersion "0"'),
        ({"resourceVersionMatch": "X", "resourceVersion": "1"}, 422, 'supported values: "Exact", "NotOlderThan", ""'),
        ({"sendInitialEvents": "true"}, 422, "sendInitialEvents is forbidden for list"),
        ({"resourceVersion": "abc"}, 400, 'strconv.ParseUint: parsing "abc": invalid syntax'),
        ({"limit": "x"}, 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
async def test_invalid_list_options_are_refused(world: World, query: dict[str, str], code: int, message: str) -> None:
    error = await refused(world.list(**query))
    assert error.code == code and message in error.message


async def test_repeated_large_lists_are_remembered_and_compressed_once(world: World) -> None:
    for number in range(300):
        await world.put(f"p{number:03}", annotations={"pad": "x" * 600})
    plain = await world.response()
    again = await world.response()
    assert plain.body[1] is again.body[1]
    request = ask(headers={"accept-encoding": "gzip, deflate"})
    for _ in range(2):
        revision = await world.put("other", kind=CONFIG_MAP)
        response = await world.reads.list_objects(POD, "", request)
        assert ("Content-Encoding", "gzip") in response.headers
        unpacked = orjson.loads(gzip.decompress(response.body_bytes()))
        assert unpacked["metadata"]["resourceVersion"] == str(revision), "the list is as of now"
        assert unpacked["items"] == orjson.loads(plain.body_bytes())["items"]
    await world.delete("p000")
    assert len((await world.list())["items"]) == 299


async def test_pages_of_the_past_are_read_in_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.apiserver.lists.OLD_PIECE", 2)
    for number in range(7):
        await world.put(f"p{number}", node=f"n{number % 2}", labels={"odd": str(number % 2)})
    first = await world.list(limit=2)
    revision = first["metadata"]["resourceVersion"]
    await world.delete("p3")
    await world.put("zz")
    names, page = [item["metadata"]["name"] for item in first["items"]], first
    while token := page["metadata"].get("continue"):
        page = await world.list(limit=2, **{"continue": token})
        assert page["metadata"]["resourceVersion"] == revision
        names += [item["metadata"]["name"] for item in page["items"]]
    assert names == [f"p{number}" for number in range(7)]
    exact = {"resourceVersion": revision, "resourceVersionMatch": "Exact"}
    assert await world.names(**exact) == names
    assert await world.names(labelSelector="odd=1", **exact) == ["p1", "p3", "p5"]
    page = await world.list(fieldSelector="spec.nodeName=n1", limit=2, **exact)
    assert [item["metadata"]["name"] for item in page["items"]] == ["p1", "p3"]
    assert "remainingItemCount" not in page["metadata"]
    token = page["metadata"]["continue"]
    rest = await world.list(**{"fieldSelector": "spec.nodeName=n1", "limit": 2, "continue": token})
    assert [item["metadata"]["name"] for item in rest["items"]] == ["p5"] and "continue" not in rest["metadata"]


@pytest.mark.parametrize(
    ("resource", "field", "message"),
    [
        (("", "pods"), "status.phase", ""),
        (("", "pods"), "spec.x", "field label not supported: spec.x"),
        (("", "nodes"), "metadata.namespace", "field label not supported: metadata.namespace"),
        (
            ("", "configmaps"),
            "data",
            '"data" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        (("storage.k8s.io", "storageclasses"), "metadata.namespace", ""),
        (("batch", "jobs"), "status.x", 'field label "status.x" not supported for batchv1.Job'),
        (("apps", "statefulsets"), "x", "field label not supported for appsv1.StatefulSet: x"),
        (
            ("resource.k8s.io", "resourceslices"),
            "spec.x",
            "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.x",
        ),
        (("", "services"), "spec.type", ""),
        (("certificates.k8s.io", "certificatesigningrequests"), "spec.signerName", ""),
    ],
)
def test_unknown_fields_are_refused_in_the_words_of_each_kind(
    resource: tuple[str, str], field: str, message: str
) -> None:
    (kind,) = (k for k in builtin_kinds((1, 37)) if (k.group, k.plural, k.version) == (*resource, "v1"))
    assert unsupported_field(kind, field) == message


async def test_an_object_in_an_older_storage_version_is_converted(world: World) -> None:
    def convert(obj: dict[str, Any], source: str, target: str) -> dict[str, Any]:
        return {**obj, "apiVersion": target, "spec": {"from": source}}

    kind = make_kind(group="x.io", version="v2", kind="Thing", plural="things", convert=convert)
    older = make_kind(group="x.io", version="v1", kind="Thing", plural="things")
    await world.put("a", kind=older)
    await world.put("b", kind=kind)
    await world.cache.refresh()
    items = (await world.list(kind))["items"]
    assert [item["spec"] for item in items] == [{"from": "x.io/v1"}, {"nodeName": "n1"}]
    response = await world.reads.get_object(kind, "default", "a", ask())
    shown = orjson.loads(response.body_bytes())
    assert (shown["apiVersion"], shown["spec"]) == ("x.io/v2", {"from": "x.io/v1"})
