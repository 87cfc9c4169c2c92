"""The roles and bindings that every cluster starts with, as a table.

One line a rule: "verbs | groups | resources", "" for the core group, names after "@"; or "verbs | /url ...". Objects
are made from it by `bootstrap_rbac`; the API server writes those that are absent and adds missing rules at start.

Spec: Kubernetes documentation, "Using RBAC Authorization": default roles and role bindings.
"""

from __future__ import annotations

from typing import Any

from tiphys.api.kind import JsonObject

_RW = "create,delete,deletecollection,get,list,patch,update,watch"
_W = "create,delete,deletecollection,patch,update"
_R = "get,list,watch"

_VIEW = (
    f"{_R} | | configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,"
    "replicationcontrollers/scale,serviceaccounts,services,services/status",
    f"{_R} | | bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,"
    "resourcequotas,resourcequotas/status",
    f"{_R} | | namespaces",
    f"{_R} | discovery.k8s.io | endpointslices",
    f"{_R} | apps | controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,"
    "replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status",
    f"{_R} | autoscaling | horizontalpodautoscalers,horizontalpodautoscalers/status",
    f"{_R} | batch | cronjobs,cronjobs/status,jobs,jobs/status",
    f"{_R} | policy | poddisruptionbudgets,poddisruptionbudgets/status",
    f"{_R} | networking.k8s.io | ingresses,ingresses/status,networkpolicies",
)
_EDIT = (
    f"{_R} | | pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy",
    "impersonate | | serviceaccounts",
    f"{_W} | | pods,pods/attach,pods/exec,pods/portforward,pods/proxy",
    "create | | pods/eviction",
    f"{_W} | | configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,"
    "serviceaccounts,services,services/proxy",
    "create | | serviceaccounts/token",
    f"{_W} | apps | daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,"
    "statefulsets,statefulsets/scale",
    f"{_W} | autoscaling | horizontalpodautoscalers",
    f"{_W} | batch | cronjobs,jobs",
    f"{_W} | policy | poddisruptionbudgets",
    f"{_W} | networking.k8s.io | ingresses,networkpolicies",
    f"{_RW} | coordination.k8s.io | leases",
)
_ADMIN = (
    "create | authorization.k8s.io | localsubjectaccessreviews",
    f"{_RW} | rbac.authorization.k8s.io | rolebindings,roles",
)
_CERTIFICATES = "system:certificates.k8s.io"
_EVENTS = "create,patch,update | ,events.k8s.io | events"

CLUSTER_ROLES: dict[str, tuple[str, ...]] = {
    "cluster-admin": ("* | * | *", "* | *"),
    "system:discovery": (
        "get | /api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
    ),
    "system:public-info-viewer": ("get | /healthz /livez /readyz /version /version/",),
    "system:monitoring": ("get | /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*",),
    "system:basic-user": (
        "create | authorization.k8s.io | selfsubjectaccessreviews,selfsubjectrulesreviews",
        "create | authentication.k8s.io | selfsubjectreviews",
    ),
    "system:service-account-issuer-discovery": (
        "get | /.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
    ),
    "system:auth-delegator": (
        "create | authentication.k8s.io | tokenreviews",
        "create | authorization.k8s.io | subjectaccessreviews",
    ),
    "system:kubelet-api-admin": (
        f"{_R},proxy | | nodes",
        "* | | nodes/configz,nodes/healthz,nodes/log,nodes/metrics,nodes/pods,nodes/proxy,nodes/stats",
    ),
    "system:volume-scheduler": (
        "get,list,patch,update,watch |  | persistentvolumeclaims,persistentvolumes",
        "get,list,watch | storage.k8s.io | storageclasses",
    ),
    "system:persistent-volume-provisioner": (
        "create,delete,get,list,watch |  | persistentvolumes",
        "get,list,update,watch |  | persistentvolumeclaims",
        "get,list,watch | storage.k8s.io | storageclasses",
        "watch |  | events",
        _EVENTS,
    ),
    "system:node-problem-detector": ("get |  | nodes", "patch |  | nodes/status", _EVENTS),
    "system:node-bootstrapper": ("create,get,list,watch | certificates.k8s.io | certificatesigningrequests",),
    f"{_CERTIFICATES}:certificatesigningrequests:nodeclient": (
        "create | certificates.k8s.io | certificatesigningrequests/nodeclient",
    ),
    f"{_CERTIFICATES}:certificatesigningrequests:selfnodeclient": (
        "create | certificates.k8s.io | certificatesigningrequests/selfnodeclient",
    ),
    **{
        f"{_CERTIFICATES}:{signer}-approver": (f"approve | certificates.k8s.io | signers @ kubernetes.io/{signer}",)
        for signer in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
    },
    "system:node-proxier": (
        "list,watch | | endpoints,services",
        f"{_R} | | nodes",
        _EVENTS,
        "list,watch | discovery.k8s.io | endpointslices",
    ),
    "system:kube-dns": ("list,watch | | endpoints,services", "list,watch | discovery.k8s.io | endpointslices"),
    "system:node": (
        "create | authentication.k8s.io | tokenreviews",
        "create | authorization.k8s.io | localsubjectaccessreviews,subjectaccessreviews",
        f"{_R} | | services",
        f"create,patch,update,{_R} | | nodes",
        "patch,update | | nodes/status",
        _EVENTS,
        f"create,delete,{_R} | | pods",
        "patch,update | | pods/status",
        "create | | pods/eviction",
        f"{_R} | | configmaps,secrets",
        "get | | persistentvolumeclaims,persistentvolumes",
        "create | | serviceaccounts/token",
        f"create,delete,patch,update,{_R} | coordination.k8s.io | leases",
        "get | storage.k8s.io | volumeattachments",
        f"create,delete,patch,update,{_R} | storage.k8s.io | csinodes",
        f"{_R} | storage.k8s.io | csidrivers",
        f"{_R} | node.k8s.io | runtimeclasses",
        f"{_R} | certificates.k8s.io | clustertrustbundles",
    ),
    "system:kube-scheduler": (
        _EVENTS,
        f"create,patch,update,{_R} | coordination.k8s.io | leases",
        f"{_R} | | namespaces,nodes,persistentvolumeclaims,persistentvolumes,replicationcontrollers,services",
        f"delete,{_R} | | pods",
        "create | | bindings,pods/binding",
        "patch,update | | pods/status",
        f"{_R} | apps | replicasets,statefulsets",
        f"{_R} | policy | poddisruptionbudgets",
        f"{_R} | storage.k8s.io | csidrivers,csinodes,csistoragecapacities,storageclasses,volumeattachments",
        "create | authentication.k8s.io | tokenreviews",
        "create | authorization.k8s.io | subjectaccessreviews",
        f"patch,update,{_R} | | persistentvolumeclaims,persistentvolumes",
    ),
    # DIFFERS: upstream's controller manager acts as one service account a controller; ours acts as one user, whose
    # role is the sum of what those may do. It may change and delete anything (garbage collection), but not bind
    # roles, impersonate, or read what no controller reads.
    "system:kube-controller-manager": (
        "delete,deletecollection,get,list,patch,update,watch | * | *",
        _EVENTS,
        "create | | endpoints,persistentvolumeclaims,pods,configmaps,secrets,serviceaccounts,serviceaccounts/token,"
        "pods/eviction,replicationcontrollers",
        "create | apps | controllerrevisions,replicasets",
        "create | batch | jobs",
        "create | discovery.k8s.io | endpointslices",
        "create | coordination.k8s.io | leases",
        "create | authentication.k8s.io | tokenreviews",
        "create | authorization.k8s.io | subjectaccessreviews",
        "bind,escalate | rbac.authorization.k8s.io | clusterroles,roles",
        "sign | certificates.k8s.io | signers @ kubernetes.io/kube-apiserver-client,"
        "kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown",
        "get | /*",
    ),
}
"""ClusterRoles whose rules are their own."""

AGGREGATED_ROLES: dict[str, tuple[str, ...]] = {
    "admin": ("rbac.authorization.k8s.io/aggregate-to-admin",),
    "edit": ("rbac.authorization.k8s.io/aggregate-to-edit",),
    "view": ("rbac.authorization.k8s.io/aggregate-to-view",),
}
_PARTS = {"system:aggregate-to-admin": _ADMIN, "system:aggregate-to-edit": _EDIT, "system:aggregate-to-view": _VIEW}
_SUMS = {"admin": (*_ADMIN, *_EDIT, *_VIEW), "edit": (*_EDIT, *_VIEW), "view": _VIEW}
_CARRIES = {
    "edit": {"rbac.authorization.k8s.io/aggregate-to-admin": "true"},
    "view": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"},
}

BINDINGS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("cluster-admin", "cluster-admin", (("Group", "system:masters"),)),
    ("system:discovery", "system:discovery", (("Group", "system:authenticated"),)),
    (
        "system:public-info-viewer",
        "system:public-info-viewer",
        (("Group", "system:authenticated"), ("Group", "system:unauthenticated")),
    ),
    ("system:monitoring", "system:monitoring", (("Group", "system:monitoring"),)),
    ("system:basic-user", "system:basic-user", (("Group", "system:authenticated"),)),
    (
        "system:service-account-issuer-discovery",
        "system:service-account-issuer-discovery",
        (("Group", "system:serviceaccounts"),),
    ),
    ("system:node", "system:node", ()),
    ("system:node-proxier", "system:node-proxier", (("User", "system:kube-proxy"),)),
    ("system:volume-scheduler", "system:volume-scheduler", (("User", "system:kube-scheduler"),)),
    ("system:kube-dns", "system:kube-dns", (("User", "system:kube-dns"),)),
    ("system:kube-scheduler", "system:kube-scheduler", (("User", "system:kube-scheduler"),)),
    (
        "system:kube-controller-manager",
        "system:kube-controller-manager",
        (("User", "system:kube-controller-manager"),),
    ),
)
"""ClusterRoleBindings: name, role, subjects."""

_BOOTSTRAPPING = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AUTOUPDATE = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_API_GROUP = "rbac.authorization.k8s.io"


def parse_rule_line(line: str) -> dict[str, Any]:
    """Return the PolicyRule of one line of the table."""
    parts = [part.strip() for part in line.split("|")]
    if len(parts) == 2:
        return {"nonResourceURLs": parts[1].split(), "verbs": parts[0].split(",")}
    verbs, groups, resources = parts
    resources, _, names = resources.partition(" @ ")
    rule = {"apiGroups": groups.split(","), "resources": resources.split(","), "verbs": verbs.split(",")}
    return {**rule, "resourceNames": names.split(",")} if names else rule


def bootstrap_rbac() -> list[JsonObject]:
    """Return the ClusterRoles and ClusterRoleBindings that every cluster has."""
    objects = [_role(name, lines) for name, lines in CLUSTER_ROLES.items()]
    for name, lines in _PARTS.items():
        label = name.removeprefix("system:")
        objects.append(_role(name, lines, {f"{_API_GROUP}/{label}": "true"}))
    for name, labels in AGGREGATED_ROLES.items():
        role = _role(name, _SUMS[name], _CARRIES.get(name, {}))
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {label: "true"}} for label in labels]}
        objects.append(role)
    for name, role_name, subjects in BINDINGS:
        binding: JsonObject = {
            "apiVersion": f"{_API_GROUP}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": dict(_BOOTSTRAPPING), "annotations": dict(_AUTOUPDATE)},
            "roleRef": {"apiGroup": _API_GROUP, "kind": "ClusterRole", "name": role_name},
        }
        if subjects:
            binding["subjects"] = [{"apiGroup": _API_GROUP, "kind": kind, "name": who} for kind, who in subjects]
        objects.append(binding)
    return objects


def _role(name: str, lines: tuple[str, ...], labels: dict[str, str] | None = None) -> JsonObject:
    return {
        "apiVersion": f"{_API_GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": {
            "name": name,
            "labels": {**_BOOTSTRAPPING, **(labels or {})},
            "annotations": dict(_AUTOUPDATE),
        },
        "rules": [parse_rule_line(line) for line in lines],
    }
