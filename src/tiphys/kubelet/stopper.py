"""Stop one container: preStop hook, stop signal, grace, kill.

Spec: Kubernetes docs, "Termination of Pods"; the hook's time counts against the grace period.
"""

from __future__ import annotations

import asyncio

from tiphys.api.views.pod import Container as ContainerSpec
from tiphys.base.errors import TiphysError
from tiphys.kubelet.context import NodeContext
from tiphys.kubelet.hook import run_hook
from tiphys.kubelet.plan import Kill
from tiphys.kubelet.pod import BoundPod, Specced, find_container, grace_period_s, pod_reference

SHORTEST_AFTER_HOOK_S = 2.0


async def stop_container(context: NodeContext, pod: BoundPod, kill: Kill, addresses: tuple[str, ...]) -> None:
    """Return when the container has stopped."""
    spec = find_container(pod, kill.container.name)
    context.recorder.record(pod_reference(pod, kill.container.name), "Normal", "Killing", kill.message)
    grace_s = float(_grace_s(pod, spec, kill.probe))
    hook = spec.lifecycle.pre_stop if isinstance(spec, ContainerSpec) and spec.lifecycle else None
    if spec is not None and hook is not None and grace_s > 0:
        began_s = context.clock.monotonic_s()
        try:
            async with asyncio.timeout(grace_s):
                await run_hook(context, hook, spec, kill.container.id, addresses[0] if addresses else "")
        except (TiphysError, OSError) as error:
            if not isinstance(error, TimeoutError):
                reference = pod_reference(pod, kill.container.name)
                context.recorder.record(reference, "Warning", "FailedPreStopHook", "PreStopHook failed")
        grace_s = max(SHORTEST_AFTER_HOOK_S, grace_s - (context.clock.monotonic_s() - began_s))
    await context.runtime.stop_container(kill.container.id, grace_s)


def _grace_s(pod: BoundPod, spec: Specced | None, probe: str) -> int:
    if probe and isinstance(spec, ContainerSpec) and not pod.metadata.deletion_timestamp:
        chosen = spec.liveness_probe if probe == "liveness" else spec.startup_probe
        if chosen is not None and chosen.termination_grace_period_seconds is not None:
            return chosen.termination_grace_period_seconds
    return grace_period_s(pod)
