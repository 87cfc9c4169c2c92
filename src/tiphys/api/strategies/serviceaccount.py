"""ServiceAccounts. Their tokens are the API server's business; here only what is stored.

Spec: Kubernetes documentation, "Service Accounts".
"""

from __future__ import annotations

from tiphys.api.kind import JsonObject, Strategy

_MOUNTABLE = "kubernetes.io/enforce-mountable-secrets"


def warnings(account: JsonObject) -> list[str]:
    if _MOUNTABLE in ((account.get("metadata") or {}).get("annotations") or {}):
        return [
            f"metadata.annotations[{_MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to "
            "mounted secrets"
        ]
    return []


SERVICE_ACCOUNT = Strategy(warnings=warnings)
