"""Which nodes may a pod go to, and what is said when there is none: literal nodes and pods in, plans out."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from schedulerobjects import info, node, pod, state_of

from tiphys.api.views.meta import decode_view
from tiphys.base.clock import Randomness
from tiphys.scheduler.plan import Plan, plan_pod
from tiphys.scheduler.state import ClusterState
from tiphys.scheduler.views import PersistentVolume, PersistentVolumeClaim, StorageClass

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def plan(state: ClusterState, name: str = "new", **pod: Any) -> Plan:
    return plan_pod(info(name, **pod), state, Randomness(1))


def zoned(name: str, zone: str, **more: Any) -> Any:
    return node(name, labels={ZONE: zone}, **more)


def term(app: str, key: str = HOST, **more: Any) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key, **more}


def near(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def apart(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def test_without_nodes_the_message_says_so() -> None:
    assert plan(state_of([])).message == "no nodes available to schedule pods"


def test_every_reason_is_counted_and_told_in_upstreams_words() -> None:
    state = state_of(
        [
            node("cordoned", unschedulable=True),
            node("tainted", taints=[{"key": "a", "effect": "NoSchedule"}]),
            node("other-labels"),
            node("small", cpu="1", memory="1Gi", labels={"disk": "ssd"}),
            node("full", pods="0", labels={"disk": "ssd"}),
        ]
    )
    result = plan(state, cpu="2", memory="2Gi", nodeSelector={"disk": "ssd"})
    assert result.node is None
    assert result.message == (
        "0/5 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods, "
        "1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s), "
        "1 node(s) were unschedulable."
    )


def test_tolerations_let_a_pod_on_a_tainted_node() -> None:
    state = state_of([node("tainted", taints=[{"key": "a", "value": "b", "effect": "NoExecute"}])])
    assert plan(state, tolerations=[{"key": "a", "operator": "Equal", "value": "b"}]).node == "tainted"
    assert plan(state, tolerations=[{"operator": "Exists"}]).node == "tainted"
    assert plan(state, tolerations=[{"key": "a", "value": "c"}]).node is None
    assert plan(state, tolerations=[{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]).node is None


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["3", "4"], True),
        ("NotIn", ["3"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
        ("Gt", ["2"], True),
        ("Lt", ["3"], False),
    ],
)
def test_expressions_of_node_affinity(operator: str, values: list[str], fits: bool) -> None:
    state = state_of([node("one", labels={"rack": "3"})])
    need = {"key": "rack", "operator": operator, "values": values}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [need]}]}
        }
    }
    assert (plan(state, affinity=affinity).node is not None) is fits


def test_a_daemon_pod_goes_to_the_node_that_its_field_names() -> None:
    state = state_of([node(f"node-{n}") for n in range(5)])
    fields = [{"key": "metadata.name", "operator": "In", "values": ["node-3"]}]
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": fields}]}
        }
    }
    assert plan(state, affinity=affinity).node == "node-3"
    refused = plan(state, affinity=affinity, cpu="100")
    assert refused.message == (
        "0/5 nodes are available: 1 Insufficient cpu, 4 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    )


def test_host_ports_are_taken_once() -> None:
    state = state_of([node("one")], [pod("old", ports=[80], node="one")])
    assert plan(state, ports=[81]).node == "one"
    assert plan(state, ports=[80]).message == (
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )
    state.remove_pod("default/old")
    assert plan(state, ports=[80]).node == "one"


def test_extended_resources_nobody_offers_are_insufficient() -> None:
    state = state_of([node("one"), node("two", extra={"example.com/gpu": "2"})])
    assert plan(state, requests={"example.com/gpu": "2"}).node == "two"
    assert plan(state, requests={"example.com/gpu": "3"}).message == (
        "0/2 nodes are available: 2 Insufficient example.com/gpu."
    )


def test_sidecars_and_init_containers_count_as_they_run() -> None:
    state = state_of([node("one", cpu="1")])
    big_init = [{"name": "i", "image": "i", "resources": {"requests": {"cpu": "900m"}}}]
    sidecar = [{**big_init[0], "restartPolicy": "Always"}]
    assert plan(state, cpu="200m", initContainers=big_init).node == "one"
    assert plan(state, cpu="200m", initContainers=sidecar).node is None


def test_affinity_finds_the_zone_of_its_friends() -> None:
    state = state_of(
        [zoned("a", "1"), zoned("b", "2"), zoned("c", "2"), node("nowhere")],
        [pod("friend", labels={"app": "db"}, node="b")],
    )
    assert {plan(state, f"p{n}", affinity=near(term("db", ZONE))).node for n in range(20)} <= {"b", "c"}
    assert plan(state, affinity=near(term("web", ZONE))).message == (
        "0/4 nodes are available: 4 node(s) didn't match pod affinity rules."
    )


def test_the_first_of_a_group_may_go_anywhere_with_the_label() -> None:
    state = state_of([node("no-zone"), zoned("a", "1")])
    assert plan(state, labels={"app": "db"}, affinity=near(term("db", ZONE))).node == "a"


def test_anti_affinity_works_both_ways() -> None:
    hater = pod("hater", labels={"app": "hater"}, affinity=apart(term("web", ZONE)), node="a")
    state = state_of([zoned("a", "1"), zoned("b", "1"), zoned("c", "2")], [hater])
    assert plan(state, labels={"app": "web"}).node == "c"
    only = state_of([zoned("a", "1")], [hater])
    assert plan(only, labels={"app": "web"}).message == (
        "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."
    )
    assert plan(only, affinity=apart(term("hater"))).message == (
        "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."
    )
    only.remove_pod("default/hater")
    assert plan(only, labels={"app": "web"}).node == "a"


def test_terms_look_at_the_namespaces_that_they_choose() -> None:
    state = state_of([node("a"), node("b")], [pod("db", namespace="data", labels={"app": "db"}, node="b")])
    assert plan(state, affinity=near(term("db"))).node is None
    assert plan(state, affinity=near(term("db", namespaces=["data"]))).node == "b"
    by_label = near(term("db", namespaceSelector={"matchLabels": {"team": "x"}}))
    assert plan(state, affinity=by_label).node is None
    state.set_namespace("data", {"team": "x"})
    assert plan(state, affinity=by_label).node == "b"


def test_match_label_keys_narrow_a_term_to_the_pods_own_revision() -> None:
    state = state_of([node("a")], [pod("old", labels={"app": "web", "hash": "1"}, node="a")])
    affinity = apart(term("web", matchLabelKeys=["hash"]))
    assert plan(state, labels={"app": "web", "hash": "2"}, affinity=affinity).node == "a"
    assert plan(state, labels={"app": "web", "hash": "1"}, affinity=affinity).node is None


def spread(key: str = ZONE, skew: int = 1, **more: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app": "web"}}
    return {
        "maxSkew": skew,
        "topologyKey": key,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": selector,
        **more,
    }


def test_spread_keeps_the_skew() -> None:
    web = {"labels": {"app": "web"}}
    state = state_of([zoned("a", "1"), zoned("b", "2")], [pod("w1", node="a", **web)])
    assert plan(state, topologySpreadConstraints=[spread()], **web).node == "b"
    state.set_node(zoned("b", "2", unschedulable=True))
    assert plan(state, topologySpreadConstraints=[spread()], **web).message == (
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable."
    )
    honoring = [spread(nodeTaintsPolicy="Honor")]
    assert plan(state, topologySpreadConstraints=honoring, **web).node == "a"


def test_spread_wants_enough_domains_and_the_label() -> None:
    web = {"labels": {"app": "web"}}
    state = state_of([zoned("a", "1"), node("bare")], [pod("w1", node="a", **web)])
    assert plan(state, topologySpreadConstraints=[spread()], **web).node == "a"
    assert plan(state, topologySpreadConstraints=[spread(minDomains=2)], **web).message == (
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, "
        "1 node(s) didn't match pod topology spread constraints (missing required label)."
    )


def test_terminating_pods_do_not_count_for_spread() -> None:
    web = {"labels": {"app": "web"}}
    leaving = pod("w1", node="a", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}, **web)
    state = state_of([zoned("a", "1", cpu="8"), zoned("b", "2", unschedulable=True)], [leaving])
    assert plan(state, topologySpreadConstraints=[spread()], **web).node == "a"


def claim(name: str, **spec: Any) -> PersistentVolumeClaim:
    obj = {
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"accessModes": ["ReadWriteOnce"], **spec},
    }
    if spec.get("volumeName"):
        obj["status"] = {"phase": "Bound"}
    return decode_view(orjson.dumps(obj), PersistentVolumeClaim)


def volume(name: str, on_node: str, **spec: Any) -> PersistentVolume:
    needs = [{"matchExpressions": [{"key": HOST, "operator": "In", "values": [on_node]}]}]
    full = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "nodeAffinity": {"required": {"nodeSelectorTerms": needs}},
        **spec,
    }
    obj = {"metadata": {"name": name}, "spec": full, "status": {"phase": "Available"}}
    return decode_view(orjson.dumps(obj), PersistentVolume)


VOLUMES = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]


def test_claims_that_are_missing_or_unbound_rule_out_every_node() -> None:
    state = state_of([node("a"), node("b")])
    assert plan(state, volumes=VOLUMES).message == '0/2 nodes are available: persistentvolumeclaim "data" not found.'
    state.claims["default/data"] = claim("data")
    assert plan(state, volumes=VOLUMES).message == (
        "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    )


def test_a_bound_volume_draws_the_pod_to_its_node() -> None:
    state = state_of([node("a"), node("b")])
    state.claims["default/data"] = claim("data", volumeName="disk")
    state.volumes["disk"] = volume("disk", "b")
    assert plan(state, volumes=VOLUMES).node == "b"
    state.set_node(node("b", unschedulable=True))
    assert plan(state, volumes=VOLUMES).message == (
        "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, "
        "1 node(s) were unschedulable."
    )


def test_a_claim_that_waits_takes_a_free_volume_where_there_is_one() -> None:
    state = state_of([node("a"), node("b")])
    state.claims["default/data"] = claim("data", storageClassName="local")
    waiting = {"metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner"}
    waiting["volumeBindingMode"] = "WaitForFirstConsumer"
    state.classes["local"] = decode_view(orjson.dumps(waiting), StorageClass)
    assert plan(state, volumes=VOLUMES).message == (
        "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
    )
    state.volumes["disk"] = volume("disk", "b", storageClassName="local")
    assert plan(state, volumes=VOLUMES).node == "b"


def test_a_claim_for_one_pod_has_one_pod() -> None:
    state = state_of([node("a"), node("b")])
    state.claims["default/data"] = claim("data", volumeName="disk", accessModes=["ReadWriteOncePod"])
    state.volumes["disk"] = volume("disk", "b")
    state.set_pod(pod("user", node="b", volumes=VOLUMES))
    assert plan(state, volumes=VOLUMES).message == (
        "0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod "
        "access mode already in-use by another pod."
    )
