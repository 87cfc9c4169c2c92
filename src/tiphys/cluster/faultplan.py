"""Faults over time, as small records, and how they are played.

A plan is a list of `At(after_s, fault)`; `play` returns when the last fault has ended. `draw_plan` draws one from a
seed. Every fault ends by itself, so after a plan the cluster must come to rest with everything as it should be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tiphys.base.clock import Randomness
from tiphys.cluster.faults import Faults
from tiphys.cluster.simulation import CONTROLLERS, SCHEDULER, SimulatedCluster

BAD_NETWORK = Faults(lost_requests=0.05, lost_answers=0.05, longest_delay_s=0.05, broken_watches=0.02)


@dataclass(frozen=True, slots=True)
class Crash:
    """A component is killed and comes back."""

    component: str
    down_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CrashAfterWrites:
    """A component is killed right after its n-th write from now."""

    component: str
    writes: int
    down_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RestartServer:
    """The API server is killed and comes back on the same store."""

    down_s: float = 0.5


@dataclass(frozen=True, slots=True)
class StoreErrors:
    """Commits fail; a share of 1 is a full disk."""

    share: float = 1.0
    for_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Compact:
    """The store forgets its history."""


@dataclass(frozen=True, slots=True)
class Network:
    """A component's line becomes bad."""

    component: str
    faults: Faults = BAD_NETWORK
    for_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Cut:
    """A component is cut off."""

    component: str
    for_s: float


@dataclass(frozen=True, slots=True)
class Stall:
    """A component reads its watches late."""

    component: str
    for_s: float


@dataclass(frozen=True, slots=True)
class LoseNode:
    """A machine loses power and comes back empty."""

    node: str
    for_s: float


@dataclass(frozen=True, slots=True)
class Drift:
    """A node's clock goes wrong."""

    node: str
    offset_s: float


Fault = Crash | CrashAfterWrites | RestartServer | StoreErrors | Compact | Network | Cut | Stall | LoseNode | Drift


@dataclass(frozen=True, slots=True)
class At:
    """A fault and when it begins, in seconds after `play`."""

    after_s: float
    fault: Fault


async def play(cluster: SimulatedCluster, plan: Sequence[At]) -> None:
    """Let the faults happen; return when all have ended."""
    async with asyncio.TaskGroup() as group:
        for step in plan:
            group.create_task(_play_later(cluster, step), name=f"fault {step.fault}")


async def _play_later(cluster: SimulatedCluster, step: At) -> None:
    await asyncio.sleep(step.after_s)
    await play_fault(cluster, step.fault)


async def play_fault(cluster: SimulatedCluster, fault: Fault) -> None:
    """Let one fault happen; return when it has ended."""
    match fault:
        case Crash(component, down_s):
            await cluster.crash(component, down_s)
        case CrashAfterWrites(component, writes, down_s):
            cluster.crash_after_writes(component, writes, down_s)
        case RestartServer(down_s):
            await cluster.restart_server(down_s)
        case StoreErrors(share, for_s):
            await cluster.fail_store(share, for_s)
        case Compact():
            await cluster.compact()
        case Network(component, faults, for_s):
            await cluster.change_network(component, faults, for_s)
        case Cut(component, for_s):
            await cluster.cut(component, for_s)
        case Stall(component, for_s):
            await cluster.stall(component, for_s)
        case LoseNode(node, for_s):
            await cluster.lose_node(node, for_s)
        case Drift(node, offset_s):
            cluster.drift(node, offset_s)


def draw_plan(chance: Randomness, nodes: Sequence[str], count: int, within_s: float) -> list[At]:
    """Draw faults that harm nobody for longer than a node may be silent: no pod has a reason to be evicted."""
    anyone = [CONTROLLERS, SCHEDULER, *nodes]

    def one(names: Sequence[str]) -> str:
        return names[chance.integer(0, len(names) - 1)]

    kinds: list[Callable[[], Fault]] = [
        lambda: Crash(one(anyone), chance.uniform(0.0, 2.0)),
        lambda: CrashAfterWrites(CONTROLLERS, chance.integer(1, 12)),
        lambda: CrashAfterWrites(one(anyone), chance.integer(1, 6)),
        lambda: RestartServer(chance.uniform(0.0, 3.0)),
        lambda: StoreErrors(1.0, chance.uniform(0.1, 3.0)),
        lambda: StoreErrors(0.3, chance.uniform(0.1, 5.0)),
        Compact,
        lambda: Network(one(anyone), BAD_NETWORK, chance.uniform(1.0, 10.0)),
        lambda: Cut(one(anyone), chance.uniform(0.5, 8.0)),
        lambda: Stall(one(anyone), chance.uniform(0.5, 5.0)),
        lambda: Drift(one(nodes), chance.uniform(-5.0, 5.0)),
    ]
    return [At(chance.uniform(0.0, within_s), kinds[chance.integer(0, len(kinds) - 1)]()) for _ in range(count)]
