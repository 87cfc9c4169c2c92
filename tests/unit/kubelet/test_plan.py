"""What the plan says for literal pods and runtimes."""

from __future__ import annotations

from typing import Any

from kubelet_support import bound, pod_object

from tiphys.kubelet.admission import admit_pod
from tiphys.kubelet.plan import (
    Backoff,
    PodRuntime,
    Verdicts,
    arrange,
    backoff_until_s,
    format_duration,
    next_backoff,
    plan_pod,
    plan_stop,
)
from tiphys.runtime.interface import Container, ContainerState, Sandbox, SandboxState


def sandbox(state: SandboxState = SandboxState.READY, attempt: int = 0) -> Sandbox:
    return Sandbox(f"s{attempt}", "web", "default", "u1", attempt, state, 1.0, ("10.0.0.1",))


def container(name: str, state: str = "RUNNING", attempt: int = 0, **more: Any) -> Container:
    values = {"sandbox_id": "s0", "image": "nginx", "image_id": "sha256:1", **more}
    return Container(f"{name}-{attempt}", name=name, attempt=attempt, state=ContainerState[state], **values)


def world(*containers: Container, sandboxes: tuple[Sandbox, ...] = (sandbox(),)) -> PodRuntime:
    return arrange(sandboxes, containers)


def plan(pod: dict[str, Any], runtime: PodRuntime, **more: Any) -> Any:
    given = {"verdicts": Verdicts(), "backoffs": {}, "now_s": 1000.0, **more}
    return plan_pod(bound(pod), runtime, **given)


def test_a_new_pod_gets_its_sandbox_first() -> None:
    made = plan(pod_object("web"), PodRuntime())
    assert (made.create_sandbox, made.starts) == (0, ())


def test_a_dead_sandbox_is_replaced_by_the_next_attempt() -> None:
    made = plan(pod_object("web"), world(container("web"), sandboxes=(sandbox(SandboxState.NOTREADY),)))
    assert made.create_sandbox == 1
    assert [kill.container.name for kill in made.kills] == ["web"]


def test_all_main_containers_start_together_in_order() -> None:
    made = plan(pod_object("web", [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]), world())
    assert [(s.name, s.attempt) for s in made.starts] == [("a", 0), ("b", 0)]


def test_only_the_first_unfinished_init_container_starts() -> None:
    pod = pod_object("web", initContainers=[{"name": "one", "image": "i"}, {"name": "two", "image": "i"}])
    assert [s.name for s in plan(pod, world()).starts] == ["one"]
    assert [s.name for s in plan(pod, world(container("one", "EXITED"))).starts] == ["two"]
    assert plan(pod, world(container("one"))).starts == ()


def test_a_sidecar_must_have_started_before_the_next_step() -> None:
    side = {"name": "side", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}}}
    pod = pod_object("web", initContainers=[side])
    running = world(container("side", image="i"))
    assert plan(pod, running, verdicts=Verdicts(started={"side": False})).starts == ()
    assert [s.name for s in plan(pod, running, verdicts=Verdicts(started={"side": True})).starts] == ["web"]


def test_a_busy_container_is_left_alone() -> None:
    assert plan(pod_object("web"), world(), busy=frozenset({"web"})).starts == ()


def test_restart_policies_decide_by_exit_code() -> None:
    for policy, code, restarts in (
        ("Always", 0, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 1, False),
    ):
        pod = pod_object("web", restartPolicy=policy)
        made = plan(pod, world(container("web", "EXITED", exit_code=code, finished_at_s=990.0)))
        assert bool(made.starts) is restarts, (policy, code)
        assert made.stop_pod is not restarts


def test_back_off_is_told_and_ends_on_time() -> None:
    dead = world(container("web", "EXITED", 1, exit_code=1, finished_at_s=995.0))
    made = plan(pod_object("web"), dead, backoffs={"web": Backoff(10.0, 990.0)})
    assert made.waiting["web"] == (
        "CrashLoopBackOff",
        "back-off 10s restarting failed container=web pod=web_default(u1)",
    )
    assert made.wake_at_s == 1005.0
    assert [s.attempt for s in plan(pod_object("web"), dead, now_s=1005.0).starts] == [2]


def test_back_off_doubles_to_five_minutes_and_is_forgotten() -> None:
    entry = None
    waits = []
    for _ in range(7):
        entry = next_backoff(entry, 1000.0, 1000.0)
        waits.append(entry.wait_s)
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    assert next_backoff(entry, 1601.0, 1601.0).wait_s == 10
    assert backoff_until_s(entry, 1601.0) == 0.0
    assert [format_duration(s) for s in (10, 80, 300)] == ["10s", "1m20s", "5m0s"]


def test_a_changed_image_or_a_failed_probe_kills() -> None:
    running = container("web", annotations={"tiphys.dev/container-image": "nginx:1"})
    made = plan(pod_object("web"), world(running))
    assert made.kills[0].message == "Container web definition changed, will be restarted"
    made = plan(pod_object("web"), world(container("web")), verdicts=Verdicts(failed={"web-0": "liveness"}))
    assert made.kills[0].message == "Container web failed liveness probe, will be restarted"
    made = plan(
        pod_object("web", restartPolicy="Never"),
        world(container("web")),
        verdicts=Verdicts(failed={"web-0": "startup"}),
    )
    assert made.kills[0].message == "Container web failed startup probe"


def test_a_failed_init_container_of_a_pod_that_never_restarts_ends_it() -> None:
    pod = pod_object("web", initContainers=[{"name": "one", "image": "i"}], restartPolicy="Never")
    assert plan(pod, world(container("one", "EXITED", exit_code=1))).stop_pod


def test_stopping_takes_main_containers_then_sidecars_last_first() -> None:
    sides = [{"name": n, "image": "i", "restartPolicy": "Always"} for n in ("s1", "s2")]
    pod = bound(pod_object("web", initContainers=sides))
    everything = world(container("web"), container("s1"), container("s2"))
    assert [k.container.name for k in plan_stop(pod, everything).kills] == ["web"]
    assert plan_stop(pod, world(container("s1"), container("s2")), frozenset({"web"})).kills == ()
    assert [k.container.name for k in plan_stop(pod, world(container("s1"), container("s2"))).kills] == ["s2"]
    assert plan_stop(pod, world()).stop_pod


def test_rules_of_a_container_come_before_its_policy() -> None:
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    spec = {"name": "web", "image": "nginx", "restartPolicy": "Never", "restartPolicyRules": [rule]}
    pod = pod_object("web", [spec], restartPolicy="Never")
    for code, starts in ((42, ["web"]), (1, []), (0, [])):
        made = plan(pod, world(container("web", "EXITED", exit_code=code, finished_at_s=900.0)))
        assert [start.name for start in made.starts] == starts
        assert made.stop_pod is not bool(starts)


def test_unsafe_sysctls_are_refused() -> None:
    def refusal(name: str, **spec: Any) -> str:
        pod = pod_object("web", securityContext={"sysctls": [{"name": name, "value": "1"}]}, **spec)
        made = admit_pod(bound(pod), (), {}, {}, "node-1")
        return f"{made.reason}: {made.message}" if made else ""

    assert refusal("kernel.shm_rmid_forced") == refusal("net.ipv4.tcp_syncookies") == ""
    said = 'SysctlForbidden: Pod was rejected: forbidden sysctl: "{}" not {}'
    assert refusal("kernel.msgmax") == said.format("kernel.msgmax", "allowlisted")
    assert refusal("net.ipv4.tcp_syncookies", hostNetwork=True) == said.format(
        "net.ipv4.tcp_syncookies", "allowed with host net enabled"
    )
