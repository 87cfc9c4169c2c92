"""Every built-in resource of Kubernetes 1.25 to 1.37, one a line, with the versions that serve it by default.

A section is a group and version with the Kubernetes minors that serve it by default: generally available versions, and
those betas that upstream had on. A line is: plural, kind, scope (N namespaced, C cluster), short names, categories,
verbs (`*` all, `-watchless` sets by name below), subresources, and the minors that serve this resource where they
differ from the section's. `-` stands for nothing. The parser gives `Record`s; `kinds/__init__.py` makes kinds of them.

Spec: discovery documents that upstream publishes for each release (API reference, "API groups").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tiphys.api.kind import ALL_VERBS, Subresource

NEWEST_MINOR = 37
OLDEST_MINOR = 25

TABLE = """
@ core v1
bindings                    Binding                     N -      -   create     -
componentstatuses           ComponentStatus             C cs     -   get,list   -
configmaps                  ConfigMap                   N cm     -   *          -
endpoints                   Endpoints                   N ep     -   *          -
events                      Event                       N ev     -   *          -
limitranges                 LimitRange                  N limits -   *          -
namespaces                  Namespace                   C ns     -   single     finalize,status
nodes                       Node                        C no     -   *          proxy:NodeProxyOptions,status
persistentvolumeclaims      PersistentVolumeClaim       N pvc    -   *          status
persistentvolumes           PersistentVolume            C pv     -   *          status
pods                        Pod                         N po     all *          attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy:PodProxyOptions,status 25-32
pods                        Pod                         N po     all *          attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy:PodProxyOptions,resize,status 33-
podtemplates                PodTemplate                 N -      -   *          -
replicationcontrollers      ReplicationController       N rc     all *          scale,status
resourcequotas              ResourceQuota               N quota  -   *          status
secrets                     Secret                      N -      -   *          -
serviceaccounts             ServiceAccount              N sa     -   *          token
services                    Service                     N svc    all *          proxy:ServiceProxyOptions,status

@ apiregistration.k8s.io v1
apiservices                 APIService                  C -      api-extensions * status

@ apps v1
controllerrevisions         ControllerRevision          N -      -   *          -
daemonsets                  DaemonSet                   N ds     all *          status
deployments                 Deployment                  N deploy all *          scale,status
replicasets                 ReplicaSet                  N rs     all *          scale,status
statefulsets                StatefulSet                 N sts    all *          scale,status

@ events.k8s.io v1
events                      Event                       N ev     -   *          -

@ authentication.k8s.io v1
selfsubjectreviews          SelfSubjectReview           C -      -   create     - 28-
tokenreviews                TokenReview                 C -      -   create     -

@ authorization.k8s.io v1
localsubjectaccessreviews   LocalSubjectAccessReview    N -      -   create     -
selfsubjectaccessreviews    SelfSubjectAccessReview     C -      -   create     -
selfsubjectrulesreviews     SelfSubjectRulesReview      C -      -   create     -
subjectaccessreviews        SubjectAccessReview         C -      -   create     -

@ autoscaling v2
horizontalpodautoscalers    HorizontalPodAutoscaler     N hpa    all *          status

@ autoscaling v1
horizontalpodautoscalers    HorizontalPodAutoscaler     N hpa    all *          status

@ autoscaling v2beta2 25-25
horizontalpodautoscalers    HorizontalPodAutoscaler     N hpa    all *          status

@ batch v1
cronjobs                    CronJob                     N cj     all *          status
jobs                        Job                         N -      all *          status

@ certificates.k8s.io v1
certificatesigningrequests  CertificateSigningRequest   C csr    -   *          approval,status
clustertrustbundles         ClusterTrustBundle          C -      -   *          -      37-
podcertificaterequests      PodCertificateRequest       N -      -   *          status 37-

@ networking.k8s.io v1
ingressclasses              IngressClass                C -      -   *          -
ingresses                   Ingress                     N ing    -   *          status
ipaddresses                 IPAddress                   C ip     -   *          -      33-
networkpolicies             NetworkPolicy               N netpol -   *          -
servicecidrs                ServiceCIDR                 C -      -   *          status 33-

@ policy v1
poddisruptionbudgets        PodDisruptionBudget         N pdb    -   *          status

@ rbac.authorization.k8s.io v1
clusterrolebindings         ClusterRoleBinding          C -      -   *          -
clusterroles                ClusterRole                 C -      -   *          -
rolebindings                RoleBinding                 N -      -   *          -
roles                       Role                        N -      -   *          -

@ storage.k8s.io v1
csidrivers                  CSIDriver                   C -      -   *          -
csinodes                    CSINode                     C -      -   *          -
csistoragecapacities        CSIStorageCapacity          N -      -   *          -
storageclasses              StorageClass                C sc     -   *          -
volumeattachments           VolumeAttachment            C -      -   *          status
volumeattributesclasses     VolumeAttributesClass       C vac    -   *          -      34-

@ storage.k8s.io v1beta1 25-26
csistoragecapacities        CSIStorageCapacity          N -      -   *          -

@ admissionregistration.k8s.io v1
mutatingadmissionpolicies         MutatingAdmissionPolicy          C - api-extensions * -      36-
mutatingadmissionpolicybindings   MutatingAdmissionPolicyBinding   C - api-extensions * -      36-
mutatingwebhookconfigurations     MutatingWebhookConfiguration     C - api-extensions * -
validatingadmissionpolicies       ValidatingAdmissionPolicy        C - api-extensions * status 30-
validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C - api-extensions * -      30-
validatingwebhookconfigurations   ValidatingWebhookConfiguration   C - api-extensions * -

@ apiextensions.k8s.io v1
customresourcedefinitions   CustomResourceDefinition    C crd,crds api-extensions * status

@ scheduling.k8s.io v1
priorityclasses             PriorityClass               C pc     -   *          -

@ coordination.k8s.io v1
leases                      Lease                       N -      -   *          -

@ node.k8s.io v1
runtimeclasses              RuntimeClass                C -      -   *          -

@ discovery.k8s.io v1
endpointslices              EndpointSlice               N -      -   *          -

@ flowcontrol.apiserver.k8s.io v1 29-
flowschemas                 FlowSchema                  C -      -   *          status
prioritylevelconfigurations PriorityLevelConfiguration  C -      -   *          status

@ flowcontrol.apiserver.k8s.io v1beta3 26-31
flowschemas                 FlowSchema                  C -      -   *          status
prioritylevelconfigurations PriorityLevelConfiguration  C -      -   *          status

@ flowcontrol.apiserver.k8s.io v1beta2 25-28
flowschemas                 FlowSchema                  C -      -   *          status
prioritylevelconfigurations PriorityLevelConfiguration  C -      -   *          status

@ flowcontrol.apiserver.k8s.io v1beta1 25-25
flowschemas                 FlowSchema                  C -      -   *          status
prioritylevelconfigurations PriorityLevelConfiguration  C -      -   *          status

@ resource.k8s.io v1 34-
deviceclasses               DeviceClass                 C -      -   *          -
devicetaintrules            DeviceTaintRule             C -      -   *          status 37-
resourceclaims              ResourceClaim               N -      -   *          status
resourceclaimtemplates      ResourceClaimTemplate       N -      -   *          -
resourceslices              ResourceSlice               C -      -   *          -

@ storagemigration.k8s.io v1 37-
storageversionmigrations    StorageVersionMigration     C -      -   *          status
"""

BODIES = (
    ("autoscaling", "v1", "Scale"),
    ("policy", "v1", "Eviction"),
    ("authentication.k8s.io", "v1", "TokenRequest"),
)
"""Kinds that are only bodies of subresources: (group, version, kind)."""

VERBS = {
    "*": ALL_VERBS,
    "single": tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
    "create": ("create",),
    "get,list": ("get", "list"),
}

_PROXY_VERBS = ("create", "delete", "get", "patch", "update")
_OBJECT_VERBS = ("get", "patch", "update")

SUBRESOURCES = {
    "approval": Subresource("approval", _OBJECT_VERBS),
    "attach": Subresource("attach", ("create", "get"), "PodAttachOptions"),
    "binding": Subresource("binding", ("create",), "Binding"),
    "ephemeralcontainers": Subresource("ephemeralcontainers", _OBJECT_VERBS),
    "eviction": Subresource("eviction", ("create",), "Eviction", "policy", "v1"),
    "exec": Subresource("exec", ("create", "get"), "PodExecOptions"),
    "finalize": Subresource("finalize", ("update",)),
    "log": Subresource("log", ("get",)),
    "portforward": Subresource("portforward", ("create", "get"), "PodPortForwardOptions"),
    "proxy:NodeProxyOptions": Subresource("proxy", _PROXY_VERBS, "NodeProxyOptions"),
    "proxy:PodProxyOptions": Subresource("proxy", _PROXY_VERBS, "PodProxyOptions"),
    "proxy:ServiceProxyOptions": Subresource("proxy", _PROXY_VERBS, "ServiceProxyOptions"),
    "resize": Subresource("resize", _OBJECT_VERBS),
    "scale": Subresource("scale", _OBJECT_VERBS, "Scale", "autoscaling", "v1"),
    "status": Subresource("status", _OBJECT_VERBS),
    "token": Subresource("token", ("create",), "TokenRequest", "authentication.k8s.io", "v1"),
}


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the table, for one Kubernetes version."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    verbs: tuple[str, ...]
    subresources: tuple[Subresource, ...]


def parse_table(minor: int, text: str = TABLE) -> Iterator[Record]:
    """Yield the records that Kubernetes 1.<minor> serves by default, in the table's order."""
    group = version = ""
    served = False
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "@":
            group = "" if words[1] == "core" else words[1]
            version = words[2]
            served = _in_range(words[3] if len(words) > 3 else "-", minor)
        elif served and (len(words) < 8 or _in_range(words[7], minor)):
            plural, kind, scope, short, categories, verbs, subresources = words[:7]
            yield Record(
                group,
                version,
                plural,
                kind,
                scope == "N",
                _words(short),
                _words(categories),
                VERBS[verbs],
                tuple(SUBRESOURCES[name] for name in _words(subresources)),
            )


def _in_range(text: str, minor: int) -> bool:
    first, _, last = text.partition("-")
    return (int(first) if first else OLDEST_MINOR) <= minor <= (int(last) if last else NEWEST_MINOR)


def _words(text: str) -> tuple[str, ...]:
    return () if text == "-" else tuple(text.split(","))
