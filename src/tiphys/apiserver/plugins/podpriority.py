"""Priority and DefaultTolerationSeconds: what a new pod gets from its priority class, and how long it stays on a node
that is not ready or not reachable.

Spec: Kubernetes admission controllers, "Priority", "DefaultTolerationSeconds"; "Pod Priority and Preemption".
"""

from __future__ import annotations

import orjson

from tiphys.api.kind import JsonObject
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.errors import forbidden

TOLERATION_S = 300
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


class PodPriority(Plugin):
    """`classes` is the cache of PriorityClasses."""

    resources = (("", "pods"),)

    def __init__(self, classes: ResourceCache) -> None:
        self._classes = classes

    async def mutate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.operation != "CREATE" or attributes.subresource:
            return
        assert pod is not None
        spec: JsonObject = pod["spec"]
        self._set_priority(attributes, spec)
        _add_tolerations(spec)

    def _set_priority(self, attributes: Attributes, spec: JsonObject) -> None:
        name = spec.get("priorityClassName") or ""
        chosen: JsonObject | None = None
        if name:
            cached = self._classes.get("", name)
            if cached is None:
                raise forbidden("", "pods", attributes.name, f"no PriorityClass with name {name} was found")
            chosen = orjson.loads(cached.body)
        else:
            defaults = [orjson.loads(c.body) for c in self._classes.objects() if b'"globalDefault":true' in c.body]
            chosen = min((d for d in defaults if d.get("globalDefault")), key=lambda d: d["value"], default=None)
            if chosen is not None:
                spec["priorityClassName"] = chosen["metadata"]["name"]
        priority = chosen["value"] if chosen else 0
        given = spec.get("priority")
        if given is not None and given != priority:
            why = f"the integer value of priority ({given}) must not be provided in pod spec; priority admission "
            raise forbidden(
                "", "pods", attributes.name, why + f"controller computed {priority} from the given PriorityClass name"
            )
        spec["priority"] = priority
        policy = (chosen or {}).get("preemptionPolicy") or "PreemptLowerPriority"
        spec.setdefault("preemptionPolicy", policy)


def _add_tolerations(spec: JsonObject) -> None:
    tolerations = spec.get("tolerations") or []
    for taint in _TAINTS:
        tolerated = any(
            t.get("key", "") in ("", taint) and t.get("effect", "") in ("", "NoExecute") for t in tolerations
        )
        if not tolerated:
            tolerations.append(
                {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_S}
            )
    spec["tolerations"] = tolerations
