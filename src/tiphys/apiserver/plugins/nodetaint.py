"""TaintNodesByCondition: a new node takes no pods until it is known to be ready.

DIFFERS: a node that registers itself as Ready gets no taint, since the node lifecycle controller would take it away at
once; this spares every node of a start-up one write and its pods a wait.
Spec: Kubernetes documentation, "Taint nodes by condition"; admission controllers, "TaintNodesByCondition".
"""

from __future__ import annotations

from tiphys.apiserver.admission import Attributes, Plugin

TAINT = "node.kubernetes.io/not-ready"


class NodeTaint(Plugin):
    """See the module's docstring."""

    resources = (("", "nodes"),)

    async def mutate(self, attributes: Attributes) -> None:
        node = attributes.obj
        if attributes.operation != "CREATE" or attributes.subresource or node is None:
            return
        conditions = (node.get("status") or {}).get("conditions") or ()
        if any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
            return
        spec = node.setdefault("spec", {})
        taints = spec.get("taints") or []
        if not any(t.get("key") == TAINT and t.get("effect") == "NoSchedule" for t in taints):
            spec["taints"] = [*taints, {"key": TAINT, "effect": "NoSchedule"}]
