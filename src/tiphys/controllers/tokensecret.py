"""Fills Secrets of type kubernetes.io/service-account-token, and removes those whose ServiceAccount is gone.

In: a key of a Secret with the annotation kubernetes.io/service-account.name. Out: its `token` (a JWT without expiry,
good as long as the Secret holds it), `ca.crt`, `namespace`, and the account's uid as annotation. One write a Secret, so
a crash leaves it filled or not at all.

Spec: Kubernetes docs, "Service Accounts" (manually create a long-lived API token), "Managing Service Accounts" (token
controller: needs the signing key).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, cast

from tiphys.api.views.config import Secret, ServiceAccount
from tiphys.api.views.meta import PartialObject, decode_view
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.selection import key_of
from tiphys.controllers.shared import Controller, Shared
from tiphys.wire.tls import signing_key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ACCOUNT_NAME = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"
TYPE = "kubernetes.io/service-account-token"
ISSUER = "kubernetes/serviceaccount"
CLAIM = "kubernetes.io/serviceaccount/"


class TokenSecretLoop:
    """See the module's docstring."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.secrets: Mirror[PartialObject] = shared.mirror(resources.SECRETS, PartialObject)
        self.accounts: Mirror[ServiceAccount] = shared.mirror(resources.SERVICEACCOUNTS, ServiceAccount)
        self.queue = shared.queue()
        self._key: EllipticCurvePrivateKey | None = None
        self.secrets.on_change(self._secret_changed)
        self.accounts.on_change(self._account_changed)

    def _secret_changed(self, old: PartialObject | None, new: PartialObject | None) -> None:
        if new is not None and ACCOUNT_NAME in new.metadata.annotations:
            self.queue.add(key_of(new))

    def _account_changed(self, old: ServiceAccount | None, new: ServiceAccount | None) -> None:
        account = new if new is not None else old
        if account is None or (old is not None and new is not None and old.metadata.uid == new.metadata.uid):
            return
        for secret in self.secrets.all(account.metadata.namespace):
            if secret.metadata.annotations.get(ACCOUNT_NAME) == account.metadata.name:
                self.queue.add(key_of(secret))

    async def reconcile(self, key: str) -> None:
        seen = self.secrets.get(key)
        if seen is None or seen.metadata.deletion_timestamp or ACCOUNT_NAME not in seen.metadata.annotations:
            return
        client, meta = self.shared.deps.client, seen.metadata
        try:
            secret = decode_view(await client.get(resources.SECRETS, meta.namespace, meta.name), Secret)
            if secret.type != TYPE or secret.metadata.uid != meta.uid:
                return
            account = await self._account(meta.namespace, secret.metadata.annotations.get(ACCOUNT_NAME, ""))
            known_uid = secret.metadata.annotations.get(ACCOUNT_UID, "")
            if account is None or (known_uid and known_uid != account.metadata.uid):
                await self.secrets.delete(seen)
            else:
                await self._fill(seen, secret, account)
        except ApiError as error:
            if error.code != 404:
                raise

    async def _account(self, namespace: str, name: str) -> ServiceAccount | None:
        """Return the account as the server has it: a stale copy must not cost somebody his token."""
        found = self.accounts.get(f"{namespace}/{name}")
        if found is not None:
            return found
        try:
            answer = await self.shared.deps.client.get(resources.SERVICEACCOUNTS, namespace, name)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return decode_view(answer, ServiceAccount)

    async def _fill(self, seen: PartialObject, secret: Secret, account: ServiceAccount) -> None:
        wanted = {
            "ca.crt": self.shared.deps.cluster_ca.encode(),
            "namespace": secret.metadata.namespace.encode(),
        }
        data = {
            name: text
            for name, value in wanted.items()
            if value and secret.data.get(name) != (text := base64.b64encode(value).decode())
        }
        if not secret.data.get("token"):
            data["token"] = base64.b64encode(self._token(secret, account).encode()).decode()
        metadata: dict[str, Any] = {"resourceVersion": secret.metadata.resource_version}
        if secret.metadata.annotations.get(ACCOUNT_UID) != account.metadata.uid:
            metadata["annotations"] = {ACCOUNT_UID: account.metadata.uid}
        if data or "annotations" in metadata:
            await self.secrets.patch(seen, {"metadata": metadata, "data": data})

    def _token(self, secret: Secret, account: ServiceAccount) -> str:
        import jwt
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        if self._key is None:
            self._key = cast("EllipticCurvePrivateKey", load_pem_private_key(self.shared.deps.signing_key_pem, None))
        namespace, name = account.metadata.namespace, account.metadata.name
        claims = {
            "iss": ISSUER,
            f"{CLAIM}namespace": namespace,
            f"{CLAIM}secret.name": secret.metadata.name,
            f"{CLAIM}service-account.name": name,
            f"{CLAIM}service-account.uid": account.metadata.uid,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        return jwt.encode(claims, self._key, "ES256", headers={"kid": signing_key_id(self._key.public_key())})


def token_secret_controller(shared: Shared) -> Controller:
    loop = TokenSecretLoop(shared)
    return Controller("serviceaccount-token", loop.queue, loop.reconcile, (loop.secrets, loop.accounts))
