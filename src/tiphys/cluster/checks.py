"""What must be true of a cluster's history, whatever went wrong in it: plain functions that raise `Violation`.

Each check names its promise and the objects whose stories explain a breach. `check_always` are those that hold for
every history; `check_at_rest` those that hold when nothing happens any more; the others need to know what a scenario
asked for (how many replicas, since when).

Spec: Kubernetes docs on each workload; STYLE.md "Tests" 5.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tiphys.api.quantity import parse_quantity
from tiphys.cluster.history import Change, History, Violation, part_of
from tiphys.cluster.simulation import SimulatedCluster

Json = dict[str, Any]
FINISHED = ("Succeeded", "Failed")


def check_always(history: History) -> None:
    """Check what holds in every history."""
    check_revisions(history)
    check_bindings(history)
    check_node_room(history)
    check_identities(history)
    check_jobs(history)


def check_revisions(history: History) -> None:
    """Revisions grow, an object that is created was absent, and uids are never given twice."""
    last = 0
    uids: set[str] = set()
    for change in history.changes:
        if change.revision < last:
            raise Violation(f"revision {change.revision} was written after {last}", _part(change))
        last = change.revision
        if change.before is None and change.obj:
            uid = change.obj["metadata"]["uid"]
            if uid in uids:
                raise Violation(f"the uid {uid} of {change.key} was given before", _part(change))
            uids.add(uid)
        elif change.obj and change.obj["metadata"]["uid"] != change.was["metadata"]["uid"]:
            raise Violation(f"{change.key} changed its uid", _part(change))


def check_bindings(history: History) -> None:
    """A pod is bound once and stays where it is."""
    for change in history.of("pods"):
        before, now = change.was.get("spec", {}).get("nodeName"), change.obj.get("spec", {}).get("nodeName")
        if change.obj and before and before != now:
            raise Violation(f"{change.key} was bound to {before}, then to {now}", _part(change))


def check_node_room(history: History) -> None:
    """What is bound to a node fits there."""
    room: dict[str, Mapping[str, str]] = {}
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for change in history.changes:
        if change.resource == "nodes":
            allocatable = change.obj.get("status", {}).get("allocatable")
            if allocatable:
                room[change.obj["metadata"]["name"]] = allocatable
        elif change.resource == "pods":
            before, now = _place(change.was), _place(change.obj)
            if before == now:
                continue
            if before:
                used[before].subtract(_requests(change.was))
            if now:
                used[now].update(_requests(change.obj))
                _check_room(now, used[now], room.get(now, {}), change)


def _check_room(node: str, used: Mapping[str, int], room: Mapping[str, str], change: Change) -> None:
    for resource, milli in used.items():
        limit = room.get(resource)
        if limit is not None and milli > parse_quantity(limit).milli:
            raise Violation(
                f"{node} has room for {limit} {resource}, pods bound to it ask for {milli / 1000:g}", _part(change)
            )


def _place(pod: Json) -> str:
    """Return the node that a pod takes room of, "" for none."""
    if not pod or pod.get("status", {}).get("phase") in FINISHED:
        return ""
    return str(pod["spec"].get("nodeName", ""))


def _requests(pod: Json) -> Counter[str]:
    total: Counter[str] = Counter({"pods": 1000})
    for container in pod["spec"]["containers"]:
        for resource, text in container.get("resources", {}).get("requests", {}).items():
            total[resource] += parse_quantity(text).milli
    return total


def check_identities(history: History) -> None:
    """Two pods of one name of a StatefulSet never run at once: the second starts when the first has ended."""
    owned = {
        part_of(change.any)
        for change in history.of("pods")
        for owner in change.any["metadata"].get("ownerReferences", ())
        if owner["kind"] == "StatefulSet"
    }
    running: dict[str, Counter[str]] = defaultdict(Counter)
    for event in history.node_events:
        name = f"{event.namespace}/{event.pod}"
        if name not in owned:
            continue
        uids = running[name]
        if event.what == "STARTED":
            uids[event.uid] += 1
        elif event.what == "STOPPED":
            uids[event.uid] -= 1
        alive = [uid for uid, count in uids.items() if count > 0]
        if len(alive) > 1:
            raise Violation(f"at {event.at_s:.3f} s pods {alive} run under one name", f"/pods/{name}")


def check_jobs(history: History) -> None:
    """A Job never has more pods at work than its parallelism, and counts each finished pod once."""
    pods: dict[str, dict[str, Json]] = defaultdict(dict)
    jobs: dict[str, Json] = {}
    done: dict[str, set[str]] = defaultdict(set)
    for change in history.changes:
        if change.resource == "jobs":
            _check_job_counts(change, done)
            jobs[change.any["metadata"]["uid"]] = change.any
        if change.resource != "pods":
            continue
        uid = change.any["metadata"]["uid"]
        job = _controller(change.any, "Job")
        if job is None or job not in jobs:
            continue
        if change.obj.get("status", {}).get("phase") == "Succeeded":
            done[job].add(uid)
        if _is_active(change.obj):
            pods[job][uid] = change.obj
        else:
            pods[job].pop(uid, None)
        parallelism = jobs[job]["spec"].get("parallelism", 1)
        if change.before is None and len(pods[job]) > parallelism:
            raise Violation(
                f"at {change.at_s:.3f} s job {part_of(jobs[job])} has {len(pods[job])} pods at work, "
                f"more than its parallelism of {parallelism}",
                f"/jobs/{part_of(jobs[job])}",
                _part(change),
            )


def _check_job_counts(change: Change, done: Mapping[str, set[str]]) -> None:
    before, now = change.was.get("status", {}), change.obj.get("status", {})
    if not change.obj:
        return
    uid = change.obj["metadata"]["uid"]
    count = now.get("succeeded", 0)
    waiting = now.get("uncountedTerminatedPods") or {}
    if count + len(waiting.get("succeeded", ())) > len(done.get(uid, ())):
        raise Violation(f"{change.key} counts {count} successes of {len(done.get(uid, ()))}", _part(change))
    for field in ("succeeded", "failed"):
        if now.get(field, 0) < before.get(field, 0):
            raise Violation(f"{change.key} forgets a pod it counted as {field}", _part(change))
    finished = any(c["type"] == "Complete" and c["status"] == "True" for c in now.get("conditions", ()))
    if finished and change.obj["spec"].get("completionMode", "NonIndexed") == "NonIndexed":
        wanted = change.obj["spec"].get("completions")
        if wanted is not None and count < wanted and "successPolicy" not in change.obj["spec"]:
            raise Violation(f"{change.key} is complete with {count} of {wanted} successes", _part(change))


def check_deployment(
    history: History, name: str, since_s: float, most: int, least: int, namespace: str = "default"
) -> None:
    """From `since_s` on, a Deployment asks for `most` pods at the most, and `least` of them stay available.

    It counts what its ReplicaSets are to have, as upstream does: a pod whose deletion fails for a while comes on top,
    so that the pods themselves are counted in a history without faults only.
    """
    parts = (f"/deployments/{namespace}/{name}",)
    pods: dict[str, Json] = {}
    sets: dict[str, int] = {}
    for change in history.changes:
        meta = change.any["metadata"]
        if meta.get("labels", {}).get("app") != name or meta.get("namespace") != namespace:
            continue
        if change.resource == "replicasets":
            sets[change.key] = change.obj["spec"].get("replicas", 1) if change.obj else 0
            if change.at_s >= since_s and sum(sets.values()) > most:
                raise Violation(f"at {change.at_s:.3f} s {name} asks for {sets}, more than {most}", *parts)
        if change.resource != "pods":
            continue
        was_available = is_available(change.was)
        if _is_active(change.obj):
            pods[change.key] = change.obj
        else:
            pods.pop(change.key, None)
        if change.at_s < since_s:
            continue
        if change.before is None and len(pods) > most and history.is_faultless():
            text = f"at {change.at_s:.3f} s {name} has {len(pods)} pods, more than {most}"
            raise Violation(text, _part(change), *parts)
        available = sum(is_available(pod) for pod in pods.values())
        if was_available and not is_available(change.obj) and available < least:
            text = f"at {change.at_s:.3f} s {name} has {available} available pods, fewer than {least}"
            raise Violation(text, _part(change), *parts)


def check_budget(history: History, app: str, since_s: float, least: int) -> None:
    """From `since_s` on evictions left at least `least` healthy pods."""
    pods: dict[str, Json] = {}
    for change in history.of("pods"):
        if change.any["metadata"].get("labels", {}).get("app") != app:
            continue
        if change.obj:
            pods[change.key] = change.obj
        else:
            pods.pop(change.key, None)
        healthy = sum(is_available(pod) for pod in pods.values())
        is_eviction = "/eviction" in change.author and is_available(change.was) and not is_available(change.obj)
        if change.at_s >= since_s and is_eviction and healthy < least:
            raise Violation(f"at {change.at_s:.3f} s an eviction left {healthy} of {least} pods", _part(change))


# At rest


def check_at_rest(cluster: SimulatedCluster) -> None:
    """Check what holds when nothing happens any more."""
    history = cluster.history
    check_nothing_is_deleting(history)
    check_owners(history)
    check_endpoints(history)
    check_namespaces(history)
    check_quotas(history)


def check_nothing_is_deleting(history: History) -> None:
    """Finalizers end, and namespaces go."""
    for change in history.live.values():
        if change.obj.get("metadata", {}).get("deletionTimestamp"):
            raise Violation(f"{change.key} was deleted and is still there", _part(change))


def check_owners(history: History) -> None:
    """Nothing outlives all of its owners, and no object counts on an owner that is gone."""
    uids = {change.obj["metadata"]["uid"] for change in history.live.values() if "metadata" in change.obj}
    for change in history.live.values():
        if change.resource == "events":
            continue
        owners = change.obj["metadata"].get("ownerReferences", ())
        if any(_is_custom(owner) for owner in owners):
            continue  # while their kind is served by nobody, nobody can know
        if owners and not any(owner["uid"] in uids for owner in owners):
            raise Violation(f"{change.key} outlives its owner {owners[0]['kind']} {owners[0]['name']}", _part(change))


def check_namespaces(history: History) -> None:
    """Every object lives in a namespace that exists."""
    namespaces = {obj["metadata"]["name"] for obj in history.objects("namespaces")}
    for change in history.live.values():
        namespace = change.obj["metadata"].get("namespace")
        if namespace and namespace not in namespaces:
            raise Violation(f"{change.key} is in a namespace that is gone", _part(change), f"/namespaces/{namespace}")


def check_endpoints(history: History) -> None:
    """The slices of a Service name exactly its ready pods."""
    slices: dict[str, set[str]] = defaultdict(set)
    for slice_ in history.objects("endpointslices"):
        service = slice_["metadata"].get("labels", {}).get("kubernetes.io/service-name", "")
        for endpoint in slice_.get("endpoints") or ():
            if endpoint.get("conditions", {}).get("ready"):
                slices[f"{slice_['metadata']['namespace']}/{service}"].update(endpoint["addresses"])
    pods = history.objects("pods")
    for service in history.objects("services"):
        selector = service["spec"].get("selector")
        if not selector:
            continue
        wanted = {
            pod["status"]["podIP"]
            for pod in pods
            if pod["metadata"]["namespace"] == service["metadata"]["namespace"]
            and selector.items() <= pod["metadata"].get("labels", {}).items()
            and is_available(pod)
        }
        name = part_of(service)
        if slices[name] != wanted:
            raise Violation(
                f"service {name} has endpoints {sorted(slices[name])}, its ready pods are {sorted(wanted)}",
                f"/services/{name}",
                *(f"/pods/{part_of(p)}" for p in pods if p.get("status", {}).get("podIP") in slices[name] ^ wanted),
            )


def check_quotas(history: History) -> None:
    """A quota tells what is used, and no more is used than it allows."""
    pods = [pod for pod in history.objects("pods") if pod.get("status", {}).get("phase") not in FINISHED]
    for quota in history.objects("resourcequotas"):
        hard = quota["spec"].get("hard", {}).get("pods")
        if hard is None:
            continue
        count = sum(pod["metadata"]["namespace"] == quota["metadata"]["namespace"] for pod in pods)
        told = quota.get("status", {}).get("used", {}).get("pods")
        if count > int(hard) or str(count) != told:
            raise Violation(
                f"quota {part_of(quota)} allows {hard} pods, tells {told}, there are {count}",
                f"/resourcequotas/{part_of(quota)}",
            )


async def check_nodes(cluster: SimulatedCluster) -> None:
    """Each node runs the pods that are bound to it, each once, and nothing else."""
    history = cluster.history
    bound = {pod["metadata"]["uid"]: pod for pod in history.objects("pods") if pod["spec"].get("nodeName")}
    for node in cluster.nodes.values():
        found: Counter[str] = Counter()
        for sandbox in await node.runtime.list_pod_sandboxes():
            pod = bound.get(sandbox.uid)
            if pod is None or pod["spec"]["nodeName"] != node.name:
                raise Violation(
                    f"{node.name} has a sandbox of {sandbox.namespace}/{sandbox.name}, which is not bound to it",
                    f"/pods/{sandbox.namespace}/{sandbox.name}",
                )
            if sandbox.state.name == "READY":
                found[sandbox.uid] += 1
        for uid, count in found.items():
            if count > 1:
                name = part_of(bound[uid])
                raise Violation(f"{node.name} has {count} sandboxes of {name} at work", f"/pods/{name}")
        for uid, pod in bound.items():
            if pod["spec"]["nodeName"] == node.name and pod["status"]["phase"] == "Running" and not found[uid]:
                raise Violation(f"{part_of(pod)} is told to run on {node.name} and does not", f"/pods/{part_of(pod)}")


def check_quiet(history: History, since_s: float) -> None:
    """After `since_s` nothing was written but heartbeats."""
    loud = [change for change in history.changes if change.at_s >= since_s and not change.is_heartbeat()]
    if loud:
        authors = Counter(change.author for change in loud).most_common(5)
        raise Violation(
            f"{len(loud)} writes although nothing is to be done; most of them by {authors}",
            *dict.fromkeys(_part(change) for change in loud[:3]),
        )


# Pieces


def _part(change: Change) -> str:
    return change.key.removeprefix("/registry")


def _controller(obj: Json, kind: str) -> str | None:
    owners: Iterable[Json] = obj["metadata"].get("ownerReferences", ())
    return next((owner["uid"] for owner in owners if owner["kind"] == kind and owner.get("controller")), None)


def _is_custom(owner: Json) -> bool:
    group = owner["apiVersion"].rpartition("/")[0]
    return "." in group and not group.endswith(".k8s.io")


def _is_active(pod: Json) -> bool:
    """Return whether a pod counts as one of its controller's."""
    return bool(pod) and not _is_finished(pod) and not pod["metadata"].get("deletionTimestamp")


def _is_finished(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in FINISHED


def is_available(pod: Json) -> bool:
    """Return whether a pod counts as available with minReadySeconds 0."""
    if not _is_active(pod):
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions") or ())
