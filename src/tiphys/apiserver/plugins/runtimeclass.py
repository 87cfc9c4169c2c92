"""RuntimeClass: a pod that names one must find it, and gets its overhead and its place to run.

Spec: Kubernetes documentation, "Runtime Class" (scheduling, pod overhead); admission controllers, "RuntimeClass".
"""

from __future__ import annotations

from tiphys.api.kind import JsonObject
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.errors import forbidden


class RuntimeClass(Plugin):
    """`classes` is the cache of RuntimeClasses."""

    resources = (("", "pods"),)

    def __init__(self, classes: ResourceCache) -> None:
        self._classes = classes

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation != "CREATE" or attributes.subresource or attributes.obj is None:
            return
        spec = attributes.obj["spec"]
        name = spec.get("runtimeClassName")
        if not name:
            if spec.get("overhead"):
                why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                raise forbidden("", "pods", attributes.name, why)
            return
        cached = self._classes.get("", name)
        if cached is None:
            raise forbidden("", "pods", attributes.name, f'pod rejected: RuntimeClass "{name}" not found')
        chosen = cached.decode()
        self._set_overhead(attributes, spec, (chosen.get("overhead") or {}).get("podFixed"))
        self._set_place(attributes, spec, chosen.get("scheduling") or {})

    def _set_overhead(self, attributes: Attributes, spec: JsonObject, overhead: JsonObject | None) -> None:
        if spec.get("overhead") and spec["overhead"] != overhead:
            why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
            raise forbidden("", "pods", attributes.name, why)
        if overhead:
            spec["overhead"] = dict(overhead)

    def _set_place(self, attributes: Attributes, spec: JsonObject, scheduling: JsonObject) -> None:
        wanted = scheduling.get("nodeSelector") or {}
        selector = dict(spec.get("nodeSelector") or {})
        for key, value in wanted.items():
            if selector.setdefault(key, value) != value:
                why = f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                why += f"pod.spec.nodeSelector[{key}] = {selector[key]}"
                raise forbidden("", "pods", attributes.name, why)
        if selector:
            spec["nodeSelector"] = selector
        tolerations = spec.get("tolerations") or []
        more = [t for t in scheduling.get("tolerations") or () if t not in tolerations]
        if more:
            spec["tolerations"] = [*tolerations, *more]
