"""The Pod Security Standards, one rule a case: what a pod says, and what baseline and restricted say to it."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.apiserver.plugins.podstandards import violations

GOOD_CONTEXT = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
GOOD_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def pod(*, container: Any = None, security: Any = None, annotations: Any = None, **spec: Any) -> dict[str, Any]:
    """A pod that restricted accepts, but for what is given."""
    own = {"name": "a", **(container or {})}
    own["securityContext"] = {**GOOD_CONTEXT, **((container or {}).get("securityContext") or {})}
    return {
        "metadata": {"name": "p", "annotations": annotations or {}},
        "spec": {"containers": [own], "securityContext": {**GOOD_POD, **(security or {})}, **spec},
    }


def context(**fields: Any) -> dict[str, Any]:
    return {"securityContext": fields}


BOTH = [
    (pod(hostPID=True, hostIPC=True), ("host namespaces", "hostPID=true, hostIPC=true")),
    (
        pod(container=context(privileged=True)),
        ("privileged", 'container "a" must not set securityContext.privileged=true'),
    ),
    (
        pod(container={"ports": [{"containerPort": 1, "hostPort": 81}, {"containerPort": 2, "hostPort": 80}]}),
        ("hostPort", 'container "a" uses hostPorts 80, 81'),
    ),
    (
        pod(container=context(procMount="Unmasked")),
        ("procMount", 'container "a" must not set securityContext.procMount to "Unmasked"'),
    ),
    (
        pod(security={"seLinuxOptions": {"type": "spc_t", "user": "u"}}),
        ("seLinuxOptions", 'pod sets forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set'),
    ),
    (
        pod(security={"sysctls": [{"name": "kernel.msgmax", "value": "1"}, {"name": "net.ipv4.tcp_syncookies"}]}),
        ("forbidden sysctls", "kernel.msgmax"),
    ),
    (
        pod(security={"appArmorProfile": {"type": "Unconfined"}}),
        ("forbidden AppArmor profile", 'pod must not set AppArmor profile type to "Unconfined"'),
    ),
    (
        pod(annotations={"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}),
        (
            "forbidden AppArmor profile",
            'annotation container.apparmor.security.beta.kubernetes.io/a="unconfined"',
        ),
    ),
    (
        pod(security={"windowsOptions": {"hostProcess": True}}),
        ("hostProcess", "pod must not set securityContext.windowsOptions.hostProcess=true"),
    ),
]
RESTRICTED_ONLY = [
    (
        pod(volumes=[{"name": "n", "nfs": {}}, {"name": "c", "configMap": {}}]),
        ("restricted volume types", 'volume "n" uses restricted volume type "nfs"'),
    ),
    (
        pod(container=context(allowPrivilegeEscalation=None)),
        (
            "allowPrivilegeEscalation != false",
            'container "a" must set securityContext.allowPrivilegeEscalation=false',
        ),
    ),
    (
        pod(container=context(capabilities={"add": ["CHOWN"]})),
        (
            "unrestricted capabilities",
            'container "a" must set securityContext.capabilities.drop=["ALL"]; '
            'container "a" must not include "CHOWN" in securityContext.capabilities.add',
        ),
    ),
    (
        pod(security={"runAsNonRoot": None}),
        ("runAsNonRoot != true", 'pod or container "a" must set securityContext.runAsNonRoot=true'),
    ),
    (
        pod(container=context(runAsNonRoot=False)),
        ("runAsNonRoot != true", 'container "a" must not set securityContext.runAsNonRoot=false'),
    ),
    (pod(container=context(runAsUser=0)), ("runAsUser=0", 'container "a" must not set runAsUser=0')),
    (
        pod(security={"seccompProfile": None}),
        (
            "seccompProfile",
            'pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"',
        ),
    ),
]


def test_a_hardened_pod_breaks_nothing() -> None:
    assert violations(pod(), "restricted") == violations(pod(), "baseline") == []


def test_privileged_forbids_nothing() -> None:
    assert violations(pod(hostPID=True, container=context(privileged=True)), "privileged") == []


@pytest.mark.parametrize(("given", "told"), BOTH, ids=[told[0] for _, told in BOTH])
def test_both_levels_forbid(given: dict[str, Any], told: tuple[str, str]) -> None:
    assert violations(given, "baseline") == violations(given, "restricted") == [told]


@pytest.mark.parametrize(("given", "told"), RESTRICTED_ONLY, ids=[told[0] for _, told in RESTRICTED_ONLY])
def test_restricted_alone_forbids(given: dict[str, Any], told: tuple[str, str]) -> None:
    assert violations(given, "baseline") == []
    assert violations(given, "restricted") == [told]


def test_rules_with_two_strengths_are_told_once() -> None:
    added = pod(container=context(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}))
    detail = 'container "a" must not include "NET_ADMIN" in securityContext.capabilities.add'
    assert violations(added, "baseline") == [("non-default capabilities", detail)]
    assert violations(added, "restricted") == [("unrestricted capabilities", detail)]
    unconfined = pod(container=context(seccompProfile={"type": "Unconfined"}))
    detail = 'container "a" must not set securityContext.seccompProfile.type to "Unconfined"'
    assert violations(unconfined, "baseline") == violations(unconfined, "restricted") == [("seccompProfile", detail)]


def test_host_paths_are_told_by_both_levels_each_in_its_way() -> None:
    given = pod(volumes=[{"name": "x", "hostPath": {"path": "/"}}, {"name": "y", "hostPath": {"path": "/"}}])
    assert violations(given, "baseline") == [("hostPath volumes", 'volumes "x", "y"')]
    assert violations(given, "restricted") == [
        ("hostPath volumes", 'volumes "x", "y"'),
        ("restricted volume types", 'volumes "x", "y" use restricted volume type "hostPath"'),
    ]


def test_every_kind_of_container_counts() -> None:
    given = pod()
    bad = {"name": "b", "securityContext": {"privileged": True, **GOOD_CONTEXT}}
    given["spec"] |= {"initContainers": [bad], "ephemeralContainers": [{**bad, "name": "c"}]}
    assert violations(given, "baseline") == [
        ("privileged", 'containers "b", "c" must not set securityContext.privileged=true')
    ]
