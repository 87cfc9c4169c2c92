"""Upstream's conformance tests of CustomResourceConversionWebhook, with the webhook's server in a real pod."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from custom_kinds import CustomKind
from direct_api import Api, soon
from pod_servers import PodServer, make_namespace

pytestmark = pytest.mark.xdist_group("inpods")
Json = dict[str, Any]
FIELDS = {"v1": ("hostPort",), "v2": ("host", "port")}
PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


def versions(stored: str) -> list[Json]:
    """Return the versions of the definition; in v2 what v1 has in one field stands in two."""

    def schema(*fields: str) -> Json:
        properties = {field: {"type": "string"} for field in fields}
        return {"openAPIV3Schema": {"type": "object", "properties": properties}}

    return [
        {"name": name, "served": True, "storage": name == stored, "schema": schema(*fields)}
        for name, fields in FIELDS.items()
    ]


@pytest.fixture
def namespace(api: Api, unique: str) -> Iterator[str]:
    name = f"crd-webhook-{unique}"
    make_namespace(api, name)
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def kind(api: Api, webhook: PodServer, namespace: str, unique: str) -> Iterator[CustomKind]:
    """A custom kind whose versions the webhook converts, as soon as it does."""
    made = CustomKind(f"{unique}.stable.example.com", f"{unique}s", versions=("v1", "v2"))
    definition = made.definition()
    client = webhook.client_config("/crdconvert")
    review = {"clientConfig": client, "conversionReviewVersions": ["v1", "v1beta1"]}
    definition["spec"] |= {
        "versions": versions("v1"),
        "conversion": {"strategy": "Webhook", "webhook": review},
        "preserveUnknownFields": False,
    }
    api.create(CustomKind.DEFINITIONS, definition)
    for version in FIELDS:
        soon(lambda version=version: served(api, made, version))
    path = made.objects(namespace, "v2")
    soon(lambda: api.ask("POST", path, made.object(unique, "v2")).status == 201, 30.0)
    api.delete(f"{path}/{unique}")
    yield made
    api.delete(made.path)


def served(api: Api, kind: CustomKind, version: str) -> bool:
    answer = api.ask("GET", f"/apis/{kind.group}/{version}")
    return answer.status == 200 and any(one["name"] == kind.plural for one in answer.json["resources"])


def check(obj: Json, kind: CustomKind, version: str) -> None:
    """Fail unless an object is the expected one as this version has it."""
    assert obj["apiVersion"] == f"{kind.group}/{version}"
    values = {"hostPort": "localhost:8080", "host": "localhost", "port": "8080"}
    told = {field: obj[field] for field in values if field in obj}
    assert told == {field: values[field] for field in FIELDS[version]}


def test_an_object_of_v1_is_read_as_v2(api: Api, kind: CustomKind, namespace: str) -> None:
    api.create(kind.objects(namespace, "v1"), kind.object("cr-instance-1", "v1", hostPort="localhost:8080"))
    check(api.get(f"{kind.objects(namespace, 'v2')}/cr-instance-1"), kind, "v2")


def test_a_list_of_objects_of_several_versions(api: Api, kind: CustomKind, namespace: str) -> None:
    objects = kind.objects(namespace, "v1")
    api.create(objects, kind.object("cr-instance-1", "v1", hostPort="localhost:8080"))
    definition = api.get(kind.path)
    definition["spec"]["versions"] = versions("v2")
    api.replace(kind.path, definition)
    api.create(objects, kind.object("cr-instance-2", "v1", hostPort="localhost:8080"))
    for version in FIELDS:
        listed = api.get(kind.objects(namespace, version))["items"]
        assert [obj["metadata"]["name"] for obj in listed] == ["cr-instance-1", "cr-instance-2"]
        for obj in listed:
            check(obj, kind, version)
    with api.watch(
        kind.objects(namespace, "v2"), sendInitialEvents="true", resourceVersionMatch="NotOlderThan"
    ) as told:
        for _ in range(2):
            check(told.next()[1], kind, "v2")
