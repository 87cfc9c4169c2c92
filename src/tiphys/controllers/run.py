"""Runs every controller of the cluster in one task group.

In: `Deps`. Each resource is watched once, whoever reads it. A controller starts working when the resources that it reads
have their first list, so the quick ones (ServiceAccounts) wait for nobody. Cancellation stops the workers in the middle
of their keys: every write order allows that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from tiphys.client.queue import run_workers
from tiphys.controllers.certificate import certificate_controller
from tiphys.controllers.claimprotection import claim_protection_controller
from tiphys.controllers.clusterrole import clusterrole_controller
from tiphys.controllers.cronjob import cronjob_controller
from tiphys.controllers.daemonset import daemonset_controller
from tiphys.controllers.deployment import deployment_controller
from tiphys.controllers.disruption import disruption_controller
from tiphys.controllers.endpointslice import endpoints_controller, endpointslice_controller
from tiphys.controllers.endpointsmirror import endpoints_mirror_controller
from tiphys.controllers.eviction import taint_eviction_controller
from tiphys.controllers.garbage import garbage_controller
from tiphys.controllers.job import job_controller, job_expiry_controller
from tiphys.controllers.mirror import wait_synced
from tiphys.controllers.namespace import namespace_controller
from tiphys.controllers.nodehealth import node_lifecycle_controller
from tiphys.controllers.podgarbage import pod_garbage_controller
from tiphys.controllers.podrange import pod_range_controller
from tiphys.controllers.quota import quota_controller
from tiphys.controllers.replicaset import replicaset_controller, replicationcontroller_controller
from tiphys.controllers.serviceaccount import rootca_controller, serviceaccount_controller
from tiphys.controllers.servicecidr import service_cidr_controller
from tiphys.controllers.shared import Controller, Deps, Shared
from tiphys.controllers.statefulset import statefulset_controller
from tiphys.controllers.storageversionmigration import storage_version_migration_controller
from tiphys.controllers.tokensecret import token_secret_controller

CONTROLLERS: Mapping[str, Callable[[Shared], Controller]] = {
    "serviceaccount": serviceaccount_controller,
    "root-ca-publisher": rootca_controller,
    "namespace": namespace_controller,
    "replicaset": replicaset_controller,
    "replicationcontroller": replicationcontroller_controller,
    "deployment": deployment_controller,
    "endpointslice": endpointslice_controller,
    "endpoints": endpoints_controller,
    "endpointslicemirroring": endpoints_mirror_controller,
    "garbage-collector": garbage_controller,
    "node-lifecycle": node_lifecycle_controller,
    "node-ipam": pod_range_controller,
    "taint-eviction": taint_eviction_controller,
    "pod-garbage": pod_garbage_controller,
    "daemonset": daemonset_controller,
    "statefulset": statefulset_controller,
    "job": job_controller,
    "cronjob": cronjob_controller,
    "disruption": disruption_controller,
    "resourcequota": quota_controller,
    "pvc-protection": claim_protection_controller,
    "clusterrole-aggregation": clusterrole_controller,
    "ttl-after-finished": job_expiry_controller,
    "serviceaccount-token": token_secret_controller,
    "service-cidr": service_cidr_controller,
    "certificate-signing": certificate_controller,
    "storage-version-migrator": storage_version_migration_controller,
}
SERVED_FROM = {"service-cidr": (1, 33), "storage-version-migrator": (1, 37)}
"""Controllers of kinds that older versions do not serve."""


async def run_controllers(deps: Deps, controllers: Mapping[str, Callable[[Shared], Controller]] = CONTROLLERS) -> None:
    """Run the controllers until cancelled."""
    shared = Shared(deps)
    needs: Mapping[str, str | bytes] = {
        "root-ca-publisher": deps.cluster_ca,
        "node-ipam": deps.pod_cidr,
        "serviceaccount-token": deps.signing_key_pem,
        "certificate-signing": deps.cluster_ca_key_pem,
    }
    idle = {name for name, needed in needs.items() if not needed}
    idle |= {name for name, version in SERVED_FROM.items() if deps.kubernetes_version < version}
    made = [make(shared) for name, make in controllers.items() if name not in idle]
    async with asyncio.TaskGroup() as group:
        for mirror in shared.mirrors.values():
            group.create_task(mirror.reflector.run(), name=f"watch-{mirror.resource.plural}")
        for component, recorder in shared.recorders.items():
            group.create_task(recorder.run(), name=f"events-{component}")
        for controller in made:
            group.create_task(_run_controller(controller), name=controller.name)


async def _run_controller(controller: Controller) -> None:
    await wait_synced(controller.mirrors)
    async with asyncio.TaskGroup() as group:
        for number, task in enumerate(controller.tasks):
            group.create_task(task(), name=f"{controller.name}-task-{number}")
        group.create_task(
            run_workers(controller.queue, controller.reconcile, workers=controller.workers, name=controller.name),
            name=f"{controller.name}-workers",
        )


__all__ = ["CONTROLLERS", "Deps", "run_controllers"]
