"""One object's life in every way to write it: update, all four kinds of patches, its status likewise, deletion.

Spec: upstream's generic test of resources (conformance tests of StorageClass, VolumeAttributesClass, the resource.k8s.io
kinds, PodCertificateRequest; StorageVersionMigration): each patch begins with a fresh object, all have the same result,
and whoever watches sees one addition, updates and one deletion, with revisions that only grow.
"""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass, field
from typing import Any

import pytest
from direct_api import APPLY, JSON_PATCH, MERGE, STRATEGIC, Api, Watch

Json = dict[str, Any]
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
STRICT = {"fieldValidation": "Strict"}
CONDITION = {
    "type": "TestCondition",
    "status": "True",
    "reason": "TestReason",
    "message": "TestMessage",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def _time(minutes: int) -> str:
    return (NOW + datetime.timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Life:
    """One kind: where it is, its first content, what changes."""

    group: str
    resource: str
    kind: str
    content: Json
    namespaced: bool = False
    change: Json = field(default_factory=lambda: {"metadata": {"labels": {"foo": "bar"}}})
    status: Json = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        return f"{self.group}/v1"


def _signed() -> tuple[str, str]:
    """Return a certificate request (base64 of DER) and a certificate chain for its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    key = generate_private_key(SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "e2e.example.com")])
    begin = NOW - datetime.timedelta(minutes=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(hours=1))
        .sign(key, SHA256())
    )
    chain = certificate.public_bytes(Encoding.PEM).decode()
    return base64.b64encode(request.public_bytes(Encoding.DER)).decode(), chain


def _certificate_request() -> Life:
    request, chain = _signed()
    spec = {
        "signerName": "example.com/e2e",
        "podName": "test-pod",
        "podUID": "12345678-1234-1234-1234-123456789012",
        "serviceAccountName": "default",
        "serviceAccountUID": "12345678-1234-1234-1234-123456789013",
        "nodeName": "test-node",
        "nodeUID": "12345678-1234-1234-1234-123456789014",
        "maxExpirationSeconds": 86400,
        "stubPKCS10Request": request,
    }
    issued = {**CONDITION, "type": "Issued", "reason": "E2E", "lastTransitionTime": _time(0)}
    status = {
        "certificateChain": chain,
        "notBefore": _time(-1),
        "notAfter": _time(59),
        "beginRefreshAt": _time(14),
        "conditions": [issued],
    }
    return Life(
        "certificates.k8s.io", "podcertificaterequests", "PodCertificateRequest", {"spec": spec}, True, status=status
    )


SELECTOR = {"cel": {"expression": 'device.driver == "example.com"'}}
ALLOCATION = {
    "allocation": {
        "devices": {"results": [{"request": "req", "driver": "example.com", "pool": "pool", "device": "dev"}]},
    },
}
LIVES = (
    Life(
        "storage.k8s.io",
        "storageclasses",
        "StorageClass",
        {"provisioner": "e2e-fake-provisioner", "parameters": {"a": "b"}},
    ),
    Life(
        "storage.k8s.io",
        "volumeattributesclasses",
        "VolumeAttributesClass",
        {"driverName": "e2e-fake-csi-driver", "parameters": {"foo": "bar"}},
    ),
    Life(
        "resource.k8s.io",
        "deviceclasses",
        "DeviceClass",
        {"spec": {"selectors": [SELECTOR]}},
        change={"spec": {"selectors": [{"cel": {"expression": "true"}}]}},
    ),
    Life(
        "resource.k8s.io",
        "resourceclaims",
        "ResourceClaim",
        {"spec": {"devices": {"requests": [{"name": "req", "exactly": {"deviceClassName": "none"}}]}}},
        True,
        status=ALLOCATION,
    ),
    Life(
        "resource.k8s.io",
        "resourceclaimtemplates",
        "ResourceClaimTemplate",
        {"spec": {"spec": {"devices": {"requests": [{"name": "req", "exactly": {"deviceClassName": "none"}}]}}}},
        True,
    ),
    Life(
        "resource.k8s.io",
        "resourceslices",
        "ResourceSlice",
        {
            "spec": {
                "driver": "example.com",
                "nodeName": "nobody",
                "pool": {"name": "pool", "resourceSliceCount": 1, "generation": 1},
                "devices": [{"name": "dev"}],
            }
        },
        change={"spec": {"devices": [{"name": "dev-2"}]}},
    ),
    Life(
        "storagemigration.k8s.io",
        "storageversionmigrations",
        "StorageVersionMigration",
        {"spec": {"resource": {"group": "", "resource": "foo"}}},
        status={"conditions": [CONDITION]},
    ),
    _certificate_request(),
)


class Informer:
    """Sees all that happens to objects with a label."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._revision = 0
        kind, _ = watch.next()
        assert kind == "BOOKMARK", "nothing is there yet"

    def expect(self, kind: str, thing: Json | None = None) -> None:
        """Read on to an event of this kind, of this state of the object; only updates may come before."""
        while True:
            seen_kind, seen = self._watch.next()
            revision = int(seen["metadata"]["resourceVersion"])
            assert revision > self._revision
            self._revision = revision
            reached = thing is None or seen["metadata"]["resourceVersion"] == thing["metadata"]["resourceVersion"]
            if seen_kind == kind and reached:
                return
            assert seen_kind == "MODIFIED", f"{seen_kind} before {kind}"


def _pointers(change: Json) -> list[Json]:
    """Return a change as a JSON patch: whole fields of spec and status, single labels."""
    operations = []
    for part, fields in change.items():
        prefix, values = (f"/{part}/labels", fields["labels"]) if part == "metadata" else (f"/{part}", fields)
        operations += [{"op": "add", "path": f"{prefix}/{name}", "value": value} for name, value in values.items()]
    return operations


def _patches(thing: Json, change: Json) -> list[tuple[str, Any]]:
    head = {"apiVersion": thing["apiVersion"], "kind": thing["kind"]}
    metadata = {key: thing["metadata"][key] for key in ("name", "namespace", "uid") if key in thing["metadata"]}
    whole = {**head, **change, "metadata": {**metadata, **change.get("metadata", {})}}
    return [(STRATEGIC, whole), (APPLY, whole), (MERGE, whole), (JSON_PATCH, _pointers(change))]


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.resource)
def test_a_life(api: Api, unique: str, request: pytest.FixtureRequest, life: Life) -> None:
    root = f"/apis/{life.api_version}"
    assert life.resource in [resource["name"] for resource in api.get(root)["resources"]]
    namespace = request.getfixturevalue("namespace") if life.namespaced else ""
    path = f"{root}/namespaces/{namespace}/{life.resource}" if namespace else f"{root}/{life.resource}"
    metadata = {"name": f"test-{unique}", "labels": {"e2e-test.kubernetes.io": unique}}
    body = {"apiVersion": life.api_version, "kind": life.kind, "metadata": metadata, **life.content}
    selector = f"e2e-test.kubernetes.io={unique}"
    one = f"{path}/test-{unique}"
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    try:
        with api.watch(f"{root}/{life.resource}", labelSelector=selector, **query) as watch:
            informer = Informer(watch)
            _update(api, informer, path, body, life)
            for number in range(4):
                _patch(api, informer, path, body, life.change, number, life)
            for number in range(4 if life.status else 0):
                _patch(api, informer, path, body, {"status": life.status}, number, life)
            assert len(api.get(path, labelSelector=selector)["items"]) == 1
            assert len(api.get(f"{root}/{life.resource}", labelSelector=selector)["items"]) == 1
            api.delete(path, labelSelector=selector)
            assert not api.is_there(one)
            informer.expect("DELETED")
    finally:
        api.ask("DELETE", one)


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(_contains(value.get(name), inner) for name, inner in wanted.items())
    if isinstance(wanted, list):
        return isinstance(value, list) and all(any(_contains(v, w) for v in value) for w in wanted)
    return bool(value == wanted)


def _merge(thing: Json, change: Json) -> None:
    for name, value in change.items():
        if isinstance(value, dict):
            _merge(thing.setdefault(name, {}), value)
        else:
            thing[name] = value


def _update(api: Api, informer: Informer, path: str, body: Json, life: Life) -> None:
    made = api.create(path, body, **STRICT)
    one = f"{path}/{made['metadata']['name']}"
    assert _contains(made, body)
    informer.expect("ADDED", made)
    assert api.get(one)["metadata"]["uid"] == made["metadata"]["uid"]
    updated = api.change(one, lambda thing: _merge(thing, life.change))
    assert _contains(updated, life.change)
    informer.expect("MODIFIED", updated)
    if life.status:
        updated = api.change(one, lambda thing: _merge(thing, {"status": life.status}), "status")
        assert _contains(updated["status"], life.status)
        informer.expect("MODIFIED", updated)
        assert _contains(api.get(f"{one}/status")["status"], life.status)


def _patch(api: Api, informer: Informer, path: str, body: Json, change: Json, number: int, life: Life) -> None:
    """Begin anew, and write a change with the patch type of that number."""
    one = f"{path}/{body['metadata']['name']}"
    api.delete(one)
    assert not api.is_there(one)
    informer.expect("DELETED")
    made = api.create(path, body)
    informer.expect("ADDED", made)
    if "status" in change:
        made = api.change(one, lambda thing: _merge(thing, life.change))
        informer.expect("MODIFIED", made)
    kind, data = _patches(made, change)[number]
    query = {**STRICT, **({"fieldManager": "test-apply", "force": "true"} if kind == APPLY else {})}
    patched = api.patch(f"{one}/status" if "status" in change else one, data, kind, **query)
    assert _contains(patched, change), (kind, patched)
    assert _contains(patched, life.change if "status" in change else change)
    informer.expect("MODIFIED", patched)
