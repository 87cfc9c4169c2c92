"""Validation of security contexts: the pod's and each container's.

Spec: Kubernetes documentation, "Configure a Security Context for a Pod or Container"; KEP-127 (user namespaces),
KEP-135 (seccomp), KEP-24 (AppArmor).
"""

from __future__ import annotations

import re

from tiphys.api.causes import duplicate, forbidden, invalid_value, not_supported, required, too_long
from tiphys.api.kind import JsonObject
from tiphys.api.names import range_message
from tiphys.api.strategies.volume_mounts import check_relative_path
from tiphys.base.errors import Cause

_MAX_ID = 2**31 - 1
_ID_RANGE = range_message(0, _MAX_ID)
_ON_ROOT_MISMATCH = ("Always", "OnRootMismatch")
_GROUP_POLICIES = ("Merge", "Strict")
_SELINUX_POLICIES = ("MountOption", "Recursive")
_PROFILE_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
_PROC_MOUNTS = ("Default", "Unmasked")
_SYSCTL_SEGMENT = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL = "(" + _SYSCTL_SEGMENT + "[\\./])*" + _SYSCTL_SEGMENT
_sysctl_re = re.compile(_SYSCTL)


def _check_id(causes: list[Cause], path: str, value: int | None) -> None:
    if value is not None and not 0 <= value <= _MAX_ID:
        causes.append(invalid_value(path, value, _ID_RANGE))


def check_pod_security_context(causes: list[Cause], spec: JsonObject, context: JsonObject, path: str) -> None:
    """Check spec.securityContext and the pod-wide fields that belong to it."""
    get = context.get
    _check_id(causes, f"{path}.fsGroup", get("fsGroup"))
    _check_id(causes, f"{path}.runAsUser", get("runAsUser"))
    _check_id(causes, f"{path}.runAsGroup", get("runAsGroup"))
    for index, group in enumerate(get("supplementalGroups") or ()):
        _check_id(causes, f"{path}.supplementalGroups[{index}]", group)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        value = spec["shareProcessNamespace"]
        causes.append(
            invalid_value(
                f"{path}.shareProcessNamespace", value, "ShareProcessNamespace and HostPID cannot both be enabled"
            )
        )
    if get("sysctls"):
        _check_sysctls(causes, spec, context, f"{path}.sysctls")
    _check_policy(causes, context, "fsGroupChangePolicy", _ON_ROOT_MISMATCH, path)
    _check_profiles(causes, context, path)
    _check_policy(causes, context, "supplementalGroupsPolicy", _GROUP_POLICIES, path)
    _check_policy(causes, context, "seLinuxChangePolicy", _SELINUX_POLICIES, path)


def _check_policy(causes: list[Cause], context: JsonObject, field: str, allowed: tuple[str, ...], path: str) -> None:
    value = context.get(field)
    if value is not None and value not in allowed:
        causes.append(not_supported(f"{path}.{field}", value, allowed))


def _check_sysctls(causes: list[Cause], spec: JsonObject, context: JsonObject, path: str) -> None:
    seen: set[str] = set()
    for index, sysctl in enumerate(context["sysctls"]):
        name = sysctl.get("name") or ""
        name_path = f"{path}[{index}].name"
        if not name:
            causes.append(required(name_path))
        elif len(name) > 253 or not _sysctl_re.fullmatch(name):
            causes.append(
                invalid_value(name_path, name, f"must have at most 253 characters and match regex ^{_SYSCTL}$")
            )
        elif name in seen:
            causes.append(duplicate(name_path, name))
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            causes.append(invalid_value(name_path, name, "may not be specified when 'hostNetwork' is true"))
        if spec.get("hostIPC") and (
            dotted.startswith(("kernel.shm", "kernel.msg", "fs.mqueue.")) or dotted == "kernel.sem"
        ):
            causes.append(invalid_value(name_path, name, "may not be specified when 'hostIPC' is true"))
        seen.add(name)


def check_security_context(causes: list[Cause], context: JsonObject, host_users: bool, path: str) -> None:
    """Check a container's securityContext."""
    get = context.get
    _check_id(causes, f"{path}.runAsUser", get("runAsUser"))
    _check_id(causes, f"{path}.runAsGroup", get("runAsGroup"))
    proc_mount = get("procMount")
    if proc_mount is not None:
        if proc_mount not in _PROC_MOUNTS:
            causes.append(not_supported(f"{path}.procMount", proc_mount, _PROC_MOUNTS))
        elif host_users and proc_mount == "Unmasked":
            causes.append(invalid_value(f"{path}.procMount", proc_mount, "`hostUsers` must be false to use `Unmasked`"))
    _check_profiles(causes, context, path)
    if get("allowPrivilegeEscalation") is False:
        if get("privileged"):
            causes.append(
                invalid_value(path, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
            )
        added = (get("capabilities") or {}).get("add") or ()
        if "CAP_SYS_ADMIN" in added:
            causes.append(
                invalid_value(
                    path,
                    context,
                    "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
                )
            )


def _check_profiles(causes: list[Cause], context: JsonObject, path: str) -> None:
    seccomp = context.get("seccompProfile")
    if seccomp is not None:
        _check_seccomp(causes, seccomp, f"{path}.seccompProfile")
    options = context.get("windowsOptions")
    if options is not None:
        _check_windows_options(causes, options, f"{path}.windowsOptions")
    apparmor = context.get("appArmorProfile")
    if apparmor is not None:
        _check_apparmor(causes, apparmor, f"{path}.appArmorProfile")


def _check_seccomp(causes: list[Cause], profile: JsonObject, path: str) -> None:
    kind = profile.get("type")
    local = profile.get("localhostProfile")
    if not kind:
        causes.append(required(f"{path}.type", "type is required when seccompProfile is set"))
    elif kind not in _PROFILE_TYPES:
        causes.append(not_supported(f"{path}.type", kind, _PROFILE_TYPES))
    if kind == "Localhost":
        if local is None:
            causes.append(required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost"))
        else:
            check_relative_path(causes, f"{path}.localhostProfile", local)
    elif local is not None:
        causes.append(
            invalid_value(f"{path}.localhostProfile", profile, "can only be set when seccomp type is Localhost")
        )


def _check_apparmor(causes: list[Cause], profile: JsonObject, path: str) -> None:
    kind = profile.get("type")
    local = profile.get("localhostProfile")
    local_path = f"{path}.localhostProfile"
    if not kind:
        causes.append(required(f"{path}.type", "type is required when appArmorProfile is set"))
    elif kind not in _PROFILE_TYPES:
        causes.append(not_supported(f"{path}.type", kind, _PROFILE_TYPES))
    elif kind != "Localhost":
        if local is not None:
            causes.append(invalid_value(local_path, local, "can only be set when AppArmor type is Localhost"))
    elif local is None or local == "":
        causes.append(required(local_path, "must be set when AppArmor type is Localhost"))
    else:
        if local.strip() != local:
            causes.append(invalid_value(local_path, local, "must not be padded with whitespace"))
        if len(local) > 4095:
            causes.append(too_long(local_path, 4095))


def _check_windows_options(causes: list[Cause], options: JsonObject, path: str) -> None:
    user = options.get("runAsUserName")
    if user is not None and not user:
        causes.append(invalid_value(f"{path}.runAsUserName", user, "runAsUserName cannot be an empty string"))


def check_host_users(causes: list[Cause], spec: JsonObject, path: str) -> None:
    """A pod with its own user namespace cannot share the host's other namespaces."""
    if spec.get("hostUsers") is not False:
        return
    for field, told in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
        if spec.get(field):
            causes.append(forbidden(f"{path}.{told}", "when `pod.Spec.HostUsers` is false"))
