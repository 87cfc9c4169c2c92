"""Token Secrets are filled, and go with their ServiceAccount."""

from __future__ import annotations

import base64
from typing import Any

import jwt
from fakecluster import FakeCluster
from running import quiet, running

from tiphys.client import resources
from tiphys.wire.tls import create_signing_key

TYPE = "kubernetes.io/service-account-token"


def secret(name: str, account: str, **more: Any) -> dict[str, Any]:
    annotations = {"kubernetes.io/service-account.name": account}
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": annotations}
    return {"metadata": meta, "type": TYPE, **more}


async def test_a_token_secret_is_filled_and_goes_with_its_account() -> None:
    private, public = create_signing_key()
    cluster = FakeCluster()
    cluster.put(resources.SERVICEACCOUNTS, {"metadata": {"name": "robot", "namespace": "default", "uid": "a1"}})
    cluster.put(resources.SECRETS, secret("token", "robot"))
    cluster.put(resources.SECRETS, secret("opaque", "robot", type="Opaque"))
    cluster.put(resources.SECRETS, secret("nobody", "missing"))
    async with running(cluster, "serviceaccount-token", cluster_ca="CA", signing_key_pem=private):
        await quiet(cluster)
        filled = cluster.get_now(resources.SECRETS, "default/token")
        assert filled is not None
        data = {name: base64.b64decode(value).decode() for name, value in filled["data"].items()}
        assert (data["ca.crt"], data["namespace"]) == ("CA", "default")
        assert filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == "a1"
        claims = jwt.decode(data["token"], public, algorithms=["ES256"])
        assert claims["sub"] == "system:serviceaccount:default:robot" and "exp" not in claims
        assert "data" not in (cluster.get_now(resources.SECRETS, "default/opaque") or {})
        assert cluster.get_now(resources.SECRETS, "default/nobody") is None

        cluster.remove(resources.SERVICEACCOUNTS, "default/robot")
        await quiet(cluster)
        assert cluster.get_now(resources.SECRETS, "default/token") is None
        assert cluster.get_now(resources.SECRETS, "default/opaque") is not None
