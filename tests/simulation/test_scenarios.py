"""Every scenario of the simulation with a few seeds, on a good and on a bad network, with faults beside it.

More seeds: `python -m tiphys.cluster.soak`. A failure prints the stories of the objects concerned and its seed.
"""

from __future__ import annotations

import pytest

from tiphys.base.virtualloop import run_virtual
from tiphys.cluster.scenarios import SCENARIOS
from tiphys.cluster.trial import run_scenario

LONG = ("large", "cron")
"""Run once, and first: what takes longest must not begin last."""


def test_a_day_of_cronjobs() -> None:
    run_virtual(run_scenario("cron", seed=1))


def test_a_hundred_nodes_and_a_thousand_pods() -> None:
    run_virtual(run_scenario("large", seed=1))


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in LONG])
def test_a_scenario_on_a_good_network(name: str) -> None:
    run_virtual(run_scenario(name, seed=1))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in (*LONG, "frozen")])
def test_a_scenario_with_faults(name: str, seed: int) -> None:
    run_virtual(run_scenario(name, seed, faults=16, bad_network=True))


# Seeds that failed once. What broke is fixed and has its own unit test; they stay because they cost little.


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("jobs", 4),  # a pod whose create had no answer counted twice
        ("garbage", 32),  # an object that lost its reference while it was judged was deleted
        ("rollout", 24),  # a delete that had no answer was followed by that of another pod
        ("rollout", 2),  # pods that were about to go counted as available
        ("namespace-end", 20),  # one lost answer ended a round of discovery
        ("namespace-end", 21),  # one lost answer ended a round of deletions
        ("node-loss", 33),  # a node that came back said so only with its next heartbeat
    ],
)
def test_a_seed_that_failed_once(name: str, seed: int) -> None:
    run_virtual(run_scenario(name, seed, faults=16, bad_network=True))
