"""Table rows of workloads: replica controllers of all kinds, jobs, autoscalers, disruption budgets, revisions."""

from __future__ import annotations

from typing import Any

from tiphys.api.columns.text import (
    NONE,
    UNKNOWN,
    UNSET,
    age,
    boolean,
    columns,
    containers,
    duration,
    is_true,
    labels,
    name,
    part,
    selector,
    since,
)
from tiphys.api.conversions import convert_hpa
from tiphys.api.kind import JsonObject
from tiphys.base.clock import parse_time

_TEMPLATE = """
    Containers | wide | Names of the template's containers.
    Images     | wide | Images of the template's containers.
    Selector   | wide | The labels by which pods are found.
    """


def _template(obj: JsonObject) -> tuple[str, str]:
    return containers(part(obj, "spec", "template"))


PODTEMPLATE_COLUMNS = columns("""
    Name       | string/name | Name of the template.
    Containers |             | Names of the template's containers.
    Images     |             | Images of the template's containers.
    Pod Labels |             | Labels that pods made of the template get.
    """)


def podtemplate_row(obj: JsonObject, now_s: float) -> list[Any]:
    template = part(obj, "template")
    return [name(obj), *containers(template), labels(part(template, "metadata").get("labels"))]


REPLICASET_COLUMNS = columns(f"""
    Name    | string/name | Name of the object.
    Desired | integer     | How many pods are wanted.
    Current | integer     | How many pods exist.
    Ready   | integer     | How many pods are ready.
    Age     |             | Time since creation.
    {_TEMPLATE.strip()}
    """)


def replicaset_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec, status = part(obj, "spec"), part(obj, "status")
    wanted = spec.get("replicas", 0)
    counts = [wanted, status.get("replicas", 0), status.get("readyReplicas", 0)]
    return [name(obj), *counts, age(obj, now_s), *_template(obj), selector(spec.get("selector"))]


def replicationcontroller_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [*replicaset_row({**obj, "spec": {**part(obj, "spec"), "selector": None}}, now_s)[:-1], labels(_labels(obj))]


def _labels(obj: JsonObject) -> dict[str, str]:
    return part(obj, "spec", "selector")


DAEMONSET_COLUMNS = columns(f"""
    Name          | string/name | Name of the object.
    Desired       | integer     | How many nodes should run the pod.
    Current       | integer     | How many nodes run it that should.
    Ready         | integer     | How many nodes have it ready.
    Up-to-date    | integer     | How many nodes run the newest template.
    Available     | integer     | How many nodes have it ready for long enough.
    Node Selector |             | Labels of the nodes that run it.
    Age           |             | Time since creation.
    {_TEMPLATE.strip()}
    """)

_DAEMONSET_COUNTS = (
    "desiredNumberScheduled",
    "currentNumberScheduled",
    "numberReady",
    "updatedNumberScheduled",
    "numberAvailable",
)


def daemonset_row(obj: JsonObject, now_s: float) -> list[Any]:
    status = part(obj, "status")
    return [
        name(obj),
        *(status.get(count, 0) for count in _DAEMONSET_COUNTS),
        labels(part(obj, "spec", "template", "spec").get("nodeSelector")),
        age(obj, now_s),
        *_template(obj),
        selector(part(obj, "spec").get("selector")),
    ]


DEPLOYMENT_COLUMNS = columns(f"""
    Name       | string/name | Name of the object.
    Ready      |             | Pods that are ready, of those wanted.
    Up-to-date |             | Pods of the newest template.
    Available  |             | Pods that are ready for long enough.
    Age        |             | Time since creation.
    {_TEMPLATE.strip()}
    """)


def deployment_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec, status = part(obj, "spec"), part(obj, "status")
    return [
        name(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age(obj, now_s),
        *_template(obj),
        selector(spec.get("selector")),
    ]


STATEFULSET_COLUMNS = columns("""
    Name       | string/name | Name of the object.
    Ready      |             | Pods that are ready, of those wanted.
    Age        |             | Time since creation.
    Containers | wide        | Names of the template's containers.
    Images     | wide        | Images of the template's containers.
    """)


def statefulset_row(obj: JsonObject, now_s: float) -> list[Any]:
    ready = f"{part(obj, 'status').get('readyReplicas', 0)}/{part(obj, 'spec').get('replicas', 0)}"
    return [name(obj), ready, age(obj, now_s), *_template(obj)]


JOB_COLUMNS = columns(f"""
    Name        | string/name | Name of the job.
    Status      |             | Whether the job runs, is held, or how it ended.
    Completions |             | Pods that succeeded, of those needed.
    Duration    |             | How long the job took, or has taken so far.
    Age         |             | Time since creation.
    {_TEMPLATE.strip()}
    """)

_JOB_STATES = (("Complete", "Complete"), ("Failed", "Failed"))
_JOB_LATER_STATES = ("Suspended", "FailureTarget", "SuccessCriteriaMet")


def job_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    return [
        name(obj),
        _job_status(obj),
        _job_completions(spec, part(obj, "status").get("succeeded", 0)),
        _job_duration(part(obj, "status"), now_s),
        age(obj, now_s),
        *_template(obj),
        selector(spec.get("selector")),
    ]


def _job_status(obj: JsonObject) -> str:
    for state, text in _JOB_STATES:
        if is_true(obj, state):
            return text
    if part(obj, "metadata").get("deletionTimestamp"):
        return "Terminating"
    return next((state for state in _JOB_LATER_STATES if is_true(obj, state)), "Running")


def _job_completions(spec: JsonObject, succeeded: int) -> str:
    if spec.get("completions") is not None:
        return f"{succeeded}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _job_duration(status: JsonObject, now_s: float) -> str:
    if not status.get("startTime"):
        return ""
    end_s = parse_time(status["completionTime"]) if status.get("completionTime") else now_s
    return duration(end_s - parse_time(status["startTime"]))


CRONJOB_COLUMNS = columns(f"""
    Name          | string/name | Name of the cron job.
    Schedule      |             | When jobs are started, in cron's notation.
    Timezone      |             | The time zone of the schedule.
    Suspend       | boolean     | Whether no further jobs are started.
    Active        | integer     | How many of its jobs run.
    Last Schedule |             | Time since a job was last started.
    Age           |             | Time since creation.
    {_TEMPLATE.strip()}
    """)


def cronjob_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec, status = part(obj, "spec"), part(obj, "status")
    last = status.get("lastScheduleTime")
    job = part(spec, "jobTemplate", "spec")
    return [
        name(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        boolean(spec.get("suspend")),
        len(status.get("active") or ()),
        since(last, now_s) if last else NONE,
        age(obj, now_s),
        *containers(part(job, "template")),
        selector(job.get("selector")),
    ]


PDB_COLUMNS = columns("""
    Name                | string/name | Name of the budget.
    Min Available       |             | How many pods must stay available.
    Max Unavailable     |             | How many pods may be unavailable.
    Allowed Disruptions | integer     | How many pods may be evicted now.
    Age                 |             | Time since creation.
    """)


def pdb_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    limits = [str(spec[key]) if spec.get(key) is not None else "N/A" for key in ("minAvailable", "maxUnavailable")]
    return [name(obj), *limits, part(obj, "status").get("disruptionsAllowed", 0), age(obj, now_s)]


CONTROLLERREVISION_COLUMNS = columns("""
    Name       | string/name | Name of the revision.
    Controller |             | The object that the revision belongs to.
    Revision   |             | Number of the revision.
    Age        |             | Time since creation.
    """)


def controllerrevision_row(obj: JsonObject, now_s: float) -> list[Any]:
    owners = part(obj, "metadata").get("ownerReferences") or ()
    controller = NONE
    for owner in owners:
        if owner.get("controller"):
            group = owner.get("apiVersion", "").rpartition("/")[0]
            kind = owner.get("kind", "").lower()
            controller = f"{kind}.{group}/{owner.get('name')}" if group else f"{kind}/{owner.get('name')}"
    return [name(obj), controller, obj.get("revision", 0), age(obj, now_s)]


SCALE_COLUMNS = columns("""
    Name      | string/name | Name of the workload.
    Desired   | integer     | How many replicas are wanted.
    Available | integer     | How many replicas there are.
    Age       |             | Time since creation.
    """)


def scale_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [name(obj), spec.get("replicas", 0), status.get("replicas", 0), age(obj, now_s)]


HPA_COLUMNS = columns("""
    Name      | string/name | Name of the autoscaler.
    Reference |             | The object that is scaled.
    Targets   |             | Current and wanted value of each metric.
    MinPods   |             | Lowest number of pods.
    MaxPods   |             | Highest number of pods.
    Replicas  |             | Number of pods now.
    Age       |             | Time since creation.
    """)


def hpa_row(obj: JsonObject, now_s: float) -> list[Any]:
    """Return the cells of an autoscaler of any version."""
    if obj.get("apiVersion") == "autoscaling/v1":
        obj = convert_hpa(obj, "autoscaling/v1", "autoscaling/v2")
    spec, status = part(obj, "spec"), part(obj, "status")
    target = part(spec, "scaleTargetRef")
    return [
        name(obj),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _hpa_metrics(spec.get("metrics") or [], status.get("currentMetrics") or []),
        str(spec["minReplicas"]) if spec.get("minReplicas") is not None else UNSET,
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age(obj, now_s),
    ]


_METRIC_FIELDS = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def _hpa_metrics(specs: list[JsonObject], statuses: list[JsonObject]) -> str:
    if not specs:
        return NONE
    shown = [_hpa_metric(spec, statuses[i] if i < len(statuses) else {}) for i, spec in enumerate(specs)]
    text = ", ".join(shown[:2])
    return f"{text} + {len(shown) - 2} more..." if len(shown) > 2 else text


def _hpa_metric(spec: JsonObject, status: JsonObject) -> str:
    kind = spec.get("type", "")
    field = _METRIC_FIELDS.get(kind)
    if field is None:
        return "<unknown type>"
    target, current = part(spec, field, "target"), part(status, field, "current")
    if kind in ("Resource", "ContainerResource"):
        return f"{part(spec, field).get('name', '')}: {_hpa_resource(target, current)}"
    if kind == "Pods":
        return f"{current.get('averageValue', UNKNOWN)}/{target.get('averageValue', UNKNOWN)}"
    if target.get("averageValue") is not None:
        return f"{current.get('averageValue', UNKNOWN)}/{target['averageValue']} (avg)"
    return f"{current.get('value', UNKNOWN)}/{target.get('value', UNKNOWN)}"


def _hpa_resource(target: JsonObject, current: JsonObject) -> str:
    if target.get("averageValue") is not None:
        return f"{current.get('averageValue', UNKNOWN)}/{target['averageValue']}"
    has = current.get("averageUtilization")
    wants = target.get("averageUtilization")
    return f"{UNKNOWN if has is None else f'{has}%'}/{'<auto>' if wants is None else f'{wants}%'}"
