"""The Pod Security Standards: which rules of a level a pod breaks, in upstream's words. Pure.

`violations(pod, level)` returns (reason, detail) pairs: first the rules of baseline, then those that restricted adds;
where restricted has a stricter form of a baseline rule, only that one is told.

Spec: Kubernetes documentation, "Pod Security Standards" (the tables of baseline and restricted).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tiphys.api.kind import JsonObject

LEVELS = ("privileged", "baseline", "restricted")
_DEFAULT_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
_SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
    }
)  # fmt: skip
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_FREE_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
_NO_VOLUME_SOURCES = frozenset({"name"})

Found = Iterator[tuple[str, str]]
Check = Callable[[JsonObject, list[JsonObject]], Found]


def violations(pod: JsonObject, level: str) -> list[tuple[str, str]]:
    """Return what of a pod (or pod template) a level forbids; [] for nothing."""
    if level == "privileged":
        return []
    spec = pod.get("spec") or {}
    containers = [c for f in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(f) or ()]
    checks = _BASELINE if level == "baseline" else _RESTRICTED
    return [found for check in checks for found in check(pod, containers)]


def _security(thing: JsonObject) -> JsonObject:
    return thing.get("securityContext") or {}


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _several(singular: str, names: Sequence[str]) -> str:
    return f"{singular}{'s' if len(names) != 1 else ''} {_quoted(names)}"


def _where(containers: list[JsonObject], matches: Callable[[JsonObject], Any]) -> list[str]:
    return [c["name"] for c in containers if matches(c)]


def _is_windows(pod: JsonObject) -> bool:
    return ((pod.get("spec") or {}).get("os") or {}).get("name") == "windows"


# Baseline


def _apparmor(pod: JsonObject, containers: list[JsonObject]) -> Found:
    details, values = [], []

    def bad(thing: JsonObject) -> bool:
        return bool((_security(thing).get("appArmorProfile") or {}).get("type") == "Unconfined")

    if bad(pod.get("spec") or {}):
        details.append('pod must not set AppArmor profile type to "Unconfined"')
        values.append("pod")
    names = _where(containers, bad)
    if names:
        details.append(f'{_several("container", names)} must not set AppArmor profile type to "Unconfined"')
        values += names
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    wrong = sorted(
        f'{key}="{value}"'
        for key, value in annotations.items()
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    )
    if wrong:
        details.append(f"annotation{'s' if len(wrong) > 1 else ''} {', '.join(wrong)}")
        values += wrong
    if details:
        yield f"forbidden AppArmor profile{'s' if len(values) > 1 else ''}", "; ".join(details)


def _baseline_capabilities(pod: JsonObject, containers: list[JsonObject]) -> Found:
    names: list[str] = []
    added: set[str] = set()
    for container in containers:
        wrong = set((_security(container).get("capabilities") or {}).get("add") or ()) - _DEFAULT_CAPABILITIES
        if wrong:
            names.append(container["name"])
            added |= wrong
    if names:
        detail = f"{_several('container', names)} must not include {_quoted(sorted(added))} in "
        yield "non-default capabilities", detail + "securityContext.capabilities.add"


def _host_namespaces(pod: JsonObject, containers: list[JsonObject]) -> Found:
    spec = pod.get("spec") or {}
    used = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    if used:
        yield "host namespaces", ", ".join(used)


def _host_paths(pod: JsonObject, containers: list[JsonObject]) -> Found:
    names = [v["name"] for v in (pod.get("spec") or {}).get("volumes") or () if v.get("hostPath") is not None]
    if names:
        yield "hostPath volumes", _several("volume", names)


def _host_ports(pod: JsonObject, containers: list[JsonObject]) -> Found:
    names, ports = [], set()
    for container in containers:
        own = {port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")}
        if own:
            names.append(container["name"])
            ports |= own
    if names:
        use = f"use{'s' if len(names) == 1 else ''} hostPort{'s' if len(ports) != 1 else ''}"
        yield "hostPort", f"{_several('container', names)} {use} {', '.join(map(str, sorted(ports)))}"


def _privileged(pod: JsonObject, containers: list[JsonObject]) -> Found:
    names = _where(containers, lambda c: _security(c).get("privileged"))
    if names:
        yield "privileged", f"{_several('container', names)} must not set securityContext.privileged=true"


def _proc_mount(pod: JsonObject, containers: list[JsonObject]) -> Found:
    names = _where(containers, lambda c: _security(c).get("procMount") not in (None, "", "Default"))
    types = sorted({_security(c)["procMount"] for c in containers if c["name"] in names})
    if names:
        yield "procMount", f"{_several('container', names)} must not set securityContext.procMount to {_quoted(types)}"


def _baseline_seccomp(pod: JsonObject, containers: list[JsonObject]) -> Found:
    def unconfined(thing: JsonObject) -> bool:
        return (_security(thing).get("seccompProfile") or {}).get("type") == "Unconfined"

    setters = ["pod"] if unconfined(pod.get("spec") or {}) else []
    names = _where(containers, unconfined)
    if names:
        setters.append(_several("container", names))
    if setters:
        detail = f'{" and ".join(setters)} must not set securityContext.seccompProfile.type to "Unconfined"'
        yield "seccompProfile", detail


def _selinux(pod: JsonObject, containers: list[JsonObject]) -> Found:
    setters: list[str] = []
    types: list[str] = []
    users = roles = False
    pod_level = _security(pod.get("spec") or {}).get("seLinuxOptions") or {}
    names = []
    for name, options in [
        ("", pod_level),
        *((c["name"], _security(c).get("seLinuxOptions") or {}) for c in containers),
    ]:
        wrong_type = options.get("type", "") not in _SELINUX_TYPES
        if not (wrong_type or options.get("user") or options.get("role")):
            continue
        if wrong_type and options["type"] not in types:
            types.append(options["type"])
        users, roles = users or bool(options.get("user")), roles or bool(options.get("role"))
        if name:
            names.append(name)
        else:
            setters.append("pod")
    if names:
        setters.append(_several("container", names))
    if setters:
        wrong = [f"type{'s' if len(types) > 1 else ''} {_quoted(types)}"] if types else []
        wrong += ["user may not be set"] if users else []
        wrong += ["role may not be set"] if roles else []
        verb = "sets" if setters == ["pod"] or (len(setters) == 1 and len(names) == 1) else "set"
        yield (
            "seLinuxOptions",
            f"{' and '.join(setters)} {verb} forbidden securityContext.seLinuxOptions: {'; '.join(wrong)}",
        )


def _sysctls(pod: JsonObject, containers: list[JsonObject]) -> Found:
    named = [s["name"] for s in _security(pod.get("spec") or {}).get("sysctls") or ()]
    wrong = [name for name in named if name not in _SAFE_SYSCTLS]
    if wrong:
        yield "forbidden sysctls", ", ".join(wrong)


def _host_process(pod: JsonObject, containers: list[JsonObject]) -> Found:
    def set_by(thing: JsonObject) -> Any:
        return (_security(thing).get("windowsOptions") or {}).get("hostProcess")

    setters = ["pod"] if set_by(pod.get("spec") or {}) else []
    names = _where(containers, set_by)
    if names:
        setters.append(_several("container", names))
    if setters:
        yield "hostProcess", f"{' and '.join(setters)} must not set securityContext.windowsOptions.hostProcess=true"


# Restricted


def _privilege_escalation(pod: JsonObject, containers: list[JsonObject]) -> Found:
    names = _where(containers, lambda c: _security(c).get("allowPrivilegeEscalation") is not False)
    if names and not _is_windows(pod):
        detail = f"{_several('container', names)} must set securityContext.allowPrivilegeEscalation=false"
        yield "allowPrivilegeEscalation != false", detail


def _restricted_capabilities(pod: JsonObject, containers: list[JsonObject]) -> Found:
    if _is_windows(pod):
        return
    keeping, adding = [], []
    added: set[str] = set()
    for container in containers:
        capabilities = _security(container).get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            keeping.append(container["name"])
        wrong = set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}
        if wrong:
            adding.append(container["name"])
            added |= wrong
    details = []
    if keeping:
        details.append(f'{_several("container", keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        detail = f"{_several('container', adding)} must not include {_quoted(sorted(added))} in "
        details.append(detail + "securityContext.capabilities.add")
    if details:
        yield "unrestricted capabilities", "; ".join(details)


def _volume_types(pod: JsonObject, containers: list[JsonObject]) -> Found:
    names, types = [], set()
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        wrong = set(volume) - _FREE_VOLUMES - _NO_VOLUME_SOURCES
        if wrong:
            names.append(volume["name"])
            types |= wrong
    if names:
        use = f"use{'s' if len(names) == 1 else ''} restricted volume type{'s' if len(types) != 1 else ''}"
        yield "restricted volume types", f"{_several('volume', names)} {use} {_quoted(sorted(types))}"


def _run_as_non_root(pod: JsonObject, containers: list[JsonObject]) -> Found:
    pod_level = _security(pod.get("spec") or {}).get("runAsNonRoot")
    explicit = _where(containers, lambda c: _security(c).get("runAsNonRoot") is False)
    silent = _where(containers, lambda c: _security(c).get("runAsNonRoot") is None)
    if pod_level is False and silent:
        setters = ["pod"] + ([_several("container", explicit)] if explicit else [])
        yield "runAsNonRoot != true", f"{' and '.join(setters)} must not set securityContext.runAsNonRoot=false"
    elif explicit:
        yield (
            "runAsNonRoot != true",
            f"{_several('container', explicit)} must not set securityContext.runAsNonRoot=false",
        )
    elif silent and not pod_level:
        yield (
            "runAsNonRoot != true",
            f"pod or {_several('container', silent)} must set securityContext.runAsNonRoot=true",
        )


def _run_as_user(pod: JsonObject, containers: list[JsonObject]) -> Found:
    setters = ["pod"] if _security(pod.get("spec") or {}).get("runAsUser") == 0 else []
    names = _where(containers, lambda c: _security(c).get("runAsUser") == 0)
    if names:
        setters.append(_several("container", names))
    if setters:
        yield "runAsUser=0", f"{' and '.join(setters)} must not set runAsUser=0"


def _restricted_seccomp(pod: JsonObject, containers: list[JsonObject]) -> Found:
    if _is_windows(pod):
        return

    def kind_of(thing: JsonObject) -> str | None:
        return (_security(thing).get("seccompProfile") or {}).get("type")

    good = ("RuntimeDefault", "Localhost")
    pod_level = kind_of(pod.get("spec") or {})
    explicit = [c for c in containers if kind_of(c) is not None and kind_of(c) not in good]
    silent = _where(containers, lambda c: kind_of(c) is None)
    setters = ["pod"] if pod_level is not None and pod_level not in good else []
    if explicit:
        setters.append(_several("container", [c["name"] for c in explicit]))
    if setters:
        types = sorted({str(kind_of(c)) for c in explicit} | ({str(pod_level)} if setters[0] == "pod" else set()))
        detail = f"{' and '.join(setters)} must not set securityContext.seccompProfile.type to {_quoted(types)}"
        yield "seccompProfile", detail
    elif silent and pod_level is None:
        detail = f"pod or {_several('container', silent)} must set securityContext.seccompProfile.type to "
        yield "seccompProfile", detail + '"RuntimeDefault" or "Localhost"'


_COMMON: tuple[Check, ...] = (
    _apparmor,
    _host_namespaces,
    _host_paths,
    _host_ports,
    _privileged,
    _proc_mount,
    _selinux,
    _sysctls,
    _host_process,
)
_BASELINE: tuple[Check, ...] = (_apparmor, _baseline_capabilities, *_COMMON[1:6], _baseline_seccomp, *_COMMON[6:])
_RESTRICTED: tuple[Check, ...] = (
    *_COMMON,
    _privilege_escalation,
    _restricted_capabilities,
    _volume_types,
    _run_as_non_root,
    _run_as_user,
    _restricted_seccomp,
)
