"""CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may sign in whose name, and for whom.

Spec: Kubernetes documentation, "Certificate Signing Requests" (authorization); admission controllers of these names.
"""

from __future__ import annotations

import base64
import binascii

from tiphys.api.kind import JsonObject
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.pipeline import Authorizer
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import MASTERS, User
from tiphys.base.errors import forbidden

GROUP, PLURAL = "certificates.k8s.io", "certificatesigningrequests"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


class CertificatePermissions(Plugin):
    """Approving and signing each need a verb on the signer, besides the right to update the subresource."""

    resources = ((GROUP, PLURAL),)

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, attributes: Attributes) -> None:
        new, old = attributes.obj, attributes.old
        if new is None:
            return
        if attributes.operation == "CREATE":
            _check_subject(attributes, new)
            return
        if old is None:
            return
        signer = (old.get("spec") or {}).get("signerName") or ""
        if attributes.subresource == "approval":
            self._require(attributes, "approve", signer)
        elif attributes.subresource == "status" and _decided(new) != _decided(old):
            self._require(attributes, "sign", signer)

    def _require(self, attributes: Attributes, verb: str, signer: str) -> None:
        if not any(self._may(attributes.user, verb, name) for name in (signer, f"{signer.partition('/')[0]}/*")):
            why = f'user not permitted to {verb} requests with signerName "{signer}"'
            raise forbidden(GROUP, PLURAL, attributes.name, why)

    def _may(self, user: User, verb: str, signer: str) -> bool:
        info = RequestInfo(True, verb, "", GROUP, "*", "", "signers", signer)
        return self._authorizer.authorize(user, info).allowed


def _decided(request: JsonObject) -> tuple[object, object]:
    """Return what only a signer says: the certificate, and why there is none."""
    status = request.get("status") or {}
    return status.get("certificate") or "", status.get("conditions") or []


def _check_subject(attributes: Attributes, request: JsonObject) -> None:
    """Nobody becomes a member of system:masters by asking for a certificate."""
    spec = request.get("spec") or {}
    if spec.get("signerName") != CLIENT_SIGNER:
        return
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        parsed = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or ""))
    except (ValueError, binascii.Error):
        return  # its strategy says what is wrong with it
    if any(part.value == MASTERS for part in parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)):
        why = f"use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
        raise forbidden(GROUP, PLURAL, attributes.name, why)
