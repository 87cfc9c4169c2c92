"""Who makes a request, once authenticated.

Spec: Kubernetes authentication overview, "Users in Kubernetes".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


def service_account_user(namespace: str, name: str, uid: str, extra: Mapping[str, tuple[str, ...]]) -> User:
    """Return the user that a service account's token stands for."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}", groups, uid, extra)


API_SERVER = User("system:apiserver", (MASTERS,))
"""The server itself, for writes of its own. Webhooks and policies are not asked about these, by identity: none may keep
the server from starting or from serving the definitions that it accepted."""
