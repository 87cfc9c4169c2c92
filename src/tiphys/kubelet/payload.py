"""The files of configMap, secret, downwardAPI and projected volumes. Pure.

Input: the volume, the objects that it names, tokens. Output: path -> content and mode. Raises VolumeFailed with the
text that FailedMount events show.

Spec: Kubernetes docs, "Projected Volumes", "ConfigMaps", "Secrets", "Downward API".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tiphys.api.views.config import ConfigMap, Secret
from tiphys.api.views.pod import (
    DownwardAPIVolumeFile,
    KeyToPath,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from tiphys.kubelet.downward import FieldMissing, Surroundings, field_value, resource_value
from tiphys.kubelet.pod import BoundPod
from tiphys.kubelet.podfiles import VolumeFailed
from tiphys.kubelet.trustbundles import NoAnchors, TrustBundle, anchors

DEFAULT_MODE = 0o644
DEFAULT_TOKEN_S = 3600
TokenKey = tuple[str, int]
"""(audience, seconds)."""


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    mode: int = DEFAULT_MODE
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class VolumeSources:
    """Objects that the pod's volumes name; a missing one maps to None."""

    config_maps: Mapping[str, ConfigMap | None] = field(default_factory=dict)
    secrets: Mapping[str, Secret | None] = field(default_factory=dict)
    tokens: Mapping[TokenKey, str] = field(default_factory=dict)
    around: Surroundings = field(default_factory=Surroundings)
    bundles: Sequence[TrustBundle] = ()


def projections(volume: Volume) -> Sequence[VolumeProjection] | None:
    """Return a volume of any of the four kinds as projections, or None for other kinds."""
    from tiphys.api.views import pod as views

    if volume.projected is not None:
        return volume.projected.sources
    if volume.config_map is not None:
        source = volume.config_map
        one = views.ConfigMapProjection(items=source.items, name=source.name, optional=source.optional)
        return (VolumeProjection(config_map=one),)
    if volume.secret is not None:
        secret = volume.secret
        two = views.SecretProjection(items=secret.items, name=secret.secret_name, optional=secret.optional)
        return (VolumeProjection(secret=two),)
    if volume.downward_api is not None:
        return (VolumeProjection(downward_api=views.DownwardAPIProjection(items=volume.downward_api.items)),)
    return None


def volume_references(volumes: Sequence[Volume]) -> tuple[set[str], set[str], set[TokenKey]]:
    """Return the names of ConfigMaps and Secrets and the tokens that the volumes need."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    tokens: set[TokenKey] = set()
    for volume in volumes:
        for source in projections(volume) or ():
            if source.config_map is not None:
                config_maps.add(source.config_map.name)
            if source.secret is not None:
                secrets.add(source.secret.name)
            if source.service_account_token is not None:
                tokens.add(token_key(source.service_account_token))
    return config_maps, secrets, tokens


def token_key(source: ServiceAccountTokenProjection) -> TokenKey:
    return source.audience, source.expiration_seconds or DEFAULT_TOKEN_S


def volume_files(pod: BoundPod, volume: Volume, sources: VolumeSources) -> dict[str, File]:
    """Return the files of the volume. Raises VolumeFailed when something required is missing."""
    default = _default_mode(volume)
    result: dict[str, File] = {}
    for source in projections(volume) or ():
        if source.config_map is not None:
            config_map = source.config_map
            optional = bool(config_map.optional)
            found = sources.config_maps.get(config_map.name)
            if found is None and not optional:
                raise VolumeFailed(_failure(volume, f'configmap "{config_map.name}" not found'))
            data = _config_map_bytes(found) if found else {}
            what = f"{pod.metadata.namespace}/{config_map.name}"
            result.update(_select(volume, data, config_map.items, default, optional, f"configmap {what}"))
        if source.secret is not None:
            optional = bool(source.secret.optional)
            secret = sources.secrets.get(source.secret.name)
            if secret is None and not optional:
                raise VolumeFailed(_failure(volume, f'secret "{source.secret.name}" not found'))
            data = {key: base64.b64decode(value) for key, value in secret.data.items()} if secret else {}
            what = f"{pod.metadata.namespace}/{source.secret.name}"
            result.update(_select(volume, data, source.secret.items, default, optional, f"secret {what}"))
        if source.downward_api is not None:
            for item in source.downward_api.items:
                result[item.path] = File(_downward(pod, volume, item, sources.around), _mode(item.mode, default))
        if source.service_account_token is not None:
            result[source.service_account_token.path] = _token(pod, source.service_account_token, sources)
        if source.cluster_trust_bundle is not None:
            try:
                content = anchors(source.cluster_trust_bundle, sources.bundles)
            except NoAnchors as error:
                raise VolumeFailed(_failure(volume, str(error))) from error
            result[source.cluster_trust_bundle.path] = File(content, default)
    return result


def _token(pod: BoundPod, source: ServiceAccountTokenProjection, sources: VolumeSources) -> File:
    """Return the token's file: only its reader may read it, if it is known who that is."""
    content = sources.tokens[token_key(source)].encode()
    security = pod.spec.security_context
    if security is not None and security.fs_group is not None:
        return File(content, 0o640)
    users = {c.security_context.run_as_user if c.security_context else None for c in pod.spec.containers}
    if users == {None}:
        users = {security.run_as_user if security else None}
    owner = next(iter(users)) if len(users) == 1 else None
    return File(content, 0o600, owner) if owner is not None else File(content, 0o644)


def _failure(volume: Volume, why: str) -> str:
    return f'MountVolume.SetUp failed for volume "{volume.name}" : {why}'


def _default_mode(volume: Volume) -> int:
    for source in (volume.projected, volume.config_map, volume.secret, volume.downward_api):
        if source is not None and source.default_mode is not None:
            return source.default_mode
    return DEFAULT_MODE


def _mode(own: int | None, default: int) -> int:
    return default if own is None else own


def _config_map_bytes(found: ConfigMap) -> dict[str, bytes]:
    data = {key: value.encode() for key, value in found.data.items()}
    data.update({key: base64.b64decode(value) for key, value in found.binary_data.items()})
    return data


def _select(
    volume: Volume, data: Mapping[str, bytes], items: Sequence[KeyToPath], default: int, optional: bool, what: str
) -> dict[str, File]:
    if not items:
        return {key: File(content, default) for key, content in data.items()}
    result: dict[str, File] = {}
    for item in items:
        if item.key in data:
            result[item.path] = File(data[item.key], _mode(item.mode, default))
        elif not optional:
            raise VolumeFailed(_failure(volume, f"references non-existent {what.split()[0]} key: {item.key}"
                                        if what.startswith("secret")
                                        else f"configmap references non-existent config key: {item.key}"))  # fmt: skip
    return result


def _downward(pod: BoundPod, volume: Volume, item: DownwardAPIVolumeFile, around: Surroundings) -> bytes:
    try:
        if item.field_ref is not None:
            return field_value(pod, item.field_ref.field_path, around).encode()
        if item.resource_field_ref is not None:
            return resource_value(pod, item.resource_field_ref, "", around).encode()
    except FieldMissing as error:
        raise VolumeFailed(_failure(volume, str(error))) from error
    return b""
