"""CertificateSigningRequests: who writes which part of the status, and what is told of a request that is none."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tiphys.api.kind import Context
from tiphys.api.strategies.certificates import CERTIFICATE_SIGNING_REQUEST as STRATEGY

NOW = "2026-05-05T05:05:05Z"
BEFORE = "2026-01-01T00:00:00Z"
APPROVED = {"type": "Approved", "status": "True", "lastUpdateTime": BEFORE, "lastTransitionTime": BEFORE}
KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "jane")])


@dataclass
class Jane:
    name: str = "jane"
    uid: str = ""
    groups: tuple[str, ...] = ("devs",)
    extra: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"key": ("a", "b")})


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def asked() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    return encoded(builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def issued() -> str:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(NAME, NAME, KEY.public_key(), 1, begin, begin + timedelta(days=1))
    return encoded(builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


REQUEST = asked()
SPEC = {"request": REQUEST, "signerName": "example.com/signer", "usages": ["client auth"]}


def request(*conditions: dict[str, Any], **status: Any) -> dict[str, Any]:
    if conditions:
        status["conditions"] = [dict(condition) for condition in conditions]
    return {"metadata": {"name": "r"}, "spec": dict(SPEC), "status": status}


def written(new: dict[str, Any], old: dict[str, Any], subresource: str) -> list[str]:
    """Write a subresource as the registry does; return what is wrong with it."""
    context = Context("me", NOW, subresource)
    STRATEGY.prepare_for_status_update(new, old, context)
    found = STRATEGY.validate(new, context) + STRATEGY.validate_status_update(new, old, context)
    return [f"{cause.field}: {cause.message}" for cause in found]


def problems(**changes: Any) -> list[str]:
    thing = request()
    thing["spec"] |= changes
    found = STRATEGY.validate(thing, Context("me", NOW, creating=True))
    return [f"{cause.field}: {cause.message}" for cause in found]


def test_the_requester_is_who_asks() -> None:
    thing = request(APPROVED)
    thing["spec"] |= {"username": "root", "groups": ["system:masters"], "uid": "0", "extra": {"a": ["b"]}}
    STRATEGY.prepare_for_create(thing, Context("jane", NOW, requester=Jane()))
    assert thing["status"] == {}
    assert thing["spec"] == SPEC | {"username": "jane", "groups": ["devs"], "extra": {"key": ["a", "b"]}}


def test_an_approval_writes_all_conditions_and_nothing_else() -> None:
    new = request({"type": "Custom", "status": "True"}, APPROVED, certificate=issued())
    assert written(new, request(), "approval") == []
    times = {"lastUpdateTime": NOW, "lastTransitionTime": NOW}
    assert new["status"] == {"conditions": [{"type": "Custom", "status": "True", **times}, APPROVED]}


def test_a_status_writes_the_certificate_and_other_conditions() -> None:
    old, certificate = request(APPROVED), issued()
    new = request({"type": "Custom", "status": "Unknown"}, APPROVED | {"reason": "mine"}, certificate=certificate)
    assert written(new, old, "status") == []
    assert new["status"]["certificate"] == certificate
    assert new["status"]["conditions"][1] == APPROVED


def test_a_time_of_transition_outlives_updates() -> None:
    old = request({"type": "Custom", "status": "True", "lastTransitionTime": BEFORE})
    new = request({"type": "Custom", "status": "True"})
    assert written(new, old, "status") == []
    assert new["status"]["conditions"][0] | {"lastUpdateTime": ""} == old["status"]["conditions"][0] | {
        "lastUpdateTime": ""
    }


@pytest.mark.parametrize(
    ("new", "old", "subresource", "complaint"),
    [
        (request(), request(APPROVED), "approval", 'Forbidden: updates may not remove a condition of type "Approved"'),
        (request(), request(APPROVED), "status", 'Forbidden: updates may not remove a condition of type "Approved"'),
        (request(APPROVED), request(), "status", 'Forbidden: updates may not add a condition of type "Approved"'),
        (
            request({"type": "Denied", "status": "True"}, APPROVED),
            request(),
            "approval",
            'Invalid value: "Approved": Approved and Denied conditions are mutually exclusive',
        ),
    ],
)
def test_who_may_not_decide(new: dict[str, Any], old: dict[str, Any], subresource: str, complaint: str) -> None:
    assert written(new, old, subresource) == [f"status.conditions: {complaint}"]


def test_conditions_are_checked_one_by_one() -> None:
    new = request(
        {"type": "Failed", "status": "False"}, {"status": "True"}, {"type": "x"}, {"type": "x", "status": "y"}
    )
    assert written(new, request(), "status") == [
        'status.conditions[0].status: Unsupported value: "False": supported values: "True"',
        "status.conditions[1].type: Required value",
        "status.conditions[2].status: Required value",
        'status.conditions[3].status: Unsupported value: "y": supported values: "False", "True", "Unknown"',
        'status.conditions[3].type: Duplicate value: "x"',
    ]


def test_a_certificate_is_one_and_is_given_once() -> None:
    at = 'status.certificate: Invalid value: "<certificate data>": '
    missing = at + "must contain at least one CERTIFICATE PEM block"
    assert written(request(certificate=encoded(b"none")), request(), "status") == [missing]
    key = encoded(b"-----BEGIN KEY-----\nYQ==\n-----END KEY-----\n")
    told = at + 'only CERTIFICATE PEM blocks are allowed, found "KEY"'
    assert written(request(certificate=key), request(), "status") == [told]
    again = ["status.certificate: Forbidden: updates may not modify existing certificate content"]
    assert written(request(certificate=issued()), request(certificate=issued()), "status") == again
    assert written(request(), request(certificate=issued()), "status") == again


def test_what_is_wrong_with_a_request() -> None:
    assert problems() == []
    none = "spec.request: Invalid value: {}: PEM block type must be CERTIFICATE REQUEST"
    assert problems(request=encoded(b"none")) == [none.format(f'"{encoded(b"none")}"')]
    assert problems(usages=[]) == ["spec.usages: Required value"]
    assert problems(usages=["any", "any"]) == ['spec.usages[1]: Duplicate value: "any"']
    assert problems(usages=["x"])[0].startswith('spec.usages[0]: Unsupported value: "x": supported values: "any", ')
    name = "kubernetes.io/legacy-unknown"
    told = f'spec.signerName: Invalid value: "{name}": the legacy signerName is not allowed via this API version'
    assert problems(signerName=name) == [told]
    form = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
    assert problems(signerName="a") == [f'spec.signerName: Invalid value: "a": {form}']
    (told,) = problems(signerName="e_x.com/a")
    assert told.startswith('spec.signerName: Invalid value: "e_x.com": validating label "e_x": a lowercase RFC 1123')
    (told,) = problems(expirationSeconds=5)
    assert told.endswith("Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)")


def test_a_request_is_signed_by_its_own_key() -> None:
    der = bytearray(base64.b64decode(b"".join(base64.b64decode(REQUEST).splitlines()[1:-1])))
    der[-1] ^= 1
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n%b\n-----END CERTIFICATE REQUEST-----\n"
    (told,) = problems(request=encoded(pem % base64.b64encode(der)))
    assert told.endswith(": x509: signature does not verify with the key of the request")
