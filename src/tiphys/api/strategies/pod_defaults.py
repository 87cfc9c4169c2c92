"""Defaults of a pod's spec, in a Pod and in a workload's template.

Input is the decoded object, changed in place; the registry stores the result. A template gets less than a pod:
requests are not copied from limits, host ports not filled and enableServiceLinks not set, so that the pods made from
it show their author's intent. Invariant: defaulting twice changes nothing.

Spec: Kubernetes API reference, core/v1 PodSpec, Container, Probe and Volume: the "Defaults to" of each field.
"""

from __future__ import annotations

from typing import Any

from tiphys.api.kind import JsonObject

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_MODE_0644 = 420


def image_pull_policy(image: str) -> str:
    """Return the policy of an image that names none: Always for the tag `latest`, spoken or not."""
    name, at, _digest = image.partition("@")
    _, colon, tag = name.rpartition("/")[2].partition(":")
    if colon:
        return "Always" if tag == "latest" else "IfNotPresent"
    return "IfNotPresent" if at else "Always"


def default_pod(pod: JsonObject) -> None:
    """Default a Pod."""
    spec = pod.setdefault("spec", {})
    default_pod_spec(spec)
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            resources = container.get("resources")
            if resources and resources.get("limits"):
                default_requests(resources)
    resources = spec.get("resources")
    if resources:
        _default_pod_requests(spec, resources)
    if spec.get("hostNetwork"):
        _default_host_ports(spec)


def default_requests(resources: JsonObject) -> None:
    """A limit without a request of the same resource is its request too."""
    requests = resources.get("requests")
    if requests is None:
        resources["requests"] = dict(resources["limits"])
        return
    for name, limit in resources["limits"].items():
        requests.setdefault(name, limit)


def _default_pod_requests(spec: JsonObject, resources: JsonObject) -> None:
    """Pod-level requests: what the containers ask for if any asks, else the pod's limit."""
    limits = resources.get("limits") or {}
    missing = [name for name in limits if name not in (resources.get("requests") or {})]
    if not missing:
        return
    from tiphys.api.qos import container_requests

    asked = container_requests(spec)
    requests = resources.setdefault("requests", {})
    for name in missing:
        requests[name] = asked.get(name, limits[name])


def _default_host_ports(spec: JsonObject) -> None:
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            for port in container.get("ports") or ():
                if not port.get("hostPort"):
                    port["hostPort"] = port.get("containerPort")


def default_pod_template(template: JsonObject) -> None:
    """Default the template of a workload."""
    default_pod_spec(template.setdefault("spec", {}))


def default_pod_spec(spec: JsonObject) -> None:
    """Default what a Pod and a template have in common."""
    if not spec.get("restartPolicy"):
        spec["restartPolicy"] = "Always"
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if not spec.get("schedulerName"):
        spec["schedulerName"] = "default-scheduler"
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in spec.get("containers") or ():
        _default_container(container)
    for container in spec.get("initContainers") or ():
        _default_container(container)
    for container in spec.get("ephemeralContainers") or ():
        _default_container(container)
    for volume in spec.get("volumes") or ():
        default_volume(volume)


def _default_container(container: JsonObject) -> None:
    get = container.get
    if not get("imagePullPolicy"):
        container["imagePullPolicy"] = image_pull_policy(get("image") or "")
    if not get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    if get("resources") is None:
        container["resources"] = {}
    for port in get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in get("env") or ():
        source = variable.get("valueFrom")
        if source:
            _default_env_source(source)
    for field in _PROBES:
        probe = get(field)
        if probe is not None:
            _default_probe(probe)
    lifecycle = get("lifecycle")
    if lifecycle:
        for hook in ("postStart", "preStop"):
            action = (lifecycle.get(hook) or {}).get("httpGet")
            if action is not None:
                _default_http_get(action)


def _default_env_source(source: JsonObject) -> None:
    reference = source.get("fieldRef")
    if reference is not None and not reference.get("apiVersion"):
        reference["apiVersion"] = "v1"
    reference = source.get("resourceFieldRef")
    if reference is not None and reference.get("divisor") is None:
        reference["divisor"] = "0"
    reference = source.get("fileKeyRef")
    if reference is not None and reference.get("optional") is None:
        reference["optional"] = False


def _default_probe(probe: JsonObject) -> None:
    if not probe.get("timeoutSeconds"):
        probe["timeoutSeconds"] = 1
    if not probe.get("periodSeconds"):
        probe["periodSeconds"] = 10
    if not probe.get("successThreshold"):
        probe["successThreshold"] = 1
    if not probe.get("failureThreshold"):
        probe["failureThreshold"] = 3
    action = probe.get("httpGet")
    if action is not None:
        _default_http_get(action)
    action = probe.get("grpc")
    if action is not None and action.get("service") is None:
        action["service"] = ""


def _default_http_get(action: JsonObject) -> None:
    if not action.get("path"):
        action["path"] = "/"
    if not action.get("scheme"):
        action["scheme"] = "HTTP"


def default_volume(volume: JsonObject) -> None:
    """Default a volume of a pod; one without a source is an emptyDir."""
    is_empty = True
    for source, value in volume.items():
        if source == "name":
            continue
        if value is not None:
            is_empty = False
            rule = _SOURCES.get(source)
            if rule:
                rule(value)
    if is_empty:
        volume["emptyDir"] = {}


def _default_mode(source: JsonObject) -> None:
    if source.get("defaultMode") is None:
        source["defaultMode"] = _MODE_0644


def _default_downward(source: JsonObject) -> None:
    _default_mode(source)
    _default_downward_items(source)


def _default_downward_items(source: JsonObject) -> None:
    for item in source.get("items") or ():
        _default_env_source(item)


def _default_projected(source: JsonObject) -> None:
    _default_mode(source)
    for part in source.get("sources") or ():
        token = part.get("serviceAccountToken")
        if token is not None and token.get("expirationSeconds") is None:
            token["expirationSeconds"] = 3600
        downward = part.get("downwardAPI")
        if downward is not None:
            _default_downward_items(downward)
        certificate = part.get("podCertificate")
        if certificate is not None and certificate.get("maxExpirationSeconds") is None:
            certificate["maxExpirationSeconds"] = 86400


def _default_host_path(source: JsonObject) -> None:
    if source.get("type") is None:
        source["type"] = ""


def _default_ephemeral(source: JsonObject) -> None:
    claim = source.get("volumeClaimTemplate")
    if claim is not None:
        spec = claim.setdefault("spec", {})
        if spec.get("volumeMode") is None:
            spec["volumeMode"] = "Filesystem"


def _default_image(source: JsonObject) -> None:
    if not source.get("pullPolicy"):
        source["pullPolicy"] = image_pull_policy(source.get("reference") or "")


def _filler(**defaults: Any) -> Any:
    """Return a rule that fills fields that are absent or empty."""

    def fill(source: JsonObject) -> None:
        for field, value in defaults.items():
            if source.get(field) in (None, ""):
                source[field] = value

    return fill


_SOURCES = {
    "secret": _default_mode,
    "configMap": _default_mode,
    "downwardAPI": _default_downward,
    "projected": _default_projected,
    "hostPath": _default_host_path,
    "ephemeral": _default_ephemeral,
    "image": _default_image,
    "iscsi": _filler(iscsiInterface="default"),
    "rbd": _filler(pool="rbd", user="admin", keyring="/etc/ceph/keyring"),
    "azureDisk": _filler(cachingMode="ReadWrite", fsType="ext4", readOnly=False, kind="Shared"),
    "scaleIO": _filler(storageMode="ThinProvisioned", fsType="xfs"),
}
VOLUME_SOURCE_DEFAULTS = _SOURCES
