"""Table rows of nodes, namespaces, events and what belongs to the cluster as a whole."""

from __future__ import annotations

from typing import Any

from tiphys.api.columns.text import NONE, UNKNOWN, age, columns, condition, name, part, since
from tiphys.api.conversions import convert_event
from tiphys.api.kind import JsonObject

NODE_COLUMNS = columns("""
    Name              | string/name | Name of the node.
    Status            |             | Whether the node is ready and takes new pods.
    Roles             |             | Roles told by the node's labels.
    Age               |             | Time since the node joined.
    Version           |             | Version of its kubelet.
    Internal-IP       | wide        | Its address inside the cluster.
    External-IP       | wide        | Its address outside.
    OS-Image          | wide        | Its operating system.
    Kernel-Version    | wide        | Its kernel.
    Container-Runtime | wide        | Its container runtime.
    """)

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"


def node_row(obj: JsonObject, now_s: float) -> list[Any]:
    info = part(obj, "status", "nodeInfo")
    return [
        name(obj),
        _node_status(obj),
        _node_roles(part(obj, "metadata").get("labels") or {}),
        age(obj, now_s),
        info.get("kubeletVersion", ""),
        _node_address(obj, "InternalIP"),
        _node_address(obj, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _node_status(obj: JsonObject) -> str:
    ready = condition(obj, "Ready")
    status = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{status},SchedulingDisabled" if part(obj, "spec").get("unschedulable") else status


def _node_roles(labels: dict[str, str]) -> str:
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    roles.add(labels.get(_ROLE_LABEL) or "")
    return ",".join(sorted(roles - {""})) or NONE


def _node_address(obj: JsonObject, kind: str) -> str:
    addresses = part(obj, "status").get("addresses") or ()
    return next((a.get("address", "") for a in addresses if a.get("type") == kind), NONE)


NAMESPACE_COLUMNS = columns("""
    Name   | string/name | Name of the namespace.
    Status |             | Active, or Terminating while it is emptied.
    Age    |             | Time since creation.
    """)


def namespace_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), part(obj, "status").get("phase", ""), age(obj, now_s)]


EVENT_COLUMNS = columns("""
    Last Seen  |                  | Time since it happened last.
    Type       |                  | Normal or Warning.
    Reason     |                  | Why, in one word.
    Object     |                  | The object that it is about.
    Subobject  | wide             | The part of the object that it is about.
    Source     | wide             | The component that reports it.
    Message    |                  | What happened, in words.
    First Seen | wide             | Time since it happened first.
    Count      | wide             | How often it happened.
    Name       | string/name wide | Name of the event.
    """)


def event_row(obj: JsonObject, now_s: float) -> list[Any]:
    """Return the cells of an event of either group."""
    if obj.get("apiVersion") == "events.k8s.io/v1":
        obj = convert_event(obj, "events.k8s.io/v1", "v1")
    first_seen = since(obj.get("firstTimestamp") or obj.get("eventTime"), now_s)
    last_seen = since(obj["lastTimestamp"], now_s) if obj.get("lastTimestamp") else first_seen
    count = obj.get("count") or 1
    series = obj.get("series")
    if series:
        last_seen, count = since(series.get("lastObservedTime"), now_s), series.get("count", 0)
    involved = part(obj, "involvedObject")
    kind = involved.get("kind", "").lower()
    return [
        last_seen,
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{involved['name']}" if involved.get("name") else kind,
        involved.get("fieldPath", ""),
        _event_source(obj),
        obj.get("message", "").strip(),
        first_seen,
        count,
        name(obj),
    ]


def _event_source(obj: JsonObject) -> str:
    source = part(obj, "source")
    component = source.get("component") or obj.get("reportingComponent") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return f"{component}, {host}" if host else component


COMPONENTSTATUS_COLUMNS = columns("""
    Name    | string/name | Name of the component.
    Status  |             | Healthy, Unhealthy or Unknown.
    Message |             | What the component says.
    Error   |             | What is wrong with it.
    """)


def componentstatus_row(obj: JsonObject, now_s: float) -> list[Any]:
    states = {"True": "Healthy", "False": "Unhealthy"}
    healthy: JsonObject = next((c for c in obj.get("conditions") or () if c.get("type") == "Healthy"), {})
    status = states.get(healthy.get("status", ""), "Unknown")
    return [name(obj), status, healthy.get("message", ""), healthy.get("error", "")]


RESOURCEQUOTA_COLUMNS = columns("""
    Name    | string/name | Name of the quota.
    Request |             | Used and allowed amounts of what is requested or counted.
    Limit   |             | Used and allowed amounts of limits.
    Age     |             | Time since creation.
    """)


def resourcequota_row(obj: JsonObject, now_s: float) -> list[Any]:
    status = part(obj, "status")
    hard, used = part(status, "hard"), part(status, "used")
    texts = {resource: f"{resource}: {used.get(resource, '0')}/{hard[resource]}" for resource in sorted(hard)}
    limits = [text for resource, text in texts.items() if resource.startswith("limits")]
    requests = [text for resource, text in texts.items() if not resource.startswith("limits")]
    return [name(obj), ", ".join(requests), ", ".join(limits), age(obj, now_s)]


LEASE_COLUMNS = columns("""
    Name   | string/name | Name of the lease.
    Holder |             | Who holds it.
    Age    |             | Time since creation.
    """)


def lease_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), part(obj, "spec").get("holderIdentity", ""), age(obj, now_s)]


RUNTIMECLASS_COLUMNS = columns("""
    Name    | string/name | Name of the class.
    Handler |             | The node's handler that runs its pods.
    Age     |             | Time since creation.
    """)


def runtimeclass_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), obj.get("handler", ""), age(obj, now_s)]


PRIORITYCLASS_COLUMNS = columns("""
    Name             | string/name | Name of the class.
    Value            | integer     | Priority of its pods.
    Global-Default   | boolean     | Whether pods without a class get it.
    Age              |             | Time since creation.
    PreemptionPolicy |             | Whether its pods may displace others.
    """)


def priorityclass_row(obj: JsonObject, now_s: float) -> list[Any]:
    policy = obj.get("preemptionPolicy", "PreemptLowerPriority")
    return [name(obj), obj.get("value", 0), bool(obj.get("globalDefault")), age(obj, now_s), policy]


FLOWSCHEMA_COLUMNS = columns("""
    Name                | string/name | Name of the schema.
    PriorityLevel       |             | Where its requests go.
    MatchingPrecedence  | integer     | Lower numbers are tried first.
    DistinguisherMethod |             | By what its requests form flows.
    Age                 |             | Time since creation.
    MissingPL           |             | Whether its priority level does not exist.
    """)


def flowschema_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    return [
        name(obj),
        part(spec, "priorityLevelConfiguration").get("name") or NONE,
        spec.get("matchingPrecedence", 0),
        part(spec, "distinguisherMethod").get("type") or NONE,
        age(obj, now_s),
        (condition(obj, "Dangling") or {}).get("status") or "?",
    ]


PRIORITYLEVEL_COLUMNS = columns("""
    Name                     | string/name | Name of the level.
    Type                     |             | Limited or Exempt.
    NominalConcurrencyShares |             | Its share of the server's concurrency.
    Queues                   |             | Number of its queues.
    HandSize                 |             | How many queues a flow may use.
    QueueLengthLimit         |             | Longest queue.
    Age                      |             | Time since creation.
    """)


def prioritylevel_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    limited = part(spec, "limited") or part(spec, "exempt")
    shares = limited.get("nominalConcurrencyShares", limited.get("assuredConcurrencyShares", NONE))
    queuing = part(limited, "limitResponse", "queuing")
    queues = [queuing.get(field, NONE) for field in ("queues", "handSize", "queueLengthLimit")]
    return [name(obj), spec.get("type", ""), shares, *queues, age(obj, now_s)]


APISERVICE_COLUMNS = columns("""
    Name      | string/name | Name of the API service: version and group.
    Service   |             | The service that serves it, Local for this server.
    Available |             | Whether it can be reached.
    Age       |             | Time since creation.
    """)


def apiservice_row(obj: JsonObject, now_s: float) -> list[Any]:
    service = part(obj, "spec").get("service")
    where = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    available = condition(obj, "Available")
    text = "Unknown" if available is None else available.get("status", "Unknown")
    if available is not None and text != "True":
        text = f"{text} ({available.get('reason', '')})"
    return [name(obj), where, text, age(obj, now_s)]


ADMISSION_WEBHOOKS_COLUMNS = columns("""
    Name     | string/name | Name of the configuration.
    Webhooks | integer     | Number of its webhooks.
    Age      |             | Time since creation.
    """)


def admission_webhooks_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), len(obj.get("webhooks") or ()), age(obj, now_s)]


VALIDATING_POLICY_COLUMNS = columns("""
    Name        | string/name | Name of the policy.
    Validations | integer     | Number of its expressions.
    ParamKind   |             | Kind of the objects that give it parameters.
    Age         |             | Time since creation.
    """)
MUTATING_POLICY_COLUMNS = columns("""
    Name      | string/name | Name of the policy.
    Mutations | integer     | Number of its mutations.
    ParamKind |             | Kind of the objects that give it parameters.
    Age       |             | Time since creation.
    """)


def admission_policy_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    count = len(spec.get("validations") or spec.get("mutations") or ())
    kind = spec.get("paramKind")
    text = f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else "<unset>"
    return [name(obj), count, text, age(obj, now_s)]


POLICY_BINDING_COLUMNS = columns("""
    Name       | string/name | Name of the binding.
    PolicyName |             | The policy that it puts in force.
    ParamRef   |             | The object with the policy's parameters.
    Age        |             | Time since creation.
    """)


def policy_binding_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    reference = spec.get("paramRef")
    text = "<unset>"
    if reference:
        namespace = reference.get("namespace") or "*"
        text = f"{namespace}/{reference.get('name', '')}" if reference.get("name") else f"{namespace}/"
    return [name(obj), spec.get("policyName", ""), text, age(obj, now_s)]


RESOURCECLAIM_COLUMNS = columns("""
    Name  | string/name | Name of the claim.
    State |             | Whether devices are allocated and reserved for pods.
    Age   |             | Time since creation.
    """)


def resourceclaim_row(obj: JsonObject, now_s: float) -> list[Any]:
    status = part(obj, "status")
    deleted = bool(part(obj, "metadata").get("deletionTimestamp"))
    states = ["deleted"] if deleted else []
    if status.get("allocation") is not None:
        states.append("allocated")
        if status.get("reservedFor"):
            states.append("reserved")
    elif not deleted:
        states.append("pending")
    return [name(obj), ",".join(states), age(obj, now_s)]


RESOURCESLICE_COLUMNS = columns("""
    Name   | string/name | Name of the slice.
    Node   |             | The node that has the devices.
    Driver |             | The driver that offers them.
    Pool   |             | The pool that the slice belongs to.
    Age    |             | Time since creation.
    """)


def resourceslice_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    pool = part(spec, "pool").get("name", "")
    return [name(obj), spec.get("nodeName") or UNKNOWN, spec.get("driver", ""), pool, age(obj, now_s)]


NAME_AGE_COLUMNS = columns("""
    Name | string/name | Name of the object.
    Age  |             | Time since creation.
    """)


def name_age_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), age(obj, now_s)]
