"""Validation of a pod's volumes.

Input is a defaulted pod spec; the result names the volumes that are good, which the checks of mounts look up, so that
a broken volume is told once and its mounts as not found. Order of causes as upstream's: the source, then the name.

Spec: Kubernetes API reference, core/v1 Volume; documentation "Volumes", "Projected Volumes", "Ephemeral Volumes".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiphys.api.causes import duplicate, forbidden, invalid_value, not_supported, required
from tiphys.api.kind import JsonObject
from tiphys.api.names import validate_dns_label, validate_dns_subdomain
from tiphys.api.strategies.container_env import check_field_reference, check_resource_reference
from tiphys.api.strategies.fields import check_text
from tiphys.api.strategies.resources import nanos
from tiphys.api.strategies.volume_mounts import check_no_backsteps, check_relative_path
from tiphys.base.errors import Cause

_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_ONE_TYPE = "may not specify more than 1 volume type"
_Check = Callable[[list[Cause], Any, str], None]


def check_volumes(causes: list[Cause], volumes: list[Any], pod_name: str, path: str) -> dict[str, JsonObject]:
    """Check spec.volumes; return the good ones by name."""
    good: dict[str, JsonObject] = {}
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        before = len(causes)
        name = volume.get("name") or ""
        _check_source(causes, volume, at)
        if not name:
            causes.append(required(f"{at}.name"))
        else:
            check_text(causes, f"{at}.name", name, validate_dns_label)
        if name in seen:
            causes.append(duplicate(f"{at}.name", name))
        if len(causes) == before:
            good[name] = volume
        seen.add(name)
    _check_claim_conflicts(causes, volumes, pod_name, path)
    return good


def _check_claim_conflicts(causes: list[Cause], volumes: list[Any], pod_name: str, path: str) -> None:
    """A volume may not name the claim that another volume of the pod makes."""
    if not pod_name:
        return
    made = {f"{pod_name}-{v.get('name')}" for v in volumes if v.get("ephemeral") is not None}
    if not made:
        return
    for index, volume in enumerate(volumes):
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in made:
            causes.append(
                invalid_value(
                    f"{path}[{index}].persistentVolumeClaim.claimName",
                    claim,
                    "must not reference a PVC that gets created for an ephemeral volume",
                )
            )


def _check_source(causes: list[Cause], volume: JsonObject, path: str) -> None:
    found = False
    for field, source in volume.items():
        if field == "name" or source is None:
            continue
        if found:
            causes.append(forbidden(f"{path}.{field}", _ONE_TYPE))
            continue
        found = True
        check = _CHECKS.get(field)
        if check is not None:
            check(causes, source, f"{path}.{field}")
    if not found:
        causes.append(required(path, "must specify a volume type"))


def _check_mode(causes: list[Cause], source: JsonObject, field: str, path: str) -> None:
    mode = source.get(field)
    if mode is not None and not 0 <= mode <= 0o777:
        causes.append(invalid_value(f"{path}.{field}", mode, _MODE))


def _check_item_path(causes: list[Cause], item: JsonObject, path: str) -> None:
    where = item.get("path")
    if not where:
        causes.append(required(f"{path}.path"))
        return
    check_relative_path(causes, f"{path}.path", where)
    if where.startswith("..") and ".." not in where.split("/"):
        causes.append(invalid_value(f"{path}.path", where, "must not start with '..'"))


def _check_key_items(causes: list[Cause], source: JsonObject, path: str) -> None:
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}[{index}]"
        if not item.get("key"):
            causes.append(required(f"{at}.key"))
        _check_item_path(causes, item, at)
        _check_mode(causes, item, "mode", at)


def _check_secret(causes: list[Cause], source: JsonObject, path: str) -> None:
    if not source.get("secretName"):
        causes.append(required(f"{path}.secretName"))
    _check_mode(causes, source, "defaultMode", path)
    _check_key_items(causes, source, f"{path}.items")


def _check_config_map(causes: list[Cause], source: JsonObject, path: str) -> None:
    if not source.get("name"):
        causes.append(required(f"{path}.name"))
    _check_mode(causes, source, "defaultMode", path)
    _check_key_items(causes, source, f"{path}.items")


def _check_downward(causes: list[Cause], source: JsonObject, path: str) -> None:
    _check_mode(causes, source, "defaultMode", path)
    for item in source.get("items") or ():
        _check_downward_item(causes, item, path)


def _check_downward_item(causes: list[Cause], item: JsonObject, path: str) -> None:
    _check_item_path(causes, item, path)
    field = item.get("fieldRef")
    resource = item.get("resourceFieldRef")
    if field is not None:
        check_field_reference(causes, field, _VOLUME_FIELDS, f"{path}.fieldRef")
        if resource is not None:
            causes.append(
                invalid_value(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
            )
    elif resource is not None:
        check_resource_reference(causes, resource, f"{path}.resourceFieldRef", in_volume=True)
    else:
        causes.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    _check_mode(causes, item, "mode", path)


def _check_empty_dir(causes: list[Cause], source: JsonObject, path: str) -> None:
    limit = source.get("sizeLimit")
    if limit is not None and nanos(limit) < 0:
        causes.append(forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"))


def _check_host_path(causes: list[Cause], source: JsonObject, path: str) -> None:
    where = source.get("path")
    if not where:
        causes.append(required(f"{path}.path"))
        return
    check_no_backsteps(causes, f"{path}.path", where)
    kind = source.get("type") or ""
    if kind not in _HOST_PATH_TYPES:
        causes.append(not_supported(f"{path}.type", kind, _HOST_PATH_TYPES))


def _check_claim(causes: list[Cause], source: JsonObject, path: str) -> None:
    if not source.get("claimName"):
        causes.append(required(f"{path}.claimName"))


def _check_ephemeral(causes: list[Cause], source: JsonObject, path: str) -> None:
    from tiphys.api.strategies.persistent_volume_claim import check_claim_spec

    template = source.get("volumeClaimTemplate")
    if template is None:
        causes.append(required(f"{path}.volumeClaimTemplate"))
        return
    check_claim_spec(causes, template.get("spec") or {}, f"{path}.volumeClaimTemplate.spec")


def _check_nfs(causes: list[Cause], source: JsonObject, path: str) -> None:
    if not source.get("server"):
        causes.append(required(f"{path}.server"))
    where = source.get("path")
    if not where:
        causes.append(required(f"{path}.path"))
    elif not where.startswith("/"):
        causes.append(invalid_value(f"{path}.path", where, "must be an absolute path"))


def _check_csi(causes: list[Cause], source: JsonObject, path: str) -> None:
    check_csi_driver_name(causes, f"{path}.driver", source.get("driver") or "")
    secret = source.get("nodePublishSecretRef")
    if secret is not None:
        if not secret.get("name"):
            causes.append(required(f"{path}.nodePublishSecretRef.name"))
        else:
            check_text(causes, f"{path}.nodePublishSecretRef.name", secret["name"], validate_dns_subdomain)


def check_csi_driver_name(causes: list[Cause], path: str, name: str) -> None:
    from tiphys.api.causes import too_long

    if not name:
        causes.append(required(path))
    if len(name) > 63:
        causes.append(too_long(path, 63))
    for complaint in validate_dns_subdomain(name.lower()):
        causes.append(invalid_value(path, name, complaint))


def _check_image(causes: list[Cause], source: JsonObject, path: str) -> None:
    if not source.get("reference"):
        causes.append(required(f"{path}.reference"))
    policy = source.get("pullPolicy")
    if policy not in _PULL_POLICIES:
        causes.append(not_supported(f"{path}.pullPolicy", policy or "", _PULL_POLICIES))


def _check_git_repo(causes: list[Cause], source: JsonObject, path: str) -> None:
    if not source.get("repository"):
        causes.append(required(f"{path}.repository"))
    check_relative_path(causes, f"{path}.directory", source.get("directory") or "")


def _check_projected(causes: list[Cause], source: JsonObject, path: str) -> None:
    _check_mode(causes, source, "defaultMode", path)
    taken: set[str] = set()
    for index, part in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        found = False
        for field in (
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ):
            value = part.get(field)
            if value is None:
                continue
            if found:
                causes.append(forbidden(f"{at}.{field}", _ONE_TYPE))
                continue
            found = True
            _PROJECTED_CHECKS[field](causes, value, f"{at}.{field}")
            _check_conflicts(causes, _paths_of(field, value), taken, path)
        if not found:
            causes.append(required(at, "one of the projected volume sources must be specified"))


def _paths_of(field: str, part: JsonObject) -> list[str]:
    if field in ("serviceAccountToken", "clusterTrustBundle"):
        return [part["path"]] if part.get("path") else []
    if field == "podCertificate":
        return [part[f] for f in ("credentialBundlePath", "keyPath", "certificateChainPath") if part.get(f)]
    return [item["path"] for item in part.get("items") or () if item.get("path")]


def _check_conflicts(causes: list[Cause], paths: list[str], taken: set[str], path: str) -> None:
    for where in paths:
        if where in taken:
            causes.append(invalid_value(path, where, "conflicting duplicate paths"))
        taken.add(where)


def _check_projected_keys(causes: list[Cause], part: JsonObject, path: str) -> None:
    if not part.get("name"):
        causes.append(required(f"{path}.name"))
    _check_key_items(causes, part, f"{path}.items")


def _check_projected_downward(causes: list[Cause], part: JsonObject, path: str) -> None:
    for item in part.get("items") or ():
        _check_downward_item(causes, item, path)


def _check_token(causes: list[Cause], part: JsonObject, path: str) -> None:
    seconds = part.get("expirationSeconds") or 0
    if seconds < 600:
        causes.append(
            invalid_value(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
        )
    elif seconds > 2**32:
        causes.append(
            invalid_value(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
        )
    _check_item_path(causes, part, path)


def _check_bundle(causes: list[Cause], part: JsonObject, path: str) -> None:
    by_name = part.get("name") is not None
    by_signer = part.get("signerName") is not None
    if by_name and by_signer:
        causes.append(invalid_value(path, part, "only one of name and signerName may be used"))
    elif not by_name and not by_signer:
        causes.append(required(path, "either name or signerName must be specified"))
    _check_item_path(causes, part, path)


def _check_certificate(causes: list[Cause], part: JsonObject, path: str) -> None:
    if not part.get("signerName"):
        causes.append(required(f"{path}.signerName"))
    if not _paths_of("podCertificate", part):
        causes.append(required(path, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))


_PROJECTED_CHECKS: dict[str, _Check] = {
    "secret": _check_projected_keys,
    "configMap": _check_projected_keys,
    "downwardAPI": _check_projected_downward,
    "serviceAccountToken": _check_token,
    "clusterTrustBundle": _check_bundle,
    "podCertificate": _check_certificate,
}
_CHECKS: dict[str, _Check] = {
    "emptyDir": _check_empty_dir,
    "hostPath": _check_host_path,
    "gitRepo": _check_git_repo,
    "secret": _check_secret,
    "configMap": _check_config_map,
    "downwardAPI": _check_downward,
    "projected": _check_projected,
    "persistentVolumeClaim": _check_claim,
    "ephemeral": _check_ephemeral,
    "nfs": _check_nfs,
    "csi": _check_csi,
    "image": _check_image,
}
