"""Start one container: image, environment, files, create, start, postStart hook.

Each step that fails raises StartFailed with the waiting reason that users see; nothing half-made is left but a created
container, which the worker's garbage collection takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from tiphys.api.views.config import ConfigMap, Secret
from tiphys.api.views.pod import Container as ContainerSpec
from tiphys.base.errors import ApiError, TiphysError
from tiphys.client.events import EventKind
from tiphys.client.resources import CONFIGMAPS, SECRETS
from tiphys.kubelet.container import container_config
from tiphys.kubelet.context import NodeContext
from tiphys.kubelet.environment import EnvironmentFailed, Sources, environment, references
from tiphys.kubelet.hook import HookFailed, run_hook
from tiphys.kubelet.images import ImageFailed
from tiphys.kubelet.pod import BoundPod, Specced, pod_reference
from tiphys.kubelet.podfiles import VolumeFailed
from tiphys.kubelet.security import SecurityRefused
from tiphys.runtime.interface import ContainerState, Image, RuntimeFailed, Sandbox


class StartFailed(TiphysError):
    """The container does not run. `retry_at_s` None: the worker chooses."""

    def __init__(self, reason: str, message: str, retry_at_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_at_s = retry_at_s


class ContainerStarter:
    """Starts containers of one node's pods."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context

    async def start(
        self, pod: BoundPod, container: Specced, attempt: int, sandbox: Sandbox, addresses: tuple[str, ...]
    ) -> str:
        """Return the container's id. Raises StartFailed."""
        context = self._context
        try:
            secrets = await self._pull_secrets(pod)
            image = await context.images.ensure(pod, container, secrets)
            await self._volume_images(pod, container, secrets)
        except ImageFailed as error:
            self._event(pod, container, "Warning", "Failed", f"Error: {error.reason}")
            raise StartFailed(error.reason, str(error), error.retry_at_s) from error
        container_id = await self._create(pod, container, attempt, sandbox, addresses, image)
        self._event(pod, container, "Normal", "Created", "Container created")
        try:
            await context.runtime.start_container(container_id)
        except (RuntimeFailed, OSError) as error:
            self._event(pod, container, "Warning", "Failed", f"Error: {error}")
            raise StartFailed("RunContainerError", str(error), 0.0) from error
        self._event(pod, container, "Normal", "Started", "Container started")
        await self._post_start(pod, container, container_id, addresses)
        return container_id

    async def _volume_images(self, pod: BoundPod, container: Specced, secrets: Sequence[Secret]) -> None:
        """Have the images that the container mounts as volumes. Raises ImageFailed."""
        sources = {v.name: v.image for v in pod.spec.volumes if v.image is not None}
        for mount in container.volume_mounts:
            source = sources.get(mount.name)
            if source is not None:
                wanted = msgspec.structs.replace(
                    container, image=source.reference, image_pull_policy=source.pull_policy
                )
                await self._context.images.ensure(pod, wanted, secrets)

    async def _create(
        self,
        pod: BoundPod,
        container: Specced,
        attempt: int,
        sandbox: Sandbox,
        addresses: tuple[str, ...],
        image: Image,
    ) -> str:
        context = self._context
        try:
            envs = await self._environment(pod, container, addresses)
            files = await context.files.container_files(pod, container, attempt, envs, addresses)
            config = container_config(
                pod,
                container,
                attempt,
                image=image,
                envs=envs,
                files=files,
                machine_memory_bytes=context.machine_memory_bytes,
            )
            target = getattr(container, "target_container_name", "")
            if target:
                config = replace(
                    config, security=replace(config.security, target_id=await self._id_of(target, sandbox))
                )
        except (EnvironmentFailed, SecurityRefused, VolumeFailed, ApiError, OSError) as error:
            self._event(pod, container, "Warning", "Failed", f"Error: {error}")
            raise StartFailed("CreateContainerConfigError", str(error)) from error
        try:
            return await context.runtime.create_container(sandbox.id, config)
        except (RuntimeFailed, OSError) as error:
            self._event(pod, container, "Warning", "Failed", f"Error: {error}")
            raise StartFailed("CreateContainerError", str(error)) from error

    async def _id_of(self, name: str, sandbox: Sandbox) -> str:
        """Return the id of a running container of the pod, "" when it does not run: then no processes are shared."""
        containers = await self._context.runtime.list_containers(sandbox.id)
        running = [c for c in containers if c.name == name and c.state is ContainerState.RUNNING]
        return max(running, key=lambda c: c.attempt).id if running else ""

    async def _environment(self, pod: BoundPod, container: Specced, addresses: tuple[str, ...]) -> dict[str, str]:
        context = self._context
        namespace = pod.metadata.namespace
        config_map_names, secret_names = references(container)
        await context.services.synced()
        services = context.services.list(namespace)
        kubernetes = context.services.get("default/kubernetes")
        sources = Sources(
            {n: await context.objects.read(CONFIGMAPS, namespace, n, ConfigMap) for n in sorted(config_map_names)},
            {n: await context.objects.read(SECRETS, namespace, n, Secret) for n in sorted(secret_names)},
            [*services, kubernetes] if kubernetes and namespace != "default" else services,
            context.around(addresses),
        )
        made = environment(pod, container, sources)
        for warning in made.warnings:
            self._event(pod, container, "Warning", "InvalidEnvironmentVariableNames", warning)
        return dict(made.variables)

    async def _pull_secrets(self, pod: BoundPod) -> list[Secret]:
        found = []
        missing = []
        for reference in pod.spec.image_pull_secrets:
            try:
                secret = await self._context.objects.read(SECRETS, pod.metadata.namespace, reference.name, Secret)
            except (ApiError, OSError):
                secret = None
            if secret is None:
                missing.append(reference.name)
            else:
                found.append(secret)
        if missing:
            self._context.recorder.record(
                pod_reference(pod), "Warning", "FailedToRetrieveImagePullSecret",
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                "attempting to pull the image may not succeed.",
            )  # fmt: skip
        return found

    async def _post_start(self, pod: BoundPod, container: Specced, container_id: str, addresses: Sequence[str]) -> None:
        hook = container.lifecycle.post_start if isinstance(container, ContainerSpec) and container.lifecycle else None
        if hook is None:
            return
        try:
            await run_hook(self._context, hook, container, container_id, addresses[0] if addresses else "")
        except (HookFailed, RuntimeFailed, OSError) as error:
            self._event(pod, container, "Warning", "FailedPostStartHook", "PostStartHook failed")
            self._event(pod, container, "Normal", "Killing", "FailedPostStartHook")
            await self._context.runtime.stop_container(
                container_id, float(pod.spec.termination_grace_period_seconds or 30)
            )
            raise StartFailed("PostStartHookError", "PostStartHook failed", 0.0) from error

    def _event(self, pod: BoundPod, container: Specced, kind: EventKind, reason: str, message: str) -> None:
        self._context.recorder.record(pod_reference(pod, container.name), kind, reason, message)
