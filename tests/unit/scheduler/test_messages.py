"""The messages of events and conditions, word for word (tests/golden/scheduler/messages.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from schedulerobjects import info, node, pod, state_of

from tiphys.base.clock import Randomness
from tiphys.scheduler.plan import plan_pod
from tiphys.scheduler.preemption import full_message, plan_preemption

CASES = yaml.safe_load((Path(__file__).parents[2] / "golden" / "scheduler" / "messages.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_message(case: dict[str, Any]) -> None:
    nodes = [node(name, **more) for name, more in case["nodes"].items()]
    state = state_of(nodes, [pod(name, **more) for name, more in case.get("pods", {}).items()])
    new = info("new", **case["pod"])
    plan = plan_pod(new, state, Randomness(1))
    assert plan.node is None
    preemption = plan_preemption(new, state, plan.candidates, [], "", Randomness(1))
    assert full_message(plan, preemption) == case["message"]
