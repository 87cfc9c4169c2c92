"""Table rows of configuration, identities, role bindings and certificate requests."""

from __future__ import annotations

from typing import Any

from tiphys.api.columns.text import NONE, age, columns, duration, name, part
from tiphys.api.kind import JsonObject

CONFIGMAP_COLUMNS = columns("""
    Name | string/name | Name of the object.
    Data |             | Number of its entries.
    Age  |             | Time since creation.
    """)


def configmap_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age(obj, now_s)]


SECRET_COLUMNS = columns("""
    Name | string/name | Name of the secret.
    Type |             | What it is for.
    Data |             | Number of its entries.
    Age  |             | Time since creation.
    """)


def secret_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), obj.get("type", ""), len(obj.get("data") or ()), age(obj, now_s)]


ROLEBINDING_COLUMNS = columns("""
    Name            | string/name | Name of the binding.
    Role            |             | The role that it grants.
    Age             |             | Time since creation.
    Users           | wide        | Users that get the role.
    Groups          | wide        | Groups that get the role.
    ServiceAccounts | wide        | Service accounts that get the role.
    """)


def rolebinding_row(obj: JsonObject, now_s: float) -> list[Any]:
    role = part(obj, "roleRef")
    subjects = obj.get("subjects") or ()
    return [
        name(obj),
        f"{role.get('kind', '')}/{role.get('name', '')}",
        age(obj, now_s),
        ", ".join(s.get("name", "") for s in subjects if s.get("kind") == "User"),
        ", ".join(s.get("name", "") for s in subjects if s.get("kind") == "Group"),
        ", ".join(f"{s.get('namespace', '')}/{s.get('name')}" for s in subjects if s.get("kind") == "ServiceAccount"),
    ]


CSR_COLUMNS = columns("""
    Name              | string/name | Name of the request.
    Age               |             | Time since creation.
    SignerName        |             | Who is asked to sign.
    Requestor         |             | Who asks.
    RequestedDuration |             | How long the certificate should be valid.
    Condition         |             | Whether it was approved, and issued.
    """)


def csr_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    seconds = spec.get("expirationSeconds")
    return [
        name(obj),
        age(obj, now_s),
        spec.get("signerName") or NONE,
        spec.get("username", ""),
        NONE if seconds is None else duration(seconds),
        _csr_condition(part(obj, "status")),
    ]


def _csr_condition(status: JsonObject) -> str:
    types = {c.get("type") for c in status.get("conditions") or ()}
    decision = "Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"
    text = f"{decision},Failed" if "Failed" in types else decision
    return f"{text},Issued" if status.get("certificate") else text


CLUSTERTRUSTBUNDLE_COLUMNS = columns("""
    Name       | string/name | Name of the bundle.
    SignerName |             | The signer whose certificates it trusts.
    """)


def clustertrustbundle_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), part(obj, "spec").get("signerName") or NONE]


PODCERTIFICATEREQUEST_COLUMNS = columns("""
    Name               | string/name | Name of the request.
    PodName            |             | The pod that needs the certificate.
    ServiceAccountName |             | The pod's service account.
    NodeName           |             | The pod's node.
    SignerName         |             | Who is asked to sign.
    State              |             | Whether it was decided.
    """)


def podcertificaterequest_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    types = {c.get("type") for c in part(obj, "status").get("conditions") or () if c.get("status") == "True"}
    state = next((text for text in ("Denied", "Failed", "Issued") if text in types), "Pending")
    return [name(obj), *(spec.get(f, "") for f in ("podName", "serviceAccountName", "nodeName", "signerName")), state]
