"""Merge the pod's and the container's security context, and refuse what contradicts the image.

Invariant: the container's own setting wins over the pod's. Spec: Kubernetes docs, "Configure a Security Context".
"""

from __future__ import annotations

from tiphys.api.views.pod import Capabilities, PodSecurityContext, SecurityContext
from tiphys.base.errors import TiphysError
from tiphys.kubelet.pod import BoundPod, Specced, full_name
from tiphys.runtime import interface as cri


class SecurityRefused(TiphysError):
    """The container may not run as it is: the waiting reason is CreateContainerConfigError."""


def merge_security(pod: BoundPod, container: Specced, image: cri.Image | None) -> cri.SecurityContext:
    """Return the effective settings. Raises SecurityRefused when runAsNonRoot cannot be held."""
    of_pod = pod.spec.security_context or PodSecurityContext()
    own = container.security_context or SecurityContext()
    user = own.run_as_user if own.run_as_user is not None else of_pod.run_as_user
    group = own.run_as_group if own.run_as_group is not None else of_pod.run_as_group
    non_root = own.run_as_non_root if own.run_as_non_root is not None else of_pod.run_as_non_root
    if non_root:
        _check_non_root(pod, container, user, image)
    capabilities = own.capabilities or Capabilities()
    privileged = bool(own.privileged)
    groups = list(of_pod.supplemental_groups)
    if of_pod.fs_group is not None and of_pod.fs_group not in groups:
        groups.append(of_pod.fs_group)
    return cri.SecurityContext(
        privileged=privileged,
        run_as_user=user,
        run_as_group=group,
        supplemental_groups=tuple(groups),
        has_strict_groups=of_pod.supplemental_groups_policy == "Strict",
        readonly_rootfs=bool(own.read_only_root_filesystem),
        allow_privilege_escalation=own.allow_privilege_escalation is not False,
        add_capabilities=capabilities.add,
        drop_capabilities=capabilities.drop,
        masked_paths=() if own.proc_mount == "Unmasked" or privileged else None,
        seccomp_profile="" if privileged else _seccomp(of_pod, own),
        host_network=bool(pod.spec.host_network),
        pid_mode=_pid_mode(pod),
        host_ipc=bool(pod.spec.host_ipc),
    )


def _pid_mode(pod: BoundPod) -> cri.NamespaceMode:
    if pod.spec.host_pid:
        return "NODE"
    return "POD" if pod.spec.share_process_namespace else "CONTAINER"


def _seccomp(of_pod: PodSecurityContext, own: SecurityContext) -> str:
    profile = own.seccomp_profile or of_pod.seccomp_profile
    if profile is None:
        return ""
    return f"Localhost/{profile.localhost_profile}" if profile.type == "Localhost" else profile.type


def _check_non_root(pod: BoundPod, container: Specced, user: int | None, image: cri.Image | None) -> None:
    where = f'(pod: "{full_name(pod)}", container: {container.name})'
    if user is not None:
        if user == 0:
            raise SecurityRefused(f"container's runAsUser breaks non-root policy {where}")
        return
    image_user = (image.user if image else "").split(":", 1)[0]
    if not image_user or image_user == "0" or (image_user.isdigit() and int(image_user) == 0):
        raise SecurityRefused(f"container has runAsNonRoot and image will run as root {where}")
    if not image_user.isdigit():
        raise SecurityRefused(
            f"container has runAsNonRoot and image has non-numeric user ({image_user}), "
            f"cannot verify user is non-root {where}"
        )
