"""Property tests of rollout arithmetic: whatever the sizes, bounds and timing, a rolling update keeps its promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.controllers import rollout
from tiphys.controllers.replicaset import plan_replicas
from tiphys.controllers.views import Deployment, Pod, ReplicaSet


@dataclass
class Model:
    """A ReplicaSet as its controller would drive it: `available` follows `size` as the test lets it."""

    name: str
    size: int
    available: int
    created: int
    annotations: dict[str, str]

    def view(self) -> ReplicaSet:
        return msgspec.convert(
            {
                "metadata": {
                    "name": self.name,
                    "uid": self.name,
                    "creationTimestamp": f"2026-01-01T00:00:{self.created:02}Z",
                    "annotations": self.annotations,
                },
                "spec": {"replicas": self.size},
                "status": {"availableReplicas": self.available, "replicas": self.size},
            },
            ReplicaSet,
        )


def deployment(replicas: int, surge: Any, unavailable: Any) -> Deployment:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    spec = {"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}
    return msgspec.convert({"metadata": {"name": "d"}, "spec": spec}, Deployment)


counts = st.integers(0, 20)
percents = st.integers(0, 100).map(lambda n: f"{n}%")


@given(st.integers(1, 30), st.one_of(counts, percents), st.one_of(counts, percents), st.data())
@settings(max_examples=150, deadline=None)
def test_a_rolling_update_stays_in_its_bounds_and_ends(replicas: int, surge: Any, unavailable: Any, data: Any) -> None:
    d = deployment(replicas, surge, unavailable)
    max_surge, max_unavailable = rollout.bounds(d)
    old = Model("old", replicas, replicas, 1, {})
    new = Model("new", 0, 0, 2, {})
    for _ in range(40 * replicas + 40):
        views = {m.name: m.view() for m in (old, new)}
        step = rollout.plan_new(d, [*views.values()], views["new"])
        steps = [step] if step else rollout.plan_old(d, [*views.values()], [views["old"]], views["new"])
        for scale in steps:
            model = old if scale.replicaset.metadata.name == "old" else new
            model.size = scale.replicas
            model.available = min(model.available, model.size)
        assert old.size + new.size <= replicas + max_surge
        assert old.available + new.available >= replicas - max_unavailable
        if new.available < new.size:
            new.available += data.draw(st.integers(0 if data.draw(st.booleans()) else 1, new.size - new.available))
        if old.size == 0 and new.size == new.available == replicas:
            return
    raise AssertionError(f"never ends: old {old}, new {new}")


@given(st.integers(1, 50), st.integers(0, 50), st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(0, 10))
@settings(max_examples=150, deadline=None)
def test_a_resize_in_the_middle_is_shared_out_exactly(was: int, now: int, sizes: list[int], surge: int) -> None:
    total = sum(sizes)
    annotations = {rollout.DESIRED: str(was), rollout.MAXIMUM: str(total)}
    sets = [Model(f"rs{n}", size, 0, n, annotations).view() for n, size in enumerate(sizes)]
    d = deployment(now, surge, 1)
    steps = rollout.plan_resize(d, sets, sets[:-1], sets[-1])
    allowed = now + rollout.bounds(d)[0] if now else 0
    assert all(step.replicas >= 0 for step in steps)
    assert sum(step.replicas for step in steps) == allowed


def test_pods_that_are_about_to_go_are_not_counted_as_available() -> None:
    deployment = msgspec.convert({"metadata": {"name": "web"}, "spec": {"replicas": 6}}, Deployment)
    old = Model("old", size=4, available=5, created=1, annotations={}).view()
    new = Model("new", size=4, available=3, created=2, annotations={}).view()
    assert [step.replicas for step in rollout.plan_old(deployment, [old, new], [old], new)] == [2]


def test_a_pod_that_may_be_deleted_already_is_deleted_before_any_other() -> None:
    workload = msgspec.convert({"metadata": {"name": "web"}, "spec": {"replicas": 2}}, ReplicaSet)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    pods = [
        msgspec.convert(
            {"metadata": {"name": uid, "uid": uid}, "spec": {"nodeName": "n"}, "status": {"conditions": conditions}},
            Pod,
        )
        for uid, conditions in (("a", []), ("b", [ready]), ("c", [ready]))
    ]
    assert [pod.metadata.uid for pod in plan_replicas(workload, pods, 0.0).delete] == ["a"]
    assert [pod.metadata.uid for pod in plan_replicas(workload, pods, 0.0, doubted={"c"}).delete] == ["c"]
