"""What a simulated cluster is put through: each scenario asks for work as a user would and waits for what it promises.

A scenario raises `Violation` where the cluster does not keep its promise; trial.py runs one, with faults beside it. The
file is over 500 lines because it is a list: each scenario stands alone and is read alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.client.interface import Resource
from tiphys.cluster import checks, workloads
from tiphys.cluster.history import History, Violation, part_of
from tiphys.cluster.simulation import SimulatedCluster

Json = dict[str, Any]
QUIET_S = 600.0
"""So long the cluster must stay at rest afterwards."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One story and the cluster that it needs."""

    run: Callable[[SimulatedCluster], Awaitable[None]]
    nodes: int = 3
    drawn_faults: bool = True
    """Faults of draw_plan may be played beside it."""
    keeps_quiet: bool = True
    """Nothing is written when it is over (a CronJob goes on)."""
    quiet_s: float = QUIET_S
    is_slow: bool = True
    """Its nodes take their time."""


# Looking


def is_rolled_out(cluster: SimulatedCluster, name: str, namespace: str = "default") -> bool:
    """Return whether a Deployment tells that it is done."""
    obj = cluster.history.get("deployments", name, namespace)
    if obj is None:
        return False
    status, replicas = obj.get("status", {}), obj["spec"]["replicas"]
    counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration") == obj["metadata"]["generation"] and counts == [replicas] * 3


async def rolled_out(cluster: SimulatedCluster, name: str, within_s: float = 900.0) -> float:
    """Wait for a Deployment; return the time."""
    part = f"/deployments/default/{name}"
    await cluster.until(lambda: is_rolled_out(cluster, name), f"{name} is rolled out", part, within_s=within_s)
    return cluster.clock.monotonic_s()


def pods_of(cluster: SimulatedCluster, app: str, namespace: str = "default") -> list[Json]:
    pods = cluster.history.objects("pods", namespace)
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get("app") == app]


def running(cluster: SimulatedCluster, app: str) -> list[Json]:
    """Return the pods that run and are not being deleted."""
    return [
        pod
        for pod in pods_of(cluster, app)
        if pod.get("status", {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
    ]


def is_gone(cluster: SimulatedCluster, resource: str, name: str) -> bool:
    return cluster.history.get(resource, name) is None


def has_no_pods(cluster: SimulatedCluster, app: str) -> bool:
    return not pods_of(cluster, app)


async def do(cluster: SimulatedCluster, call: Callable[[], Awaitable[Any]]) -> Any:
    """Do as a patient user does: try again while the server is down or the disk is full, take it as done if it was."""
    while True:
        try:
            return await call()
        except ApiError as error:
            if error.code == 409 or error.code < 500:
                raise
        except OSError:
            pass
        await asyncio.sleep(0.5)


async def create(cluster: SimulatedCluster, resource: Resource, obj: Json, namespace: str = "default") -> None:
    where = namespace if resource.namespaced else ""
    try:
        await do(cluster, lambda: cluster.client.create(resource, where, obj))
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


async def patch(cluster: SimulatedCluster, resource: Resource, name: str, body: Json) -> None:
    where = "default" if resource.namespaced else ""
    await do(cluster, lambda: cluster.client.patch(resource, where, name, body))


async def delete(
    cluster: SimulatedCluster, resource: Resource, name: str, namespace: str = "default", propagation: str = ""
) -> None:
    where = namespace if resource.namespaced else ""
    try:
        await do(cluster, lambda: cluster.client.delete(resource, where, name, propagation=propagation))
    except ApiError as error:
        if error.code != 404:
            raise


# The scenarios


async def rollout(cluster: SimulatedCluster) -> None:
    """A Deployment behind a Service is made, updated, grown and rolled back, within its bounds all the way."""
    await create(cluster, resources.SERVICES, workloads.service("web", "web"))
    await create(cluster, resources.DEPLOYMENTS, workloads.deployment("web", 6))
    since_s = await rolled_out(cluster, "web")
    await patch(cluster, resources.DEPLOYMENTS, "web", workloads.image_patch("web:2"))
    await rolled_out(cluster, "web")
    await patch(cluster, resources.DEPLOYMENTS, "web", workloads.image_patch("web:1"))
    await rolled_out(cluster, "web")
    checks.check_deployment(cluster.history, "web", since_s, most=8, least=5)
    await patch(cluster, resources.DEPLOYMENTS, "web", {"spec": {"replicas": 9}})
    await rolled_out(cluster, "web")
    pods = running(cluster, "web")
    if len(pods) != 9 or {pod["spec"]["containers"][0]["image"] for pod in pods} != {"web:1"}:
        raise Violation("nine pods of the first image", "/deployments/default/web")


async def scale_storm(cluster: SimulatedCluster) -> None:
    """A Deployment is scaled up and down faster than it can follow."""
    await create(cluster, resources.DEPLOYMENTS, workloads.deployment("storm", 3))
    for _ in range(12):
        await asyncio.sleep(cluster.chance.uniform(0.0, 2.0))
        replicas = cluster.chance.integer(0, 12)
        await patch(cluster, resources.DEPLOYMENTS, "storm", {"spec": {"replicas": replicas}})
        if cluster.chance.integer(0, 2) == 0:
            image = f"web:{cluster.chance.integer(1, 3)}"
            await patch(cluster, resources.DEPLOYMENTS, "storm", workloads.image_patch(image))
    await patch(cluster, resources.DEPLOYMENTS, "storm", {"spec": {"replicas": 4}})
    await rolled_out(cluster, "storm")
    await cluster.until(lambda: len(pods_of(cluster, "storm")) == 4, "four pods are left", "/deployments/default/storm")


async def stateful(cluster: SimulatedCluster) -> None:
    """A StatefulSet grows in order, is updated from the end, shrinks, and never doubles an identity."""
    name, part = "db", "/statefulsets/default/db"
    await create(cluster, resources.STATEFULSETS, workloads.statefulset(name, 4))

    def settled(replicas: int, image: str) -> bool:
        pods = running(cluster, name)
        obj = cluster.history.get("statefulsets", name)
        images = {pod["spec"]["containers"][0]["image"] for pod in pods}
        told = obj is not None and obj.get("status", {}).get("readyReplicas", 0) == replicas
        return told and len(pods) == len(pods_of(cluster, name)) == replicas and images <= {image}

    await cluster.until(lambda: settled(4, "web:1"), "four replicas run", part)
    await patch(cluster, resources.STATEFULSETS, name, workloads.image_patch("web:2"))
    await cluster.until(lambda: settled(4, "web:2"), "four replicas are updated", part)
    await patch(cluster, resources.STATEFULSETS, name, {"spec": {"replicas": 2}})
    await cluster.until(lambda: settled(2, "web:2"), "two replicas are left", part)
    for pod in pods_of(cluster, name):
        await delete(cluster, resources.PODS, pod["metadata"]["name"])
    await cluster.until(lambda: settled(2, "web:2"), "two replicas are back", part)
    check_order(cluster.history, name)


def check_order(history: History, name: str) -> None:
    """Check that no pod of an ordered StatefulSet was made before its predecessors were ready."""
    ready: dict[int, bool] = {}
    for change in history.of("pods"):
        if change.any["metadata"].get("labels", {}).get("app") != name:
            continue
        number = int(part_of(change.any).rpartition("-")[2])
        if change.before is None and not all(ready.get(i) for i in range(number)):
            raise Violation(f"{part_of(change.any)} was made before its predecessors were ready", change.key[9:])
        ready[number] = checks.is_available(change.obj)


async def daemons(cluster: SimulatedCluster) -> None:
    """A DaemonSet follows nodes that come and go, and is updated."""
    await create(cluster, resources.DAEMONSETS, workloads.daemonset("agent"))
    part = "/daemonsets/default/agent"

    def covered(image: str = "web:1") -> bool:
        pods = running(cluster, "agent")
        images = {pod["spec"]["containers"][0]["image"] for pod in pods}
        return sorted(p["spec"]["nodeName"] for p in pods) == sorted(cluster.nodes) and images == {image}

    await cluster.until(covered, "each node has its pod", part)
    cluster.add_node(7)
    cluster.add_node(8)
    await cluster.until(covered, "each new node has its pod", part)
    await patch(cluster, resources.DAEMONSETS, "agent", workloads.image_patch("web:2"))
    await asyncio.sleep(1.0)
    await cluster.remove_node("node-7")
    await delete(cluster, resources.NODES, "node-7")
    await cluster.until(lambda: covered("web:2"), "each node that is left has its new pod", part)


async def jobs(cluster: SimulatedCluster) -> None:
    """Jobs count each success once, keep to their parallelism, and give up as they are told."""
    spec = {"completions": 8, "parallelism": 3}
    await create(cluster, resources.JOBS, workloads.job("plain", "0 after 3s", **spec))
    await create(cluster, resources.JOBS, workloads.job("indexed", "0 after 2s", completionMode="Indexed", **spec))
    await create(cluster, resources.JOBS, workloads.job("broken", "1 after 1s", backoffLimit=2))

    def condition(name: str) -> str:
        obj = cluster.history.get("jobs", name) or {}
        found = [c["type"] for c in obj.get("status", {}).get("conditions", ()) if c["status"] == "True"]
        return next((kind for kind in found if kind in ("Complete", "Failed")), "")

    for name, wanted in (("plain", "Complete"), ("indexed", "Complete"), ("broken", "Failed")):
        part = f"/jobs/default/{name}"
        await cluster.until(partial(condition, name), f"job {name} ends", part)
        if condition(name) != wanted:
            raise Violation(f"job {name} ends as {condition(name)}", part)
    for name, count in (("plain", 8), ("indexed", 8), ("broken", 0)):
        obj = cluster.history.get("jobs", name) or {}
        if obj["status"].get("succeeded", 0) != count:
            raise Violation(f"job {name} counts {obj['status'].get('succeeded')} of {count}", f"/jobs/default/{name}")
    await delete(cluster, resources.JOBS, "indexed", propagation="Foreground")
    await cluster.until(
        lambda: not pods_of(cluster, "indexed"), "the pods of a deleted job go", "/jobs/default/indexed"
    )


async def cron(cluster: SimulatedCluster) -> None:
    """CronJobs of a whole day start on time, once each, and keep to their policies."""
    await create(cluster, resources.CRONJOBS, workloads.cronjob("hourly", "0 * * * *", "0 after 30s"))
    forbid = workloads.cronjob(
        "slow", "*/30 * * * *", "0 after 2700s", concurrencyPolicy="Forbid"
    )  # a missed run starts when the one before has ended
    await create(cluster, resources.CRONJOBS, forbid)
    await asyncio.sleep(24 * 3600 + 60)
    made: dict[str, list[float]] = {"hourly": [], "slow": []}
    for change in cluster.history.of("jobs"):
        owner = change.any["metadata"].get("ownerReferences", [{}])[0].get("name", "")
        if change.before is None and owner in made:
            made[owner].append(change.at_s)
    if len(made["hourly"]) != 24 or len(made["slow"]) not in (31, 32):
        counts = {name: len(times) for name, times in made.items()}
        raise Violation(f"jobs of a day: {counts}", "/cronjobs/default/hourly", "/cronjobs/default/slow")
    late = [at for at in made["hourly"] if at % 3600 > 60]
    if late:
        raise Violation(f"hourly jobs were late: {late}", "/cronjobs/default/hourly")
    kept = [job for job in cluster.history.objects("jobs") if job["metadata"]["name"].startswith("hourly")]
    if len(kept) > 4:
        raise Violation(f"{len(kept)} finished jobs are kept", "/cronjobs/default/hourly")


async def namespace_end(cluster: SimulatedCluster) -> None:
    """A namespace is deleted while everything in it is being made."""
    await create(cluster, resources.NAMESPACES, workloads.namespace("doomed"))
    made = [
        (resources.DEPLOYMENTS, workloads.deployment("web", 5)),
        (resources.STATEFULSETS, workloads.statefulset("db", 3)),
        (resources.JOBS, workloads.job("work", "0 after 5s", completions=5, parallelism=2)),
        (resources.SERVICES, workloads.service("web", "web")),
        *((resources.CONFIGMAPS, workloads.config_map(f"data-{i}", data={"a": "b"})) for i in range(20)),
    ]
    for resource, obj in made:
        await create(cluster, resource, obj, "doomed")
    await asyncio.sleep(cluster.chance.uniform(0.0, 2.0))
    await delete(cluster, resources.NAMESPACES, "doomed")

    def gone() -> bool:
        keys = [key for key in cluster.history.live if "/doomed/" in key or key.endswith("/namespaces/doomed")]
        return not keys

    await cluster.until(gone, "the namespace goes with all that is in it", "/namespaces/doomed")


async def garbage(cluster: SimulatedCluster) -> None:
    """Owners are deleted in the three ways."""
    for name in ("front", "back", "orphan"):
        await create(cluster, resources.DEPLOYMENTS, workloads.deployment(name, 3))
    for name in ("front", "back", "orphan"):
        await rolled_out(cluster, name)
    await delete(cluster, resources.DEPLOYMENTS, "front", propagation="Foreground")
    await delete(cluster, resources.DEPLOYMENTS, "back", propagation="Background")
    await delete(cluster, resources.DEPLOYMENTS, "orphan", propagation="Orphan")
    for name in ("front", "back", "orphan"):
        part = f"/deployments/default/{name}"
        await cluster.until(partial(is_gone, cluster, "deployments", name), f"{name} goes", part)
    for name in ("front", "back"):
        await cluster.until(partial(has_no_pods, cluster, name), f"the pods of {name} go")
    _check_foreground(cluster.history)
    if len(pods_of(cluster, "orphan")) != 3:
        raise Violation("orphaned pods stay", "/deployments/default/orphan")
    sets = [rs for rs in cluster.history.objects("replicasets") if rs["metadata"]["name"].startswith("orphan-")]
    if len(sets) != 1 or sets[0]["metadata"].get("ownerReferences"):
        raise Violation("an orphaned ReplicaSet stays, without its owner", f"/replicasets/{part_of(sets[0])}")
    await create(cluster, resources.DEPLOYMENTS, workloads.deployment("orphan", 3))
    await rolled_out(cluster, "orphan")
    if len(pods_of(cluster, "orphan")) != 3:
        raise Violation("a new Deployment adopts what is there", "/deployments/default/orphan")


def _check_foreground(history: History) -> None:
    """An owner that is deleted in the foreground goes after its dependents."""
    left: set[str] = set()
    for change in history.changes:
        if (
            change.resource in ("replicasets", "pods")
            and change.any["metadata"].get("labels", {}).get("app") == "front"
        ):
            (left.add if change.obj else left.discard)(change.key)
        if change.key.endswith("/deployments/default/front") and not change.obj and left:
            raise Violation(f"front went before {sorted(left)}", "/deployments/default/front")


async def drain(cluster: SimulatedCluster) -> None:
    """A node is drained while a budget guards its pods."""
    await create(cluster, resources.DEPLOYMENTS, workloads.deployment("web", 6))
    await create(cluster, resources.PODDISRUPTIONBUDGETS, workloads.budget("web", "web", 5))
    since_s = await rolled_out(cluster, "web")
    node = "node-0"
    await patch(cluster, resources.NODES, node, {"spec": {"unschedulable": True}})

    async def empty() -> bool:
        there = [pod for pod in pods_of(cluster, "web") if pod["spec"].get("nodeName") == node]
        for pod in there:
            await _evict(cluster, pod)
        return not there

    await cluster.until(empty, "the node is drained", "/poddisruptionbudgets/default/web", every_s=1.0)
    checks.check_budget(cluster.history, "web", since_s, 5)
    await patch(cluster, resources.NODES, node, {"spec": {"unschedulable": None}})
    await rolled_out(cluster, "web")


async def _evict(cluster: SimulatedCluster, pod: Json) -> None:
    meta = pod["metadata"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": meta["name"]}}
    try:
        await cluster.client.create(resources.PODS, "default", body, name=meta["name"], subresource="eviction")
    except (ApiError, OSError):
        await asyncio.sleep(0.2)  # the budget says no for now, or the server is away: once more in the next round


async def node_loss(cluster: SimulatedCluster) -> None:
    """A node is cut off for longer than its pods tolerate; they are replaced elsewhere, and it comes back clean."""
    template = workloads.pod_template("web", tolerations=workloads.short_tolerations(30))
    await create(cluster, resources.DEPLOYMENTS, workloads.deployment("web", 6, template))
    await create(cluster, resources.SERVICES, workloads.service("web", "web"))
    sticky = workloads.pod_template("db", tolerations=workloads.short_tolerations(30))
    await create(cluster, resources.STATEFULSETS, workloads.statefulset("db", 3, sticky))
    await rolled_out(cluster, "web")
    await cluster.until(lambda: len(running(cluster, "db")) == 3, "the database runs", "/statefulsets/default/db")
    victim = running(cluster, "db")[0]["spec"]["nodeName"]
    start_s = cluster.clock.monotonic_s()
    away = asyncio.create_task(cluster.cut(victim, 180.0))

    def is_unreachable() -> bool:
        node = cluster.history.get("nodes", victim, "") or {}
        return any(taint["key"] == "node.kubernetes.io/unreachable" for taint in node["spec"].get("taints", ()))

    def moved() -> bool:
        here = [pod for app in ("web", "db") for pod in running(cluster, app) if pod["spec"]["nodeName"] == victim]
        return not here and len(running(cluster, "web")) == 6

    await cluster.until(is_unreachable, "a silent node is tainted", f"/nodes/{victim}", within_s=60.0)
    after_s = cluster.clock.monotonic_s() - start_s
    if not 30.0 <= after_s <= 55.0:
        raise Violation(f"a silent node was tainted after {after_s:.1f} s", f"/nodes/{victim}")
    await cluster.until(moved, "its pods are replaced", f"/nodes/{victim}", "/deployments/default/web", within_s=60.0)
    if not away.done() and len(running(cluster, "db")) == 3:
        raise Violation("a StatefulSet's pod on a lost node was replaced", "/statefulsets/default/db")
    await away
    back_s = cluster.clock.monotonic_s()
    await cluster.until(lambda: not is_unreachable(), "a node that is back is trusted again", f"/nodes/{victim}")
    if cluster.clock.monotonic_s() - back_s > 30.0:
        raise Violation("a node that is back is ready within half a minute", f"/nodes/{victim}")
    await cluster.until(lambda: len(running(cluster, "db")) == 3, "the database is whole", "/statefulsets/default/db")


async def power_loss(cluster: SimulatedCluster) -> None:
    """A machine is turned off and on: what it ran starts again there, or elsewhere after the toleration."""
    template = workloads.pod_template("web", tolerations=workloads.short_tolerations(20))
    await create(cluster, resources.DEPLOYMENTS, workloads.deployment("web", 6, template))
    await create(cluster, resources.SERVICES, workloads.service("web", "web"))
    await rolled_out(cluster, "web")
    await cluster.lose_node("node-0", 5.0)
    await asyncio.sleep(20.0)
    await rolled_out(cluster, "web")
    await cluster.lose_node("node-1", 120.0)
    await rolled_out(cluster, "web")


async def custom(cluster: SimulatedCluster) -> None:
    """Custom resources own built-in objects and each other."""
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "ships.argo.example.com"},
        "spec": {
            "group": "argo.example.com",
            "scope": "Namespaced",
            "names": {"plural": "ships", "singular": "ship", "kind": "Ship"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    ships = Resource("argo.example.com", "v1", "ships", "Ship")
    await create(cluster, resources.CUSTOMRESOURCEDEFINITIONS, definition)

    async def served() -> bool:
        try:
            await cluster.client.list(ships, "default")
        except (ApiError, OSError):
            return False
        return True

    await cluster.until(served, "the resource is served", "/customresourcedefinitions/ships.argo.example.com")
    for number in range(3):
        name = f"argo-{number}"
        body = {"apiVersion": "argo.example.com/v1", "kind": "Ship", "metadata": {"name": name}}
        await create(cluster, ships, body)
        ship = cluster.history.get("ships", name) or {}
        owner = {**{k: body[k] for k in ("apiVersion", "kind")}, "name": name, "uid": ship["metadata"]["uid"]}
        child = workloads.config_map(f"{name}-crew", data={"helm": "tiphys"})
        child["metadata"]["ownerReferences"] = [owner]
        await create(cluster, resources.CONFIGMAPS, child)
    await asyncio.sleep(5.0)
    await delete(cluster, ships, "argo-0")
    gone = ("argo-0-crew",)
    await cluster.until(
        lambda: not any(cluster.history.get("configmaps", n) for n in gone), "the crew goes with its ship",
        "/configmaps/default/argo-0-crew",
    )  # fmt: skip
    await delete(cluster, resources.CUSTOMRESOURCEDEFINITIONS, "ships.argo.example.com")
    # What the ships own is not waited for: while nobody serves ships, a collector that was restarted cannot know.
    await cluster.until(
        lambda: not any("ships" in key for key in cluster.history.live), "all ships go with the definition",
        "/customresourcedefinitions/ships.argo.example.com", "/ships/default/argo-1",
    )  # fmt: skip


async def quota(cluster: SimulatedCluster) -> None:
    """A quota follows what is made and deleted."""
    body = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"pods": "8"}},
    }
    await create(cluster, resources.RESOURCEQUOTAS, body)
    await create(cluster, resources.DEPLOYMENTS, workloads.deployment("web", 5))
    await rolled_out(cluster, "web")
    await patch(cluster, resources.DEPLOYMENTS, "web", {"spec": {"replicas": 2}})
    await rolled_out(cluster, "web")


async def frozen(cluster: SimulatedCluster) -> None:
    """An immutable ConfigMap stays as it is."""
    await create(cluster, resources.CONFIGMAPS, workloads.config_map("fixed", data={"a": "1"}, immutable=True))
    try:
        await patch(cluster, resources.CONFIGMAPS, "fixed", {"data": {"a": "2"}})
    except ApiError as error:
        if error.code != 422:
            raise
    else:
        raise Violation("an immutable ConfigMap was changed", "/configmaps/default/fixed")


async def large(cluster: SimulatedCluster) -> None:
    """A hundred nodes and a thousand pods."""
    for number in range(20):
        await create(cluster, resources.DEPLOYMENTS, workloads.deployment(f"app-{number}", 50))
    for number in range(20):
        await rolled_out(cluster, f"app-{number}")


SCENARIOS: Mapping[str, Scenario] = {
    "rollout": Scenario(rollout),
    "scale-storm": Scenario(scale_storm),
    "stateful": Scenario(stateful),
    "daemons": Scenario(daemons),
    "jobs": Scenario(jobs),
    "cron": Scenario(cron, nodes=1, drawn_faults=False, keeps_quiet=False),
    "namespace-end": Scenario(namespace_end),
    "garbage": Scenario(garbage),
    "drain": Scenario(drain),
    "node-loss": Scenario(node_loss, nodes=4, drawn_faults=False),
    "power-loss": Scenario(power_loss, drawn_faults=False),
    "custom": Scenario(custom),
    "quota": Scenario(quota),
    "frozen": Scenario(frozen, nodes=1),
    "large": Scenario(large, nodes=100, drawn_faults=False, quiet_s=30.0, is_slow=False),
}
