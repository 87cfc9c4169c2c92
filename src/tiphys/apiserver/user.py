"""Who makes a request, once authenticated.

Spec: Kubernetes authentication overview, "Users in Kubernetes".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ANONYMOUS = "system:anonymous"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
NODES = "system:nodes"
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
CREDENTIAL = "authentication.kubernetes.io/credential-id"
"""Key of `extra` that tells by which certificate or token the user came."""


@dataclass(frozen=True, slots=True)
class User:
    """`groups` always holds system:authenticated or system:unauthenticated."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def info(self) -> dict[str, Any]:
        """Return the user as UserInfo of authentication.k8s.io: so reviews, expressions, webhooks and audit show it."""
        told: dict[str, Any] = {"username": self.name} if self.name else {}
        if self.uid:
            told["uid"] = self.uid
        if self.groups:
            told["groups"] = list(self.groups)
        if self.extra:
            told["extra"] = {key: list(values) for key, values in self.extra.items()}
        return told


def service_account_user(namespace: str, name: str, uid: str, extra: Mapping[str, tuple[str, ...]]) -> User:
    """Return the user that a service account's token stands for."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}", groups, uid, extra)


API_SERVER = User("system:apiserver", (MASTERS,))
"""The server itself, for writes of its own. Webhooks and policies are not asked about these, by identity: none may keep
the server from starting or from serving the definitions that it accepted."""
