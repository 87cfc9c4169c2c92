"""NodeRestriction: a kubelet changes its own node and the pods on it, and nothing that would widen its reach.

Comes after the node authorizer, which looks at requests only; here the objects are known.

Spec: Kubernetes documentation, admission controllers, "NodeRestriction"; "Using Node Authorization".
"""

from __future__ import annotations

from collections.abc import Mapping

from tiphys.api.kind import JsonObject
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.nodeauthorizer import NODE_PREFIX, pod_references
from tiphys.apiserver.user import NODES
from tiphys.base.errors import ApiError, forbidden

LEASES = "kube-node-lease"
_MIRROR = "kubernetes.io/config.mirror"
_OWN_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
    }
)
_OWN_PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_PROTECTED = ("kubernetes.io", "k8s.io")


class NodeRestriction(Plugin):
    """See the module's docstring."""

    resources = (
        ("", "pods"),
        ("", "nodes"),
        ("coordination.k8s.io", "leases"),
        ("storage.k8s.io", "csinodes"),
        ("resource.k8s.io", "resourceslices"),
    )

    async def validate(self, attributes: Attributes) -> None:
        user = attributes.user
        if NODES not in user.groups or not user.name.startswith(NODE_PREFIX):
            return
        node = user.name.removeprefix(NODE_PREFIX)
        plural = attributes.kind.plural
        if plural == "pods":
            why = _pod_refusal(attributes, node)
        elif plural == "nodes":
            why = _node_refusal(attributes, node)
        elif plural == "leases":
            why = _lease_refusal(attributes, node)
        elif plural == "csinodes":
            why = "" if attributes.name == node else "can only access CSINode with the same name as the requesting node"
        else:
            why = _slice_refusal(attributes, node)
        if why:
            raise _refused(attributes, why)


def _refused(attributes: Attributes, why: str) -> ApiError:
    return forbidden(attributes.kind.group, attributes.kind.plural, attributes.name, why)


def _pod_refusal(attributes: Attributes, node: str) -> str:
    if attributes.operation == "CREATE":
        return _mirror_refusal(attributes.obj or {}, node)
    old = attributes.old or {}
    mine = (old.get("spec") or {}).get("nodeName") == node
    if attributes.operation == "DELETE":
        what = "evict" if attributes.subresource == "eviction" else "delete"
        return "" if mine else f'node "{node}" can only {what} pods with spec.nodeName set to itself'
    if attributes.subresource != "status":
        return f'node "{node}" may only update the status of pods, not pods themselves'
    if not mine:
        return f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
    new = attributes.obj or {}
    if (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {}):
        return f'node "{node}" cannot update labels through pod status'
    return ""


def _mirror_refusal(pod: JsonObject, node: str) -> str:
    metadata, spec = pod["metadata"], pod["spec"]
    if _MIRROR not in (metadata.get("annotations") or {}):
        return f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods'
    if spec.get("nodeName") != node:
        return f'node "{node}" can only create pods with spec.nodeName set to itself'
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("kind") != "Node" or owner.get("name") != node:
            return f'node "{node}" can only create pods with an owner reference set to itself'
    for resource, _, _ in pod_references(pod):
        if resource != "serviceaccounts":
            return f'node "{node}" can not create pods that reference {resource}'
    return ""


def _node_refusal(attributes: Attributes, node: str) -> str:
    if attributes.name != node:
        return f'node "{node}" is not allowed to modify node "{attributes.name}"'
    new, old = attributes.obj, attributes.old
    if new is None:
        return ""
    before = (old or {"metadata": {}})["metadata"].get("labels") or {}
    wrong = _labels_refused(new["metadata"].get("labels") or {}, before)
    if wrong:
        return f'node "{node}" is not allowed to modify labels: {", ".join(wrong)}'
    if old is None:
        return ""
    if ((new.get("spec") or {}).get("taints") or []) != ((old.get("spec") or {}).get("taints") or []):
        return f'node "{node}" is not allowed to modify taints'
    if new["metadata"].get("ownerReferences") != old["metadata"].get("ownerReferences"):
        return f'node "{node}" is not allowed to modify ownerReferences'
    return ""


def _labels_refused(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    changed = sorted(key for key in {*new, *old} if new.get(key) != old.get(key))
    return [key for key in changed if _is_restricted(key) or (_is_protected(key) and not _is_own(key))]


def _is_restricted(key: str) -> bool:
    domain = key.partition("/")[0] if "/" in key else ""
    return domain == "node-restriction.kubernetes.io" or domain.endswith(".node-restriction.kubernetes.io")


def _is_protected(key: str) -> bool:
    domain = key.partition("/")[0] if "/" in key else ""
    return any(domain == protected or domain.endswith(f".{protected}") for protected in _PROTECTED)


def _is_own(key: str) -> bool:
    domain = key.partition("/")[0]
    return key in _OWN_LABELS or any(domain == own or domain.endswith(f".{own}") for own in _OWN_PREFIXES)


def _lease_refusal(attributes: Attributes, node: str) -> str:
    if attributes.namespace != LEASES:
        return f'can only access leases in the "{LEASES}" system namespace'
    if attributes.name != node:
        return "can only access node lease with the same name as the requesting node"
    return ""


def _slice_refusal(attributes: Attributes, node: str) -> str:
    for obj in (attributes.obj, attributes.old):
        if obj is not None and (obj.get("spec") or {}).get("nodeName") != node:
            return "can only create, update or delete ResourceSlices with spec.nodeName set to the requesting node"
    return ""
