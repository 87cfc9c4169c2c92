"""Fairness, piece by piece: which schema, how many seats, which queue, whose turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tiphys.api import fairnessobjects as objects
from tiphys.apiserver.fairness.levels import Level
from tiphys.apiserver.fairness.matching import find, order, parse_schema
from tiphys.apiserver.fairness.queues import deal, flow_hash
from tiphys.apiserver.fairness.shares import Limits, Need, Wish, nominal_limits, share_out
from tiphys.apiserver.fairness.upkeep import NOTHING, plan_dangling, plan_object
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import AUTHENTICATED, User
from tiphys.base.clock import LoopClock
from tiphys.base.virtualloop import run_virtual

SCHEMAS = order(parse_schema(obj) for obj in objects.SCHEMAS)
LEASE = RequestInfo(True, "update", "", "coordination.k8s.io", "v1", "kube-system", "leases", "l")
POD = RequestInfo(True, "get", "", "", "v1", "default", "pods", "p")
NODE_STATUS = RequestInfo(True, "patch", "", "", "v1", "", "nodes", "n", "status")
PROBE = RequestInfo(False, "get", "/readyz")
NODE = User("system:node:n", ("system:nodes", AUTHENTICATED))
ACCOUNTS = "system:serviceaccounts"


@pytest.mark.parametrize(
    ("user", "info", "schema", "flow"),
    [
        (User("root", ("system:masters",)), POD, "exempt", ""),
        (User("system:anonymous", ("system:unauthenticated",)), PROBE, "probes", ""),
        (User("system:kube-scheduler", (AUTHENTICATED,)), LEASE, "system-leader-election", "system:kube-scheduler"),
        (User("system:kube-scheduler", (AUTHENTICATED,)), POD, "kube-scheduler", "default"),
        (NODE, LEASE, "system-node-high", "system:node:n"),
        (NODE, NODE_STATUS, "system-node-high", "system:node:n"),
        (NODE, POD, "system-nodes", "system:node:n"),
        (User("system:serviceaccount:kube-system:a", (ACCOUNTS,)), POD, "kube-system-service-accounts", "default"),
        (User("system:serviceaccount:x:a", (ACCOUNTS,)), POD, "service-accounts", "system:serviceaccount:x:a"),
        (User("eve", (AUTHENTICATED,)), POD, "global-default", "eve"),
        (User("eve"), POD, "catch-all", "eve"),
    ],
)
def test_a_request_belongs_to_the_first_schema_that_matches(
    user: User, info: RequestInfo, schema: str, flow: str
) -> None:
    found = find(SCHEMAS, user, info)
    assert (found.name, found.distinguish(user, info)) == (schema, flow)


def test_cluster_scope_and_paths_are_matched_as_written() -> None:
    def schema(rule: dict[str, Any]) -> Any:
        subjects = [{"kind": "User", "user": {"name": "*"}}]
        return parse_schema({"metadata": {"name": "s"}, "spec": {"rules": [{"subjects": subjects, **rule}]}})

    everywhere = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}
    namespaced = schema({"resourceRules": [everywhere]})
    assert namespaced.matches(User("u"), POD)
    assert not namespaced.matches(User("u"), NODE_STATUS)
    paths = schema({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/a/*", "/b"]}]})
    told = {p: paths.matches(User("u"), RequestInfo(False, "get", p)) for p in ("/a", "/a/x", "/b", "/b/x")}
    assert told == {"/a": False, "/a/x": True, "/b": True, "/b/x": False}
    assert not paths.matches(User("u"), POD)


def test_seats_by_shares() -> None:
    wishes = {name: Wish(shares, lend) for name, shares, lend in (("exempt", 0, 0), ("a", 30, 33), ("b", 215, 90))}
    limits = nominal_limits(wishes, 600)
    assert limits["exempt"] == Limits(0, 0, 600)
    assert limits["a"] == Limits(74, 50, 674)
    assert nominal_limits({"a": Wish(1, 0, 50)}, 10)["a"] == Limits(10, 10, 15)


def test_seats_are_lent_to_who_needs_them_and_never_below_what_a_level_keeps() -> None:
    busy, idle = Limits(50, 50, 150), Limits(50, 10, 150)
    assert share_out([Need(busy, 200, 200), Need(idle, 0, 0)], 100) == [90, 10]
    assert share_out([Need(busy, 200, 200), Need(idle, 60, 60)], 100) == [50, 50]
    assert sum(share_out([Need(busy, 0, 0), Need(idle, 0, 0)], 100)) == 100
    assert share_out([Need(Limits(50, 50, 60), 200, 200), Need(idle, 0, 0)], 100) == [60, 40]


@pytest.mark.parametrize(("queues", "hand"), [(64, 6), (128, 6), (16, 4), (1, 1), (5000, 4)])
def test_a_hand_is_of_different_queues_and_always_the_same(queues: int, hand: int) -> None:
    seen: Counter[int] = Counter()
    for user in range(200):
        number = flow_hash("schema", f"user-{user}")
        dealt = deal(number, queues, hand)
        assert dealt == deal(number, queues, hand)
        assert len(set(dealt)) == hand
        assert all(0 <= card < queues for card in dealt)
        seen.update(dealt)
    assert len(seen) > min(queues, 200) * 0.9


def level(seats: int, queues: int = 0, hand: int = 1, length: int = 50) -> Level:
    made = Level("l", LoopClock())
    response: dict[str, Any] = {"type": "Reject"}
    if queues:
        response = {"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}
    made.configure({"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": response}}, "uid")
    made.limit = seats
    made.limits = Limits(seats, seats, seats)
    return made


SCHEMA = parse_schema({"metadata": {"name": "s"}, "spec": {}})


async def run_request(of: Level, user: str, order_of: list[str], took_s: float = 1.0, seats: int = 1) -> str:
    waited = await of.wait(SCHEMA, flow_hash("s", user), (user, user), POD, seats, 15.0)
    if waited is None:
        return "refused"
    order_of.append(user)
    try:
        await asyncio.sleep(took_s)
    finally:
        of.end(waited)
    return "done"


def test_a_flood_of_one_flow_does_not_starve_another() -> None:
    async def main() -> None:
        shared = level(1, queues=64, hand=4, length=50)
        turns: list[str] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(run_request(shared, "flood", turns, 0.01))
            await asyncio.sleep(0.001)
            for _ in range(5):
                group.create_task(run_request(shared, "calm", turns, 0.01))
        assert len(turns) == 45
        assert max(at for at, user in enumerate(turns) if user == "calm") < 30
        assert shared.is_idle()
        assert shared.executing == 0

    run_virtual(main())


def test_what_finds_no_place_is_refused_and_what_waits_too_long_too() -> None:
    async def main() -> None:
        strict, turns = level(1), []
        first = asyncio.create_task(run_request(strict, "a", turns))
        await asyncio.sleep(0)
        assert await run_request(strict, "b", turns) == "refused"
        assert await first == "done"
        short = level(1, queues=1, length=1)
        results = [asyncio.create_task(run_request(short, "a", turns, 60)) for _ in range(3)]
        await asyncio.sleep(0)
        assert [await task for task in results] == ["done", "refused", "refused"]
        assert SCHEMA.counts.rejected == {"concurrency-limit": 1, "queue-full": 1, "time-out": 1}
        assert short.is_idle()

    run_virtual(main())


def test_cancellation_leaves_no_seat_behind() -> None:
    async def main() -> None:
        of, turns = level(1, queues=8, hand=2), []
        tasks = [asyncio.create_task(run_request(of, f"u{n}", turns, 1)) for n in range(6)]
        await asyncio.sleep(0.5)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(turns) == 4
        assert of.is_idle()
        assert of.executing == 0
        assert (of.waiting_seats, SCHEMA.counts.queued) == (0, 0)

    run_virtual(main())


def test_one_request_may_be_larger_than_its_level_and_runs_alone() -> None:
    async def main() -> None:
        of, turns = level(2, queues=4, hand=1), []
        async with asyncio.TaskGroup() as group:
            group.create_task(run_request(of, "small", turns))
            await asyncio.sleep(0)
            group.create_task(run_request(of, "large", turns, seats=5))
        assert turns == ["small", "large"]

    run_virtual(main())


def test_new_queues_take_over_who_waits() -> None:
    async def main() -> None:
        of, turns = level(1, queues=4, hand=1), []
        tasks = [asyncio.create_task(run_request(of, "u", turns, 1)) for _ in range(3)]
        await asyncio.sleep(0.1)
        queuing = {"queues": 2, "handSize": 1, "queueLengthLimit": 5}
        limited = {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Queue", "queuing": queuing}}
        of.configure({"type": "Limited", "limited": limited}, "uid")
        assert [await task for task in tasks] == ["done"] * 3
        assert of.is_idle()

    run_virtual(main())


def stored(
    wanted: dict[str, Any], *, annotation: str | None = "true", generation: int = 1, **spec: Any
) -> dict[str, Any]:
    annotations = {objects.AUTOUPDATE: annotation} if annotation is not None else {}
    metadata = {"name": wanted["metadata"]["name"], "annotations": annotations, "generation": generation}
    return {**wanted, "metadata": metadata, "spec": {**wanted["spec"], **spec}}


def test_mandatory_objects_are_restored_and_suggested_ones_unless_somebody_said_no() -> None:
    schema = objects.SCHEMAS[-2]
    assert plan_object(schema, None).create == schema
    assert plan_object(schema, stored(schema)) == NOTHING
    changed = stored(schema, matchingPrecedence=5)
    assert plan_object(schema, changed).update is not None
    assert plan_object(schema, stored(schema, annotation="false", matchingPrecedence=5)) == NOTHING
    assert plan_object(schema, stored(schema, annotation=None, generation=2, matchingPrecedence=5)) == NOTHING
    assert plan_object(schema, stored(schema, annotation=None)).update is not None
    catch_all = objects.SCHEMAS[-1]
    assert plan_object(catch_all, stored(catch_all, annotation="false", matchingPrecedence=5)).update is not None
    assert plan_object(None, stored(schema)).delete
    assert plan_object(None, stored(schema, annotation="false")) == NOTHING
    exempt = objects.LEVELS[0]
    theirs = stored(exempt, exempt={"nominalConcurrencyShares": 7, "lendablePercent": 50})
    assert plan_object(exempt, theirs) == NOTHING


def test_a_schema_that_leads_nowhere_is_told() -> None:
    schema = objects.SCHEMAS[-2]
    told = plan_dangling(schema, set(), "t1")
    assert told is not None
    condition = told["status"]["conditions"][0]
    assert (condition["status"], condition["reason"]) == ("True", "NotFound")
    assert condition["message"].endswith('named "global-default" but there is no such object')
    assert plan_dangling(told, set(), "t2") is None
    found = plan_dangling(told, {"global-default"}, "t2")
    assert found is not None
    assert found["status"]["conditions"] == [
        {
            "type": "Dangling",
            "status": "False",
            "lastTransitionTime": "t2",
            "reason": "Found",
            "message": "This FlowSchema references the PriorityLevelConfiguration object named "
            '"global-default" and it exists',
        }
    ]
