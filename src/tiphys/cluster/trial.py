"""Puts one simulated cluster through one scenario: faults beside it, rest after it, then every check that there is.

A failure raises a `Violation` whose text tells the stories of the objects concerned; the same scenario, seed and faults
repeat it exactly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tiphys.client import resources
from tiphys.cluster import checks
from tiphys.cluster.faultplan import BAD_NETWORK, At, draw_plan, play
from tiphys.cluster.faults import Faults
from tiphys.cluster.history import History, Violation
from tiphys.cluster.scenarios import QUIET_S, SCENARIOS, Scenario
from tiphys.cluster.simulation import Plan, SimulatedCluster
from tiphys.cluster.witness import Witness
from tiphys.runtime.simulated import Profile

REST_S = 45.0
"""A cluster without a write for so long (but heartbeats) is at rest."""
LONGEST_UNREST_S = 1800.0
FAULTS_WITHIN_S = 12.0
SLOW = Profile(sandbox_start_s=0.3, container_create_s=0.1, container_start_s=0.3, container_stop_s=0.5, jitter=0.9)
"""Nodes that take their time, each step another one, so that faults find everything half done."""
WITNESSED = (resources.PODS, resources.DEPLOYMENTS, resources.JOBS)


async def run_scenario(
    name: str, seed: int, *, faults: int = 0, bad_network: bool = False, steps: Sequence[At] = ()
) -> History:
    """Run a scenario with `faults` drawn faults, return its history. Raises Violation."""
    scenario = SCENARIOS[name]
    lines = BAD_NETWORK if bad_network else Faults()
    plan = Plan(seed=seed, nodes=scenario.nodes, faults=lines, profile=SLOW if scenario.is_slow else Profile())
    async with SimulatedCluster(plan) as cluster:
        witnesses = [Witness(cluster.client, resource) for resource in WITNESSED]
        watching = [asyncio.create_task(witness.run(), name="witness") for witness in witnesses]
        drawn: Sequence[At] = ()
        if scenario.drawn_faults:
            drawn = draw_plan(cluster.chance, list(cluster.nodes), faults, FAULTS_WITHIN_S)
        try:
            await _run_with_faults(cluster, scenario, [*drawn, *steps])
            await finish(cluster, scenario.quiet_s if scenario.keeps_quiet else 0.0)
            for witness in witnesses:
                witness.check(cluster.history)
        except Violation as violation:
            told = violation.told(cluster.history)
            raise Violation(f"scenario {name}, seed {seed}: {told}") from violation
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        return cluster.history


async def _run_with_faults(cluster: SimulatedCluster, scenario: Scenario, steps: Sequence[At]) -> None:
    playing = asyncio.create_task(play(cluster, steps), name="faults")
    try:
        await scenario.run(cluster)
        await playing
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)


async def finish(cluster: SimulatedCluster, quiet_s: float = QUIET_S) -> None:
    """Heal everything, wait until the cluster is at rest, and check all promises; `quiet_s` 0 waits for no rest."""
    for name in cluster.components():
        link = cluster.link(name)
        link.faults = Faults()
        link.is_cut = False
        link.writes_left = None
    cluster.store.errors = 0.0
    if quiet_s:
        await rest(cluster)
    checks.check_always(cluster.history)
    if not quiet_s:
        return
    checks.check_at_rest(cluster)
    await checks.check_nodes(cluster)
    since_s = cluster.clock.monotonic_s()
    await asyncio.sleep(quiet_s)
    checks.check_quiet(cluster.history, since_s)
    if failures := cluster.failures():
        raise failures[0]


async def rest(cluster: SimulatedCluster) -> None:
    """Wait until nothing was written for a while."""
    history = cluster.history
    since_s = cluster.clock.monotonic_s()

    def rests() -> bool:
        loud = next((c.at_s for c in reversed(history.changes) if not c.is_heartbeat()), 0.0)
        return cluster.clock.monotonic_s() - max(since_s, loud) >= REST_S

    try:
        await cluster.until(rests, "the cluster comes to rest", within_s=LONGEST_UNREST_S, every_s=5.0)
    except Violation:
        checks.check_quiet(history, since_s + LONGEST_UNREST_S / 2)
        raise
