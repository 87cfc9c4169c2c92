"""Helm installs, upgrades, tests, rolls back and removes a chart with hooks and a custom resource."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from kubectl_cli import Kubectl, find_client

CHART = Path(__file__).parent / "chart"
HELMS = ("helm", "helm3")
"""The newest, and the oldest that is fetched."""


@dataclass(frozen=True, slots=True)
class Helm:
    """One Helm in the namespace of a kubectl."""

    binary: Path
    kubectl: Kubectl

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        home = self.kubectl.environment["HOME"]
        places = {f"HELM_{what}_HOME": f"{home}/helm" for what in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [str(self.binary), "-n", self.kubectl.namespace, *arguments],
            env={**self.kubectl.environment, **places},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def __call__(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def history(self) -> list[tuple[int, str]]:
        told = json.loads(self("history", "app", "-o", "json"))
        return [(entry["revision"], entry["status"]) for entry in told]


@pytest.fixture(params=HELMS)
def helm(request: pytest.FixtureRequest, make_namespace: Callable[..., Kubectl]) -> Helm:
    return Helm(find_client(request.param), make_namespace())


def ran(kubectl: Kubectl, hook: str) -> bool:
    return kubectl("get", "job", f"app-{hook}", "-o", "jsonpath={.status.succeeded}") == "1"


def test_a_release_from_install_to_uninstall(helm: Helm) -> None:
    kubectl = helm.kubectl
    helm("install", "app", str(CHART), "--wait", "--timeout", "60s")
    assert kubectl("get", "deployment", "app", "-o", "jsonpath={.status.readyReplicas}") == "2"
    assert kubectl("get", "widget", "app", "--no-headers").split()[:2] == ["app", "2"]
    assert ran(kubectl, "pre-install")
    assert ran(kubectl, "post-install")
    assert json.loads(helm("list", "-o", "json"))[0]["status"] == "deployed"
    assert "it answers" in helm("test", "app", "--logs")
    helm("upgrade", "app", str(CHART), "--set", "replicas=3,image=nginx:2", "--wait", "--timeout", "60s")
    assert kubectl("get", "deployment", "app", "-o", "jsonpath={.status.updatedReplicas}") == "3"
    assert ran(kubectl, "pre-upgrade")
    assert "replicas: 3" in helm("get", "values", "app")
    helm("rollback", "app", "1", "--wait", "--timeout", "60s")
    assert kubectl("get", "deployment", "app", "-o", "jsonpath={.spec.template.spec.containers[0].image}") == "nginx:1"
    assert kubectl("get", "configmap", "app", "-o", "jsonpath={.data.GREETING}") == "revision 1"
    assert helm.history() == [(1, "superseded"), (2, "superseded"), (3, "deployed")]
    helm("uninstall", "app", "--wait")
    assert ran(kubectl, "pre-delete")
    assert ran(kubectl, "post-delete")
    assert kubectl("get", "deployment,service,widget", "-l", "app!=none", "-o", "name") == ""
    assert json.loads(helm("list", "--all-namespaces", "-o", "json", "--filter", "^none$")) == []


@pytest.mark.parametrize("helm", ["helm"], indirect=True)
def test_a_failed_upgrade_is_rolled_back(helm: Helm) -> None:
    helm("install", "app", str(CHART), "--wait", "--timeout", "60s", "--set", "replicas=1")
    failed = helm.run("upgrade", "app", str(CHART), "--set", "exit=1", "--atomic", "--timeout", "3s")
    assert failed.returncode == 1
    assert "has been rolled back" in failed.stderr
    hook = helm.run("upgrade", "app", str(CHART), "--set", "upgradeHookExit=1", "--timeout", "30s")
    assert hook.returncode == 1
    assert "pre-upgrade hooks failed" in hook.stderr
    assert [status for _, status in helm.history()] == ["superseded", "failed", "deployed", "failed"]
    assert helm.kubectl("get", "deployment", "app", "-o", "jsonpath={.spec.replicas}") == "1"


@pytest.mark.parametrize("helm", ["helm"], indirect=True)
def test_what_the_schema_refuses_is_not_installed(helm: Helm) -> None:
    assert "kind: Widget" in helm("template", "x", str(CHART))
    helm("install", "app", str(CHART), "--dry-run=server")
    refused = helm.run("install", "app", str(CHART), "--set", "replicas=0", "--no-hooks")
    assert refused.returncode == 1
    assert "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1" in refused.stderr
