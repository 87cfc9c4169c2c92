"""Binding and eviction of pods.

A binding sets spec.nodeName once, together with the PodScheduled condition. An eviction is a delete that asks the
disruption budgets first.

Spec: Kubernetes API reference, Binding v1 core; "API-initiated Eviction".
"""

from __future__ import annotations

from typing import Any

import orjson

from tiphys.api.kind import JsonObject, Kind
from tiphys.api.selectors import selector_of
from tiphys.apiserver.bodyadmission import BINDING, EVICTION, admit_body
from tiphys.apiserver.deletion import DeleteOptions, parse_delete_options
from tiphys.apiserver.registry import Combine
from tiphys.apiserver.resources import Call, require, take_everything, warning_headers
from tiphys.base.errors import (
    ApiError,
    bad_request,
    conflict,
    method_not_allowed,
    too_many_requests,
)
from tiphys.wire.message import Answer, Response

_CREATED = orjson.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
EVICTION_RETRY_S = 10


async def handle_binding(call: Call) -> Answer:
    """Answer POST pods/<name>/binding, and POST bindings with the pod's name in the body."""
    if call.info.verb != "create":
        raise method_not_allowed()
    warnings: list[str] = []
    binding = await _binding_of(call, warnings)
    name = call.info.name or (binding.get("metadata") or {}).get("name", "")
    target = binding.get("target") or {}
    node = target.get("name", "")
    if target.get("kind") not in (None, "", "Node"):
        raise bad_request(f'target.kind: Unsupported value: "{target["kind"]}": supported values: "Node"')
    if not node:
        raise bad_request("target.name: Required value")
    uid = (binding.get("metadata") or {}).get("uid") or ""
    pods = call.registry.kinds.resource("", "v1", "pods")
    assert pods is not None
    now = call.registry.now()
    annotations = (binding.get("metadata") or {}).get("annotations") or {}

    def bind(pod: JsonObject) -> JsonObject:
        refuse = _refusal(pod, uid, node)
        if refuse:
            raise conflict("", "pods/binding", name, refuse)
        pod["spec"]["nodeName"] = node
        if annotations:
            pod["metadata"].setdefault("annotations", {}).update(annotations)
        status = pod.setdefault("status", {})
        conditions = [c for c in status.get("conditions") or [] if c.get("type") != "PodScheduled"]
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
        if "generation" in pod["metadata"]:
            scheduled["observedGeneration"] = pod["metadata"]["generation"]
        status["conditions"] = [*conditions, scheduled]
        return pod

    combine: Combine = take_everything
    context = call.context("binding")
    await call.registry.update(pods, call.info.namespace, name, bind, context, combine=combine)
    return Response(201, _CREATED, headers=warning_headers(warnings))


async def _binding_of(call: Call, warnings: list[str]) -> JsonObject:
    kind = call.registry.kinds.by_kind("", "v1", "Binding")
    assert kind is not None
    context = call.context()
    binding = call.body(kind, context)
    await admit_body(call, "CREATE", binding, context, None if call.kind.virtual else BINDING)
    warnings += context.warnings
    return binding


def _refusal(pod: JsonObject, uid: str, node: str) -> str:
    metadata, spec = pod["metadata"], pod["spec"]
    if uid and metadata.get("uid") != uid:
        return f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata.get('uid')}"
    if metadata.get("deletionTimestamp"):
        return f"pod {metadata['name']} is being deleted, cannot be assigned to a host"
    if spec.get("nodeName"):
        return f"pod {metadata['name']} is already assigned to node {spec['nodeName']!r}".replace("'", '"')
    if spec.get("schedulingGates"):
        return f"pod {metadata['name']} has non-empty .spec.schedulingGates"
    return ""


async def handle_eviction(call: Call) -> Answer:
    """Answer POST pods/<name>/eviction."""
    if call.info.verb != "create":
        raise method_not_allowed()
    kind = call.registry.kinds.by_kind("policy", "v1", "Eviction")
    assert kind is not None
    context = call.context()
    eviction = call.body(kind, context)
    await admit_body(call, "CREATE", eviction, context, EVICTION)
    named = (eviction.get("metadata") or {}).get("name")
    if named and named != call.info.name:
        raise bad_request("name in URL does not match name in Eviction object")
    options = parse_delete_options(eviction.get("deleteOptions") or {}, call.request.query)
    namespace, name = call.info.namespace, call.info.name
    pod = require(call, namespace)
    if not _evicts_freely(pod):
        await _ask_budgets(call, pod, options)
    await call.registry.delete(call.kind, namespace, name, options, call.context("eviction"))
    return Response(201, _CREATED, headers=warning_headers(context.warnings))


def _evicts_freely(pod: JsonObject) -> bool:
    """A pod that does not run, or is leaving already, disturbs no budget."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or bool(pod["metadata"].get("deletionTimestamp"))


async def _ask_budgets(call: Call, pod: JsonObject, options: DeleteOptions) -> None:
    budgets_kind = call.registry.kinds.resource("policy", "v1", "poddisruptionbudgets")
    if budgets_kind is None:
        return
    namespace, labels = call.info.namespace, pod["metadata"].get("labels") or {}
    cache = call.registry.cache.resource(budgets_kind.storage_prefix())
    budgets = [b.decode() for b in cache.objects(namespace)]
    matching = [b for b in budgets if selector_of((b.get("spec") or {}).get("selector")).matches(labels)]
    if len(matching) > 1:
        raise ApiError(
            500,
            "InternalError",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )
    if not matching or options.dry_run:
        return
    if not _is_ready(pod) and _unready_may_go(matching[0]):
        return
    await _take_disruption(call, budgets_kind, matching[0]["metadata"]["name"], pod["metadata"]["name"])


def _is_ready(pod: JsonObject) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _unready_may_go(budget: JsonObject) -> bool:
    status = budget.get("status") or {}
    always = (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow"
    healthy_enough = (
        status.get("currentHealthy", 0) >= status.get("desiredHealthy", 0) and status.get("desiredHealthy", 0) > 0
    )
    return always or healthy_enough


async def _take_disruption(call: Call, kind: Kind, name: str, pod_name: str) -> None:
    """Count this eviction against the budget, in one optimistic write of its status."""
    now = call.registry.now()

    def take(budget: JsonObject) -> JsonObject:
        status: dict[str, Any] = budget.setdefault("status", {})
        if status.get("observedGeneration", 0) < (budget["metadata"].get("generation") or 0):
            raise _refused(name, "is still being processed by the server.", EVICTION_RETRY_S)
        allowed = status.get("disruptionsAllowed", 0)
        if allowed <= 0:
            raise _refused(
                name,
                f"needs {status.get('desiredHealthy', 0)} healthy pods and has "
                f"{status.get('currentHealthy', 0)} currently",
            )
        status["disruptionsAllowed"] = allowed - 1
        status.setdefault("disruptedPods", {})[pod_name] = now
        return budget

    context = call.context("status")
    try:
        await call.registry.update(kind, call.info.namespace, name, take, context, combine=take_everything)
    except ApiError as error:
        if error.code != 404:
            raise


def _refused(budget: str, why: str, retry_after_s: int = 0) -> ApiError:
    """Return the refusal of an eviction. No Retry-After while the budget is used up: clients would obey it within one
    request, for minutes, and kubectl drain could not end at its own timeout."""
    error = too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", retry_after_s)
    error.details = {"causes": [{"reason": "DisruptionBudget", "message": f"The disruption budget {budget} {why}"}]}
    if retry_after_s:
        error.details["retryAfterSeconds"] = retry_after_s
    return error
