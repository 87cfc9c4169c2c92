"""What `kubectl get` shows: the table columns and cells of every built-in kind, as upstream's newest version has them.

`TABLES` maps (group, kind) to its columns and the function that makes a row's cells from an object and the time,
`ROW_CONDITIONS` to what a row says beside them; the kinds' table (api/kinds) takes them from here. A kind that is not listed shows its name and the time of its creation,
which the API server adds by itself: those kinds have `()` as columns.

Spec: Kubernetes docs, "Receiving resources as Tables"; names, types and priorities of columns are what clients see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tiphys.api.columns import access, cluster, network, pod, storage, workloads
from tiphys.api.kind import Column, JsonObject, no_row

Table = tuple[tuple[Column, ...], Callable[[JsonObject, float], list[Any]]]

NO_TABLE: Table = ((), no_row)

_ADMISSION = "admissionregistration.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
_NAME_AGE = (cluster.NAME_AGE_COLUMNS, cluster.name_age_row)
_EVENT = (cluster.EVENT_COLUMNS, cluster.event_row)
_WEBHOOKS = (cluster.ADMISSION_WEBHOOKS_COLUMNS, cluster.admission_webhooks_row)
_POLICY_BINDING = (cluster.POLICY_BINDING_COLUMNS, cluster.policy_binding_row)
_ROLEBINDING = (access.ROLEBINDING_COLUMNS, access.rolebinding_row)

ROW_CONDITIONS: Mapping[tuple[str, str], Callable[[JsonObject], list[JsonObject]]] = {("", "Pod"): pod.row_conditions}
TABLES: Mapping[tuple[str, str], Table] = {
    ("", "ComponentStatus"): (cluster.COMPONENTSTATUS_COLUMNS, cluster.componentstatus_row),
    ("", "ConfigMap"): (access.CONFIGMAP_COLUMNS, access.configmap_row),
    ("", "Endpoints"): (network.ENDPOINTS_COLUMNS, network.endpoints_row),
    ("", "Event"): _EVENT,
    ("", "Namespace"): (cluster.NAMESPACE_COLUMNS, cluster.namespace_row),
    ("", "Node"): (cluster.NODE_COLUMNS, cluster.node_row),
    ("", "PersistentVolume"): (storage.PV_COLUMNS, storage.pv_row),
    ("", "PersistentVolumeClaim"): (storage.PVC_COLUMNS, storage.pvc_row),
    ("", "Pod"): (pod.COLUMNS, pod.row),
    ("", "PodTemplate"): (workloads.PODTEMPLATE_COLUMNS, workloads.podtemplate_row),
    ("", "ReplicationController"): (workloads.REPLICASET_COLUMNS, workloads.replicationcontroller_row),
    ("", "ResourceQuota"): (cluster.RESOURCEQUOTA_COLUMNS, cluster.resourcequota_row),
    ("", "Secret"): (access.SECRET_COLUMNS, access.secret_row),
    ("", "Service"): (network.SERVICE_COLUMNS, network.service_row),
    ("", "ServiceAccount"): _NAME_AGE,
    (_ADMISSION, "MutatingAdmissionPolicy"): (cluster.MUTATING_POLICY_COLUMNS, cluster.admission_policy_row),
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): _POLICY_BINDING,
    (_ADMISSION, "MutatingWebhookConfiguration"): _WEBHOOKS,
    (_ADMISSION, "ValidatingAdmissionPolicy"): (cluster.VALIDATING_POLICY_COLUMNS, cluster.admission_policy_row),
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): _POLICY_BINDING,
    (_ADMISSION, "ValidatingWebhookConfiguration"): _WEBHOOKS,
    ("apiregistration.k8s.io", "APIService"): (cluster.APISERVICE_COLUMNS, cluster.apiservice_row),
    ("apps", "ControllerRevision"): (workloads.CONTROLLERREVISION_COLUMNS, workloads.controllerrevision_row),
    ("apps", "DaemonSet"): (workloads.DAEMONSET_COLUMNS, workloads.daemonset_row),
    ("apps", "Deployment"): (workloads.DEPLOYMENT_COLUMNS, workloads.deployment_row),
    ("apps", "ReplicaSet"): (workloads.REPLICASET_COLUMNS, workloads.replicaset_row),
    ("apps", "StatefulSet"): (workloads.STATEFULSET_COLUMNS, workloads.statefulset_row),
    ("autoscaling", "HorizontalPodAutoscaler"): (workloads.HPA_COLUMNS, workloads.hpa_row),
    ("autoscaling", "Scale"): (workloads.SCALE_COLUMNS, workloads.scale_row),
    ("batch", "CronJob"): (workloads.CRONJOB_COLUMNS, workloads.cronjob_row),
    ("batch", "Job"): (workloads.JOB_COLUMNS, workloads.job_row),
    ("certificates.k8s.io", "CertificateSigningRequest"): (access.CSR_COLUMNS, access.csr_row),
    ("certificates.k8s.io", "ClusterTrustBundle"): (access.CLUSTERTRUSTBUNDLE_COLUMNS, access.clustertrustbundle_row),
    ("certificates.k8s.io", "PodCertificateRequest"): (
        access.PODCERTIFICATEREQUEST_COLUMNS,
        access.podcertificaterequest_row,
    ),
    ("coordination.k8s.io", "Lease"): (cluster.LEASE_COLUMNS, cluster.lease_row),
    ("discovery.k8s.io", "EndpointSlice"): (network.ENDPOINTSLICE_COLUMNS, network.endpointslice_row),
    ("events.k8s.io", "Event"): _EVENT,
    (_FLOW, "FlowSchema"): (cluster.FLOWSCHEMA_COLUMNS, cluster.flowschema_row),
    (_FLOW, "PriorityLevelConfiguration"): (cluster.PRIORITYLEVEL_COLUMNS, cluster.prioritylevel_row),
    ("networking.k8s.io", "IPAddress"): (network.IPADDRESS_COLUMNS, network.ipaddress_row),
    ("networking.k8s.io", "Ingress"): (network.INGRESS_COLUMNS, network.ingress_row),
    ("networking.k8s.io", "IngressClass"): (network.INGRESSCLASS_COLUMNS, network.ingressclass_row),
    ("networking.k8s.io", "NetworkPolicy"): (network.NETWORKPOLICY_COLUMNS, network.networkpolicy_row),
    ("networking.k8s.io", "ServiceCIDR"): (network.SERVICECIDR_COLUMNS, network.servicecidr_row),
    ("node.k8s.io", "RuntimeClass"): (cluster.RUNTIMECLASS_COLUMNS, cluster.runtimeclass_row),
    ("policy", "PodDisruptionBudget"): (workloads.PDB_COLUMNS, workloads.pdb_row),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _ROLEBINDING,
    ("rbac.authorization.k8s.io", "RoleBinding"): _ROLEBINDING,
    ("resource.k8s.io", "DeviceClass"): _NAME_AGE,
    ("resource.k8s.io", "ResourceClaim"): (cluster.RESOURCECLAIM_COLUMNS, cluster.resourceclaim_row),
    ("resource.k8s.io", "ResourceClaimTemplate"): _NAME_AGE,
    ("resource.k8s.io", "ResourceSlice"): (cluster.RESOURCESLICE_COLUMNS, cluster.resourceslice_row),
    ("scheduling.k8s.io", "PriorityClass"): (cluster.PRIORITYCLASS_COLUMNS, cluster.priorityclass_row),
    ("storage.k8s.io", "CSIDriver"): (storage.CSIDRIVER_COLUMNS, storage.csidriver_row),
    ("storage.k8s.io", "CSINode"): (storage.CSINODE_COLUMNS, storage.csinode_row),
    ("storage.k8s.io", "CSIStorageCapacity"): (storage.CSISTORAGECAPACITY_COLUMNS, storage.csistoragecapacity_row),
    ("storage.k8s.io", "StorageClass"): (storage.STORAGECLASS_COLUMNS, storage.storageclass_row),
    ("storage.k8s.io", "VolumeAttachment"): (storage.VOLUMEATTACHMENT_COLUMNS, storage.volumeattachment_row),
    ("storage.k8s.io", "VolumeAttributesClass"): (
        storage.VOLUMEATTRIBUTESCLASS_COLUMNS,
        storage.volumeattributesclass_row,
    ),
}
"""(group, kind) -> (columns, row). The same for all versions of a kind: rows take any version's shape."""
