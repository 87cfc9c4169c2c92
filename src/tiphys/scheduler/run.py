"""Runs the scheduler: watches, then the loop of decisions.

This file imports no numpy, which takes 0.1-0.2 s and 15 MiB: it is loaded in a thread as soon as there is a node or a pod,
so that it delays neither the process nor its neighbours (docs/decisions/scheduler.md). Cancellation stops at once: bindings that were sent are done or not, and the next start sees
which.
"""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass, field
from typing import Any

from tiphys.api.views.config import Namespace
from tiphys.api.views.node import Node
from tiphys.api.views.service import Service
from tiphys.base.clock import Clock, Randomness
from tiphys.client import resources
from tiphys.client.events import EventRecorder
from tiphys.client.interface import Client, Resource
from tiphys.client.reflector import Reflector
from tiphys.scheduler import views

COMPONENT = "default-scheduler"


@dataclass(frozen=True, slots=True)
class SchedulerDeps:
    """What the scheduler needs from outside."""

    client: Client
    clock: Clock
    randomness: Randomness
    scheduler_name: str = "default-scheduler"
    """Only pods that name this scheduler are looked at."""


@dataclass(slots=True)
class Watched:
    """A copy of everything that decisions depend on."""

    pods: Reflector[views.Pod]
    nodes: Reflector[Node]
    namespaces: Reflector[Namespace]
    claims: Reflector[views.PersistentVolumeClaim]
    volumes: Reflector[views.PersistentVolume]
    classes: Reflector[views.StorageClass]
    services: Reflector[Service]
    controllers: Reflector[views.PlainWorkload]
    replicasets: Reflector[views.Workload]
    statefulsets: Reflector[views.Workload]
    budgets: Reflector[views.PodDisruptionBudget]
    all: list[Reflector[Any]] = field(default_factory=list)


def watch_all(client: Client, randomness: Randomness) -> Watched:
    """Return the reflectors, not yet running."""
    made: list[Reflector[Any]] = []

    def reflector(resource: Resource, view: type[Any]) -> Reflector[Any]:
        made.append(Reflector(client, resource, view, randomness=randomness))
        return made[-1]

    return Watched(
        pods=reflector(resources.PODS, views.Pod),
        nodes=reflector(resources.NODES, Node),
        namespaces=reflector(resources.NAMESPACES, Namespace),
        claims=reflector(resources.PERSISTENTVOLUMECLAIMS, views.PersistentVolumeClaim),
        volumes=reflector(resources.PERSISTENTVOLUMES, views.PersistentVolume),
        classes=reflector(resources.STORAGECLASSES, views.StorageClass),
        services=reflector(resources.SERVICES, Service),
        controllers=reflector(resources.REPLICATIONCONTROLLERS, views.PlainWorkload),
        replicasets=reflector(resources.REPLICASETS, views.Workload),
        statefulsets=reflector(resources.STATEFULSETS, views.Workload),
        budgets=reflector(resources.PODDISRUPTIONBUDGETS, views.PodDisruptionBudget),
        all=made,
    )


async def _anything(watched: Watched) -> None:
    """Wait until there is a node or a pod."""
    there = asyncio.Event()

    def note(old: object, new: object) -> None:
        there.set()

    watched.nodes.on_change(note)
    watched.pods.on_change(note)
    await there.wait()


async def run_scheduler(deps: SchedulerDeps) -> None:
    """Place pods until cancelled."""
    watched = watch_all(deps.client, deps.randomness)
    recorder = EventRecorder(deps.client, COMPONENT, "", deps.clock, deps.randomness)
    async with asyncio.TaskGroup() as group:
        for reflector in watched.all:
            group.create_task(reflector.run(), name=f"scheduler-watch-{reflector.resource.plural}")
        group.create_task(recorder.run(), name="scheduler-events")
        await _anything(watched)
        module = await asyncio.to_thread(importlib.import_module, "tiphys.scheduler.loop")
        for reflector in watched.all:
            await reflector.synced()
        await module.Scheduler(deps, watched, recorder).run()
