"""Small objects for scenarios: the least that each kind takes, with the label `app` naming the workload."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
EXIT = "tiphys.dev/simulate-exit"


def pod_template(app: str, image: str = "web:1", **spec: Any) -> Json:
    """Return a template of one container."""
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "main", "image": image}], **spec}}


def image_patch(image: str) -> Json:
    """Return a merge patch that gives a workload another image."""
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}


def _named(api_version: str, kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def deployment(name: str, replicas: int, template: Json | None = None, **spec: Any) -> Json:
    selector = {"matchLabels": {"app": name}}
    body = {"replicas": replicas, "selector": selector, "template": template or pod_template(name), **spec}
    return _named("apps/v1", "Deployment", name, body)


def statefulset(name: str, replicas: int, template: Json | None = None, **spec: Any) -> Json:
    selector = {"matchLabels": {"app": name}}
    body = {
        "replicas": replicas,
        "serviceName": name,
        "selector": selector,
        "template": template or pod_template(name),
        **spec,
    }
    return _named("apps/v1", "StatefulSet", name, body)


def daemonset(name: str, template: Json | None = None, **spec: Any) -> Json:
    selector = {"matchLabels": {"app": name}}
    return _named(
        "apps/v1", "DaemonSet", name, {"selector": selector, "template": template or pod_template(name), **spec}
    )


def job_template(app: str, exits: str) -> Json:
    """Return a pod template whose container ends as `exits` says, e.g. `0 after 5s`."""
    template = pod_template(app, "job:1", restartPolicy="Never")
    template["metadata"]["annotations"] = {EXIT: exits}
    return template


def job(name: str, exits: str, **spec: Any) -> Json:
    return _named("batch/v1", "Job", name, {"template": job_template(name, exits), **spec})


def cronjob(name: str, schedule: str, exits: str, **spec: Any) -> Json:
    body = {"schedule": schedule, "jobTemplate": {"spec": {"template": job_template(name, exits)}}, **spec}
    return _named("batch/v1", "CronJob", name, body)


def service(name: str, app: str) -> Json:
    return _named("v1", "Service", name, {"selector": {"app": app}, "ports": [{"port": 80}]})


def budget(name: str, app: str, least: int) -> Json:
    selector = {"matchLabels": {"app": app}}
    return _named("policy/v1", "PodDisruptionBudget", name, {"selector": selector, "minAvailable": least})


def namespace(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def config_map(name: str, **fields: Any) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **fields}


def short_tolerations(seconds: int) -> list[Json]:
    """Return tolerations for so many seconds on a node that is not heard."""
    return [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for key in ("not-ready", "unreachable")
    ]
