"""What is built on a client, over both: the event recorder and leader election."""

from __future__ import annotations

import asyncio
import json

from mini_api import MiniApi, until

from tiphys.api.views.meta import ObjectReference
from tiphys.base.clock import ManualClock, Randomness, SystemClock
from tiphys.client.events import EventRecorder
from tiphys.client.interface import Client
from tiphys.client.leader import LeaderElection
from tiphys.client.resources import EVENTS, LEASES

# Events


async def test_repeated_events_count_and_an_object_has_only_its_share(client: Client, api: MiniApi) -> None:
    clock = ManualClock()
    recorder = EventRecorder(client, "tester", "node-1", clock, Randomness(1))
    task = asyncio.create_task(recorder.run())
    pod = ObjectReference(api_version="v1", kind="Pod", namespace="default", name="web", uid="u1")
    for _ in range(3):
        recorder.record(pod, "Warning", "BackOff", "Back-off restarting failed container")
        clock.current_s += 5
    await recorder.flush()
    [event] = [json.loads(item) for item in (await client.list(EVENTS, "default")).items]
    assert (event["count"], event["reason"], event["type"]) == (3, "BackOff", "Warning")
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web", "uid": "u1"
    }  # fmt: skip
    assert event["firstTimestamp"] < event["lastTimestamp"]
    assert event["source"] == {"component": "tester", "host": "node-1"}
    for _ in range(40):
        recorder.record(pod, "Normal", "Pulled", "again")
    await recorder.flush()
    assert recorder.dropped == 18
    # One that expired at the server begins anew.
    api.objects["events"].clear()
    clock.current_s += 3000
    recorder.record(pod, "Warning", "BackOff", "Back-off restarting failed container")
    await recorder.flush()
    assert len(api.objects["events"]) == 1
    task.cancel()


async def test_many_alike_events_are_combined(client: Client, api: MiniApi) -> None:
    recorder = EventRecorder(client, "tester", "", ManualClock(), Randomness(1))
    task = asyncio.create_task(recorder.run())
    node = ObjectReference(kind="Node", name="n1", uid="n1")
    for number in range(15):
        recorder.record(node, "Normal", "Seen", f"message {number}")
    await recorder.flush()
    events = [json.loads(item) for item in (await client.list(EVENTS, "default")).items]
    assert len(events) == 10
    [combined] = [event for event in events if event["message"].startswith("(combined from similar events): ")]
    assert combined["count"] == 6
    task.cancel()


# Leader election


async def test_one_of_two_leads_and_the_other_follows_when_it_stops(client: Client, api: MiniApi) -> None:
    leading: list[str] = []

    async def lead(name: str) -> None:
        leading.append(name)
        await asyncio.get_running_loop().create_future()

    def election(name: str) -> LeaderElection:
        return LeaderElection(
            client, "kube-system", "test", name, SystemClock(), Randomness(1),
            duration_s=1.0, renew_deadline_s=0.6, retry_s=0.02,
        )  # fmt: skip

    first = asyncio.create_task(election("a").run(lambda: lead("a")))
    await until(lambda: leading == ["a"])
    second = asyncio.create_task(election("b").run(lambda: lead("b")))
    await asyncio.sleep(0.1)
    assert leading == ["a"]
    first.cancel()
    await asyncio.wait([first])
    await until(lambda: leading == ["a", "b"])
    lease = json.loads(await client.get(LEASES, "kube-system", "test"))
    assert lease["spec"]["holderIdentity"] == "b"
    assert lease["spec"]["leaseTransitions"] == 1
    second.cancel()
    await asyncio.wait([second])


async def test_a_leader_that_cannot_renew_stops_leading(client: Client, api: MiniApi) -> None:
    stopped = asyncio.Event()
    started = asyncio.Event()

    async def lead() -> None:
        started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()

    election = LeaderElection(
        client, "kube-system", "test", "a", SystemClock(), Randomness(1),
        duration_s=0.5, renew_deadline_s=0.2, retry_s=0.02,
    )  # fmt: skip
    task = asyncio.create_task(election.run(lead))
    await asyncio.wait_for(started.wait(), 5)
    api.down = True
    await asyncio.wait_for(stopped.wait(), 5)
    await asyncio.wait([task])
    assert task.exception() is not None
