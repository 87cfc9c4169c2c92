"""ComponentStatuses: whether the store answers, made when it is asked for. The kind is deprecated since 1.19.

DIFFERS: the scheduler and the controller manager are not listed: they have no port of their own that could be asked, and
`tiphys status` tells whether they run.

Spec: Kubernetes API reference, ComponentStatus v1 core.
"""

from __future__ import annotations

from tiphys.api.kind import JsonObject
from tiphys.apiserver.resources import Call, SubresourceHandler
from tiphys.base.errors import not_found
from tiphys.store.interface import Store, StoreFailed
from tiphys.wire.message import Answer

STORE = "etcd-0"
"""What clients know the store as."""


def component_status_handler(store: Store) -> SubresourceHandler:
    """Return the handler of GET of one and of all."""

    async def handle(call: Call) -> Answer:
        status = await store_status(store)
        if call.info.verb == "list":
            return await call.reads.list_given(call.kind, [status], call.request)
        if call.info.name != STORE:
            raise not_found("", "componentstatuses", call.info.name)
        return call.reads.render_object(call.kind, status, call.request)

    return handle


async def store_status(store: Store) -> JsonObject:
    """Return the ComponentStatus of the store, found out by reading from it."""
    try:
        await store.get("/registry/health")
        healthy = {"type": "Healthy", "status": "True", "message": "ok"}
    except StoreFailed as error:
        healthy = {"type": "Healthy", "status": "False", "message": str(error), "error": "the store does not answer"}
    metadata = {"name": STORE, "creationTimestamp": None}
    return {"apiVersion": "v1", "kind": "ComponentStatus", "metadata": metadata, "conditions": [healthy]}
