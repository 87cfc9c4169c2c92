"""Nobody learns by a policy what he may not read: writers of policies and bindings must be allowed to read parameters.

A policy's writer needs `get` on all objects of its paramKind, a binding's on those that its paramRef names; what cannot
be resolved to a resource needs `get` on everything. Cluster administrators are not asked, and neither is a writer who
leaves the reference as it was.

Spec: Kubernetes documentation, "Validating Admission Policy" (authorization checks when using params).
"""

from __future__ import annotations

from collections.abc import Mapping

from tiphys.api.causes import forbidden
from tiphys.api.kind import JsonObject, Kinds
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.pipeline import Authorizer
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import MASTERS, User
from tiphys.base.errors import invalid

GROUP = "admissionregistration.k8s.io"
POLICY_OF = {
    "validatingadmissionpolicybindings": "validatingadmissionpolicies",
    "mutatingadmissionpolicybindings": "mutatingadmissionpolicies",
}
"""Resource of bindings -> that of their policies."""


class PolicyParamAccess(Plugin):
    """`policies` are the caches of policies by the name of their resource."""

    resources = tuple((GROUP, plural) for pair in POLICY_OF.items() for plural in pair)

    def __init__(self, kinds: Kinds, authorizer: Authorizer, policies: Mapping[str, ResourceCache]) -> None:
        self._kinds = kinds
        self._authorizer = authorizer
        self._policies = policies

    async def validate(self, attributes: Attributes) -> None:
        obj, user = attributes.obj, attributes.user
        if obj is None or attributes.subresource or MASTERS in user.groups:
            return
        spec, old = obj.get("spec") or {}, (attributes.old or {}).get("spec") or {}
        if attributes.kind.plural in POLICY_OF:
            complaint, field = self._binding(attributes, spec, old), "spec.paramRef"
        else:
            complaint, field = self._policy(user, spec, old), "spec.paramKind"
        if complaint:
            kind = attributes.kind
            raise invalid(kind.group, kind.kind, attributes.name, [forbidden(field, complaint)])

    def _policy(self, user: User, spec: JsonObject, old: JsonObject) -> str:
        kind = spec.get("paramKind")
        if kind is None or kind == old.get("paramKind"):
            return ""
        if self._may_get(user, self._resource(kind), "*", "*"):
            return ""
        return (
            f'user {_shown(user)} must have "get" permission on all objects of the referenced paramKind '
            f"(kind={kind.get('kind', '')}, apiVersion={kind.get('apiVersion', '')})"
        )

    def _binding(self, attributes: Attributes, spec: JsonObject, old: JsonObject) -> str:
        ref = spec.get("paramRef")
        if ref is None or (ref == old.get("paramRef") and spec.get("policyName") == old.get("policyName")):
            return ""
        resource = ("*", "*", "*")
        policy = self._policies[POLICY_OF[attributes.kind.plural]].get("", spec.get("policyName") or "")
        kind = None if policy is None else (policy.decode().get("spec") or {}).get("paramKind")
        if kind is not None:
            resource = self._resource(kind)
        if self._may_get(attributes.user, resource, ref.get("namespace") or "", ref.get("name") or ""):
            return ""
        return f'user {_shown(attributes.user)} does not have "get" permission on the object referenced by paramRef'

    def _resource(self, reference: JsonObject) -> tuple[str, str, str]:
        """Return group, version and plural of a paramKind; the plural is "*" for a kind that is not served."""
        group, slash, version = (reference.get("apiVersion") or "").partition("/")
        if not slash:
            group, version = "", group
        kind = self._kinds.by_kind(group, version, reference.get("kind") or "")
        return group, version, kind.plural if kind is not None else "*"

    def _may_get(self, user: User, resource: tuple[str, str, str], namespace: str, name: str) -> bool:
        group, version, plural = resource
        info = RequestInfo(True, "get", "", group, version, namespace, plural, name)
        return self._authorizer.authorize(user, info).allowed


def _shown(user: User) -> str:
    """Return a user as Go prints its record."""
    extra = " ".join(f"{key}:[{' '.join(values)}]" for key, values in sorted(user.extra.items()))
    return f"&{{{user.name} {user.uid} [{' '.join(user.groups)}] map[{extra}]}}"
