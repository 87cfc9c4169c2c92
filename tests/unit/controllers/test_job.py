"""Jobs: completions, indexes, failures, deadlines, suspension, and exact counting over crashes."""

from __future__ import annotations

from typing import Any

import pytest
from fakecluster import FakeCluster, TickingClock
from hypothesis import given
from hypothesis import strategies as st
from running import quiet, run_until_quiet, running

from tiphys.client import resources
from tiphys.controllers.jobindex import format_indexes, parse_indexes


def job(**spec: Any) -> dict[str, Any]:
    labels = {"batch.kubernetes.io/controller-uid": "j", "batch.kubernetes.io/job-name": "work"}
    return {
        "metadata": {"name": "work", "namespace": "default", "uid": "j"},
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 6,
            "completionMode": "NonIndexed",
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "j"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"},
            },
            **spec,
        },
    }


def end_pods(cluster: FakeCluster, phase: str = "Succeeded", count: int = 1000, exit_code: int = 0) -> int:
    ended = 0
    for pod in cluster.list_now(resources.PODS):
        if ended < count and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            state = {"terminated": {"exitCode": exit_code}}
            status = {"phase": phase, "containerStatuses": [{"name": "c", "state": state}]}
            cluster.change(resources.PODS, f"default/{pod['metadata']['name']}", {"status": status}, "status")
            ended += 1
    return ended


def work(cluster: FakeCluster) -> dict[str, Any]:
    found = cluster.get_now(resources.JOBS, "default/work")
    assert found is not None
    return found


def told(cluster: FakeCluster) -> list[tuple[str, str, str]]:
    return [(c["type"], c["reason"], c["message"]) for c in work(cluster)["status"]["conditions"]]


async def test_a_job_runs_its_completions_and_tells_in_order() -> None:
    cluster = FakeCluster()
    cluster.put(resources.JOBS, job(completions=3, parallelism=2))
    async with running(cluster, "job"):
        await quiet(cluster)
        assert work(cluster)["status"]["active"] == 2
        assert len(cluster.list_now(resources.PODS)) == 2
        end_pods(cluster)
        await quiet(cluster)
        assert len(cluster.list_now(resources.PODS)) == 3
        end_pods(cluster)
        await quiet(cluster)
    message = "Reached expected number of succeeded pods"
    assert told(cluster) == [
        ("SuccessCriteriaMet", "CompletionsReached", message),
        ("Complete", "CompletionsReached", message),
    ]
    status = work(cluster)["status"]
    assert (status["succeeded"], status["ready"], status["terminating"]) == (3, 0, 0)
    assert status["uncountedTerminatedPods"] == {}
    assert "completionTime" in status
    assert "active" not in status
    assert all(not p["metadata"].get("finalizers") for p in cluster.list_now(resources.PODS))
    assert any(e["reason"] == "Completed" for e in cluster.list_now(resources.EVENTS))


@pytest.mark.parametrize("write", range(1, 16))
async def test_pods_are_counted_once_whatever_crashes(write: int) -> None:
    cluster = FakeCluster()
    cluster.put(resources.JOBS, job(completions=3, parallelism=3))
    cluster.crash_after = write
    for _ in range(6):
        while not await run_until_quiet(cluster, "job"):
            pass
        if not end_pods(cluster):
            break
    status = work(cluster)["status"]
    assert status["succeeded"] == 3
    assert len(cluster.list_now(resources.PODS)) == 3
    assert told(cluster)[-1][0] == "Complete"


async def test_indexed_pods_carry_their_index() -> None:
    cluster = FakeCluster()
    cluster.put(resources.JOBS, job(completions=4, parallelism=4, completionMode="Indexed"))
    async with running(cluster, "job"):
        await quiet(cluster)
        pods = cluster.list_now(resources.PODS)
        label = "batch.kubernetes.io/job-completion-index"
        assert sorted(p["metadata"]["annotations"][label] for p in pods) == ["0", "1", "2", "3"]
        assert sorted(p["metadata"]["labels"][label] for p in pods) == ["0", "1", "2", "3"]
        assert sorted(p["spec"]["hostname"] for p in pods) == [f"work-{n}" for n in range(4)]
        assert pods[0]["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
        end_pods(cluster)
        await quiet(cluster)
    assert work(cluster)["status"]["completedIndexes"] == "0-3"
    assert told(cluster)[-1][0] == "Complete"


async def test_failures_back_off_and_then_fail_the_job() -> None:
    clock = TickingClock()
    cluster = FakeCluster(clock)
    cluster.put(resources.JOBS, job(backoffLimit=1))
    assert await run_until_quiet(cluster, "job")
    async with running(cluster, "job"):
        end_pods(cluster, "Failed", exit_code=1)
        await quiet(cluster)
        assert len(cluster.list_now(resources.PODS)) == 1
        clock.current_s += 11
        cluster.change(resources.JOBS, "default/work", {"metadata": {"labels": {"poke": "1"}}})
        await quiet(cluster)
        assert len(cluster.list_now(resources.PODS)) == 2
        end_pods(cluster, "Failed", exit_code=1)
        await quiet(cluster)
    message = "Job has reached the specified backoff limit"
    assert told(cluster) == [
        ("FailureTarget", "BackoffLimitExceeded", message),
        ("Failed", "BackoffLimitExceeded", message),
    ]
    assert work(cluster)["status"]["failed"] == 2


async def test_a_failure_policy_ends_the_job_at_once() -> None:
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
    ]
    cluster = FakeCluster()
    cluster.put(
        resources.JOBS,
        job(podFailurePolicy={"rules": rules}, podReplacementPolicy="Failed", parallelism=2, completions=2),
    )
    async with running(cluster, "job"):
        await quiet(cluster)
        name = cluster.list_now(resources.PODS)[0]["metadata"]["name"]
        end_pods(cluster, "Failed", count=1, exit_code=42)
        await quiet(cluster)
        for pod in cluster.list_now(resources.PODS):
            if pod["metadata"].get("deletionTimestamp"):
                cluster.change(
                    resources.PODS, f"default/{pod['metadata']['name']}", {"status": {"phase": "Failed"}}, "status"
                )
        await quiet(cluster)
    message = f"Container c for pod default/{name} failed with exit code 42 matching FailJob rule at index 1"
    assert told(cluster)[-1] == ("Failed", "PodFailurePolicy", message)


async def test_suspension_deletes_pods_and_resuming_starts_anew() -> None:
    cluster = FakeCluster()
    cluster.put(resources.JOBS, job(suspend=True))
    async with running(cluster, "job"):
        await quiet(cluster)
        assert not cluster.list_now(resources.PODS)
        assert told(cluster) == [("Suspended", "JobSuspended", "Job suspended")]
        cluster.change(resources.JOBS, "default/work", {"spec": {"suspend": False}})
        await quiet(cluster)
        assert told(cluster) == [("Suspended", "JobResumed", "Job resumed")]
        assert len(cluster.list_now(resources.PODS)) == 1
        cluster.change(resources.JOBS, "default/work", {"spec": {"suspend": True}})
        await quiet(cluster)
        assert not cluster.list_now(resources.PODS)
        assert "startTime" not in work(cluster)["status"]


async def test_a_released_pod_loses_our_finalizer_and_an_adopted_one_gets_it() -> None:
    cluster = FakeCluster()
    cluster.put(resources.JOBS, job())
    async with running(cluster, "job"):
        await quiet(cluster)
        key = f"default/{cluster.list_now(resources.PODS)[0]['metadata']['name']}"
        cluster.change(resources.PODS, key, {"metadata": {"labels": {"batch.kubernetes.io/controller-uid": "x"}}})
        await quiet(cluster)
        released = cluster.get_now(resources.PODS, key)
        assert released is not None
        assert not released["metadata"].get("finalizers")
        assert not released["metadata"].get("ownerReferences")
        for pod in cluster.list_now(resources.PODS):
            if pod["metadata"].get("finalizers"):
                other = f"default/{pod['metadata']['name']}"
                cluster.change(resources.PODS, other, {"metadata": {"ownerReferences": None, "finalizers": None}})
        await quiet(cluster)
        adopted = [p for p in cluster.list_now(resources.PODS) if p["metadata"].get("ownerReferences")]
        assert adopted
        assert all(p["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"] for p in adopted)


async def test_a_deleted_job_frees_its_pods() -> None:
    cluster = FakeCluster()
    cluster.put(resources.JOBS, job(parallelism=3, completions=3))
    async with running(cluster, "job", "garbage-collector"):
        await quiet(cluster)
        cluster.remove(resources.JOBS, "default/work")
        await quiet(cluster)
    assert not cluster.list_now(resources.PODS)


@given(st.sets(st.integers(0, 60)))
def test_indexes_round_trip(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == indexes
