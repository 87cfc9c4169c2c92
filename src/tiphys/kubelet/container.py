"""What a container is made from: command, environment, mounts, resources, security. Pure.

Spec: Kubernetes docs, "Define a Command and Arguments for a Container"; CRI ContainerConfig.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tiphys.api.views.pod import Container as ContainerSpec
from tiphys.kubelet.environment import expand
from tiphys.kubelet.plan import IMAGE_ANNOTATION
from tiphys.kubelet.pod import BoundPod, Specced, grace_period_s
from tiphys.kubelet.podfiles import ContainerFiles
from tiphys.kubelet.resize import RESOURCES_ANNOTATION
from tiphys.kubelet.resources import container_resources, requirements
from tiphys.kubelet.sandbox import pod_labels
from tiphys.kubelet.security import merge_security
from tiphys.runtime.interface import ContainerConfig, Image


def stop_signal(container: Specced) -> str:
    """Return the signal that the spec names, "" for the image's."""
    return container.lifecycle.stop_signal if isinstance(container, ContainerSpec) and container.lifecycle else ""


def container_config(
    pod: BoundPod,
    container: Specced,
    attempt: int,
    *,
    image: Image,
    envs: Mapping[str, str],
    files: ContainerFiles,
    machine_memory_bytes: int,
) -> ContainerConfig:
    """Return the record that the runtime makes the container from. Raises SecurityRefused."""
    return ContainerConfig(
        name=container.name,
        image=container.image,
        attempt=attempt,
        command=tuple(expand(word, envs) for word in container.command),
        args=tuple(expand(word, envs) for word in container.args),
        working_dir=container.working_dir,
        envs=tuple(envs.items()),
        mounts=files.mounts,
        labels={**pod_labels(pod), "io.kubernetes.container.name": container.name},
        annotations={
            IMAGE_ANNOTATION: container.image,
            "io.kubernetes.container.restartCount": str(attempt),
            "io.kubernetes.container.terminationMessagePath": container.termination_message_path,
            "io.kubernetes.container.terminationMessagePolicy": container.termination_message_policy,
            "io.kubernetes.pod.terminationGracePeriod": str(grace_period_s(pod)),
            RESOURCES_ANNOTATION: msgspec.json.encode(requirements(container)).decode(),
            **(files.annotations or {}),
        },
        log_path=files.log_path,
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdin_once),
        tty=bool(container.tty),
        stop_signal=stop_signal(container),
        resources=container_resources(pod, container, machine_memory_bytes),
        security=merge_security(pod, container, image),
    )
