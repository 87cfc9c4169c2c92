"""Status from literal runtimes: golden files in tests/golden/kubelet, and patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from kubelet_support import bound, pod_object

from tiphys.base.clock import parse_time
from tiphys.kubelet.plan import Verdicts, arrange
from tiphys.kubelet.status import StatusInput, pod_status, status_patch
from tiphys.runtime.interface import Container, ContainerState, Sandbox, SandboxState

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "kubelet"
NOW_S = parse_time("2026-01-01T00:01:00Z")


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((GOLDEN / name).read_text()))


def runtime_of(case: dict[str, Any]) -> Any:
    sandboxes = tuple(
        Sandbox(
            id=s["id"],
            name="web",
            namespace="default",
            uid="u1",
            attempt=s.get("attempt", 0),
            state=SandboxState[s.get("state", "READY")],
            created_at_s=0.0,
            addresses=tuple(s.get("addresses", ["10.244.0.5"])),
        )
        for s in case.get("sandboxes") or ()
    )
    containers = tuple(
        Container(
            **{
                "sandbox_id": "s0",
                "attempt": 0,
                "image": "docker.io/library/nginx:1",
                "image_id": "sha256:aa",
                **{k: v for k, v in c.items() if not k.endswith("_at") and k != "state"},
                "state": ContainerState[c["state"]],
                "started_at_s": parse_time(c["started_at"]) if "started_at" in c else 0.0,
                "finished_at_s": parse_time(c["finished_at"]) if "finished_at" in c else 0.0,
            }
        )
        for c in case.get("containers") or ()
    )
    return arrange(sandboxes, containers)


def given_of(case: dict[str, Any]) -> StatusInput:
    given = dict(case.get("given") or {})
    verdicts = given.pop("verdicts", {})
    waiting = {name: tuple(pair) for name, pair in given.pop("waiting", {}).items()}
    failed = given.pop("failed", None)
    return StatusInput(
        verdicts=Verdicts(**verdicts),
        waiting=waiting,
        host_addresses=("192.168.0.1",),
        failed=tuple(failed) if failed else None,
        **given,
    )


@pytest.mark.parametrize("path", sorted(p.name for p in GOLDEN.glob("status-*.yaml")))
def test_status_is_as_in_the_golden_file(path: str) -> None:
    case = load(path)
    made = pod_status(bound(case["pod"]), runtime_of(case), given_of(case), NOW_S)
    assert msgspec.to_builtins(made) == case["status"]


def test_a_patch_holds_only_what_changed_and_spares_conditions_of_others() -> None:
    case = load("status-running.yaml")
    pod = bound(case["pod"])
    old = {**case["status"], "conditions": [{"type": "Mine", "status": "True"}, *case["status"]["conditions"]]}
    assert status_patch(pod, old, case["status"]) is None
    changed = {**case["status"], "podIPs": [{"ip": "10.244.0.6"}]}
    changed["conditions"] = [{**c, "status": "False"} if c["type"] == "Ready" else c for c in changed["conditions"]]
    patch = status_patch(pod, old, changed)
    assert patch is not None and patch["metadata"] == {"uid": "u1"}
    assert [c["type"] for c in patch["status"]["conditions"]] == ["Ready"]
    assert patch["status"]["podIPs"] == [{"$patch": "delete", "ip": "10.244.0.5"}, {"ip": "10.244.0.6"}]
    assert set(patch["status"]) == {"conditions", "podIPs"}


def test_main_containers_of_a_pod_whose_init_failed_still_wait() -> None:
    spec = {"name": "i", "image": "x", "command": ["false"]}
    pod = pod_object("web", initContainers=[spec], restartPolicy="Never")
    ended = Container(
        "c", "s0", "i", 0, ContainerState.EXITED, "x", "sha256:1", exit_code=1, started_at_s=1.0, finished_at_s=2.0
    )
    made = pod_status(bound(pod), arrange((), (ended,)), StatusInput(ended=True), NOW_S)
    assert made["phase"] == "Failed"
    assert made["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
