"""What a pod has on a real node's disk: volumes, hosts file, termination logs, log directory.

Layout below the root: `pods/<uid>/volumes/<volume>`, `pods/<uid>/etc-hosts`, `pods/<uid>/containers/<name>/<attempt>`,
`logs/<namespace>_<name>_<uid>/<container>/<attempt>.log`. Invariants: all calls are idempotent; a path that a pod gave
never leads out of its volume; `unmount` leaves nothing of the pod but its logs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from tiphys.api.views.config import ConfigMap, Secret
from tiphys.api.views.pod import Volume, VolumeMount
from tiphys.base.clock import Clock, parse_time
from tiphys.base.errors import ApiError
from tiphys.client.interface import Client
from tiphys.client.resources import CLUSTERTRUSTBUNDLES, CONFIGMAPS, SECRETS, SERVICEACCOUNTS
from tiphys.kubelet.atomic import write_files
from tiphys.kubelet.downward import Surroundings
from tiphys.kubelet.environment import expand, references_in
from tiphys.kubelet.hostsfile import hosts_text
from tiphys.kubelet.objects import Objects
from tiphys.kubelet.payload import TokenKey, VolumeSources, projections, volume_files, volume_references
from tiphys.kubelet.pod import BoundPod, Specced
from tiphys.kubelet.podfiles import ContainerFiles, VolumeFailed, log_directory
from tiphys.kubelet.sandbox import Resolver, parse_resolv_conf, pod_hostname
from tiphys.kubelet.terminationlog import read_termination_message
from tiphys.kubelet.trustbundles import TrustBundle, asked_bundles
from tiphys.kubelet.volume import claim_path, ensure_subpath, make_empty_dir, make_host_path, unmount_below
from tiphys.runtime.bundle import measure_directory
from tiphys.runtime.interface import Container, Mount

RENEW_SHARE = 0.8
LONGEST_TOKEN_S = 86_400.0
TERMINATION_LOG = "tiphys.dev/termination-log"


class PodDirectory:
    """See the module's docstring. `objects` is shared with the kubelet or made for this alone."""

    def __init__(self, root: str, client: Client, clock: Clock, cluster_domain: str = "cluster.local") -> None:
        self._root = os.path.abspath(root)
        self._client = client
        self._clock = clock
        self._domain = cluster_domain
        self._objects = Objects(client)
        self._paths: dict[str, dict[str, str]] = {}
        """Pod uid -> volume -> host path."""
        self._readonly: dict[str, set[str]] = {}
        """Pod uid -> volumes that containers may only read."""
        self._tokens: dict[tuple[str, TokenKey], tuple[str, float]] = {}
        """(pod uid, what) -> (token, when to renew it)."""
        self._stamps = 0
        for name in ("pods", "logs"):
            os.makedirs(os.path.join(self._root, name), mode=0o755, exist_ok=True)

    # PodFiles

    async def mount(self, pod: BoundPod, around: Surroundings, changed: Callable[[], None]) -> None:
        volumes = pod.spec.volumes
        sources = await self._sources(pod, around, changed)
        base = self._pod_path(pod.metadata.uid, "volumes")
        os.makedirs(base, mode=0o755, exist_ok=True)
        paths: dict[str, str] = {}
        readonly: set[str] = set()
        for volume in volumes:
            place = os.path.join(base, volume.name)
            if projections(volume) is not None:
                self._write(pod, volume, place, sources)
                paths[volume.name] = place
                readonly.add(volume.name)
            elif volume.image is None:
                paths[volume.name] = await self._other(pod, volume, place)
        self._paths[pod.metadata.uid] = paths
        self._readonly[pod.metadata.uid] = readonly

    async def unmount(self, uid: str) -> None:
        self._objects.forget(uid)
        self._paths.pop(uid, None)
        self._readonly.pop(uid, None)
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key]
        await asyncio.to_thread(_remove_tree, self._pod_path(uid))

    async def container_files(
        self, pod: BoundPod, container: Specced, attempt: int, envs: Mapping[str, str], addresses: Sequence[str]
    ) -> ContainerFiles:
        uid = pod.metadata.uid
        mounts = [self._mount_of(pod, container, mount, envs) for mount in container.volume_mounts]
        taken = {mount.container_path.rstrip("/") for mount in mounts}
        if "/etc/hosts" not in taken:
            mounts.append(Mount("/etc/hosts", self._write_hosts(pod, addresses)))
        annotations = {}
        if container.termination_message_path not in taken:
            own = self._pod_path(uid, "containers", container.name, str(attempt))
            os.makedirs(own, mode=0o750, exist_ok=True)
            log = os.path.join(own, "termination-log")
            _make_file(log, 0o666)
            mounts.append(Mount(container.termination_message_path or "/dev/termination-log", log))
            annotations[TERMINATION_LOG] = log
        os.makedirs(os.path.join(self.log_directory(pod), container.name), mode=0o755, exist_ok=True)
        return ContainerFiles(tuple(mounts), f"{container.name}/{attempt}.log", annotations)

    def log_directory(self, pod: BoundPod) -> str:
        return log_directory(os.path.join(self._root, "logs"), pod)

    def termination_message(self, pod: BoundPod, spec: Specced, container: Container) -> str:
        return read_termination_message(
            container.annotations.get(TERMINATION_LOG, ""),
            spec.termination_message_policy,
            container,
        )

    def host_resolver(self) -> Resolver:
        for path in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"):
            try:
                return parse_resolv_conf(Path(path).read_text(encoding="utf-8", errors="replace"))
            except OSError:
                continue
        return Resolver()

    async def orphans(self, known: frozenset[str]) -> Sequence[str]:
        there = set(os.listdir(os.path.join(self._root, "pods")))
        there |= {name.rsplit("_", 1)[-1] for name in os.listdir(os.path.join(self._root, "logs"))}
        return sorted(there - known)

    async def remove_logs(self, uid: str) -> None:
        logs = os.path.join(self._root, "logs")
        for name in os.listdir(logs):
            if name.rsplit("_", 1)[-1] == uid:
                await asyncio.to_thread(shutil.rmtree, os.path.join(logs, name), True)

    async def volume_bytes(self, uid: str, volume: str) -> int:
        path = self._paths.get(uid, {}).get(volume)
        return await asyncio.to_thread(measure_directory, Path(path)) if path else 0

    def log_bytes(self, container: Container) -> int:
        try:
            return os.stat(container.log_path).st_size if container.log_path else 0
        except OSError:
            return 0

    def disk_root(self) -> str:
        return self._root

    async def volume_renewal_s(self, uid: str) -> float | None:
        return min((renew_s for (owner, _), (_, renew_s) in self._tokens.items() if owner == uid), default=None)

    async def close(self) -> None:
        """End all watches of objects."""
        await self._objects.close()

    # Content

    async def _sources(self, pod: BoundPod, around: Surroundings, changed: Callable[[], None]) -> VolumeSources:
        config_maps, secrets, tokens = volume_references(pod.spec.volumes)
        namespace, uid = pod.metadata.namespace, pod.metadata.uid
        found_maps = await asyncio.gather(
            *(self._objects.read(CONFIGMAPS, namespace, name, ConfigMap) for name in sorted(config_maps))
        )
        found_secrets = await asyncio.gather(
            *(self._objects.read(SECRETS, namespace, name, Secret) for name in sorted(secrets))
        )
        by_map = dict(zip(sorted(config_maps), found_maps, strict=True))
        by_secret = dict(zip(sorted(secrets), found_secrets, strict=True))
        for resource, table in ((CONFIGMAPS, by_map), (SECRETS, by_secret)):
            for name, found in table.items():
                if found is None or not found.immutable:
                    seen = found.metadata.resource_version if found is not None else "absent"
                    self._objects.watch((resource, namespace, name), uid, changed, seen)
        held = {key: await self._token(pod, key) for key in sorted(tokens)}
        return VolumeSources(by_map, by_secret, held, around, await self._bundles(pod, changed))

    async def _bundles(self, pod: BoundPod, changed: Callable[[], None]) -> Sequence[TrustBundle]:
        """Return all trust bundles of the cluster, if a volume asks for any: there are few."""
        if not asked_bundles(pod.spec.volumes):
            return ()
        found, version = await self._objects.read_all(CLUSTERTRUSTBUNDLES, TrustBundle)
        self._objects.watch((CLUSTERTRUSTBUNDLES, "", ""), pod.metadata.uid, changed, version)
        return found

    async def _token(self, pod: BoundPod, key: TokenKey) -> str:
        uid = pod.metadata.uid
        now_s = self._clock.now_s()
        held = self._tokens.get((uid, key))
        if held is not None and now_s < held[1]:
            return held[0]
        audience, seconds = key
        account = pod.spec.service_account_name or "default"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": uid},
            },
        }
        try:
            answer = await self._client.create(
                SERVICEACCOUNTS, pod.metadata.namespace, request, name=account, subresource="token"
            )
        except ApiError as error:
            raise VolumeFailed(
                'MountVolume.SetUp failed for volume "kube-api-access" : '
                f"failed to fetch token: {error}"
            ) from error  # fmt: skip
        status = msgspec.json.decode(answer)["status"]
        ends_s = parse_time(status["expirationTimestamp"])
        renew_s = now_s + min((ends_s - now_s) * RENEW_SHARE, LONGEST_TOKEN_S)
        self._tokens[(uid, key)] = (str(status["token"]), renew_s)
        return str(status["token"])

    def _write(self, pod: BoundPod, volume: Volume, place: str, sources: VolumeSources) -> None:
        files = volume_files(pod, volume, sources)
        os.makedirs(place, mode=0o755, exist_ok=True)
        os.chmod(place, 0o755)
        security = pod.spec.security_context
        self._stamps += 1
        stamp = f"{self._clock.now_s():.6f}_{self._stamps}".replace(".", "_")
        write_files(place, files, stamp, security.fs_group if security else None)

    async def _other(self, pod: BoundPod, volume: Volume, place: str) -> str:
        security = pod.spec.security_context
        group = security.fs_group if security else None
        if volume.empty_dir is not None:
            return make_empty_dir(volume, place, group)
        if volume.host_path is not None:
            return make_host_path(volume)
        if volume.persistent_volume_claim is not None:
            policy = security.fs_group_change_policy if security else ""
            return await claim_path(self._objects, pod, volume, group, policy)
        raise VolumeFailed(
            f'MountVolume.SetUp failed for volume "{volume.name}" : this node does not know volumes of its kind; '
            "use emptyDir, hostPath, configMap, secret, projected, downwardAPI or a claim"
        )

    def _mount_of(self, pod: BoundPod, container: Specced, mount: VolumeMount, envs: Mapping[str, str]) -> Mount:
        uid = pod.metadata.uid
        path = mount.mount_path if mount.mount_path.startswith("/") else "/" + mount.mount_path
        image = next((v.image for v in pod.spec.volumes if v.name == mount.name), None)
        if image is not None:
            sub_path = _sub_path(mount, envs)
            return Mount(path, "", True, image=image.reference, image_sub_path=sub_path)
        host_path = self._paths.get(uid, {}).get(mount.name)
        if host_path is None:
            raise VolumeFailed(f'cannot find volume "{mount.name}" to mount into container "{container.name}"')
        sub_path = _sub_path(mount, envs)
        if sub_path:
            host_path = ensure_subpath(host_path, sub_path, container.name)
        readonly = bool(mount.read_only) or mount.name in self._readonly.get(uid, set())
        return Mount(
            path, host_path, readonly, mount.mount_propagation or "None", recursive_readonly=mount.recursive_read_only
        )

    def _write_hosts(self, pod: BoundPod, addresses: Sequence[str]) -> str:
        hostname, domain = pod_hostname(pod, self._domain)
        host_text = ""
        if pod.spec.host_network:
            host_text = Path("/etc/hosts").read_text(encoding="utf-8", errors="replace")
        text = hosts_text(pod, addresses, hostname, domain, host_text)
        path = self._pod_path(pod.metadata.uid, "etc-hosts")
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        # Written in place: running containers have this very file mounted.
        if not os.path.exists(path) or Path(path).read_text(encoding="utf-8") != text:
            Path(path).write_text(text, encoding="utf-8")
            os.chmod(path, 0o644)
        return path

    def _pod_path(self, uid: str, *parts: str) -> str:
        return os.path.join(self._root, "pods", uid, *parts)


def _sub_path(mount: VolumeMount, envs: Mapping[str, str]) -> str:
    """Return the path below the volume, "" for all of it. Raises VolumeFailed for one that must not be."""
    if mount.sub_path_expr:
        missing = sorted({name for name in references_in(mount.sub_path_expr) if not envs.get(name)})
        if missing:
            raise VolumeFailed(f"missing value for {', '.join(missing)}")
    path = mount.sub_path or expand(mount.sub_path_expr, envs)
    if os.path.isabs(path):
        raise VolumeFailed(f"error SubPath `{path}` must not be an absolute path")
    if ".." in path.split("/"):
        raise VolumeFailed(f"unable to provision SubPath `{path}`: must not contain '..'")
    return path


def _make_file(path: str, mode: int) -> None:
    with open(path, "ab"):
        os.chmod(path, mode)


def _remove_tree(place: str) -> None:
    if not os.path.isdir(place):
        return
    unmount_below(place)
    shutil.rmtree(place, ignore_errors=True)
