"""Typed views of Pods: a table of fields, long because a Pod has so many. Every field is optional here: validation is
the API server's. See views/meta.py."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import field

from tiphys.api.views.meta import Condition, LabelSelector, ObjectMeta, View


class NodeSelectorRequirement(View, frozen=True):
    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class NodeSelectorTerm(View, frozen=True):
    match_expressions: tuple[NodeSelectorRequirement, ...] = ()
    match_fields: tuple[NodeSelectorRequirement, ...] = ()


class PreferredSchedulingTerm(View, frozen=True):
    preference: NodeSelectorTerm | None = None
    weight: int | None = None


class NodeSelector(View, frozen=True):
    node_selector_terms: tuple[NodeSelectorTerm, ...] = ()


class NodeAffinity(View, frozen=True):
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredSchedulingTerm, ...] = ()
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None


class PodAffinityTerm(View, frozen=True):
    label_selector: LabelSelector | None = None
    match_label_keys: tuple[str, ...] = ()
    mismatch_label_keys: tuple[str, ...] = ()
    namespace_selector: LabelSelector | None = None
    namespaces: tuple[str, ...] = ()
    topology_key: str = ""


class WeightedPodAffinityTerm(View, frozen=True):
    pod_affinity_term: PodAffinityTerm | None = None
    weight: int | None = None


class PodAffinity(View, frozen=True):
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodAffinityTerm, ...] = ()
    required_during_scheduling_ignored_during_execution: tuple[PodAffinityTerm, ...] = ()


class PodAntiAffinity(View, frozen=True):
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodAffinityTerm, ...] = ()
    required_during_scheduling_ignored_during_execution: tuple[PodAffinityTerm, ...] = ()


class Affinity(View, frozen=True):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAntiAffinity | None = None


class ConfigMapKeySelector(View, frozen=True):
    key: str = ""
    name: str = ""
    optional: bool | None = None


class ObjectFieldSelector(View, frozen=True):
    api_version: str = ""
    field_path: str = ""


class ResourceFieldSelector(View, frozen=True):
    container_name: str = ""
    divisor: str | int | float | None = None
    resource: str = ""


class SecretKeySelector(View, frozen=True):
    key: str = ""
    name: str = ""
    optional: bool | None = None


class EnvVarSource(View, frozen=True):
    config_map_key_ref: ConfigMapKeySelector | None = None
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    secret_key_ref: SecretKeySelector | None = None


class EnvVar(View, frozen=True):
    name: str = ""
    value: str = ""
    value_from: EnvVarSource | None = None


class ConfigMapEnvSource(View, frozen=True):
    name: str = ""
    optional: bool | None = None


class SecretEnvSource(View, frozen=True):
    name: str = ""
    optional: bool | None = None


class EnvFromSource(View, frozen=True):
    config_map_ref: ConfigMapEnvSource | None = None
    prefix: str = ""
    secret_ref: SecretEnvSource | None = None


class ExecAction(View, frozen=True):
    command: tuple[str, ...] = ()


class HTTPHeader(View, frozen=True):
    name: str = ""
    value: str = ""


class HTTPGetAction(View, frozen=True):
    host: str = ""
    http_headers: tuple[HTTPHeader, ...] = ()
    path: str = ""
    port: int | str | None = None
    protocol: str = ""
    scheme: str = ""


class SleepAction(View, frozen=True):
    seconds: int | None = None


class TCPSocketAction(View, frozen=True):
    host: str = ""
    port: int | str | None = None


class LifecycleHandler(View, frozen=True):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    sleep: SleepAction | None = None
    tcp_socket: TCPSocketAction | None = None


class Lifecycle(View, frozen=True):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str = ""


class GRPCAction(View, frozen=True):
    mode: str = ""
    port: int | None = None
    service: str = ""


class Probe(View, frozen=True):
    exec: ExecAction | None = None
    failure_threshold: int | None = None
    grpc: GRPCAction | None = None
    http_get: HTTPGetAction | None = None
    initial_delay_seconds: int | None = None
    period_seconds: int | None = None
    success_threshold: int | None = None
    tcp_socket: TCPSocketAction | None = None
    termination_grace_period_seconds: int | None = None
    timeout_seconds: int | None = None


class ContainerPort(View, frozen=True):
    container_port: int | None = None
    host_ip: str = field(default="", name="hostIP")
    host_port: int | None = None
    name: str = ""
    protocol: str = ""


class ContainerResizePolicy(View, frozen=True):
    resource_name: str = ""
    restart_policy: str = ""


class ContainerRestartRuleOnExitCodes(View, frozen=True):
    operator: str = ""
    values: tuple[int, ...] = ()


class ContainerRestartRule(View, frozen=True):
    action: str = ""
    exit_codes: ContainerRestartRuleOnExitCodes | None = None


class ResourceRequirements(View, frozen=True):
    limits: Mapping[str, str | int | float] = field(default_factory=dict)
    requests: Mapping[str, str | int | float] = field(default_factory=dict)


class Capabilities(View, frozen=True):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SELinuxOptions(View, frozen=True):
    level: str = ""
    role: str = ""
    type: str = ""
    user: str = ""


class SeccompProfile(View, frozen=True):
    localhost_profile: str = ""
    type: str = ""


class SecurityContext(View, frozen=True):
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None
    privileged: bool | None = None
    proc_mount: str = ""
    read_only_root_filesystem: bool | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    run_as_user: int | None = None
    se_linux_options: SELinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None


class VolumeDevice(View, frozen=True):
    device_path: str = ""
    name: str = ""


class VolumeMount(View, frozen=True):
    bind_mount_options: tuple[str, ...] = ()
    mount_path: str = ""
    mount_propagation: str = ""
    name: str = ""
    read_only: bool | None = None
    recursive_read_only: str = ""
    sub_path: str = ""
    sub_path_expr: str = ""


class AnyContainer(View, frozen=True):
    """What containers and ephemeral containers have in common."""

    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    image: str = ""
    image_pull_policy: str = ""
    lifecycle: Lifecycle | None = None
    liveness_probe: Probe | None = None
    name: str = ""
    ports: tuple[ContainerPort, ...] = ()
    readiness_probe: Probe | None = None
    resize_policy: tuple[ContainerResizePolicy, ...] = ()
    resources: ResourceRequirements | None = None
    restart_policy: str = ""
    security_context: SecurityContext | None = None
    startup_probe: Probe | None = None
    stdin: bool | None = None
    stdin_once: bool | None = None
    termination_message_path: str = ""
    termination_message_policy: str = ""
    tty: bool | None = None
    volume_devices: tuple[VolumeDevice, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    working_dir: str = ""


class Container(AnyContainer, frozen=True):
    restart_policy_rules: tuple[ContainerRestartRule, ...] = ()


class EphemeralContainer(AnyContainer, frozen=True):
    target_container_name: str = ""


class PodDNSConfigOption(View, frozen=True):
    name: str = ""
    value: str = ""


class PodDNSConfig(View, frozen=True):
    nameservers: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()
    searches: tuple[str, ...] = ()


class HostAlias(View, frozen=True):
    hostnames: tuple[str, ...] = ()
    ip: str = ""


class LocalObjectReference(View, frozen=True):
    name: str = ""


class PodReadinessGate(View, frozen=True):
    condition_type: str = ""


class PodSchedulingGate(View, frozen=True):
    name: str = ""


class Sysctl(View, frozen=True):
    name: str = ""
    value: str = ""


class PodSecurityContext(View, frozen=True):
    fs_group: int | None = None
    fs_group_change_policy: str = ""
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    run_as_user: int | None = None
    se_linux_change_policy: str = ""
    se_linux_options: SELinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: str = ""
    sysctls: tuple[Sysctl, ...] = ()


class Toleration(View, frozen=True):
    effect: str = ""
    key: str = ""
    operator: str = ""
    toleration_seconds: int | None = None
    value: str = ""


class TopologySpreadConstraint(View, frozen=True):
    label_selector: LabelSelector | None = None
    match_label_keys: tuple[str, ...] = ()
    max_skew: int | None = None
    min_domains: int | None = None
    node_affinity_policy: str = ""
    node_taints_policy: str = ""
    topology_key: str = ""
    when_unsatisfiable: str = ""


class KeyToPath(View, frozen=True):
    key: str = ""
    mode: int | None = None
    path: str = ""
    user: int | None = None


class ConfigMapVolumeSource(View, frozen=True):
    default_mode: int | None = None
    default_user: int | None = None
    items: tuple[KeyToPath, ...] = ()
    name: str = ""
    optional: bool | None = None


class DownwardAPIVolumeFile(View, frozen=True):
    field_ref: ObjectFieldSelector | None = None
    mode: int | None = None
    path: str = ""
    resource_field_ref: ResourceFieldSelector | None = None
    user: int | None = None


class DownwardAPIVolumeSource(View, frozen=True):
    default_mode: int | None = None
    default_user: int | None = None
    items: tuple[DownwardAPIVolumeFile, ...] = ()


class EmptyDirVolumeSource(View, frozen=True):
    medium: str = ""
    mode: int | None = None
    size_limit: str | int | float | None = None


class HostPathVolumeSource(View, frozen=True):
    path: str = ""
    type: str = ""


class ImageVolumeSource(View, frozen=True):
    pull_policy: str = ""
    reference: str = ""


class PersistentVolumeClaimVolumeSource(View, frozen=True):
    claim_name: str = ""
    read_only: bool | None = None


class ClusterTrustBundleProjection(View, frozen=True):
    label_selector: LabelSelector | None = None
    name: str = ""
    optional: bool | None = None
    path: str = ""
    signer_name: str = ""
    user: int | None = None


class ConfigMapProjection(View, frozen=True):
    items: tuple[KeyToPath, ...] = ()
    name: str = ""
    optional: bool | None = None


class DownwardAPIProjection(View, frozen=True):
    items: tuple[DownwardAPIVolumeFile, ...] = ()


class SecretProjection(View, frozen=True):
    items: tuple[KeyToPath, ...] = ()
    name: str = ""
    optional: bool | None = None


class ServiceAccountTokenProjection(View, frozen=True):
    audience: str = ""
    expiration_seconds: int | None = None
    path: str = ""
    user: int | None = None


class VolumeProjection(View, frozen=True):
    cluster_trust_bundle: ClusterTrustBundleProjection | None = None
    config_map: ConfigMapProjection | None = None
    downward_api: DownwardAPIProjection | None = field(default=None, name="downwardAPI")
    secret: SecretProjection | None = None
    service_account_token: ServiceAccountTokenProjection | None = None


class ProjectedVolumeSource(View, frozen=True):
    default_mode: int | None = None
    default_user: int | None = None
    sources: tuple[VolumeProjection, ...] = ()


class SecretVolumeSource(View, frozen=True):
    default_mode: int | None = None
    default_user: int | None = None
    items: tuple[KeyToPath, ...] = ()
    optional: bool | None = None
    secret_name: str = ""


class Volume(View, frozen=True):
    config_map: ConfigMapVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = field(default=None, name="downwardAPI")
    empty_dir: EmptyDirVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    image: ImageVolumeSource | None = None
    name: str = ""
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    secret: SecretVolumeSource | None = None


class PodSpec(View, frozen=True):
    active_deadline_seconds: int | None = None
    affinity: Affinity | None = None
    automount_service_account_token: bool | None = None
    containers: tuple[Container, ...] = ()
    dns_config: PodDNSConfig | None = None
    dns_policy: str = ""
    enable_service_links: bool | None = None
    ephemeral_containers: tuple[EphemeralContainer, ...] = ()
    host_aliases: tuple[HostAlias, ...] = ()
    host_ipc: bool | None = field(default=None, name="hostIPC")
    host_network: bool | None = None
    host_pid: bool | None = field(default=None, name="hostPID")
    host_users: bool | None = None
    hostname: str = ""
    hostname_override: str = ""
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    init_containers: tuple[Container, ...] = ()
    node_name: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    overhead: Mapping[str, str | int | float] = field(default_factory=dict)
    preemption_policy: str = ""
    priority: int | None = None
    priority_class_name: str = ""
    readiness_gates: tuple[PodReadinessGate, ...] = ()
    resources: ResourceRequirements | None = None
    restart_policy: str = ""
    runtime_class_name: str = ""
    scheduler_name: str = ""
    scheduling_gates: tuple[PodSchedulingGate, ...] = ()
    security_context: PodSecurityContext | None = None
    service_account: str = ""
    service_account_name: str = ""
    set_hostname_as_fqdn: bool | None = field(default=None, name="setHostnameAsFQDN")
    share_process_namespace: bool | None = None
    subdomain: str = ""
    termination_grace_period_seconds: int | None = None
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...] = ()
    volumes: tuple[Volume, ...] = ()


class PodCondition(Condition, frozen=True):
    last_probe_time: str | None = None


class ContainerStateRunning(View, frozen=True):
    started_at: str | None = None


class ContainerStateTerminated(View, frozen=True):
    container_id: str = field(default="", name="containerID")
    exit_code: int | None = None
    finished_at: str | None = None
    message: str = ""
    reason: str = ""
    signal: int | None = None
    started_at: str | None = None


class ContainerStateWaiting(View, frozen=True):
    message: str = ""
    reason: str = ""


class ContainerState(View, frozen=True):
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None
    waiting: ContainerStateWaiting | None = None


class ContainerStatus(View, frozen=True):
    allocated_resources: Mapping[str, str | int | float] = field(default_factory=dict)
    container_id: str = field(default="", name="containerID")
    image: str = ""
    image_id: str = field(default="", name="imageID")
    last_state: ContainerState | None = None
    name: str = ""
    ready: bool | None = None
    resources: ResourceRequirements | None = None
    restart_count: int | None = None
    started: bool | None = None
    state: ContainerState | None = None
    stop_signal: str = ""


class HostIP(View, frozen=True):
    ip: str = ""


class PodIP(View, frozen=True):
    ip: str = ""


class PodStatus(View, frozen=True):
    allocated_resources: Mapping[str, str | int | float] = field(default_factory=dict)
    conditions: tuple[PodCondition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    ephemeral_container_statuses: tuple[ContainerStatus, ...] = ()
    host_ip: str = field(default="", name="hostIP")
    host_ips: tuple[HostIP, ...] = field(default=(), name="hostIPs")
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    message: str = ""
    nominated_node_name: str = ""
    observed_generation: int | None = None
    phase: str = ""
    pod_ip: str = field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = field(default=(), name="podIPs")
    qos_class: str = ""
    reason: str = ""
    resize: str = ""
    resources: ResourceRequirements | None = None
    start_time: str | None = None


class Pod(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
