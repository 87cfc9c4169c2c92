"""Every verb on one kind after another, as upstream's tests "should support ... API operations" ask for them.

Spec: the conformance tests of flow schemas, priority levels, admission policies and their bindings, and those of other
groups of the same form (CSRs, ingresses, CronJobs, EndpointSlices, RuntimeClasses, CSI drivers and nodes, and so on).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from direct_api import Api, names

Json = dict[str, Any]
ADMISSION = "admissionregistration.k8s.io"
RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
ANNOTATE = 'Object{metadata: Object.metadata{annotations: {"my-foo-annotation": "myAnnotationValue"}}}'
BINDING = {"policyName": "nobody.example.com", "validationActions": ["Deny"]}


@dataclass(frozen=True, slots=True)
class Case:
    """One resource: where it is, an object of it, what a patch changes (if anything but metadata)."""

    group: str
    version: str
    resource: str
    kind: str
    fields: Json
    change: Json
    has_status: bool = False
    namespaced: bool = False
    condition: Json | None = None
    """What marks a patched status; None for a condition."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def _spec(**fields: Any) -> Json:
    return {"spec": fields}


CASES = (
    Case(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "flowschemas",
        "FlowSchema",
        _spec(
            matchingPrecedence=10000,
            priorityLevelConfiguration={"name": "global-default"},
            distinguisherMethod={"type": "ByUser"},
            rules=[
                {
                    "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                }
            ],
        ),
        _spec(matchingPrecedence=9999),
        has_status=True,
    ),
    Case(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "prioritylevelconfigurations",
        "PriorityLevelConfiguration",
        _spec(type="Limited", limited={"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}),
        _spec(limited={"nominalConcurrencyShares": 4}),
        has_status=True,
    ),
    Case(
        ADMISSION,
        "v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        _spec(
            validations=[{"expression": "true", "messageExpression": "'it is fine'"}],
            matchConstraints={"resourceRules": [RULE]},
        ),
        _spec(failurePolicy="Ignore"),
        has_status=True,
    ),
    Case(
        ADMISSION,
        "v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        _spec(**BINDING),
        _spec(validationActions=["Warn"]),
    ),
    Case(
        ADMISSION,
        "v1",
        "mutatingadmissionpolicies",
        "MutatingAdmissionPolicy",
        _spec(
            reinvocationPolicy="Never",
            mutations=[{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": ANNOTATE}}],
            matchConstraints={"resourceRules": [RULE]},
        ),
        _spec(failurePolicy="Ignore"),
    ),
    Case(
        ADMISSION,
        "v1",
        "mutatingadmissionpolicybindings",
        "MutatingAdmissionPolicyBinding",
        _spec(policyName="nobody.example.com"),
        _spec(matchResources={"matchPolicy": "Exact"}),
    ),
    Case(
        "certificates.k8s.io",
        "v1",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        _spec(signerName="example.com/e2e", usages=["digital signature", "key encipherment", "server auth"]),
        {},
        has_status=True,
        condition={"type": "ApprovalDenied", "status": "True", "reason": "E2E", "message": "Set from an e2e test"},
    ),
    Case(
        "networking.k8s.io",
        "v1",
        "ingresses",
        "Ingress",
        _spec(defaultBackend={"service": {"name": "nobody", "port": {"number": 80}}}),
        _spec(rules=[{"host": "foo.bar.com"}]),
        has_status=True,
        namespaced=True,
        condition={"ip": "169.1.1.1"},
    ),
    Case(
        "networking.k8s.io",
        "v1",
        "ingressclasses",
        "IngressClass",
        _spec(controller="example.com/controller"),
        _spec(parameters={"kind": "Any", "name": "one"}),
    ),
    Case(
        "networking.k8s.io",
        "v1",
        "networkpolicies",
        "NetworkPolicy",
        _spec(podSelector={}, policyTypes=["Ingress"]),
        _spec(policyTypes=["Egress"]),
        namespaced=True,
    ),
    Case(
        "batch",
        "v1",
        "cronjobs",
        "CronJob",
        _spec(
            schedule="* */1 * * ?",
            concurrencyPolicy="Allow",
            suspend=True,
            jobTemplate={
                "spec": {
                    "template": {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i"}]}}
                }
            },
        ),
        _spec(concurrencyPolicy="Forbid"),
        has_status=True,
        namespaced=True,
        condition={"lastScheduleTime": "2026-01-01T00:00:00Z"},
    ),
    Case(
        "discovery.k8s.io",
        "v1",
        "endpointslices",
        "EndpointSlice",
        {"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}]},
        {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        namespaced=True,
    ),
    Case("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", {"handler": "e2e"}, {}),
    Case(
        "coordination.k8s.io",
        "v1",
        "leases",
        "Lease",
        _spec(holderIdentity="holder", leaseDurationSeconds=30),
        _spec(holderIdentity="another"),
        namespaced=True,
    ),
    Case("storage.k8s.io", "v1", "csidrivers", "CSIDriver", _spec(attachRequired=False), _spec(requiresRepublish=True)),
    Case("storage.k8s.io", "v1", "csinodes", "CSINode", _spec(drivers=[]), {}),
    Case("storage.k8s.io", "v1", "storageclasses", "StorageClass", {"provisioner": "e2e.example.com"}, {}),
    Case(
        "storage.k8s.io",
        "v1",
        "volumeattachments",
        "VolumeAttachment",
        _spec(attacher="e2e.example.com", nodeName="nobody", source={"persistentVolumeName": "none"}),
        {},
        has_status=True,
        condition={"attached": True},
    ),
    Case(
        "networking.k8s.io",
        "v1",
        "servicecidrs",
        "ServiceCIDR",
        _spec(cidrs=["10.231.0.0/24"]),
        {},
        has_status=True,
    ),
    Case(
        "policy",
        "v1",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        _spec(minAvailable=1, selector={"matchLabels": {"foo": "bar"}}),
        _spec(minAvailable="50%"),
        has_status=True,
        namespaced=True,
    ),
    Case(
        "",
        "v1",
        "podtemplates",
        "PodTemplate",
        {"template": {"spec": {"containers": [{"name": "nginx", "image": "nginx"}]}}},
        {"template": {"metadata": {"labels": {"podtemplate": "patched"}}}},
        namespaced=True,
    ),
    Case(
        "resource.k8s.io",
        "v1",
        "resourceclaims",
        "ResourceClaim",
        _spec(devices={"requests": [{"name": "one", "exactly": {"deviceClassName": "none"}}]}),
        {},
        has_status=True,
        namespaced=True,
        condition={"allocation": None},
    ),
)


def _check_discovery(api: Api, case: Case) -> None:
    version = case.version
    if case.group:
        groups = {group["name"]: group for group in api.get("/apis")["groups"]}
        assert version in [v["version"] for v in groups[case.group]["versions"]]
        assert version in [v["version"] for v in api.get(f"/apis/{case.group}")["versions"]]
    root = f"/apis/{case.group}/{version}" if case.group else f"/api/{version}"
    told = {resource["name"]: resource for resource in api.get(root)["resources"]}
    assert (f"{case.resource}/status" in told) == case.has_status
    assert set(told[case.resource]["verbs"]) == {
        *("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
    }


def _signing_request() -> str:
    import base64

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "e2e.example.com")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = builder.sign(generate_private_key(SECP256R1()), SHA256())
    return base64.b64encode(signed.public_bytes(Encoding.PEM)).decode()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.resource}-{case.version}")
def test_every_verb(typed_api: Api, unique: str, request: pytest.FixtureRequest, case: Case) -> None:
    api = typed_api
    _check_discovery(api, case)
    within = f"/namespaces/{request.getfixturevalue('namespace')}" if case.namespaced else ""
    path = (f"/apis/{case.group}" if case.group else "/api") + f"/{case.version}{within}/{case.resource}"
    label = f"example-e2e={unique}"
    fields = case.fields
    if case.resource == "certificatesigningrequests":
        fields = _spec(**case.fields["spec"], request=_signing_request())
    body = {
        "apiVersion": case.api_version,
        "kind": case.kind,
        "metadata": {"generateName": "e2e-example-", "labels": {"example-e2e": unique}},
        **fields,
    }
    try:
        api.create(path, body)
        api.create(path, body)
        made = api.create(path, body)
        _read_and_write(api, path, label, made, case)
        if case.has_status:
            _status(api, f"{path}/{made['metadata']['name']}", made, case)
        _delete(api, path, label, made["metadata"]["name"])
    finally:
        api.delete(path, labelSelector=label)


def _read_and_write(api: Api, path: str, label: str, made: Json, case: Case) -> None:
    one = f"{path}/{made['metadata']['name']}"
    read = api.get(one)
    assert read["metadata"]["uid"] == made["metadata"]["uid"]
    listed = api.get(path, labelSelector=label)
    assert len(listed["items"]) == 3
    revision = listed["metadata"]["resourceVersion"]
    with api.watch(path, resourceVersion=revision, labelSelector=label) as events:
        patched = api.patch(one, {"metadata": {"annotations": {"patched": "true"}}, **case.change})
        assert patched["metadata"]["annotations"]["patched"] == "true"
        assert _holds(patched, case.change), patched
        assert int(patched["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
        updated = api.change(one, lambda thing: thing["metadata"]["annotations"].update(updated="true"))
        assert updated["metadata"]["annotations"]["updated"] == "true"
        assert _holds(updated, case.change)
        while True:
            kind, thing = events.next()
            assert kind == "MODIFIED"
            assert thing["kind"] == case.kind
            if thing["metadata"].get("annotations", {}).get("patched") == "true":
                break


def _holds(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(_holds(value.get(key), inner) for key, inner in wanted.items())
    return bool(value == wanted)


def _status(api: Api, one: str, made: Json, case: Case) -> None:
    read = api.get(f"{one}/status")
    assert (read["apiVersion"], read["kind"]) == (case.api_version, case.kind)
    assert read["metadata"]["uid"] == made["metadata"]["uid"]
    if case.resource == "ingresses":
        changed = api.patch(f"{one}/status", {"status": {"loadBalancer": {"ingress": [case.condition]}}})
        assert changed["status"]["loadBalancer"]["ingress"] == [case.condition]
        return
    if case.condition is not None and "type" not in case.condition:
        changed = api.patch(
            f"{one}/status", {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": case.condition}
        )
        assert _holds(changed.get("status", {}), case.condition)
        assert changed["metadata"]["annotations"]["patchedstatus"] == "true"
        return
    first = case.condition or {"type": "PatchStatusFailed", "status": "False", "reason": "e2e"}
    if case.resource in ("poddisruptionbudgets", "validatingadmissionpolicies", "servicecidrs"):
        first = {**first, "lastTransitionTime": "2026-01-01T00:00:00Z", "message": ""}
    changed = api.patch(f"{one}/status", {"status": {"conditions": [first]}})
    assert first["type"] in [c["type"] for c in changed["status"]["conditions"]]
    second = {
        "type": "StatusUpdateFailed",
        "status": "True" if case.resource == "certificatesigningrequests" else "False",
        "reason": "E2E",
        "message": "Set from an e2e test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    updated = api.change(one, lambda thing: thing["status"].setdefault("conditions", []).append(second), "status")
    assert "StatusUpdateFailed" in [c["type"] for c in updated["status"]["conditions"]]


def _delete(api: Api, path: str, label: str, name: str) -> None:
    api.delete(f"{path}/{name}")
    answer = api.ask("GET", f"{path}/{name}")
    assert answer.status == 404 or answer.json["metadata"].get("finalizers"), answer.json
    if answer.status == 200:
        api.wait_until_gone(f"{path}/{name}")
    listed = names(api.get(path, labelSelector=label))
    assert len(listed) == 2
    api.delete(path, labelSelector=label)
    for left in api.get(path, labelSelector=label)["items"]:
        assert left["metadata"]["deletionTimestamp"]
        assert left["metadata"]["finalizers"]
