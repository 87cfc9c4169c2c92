"""A kopf operator with admission webhooks: its own server and registration, asked over its own certificates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kopf_process import running_kopf
from kubectl_cli import Kubectl

from tiphys.wire.tls import create_ca, issue

OPERATOR = Path(__file__).parent / "kopf_webhooks.py"

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: orchards.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {plural: orchards, singular: orchard, kind: Orchard}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {trees: {type: integer}, soil: {type: string}}}
"""
ORCHARD = """
apiVersion: GROUP/v1
kind: Orchard
metadata: {name: home}
spec: {trees: TREES}
"""


@pytest.fixture
def group(kubectl: Kubectl, tmp_path: Path) -> Iterator[str]:
    """Give a group of its own, with the kind Orchard, while the operator runs and its webhooks are registered."""
    group = f"{kubectl.namespace}.kopf.tiphys.dev"
    ca = create_ca("orchards")
    (tmp_path / "ca.crt").write_bytes(ca.certificate)
    issue(ca, "hook", ip_addresses=["127.0.0.1"], server=True).write(tmp_path / "tls.crt", tmp_path / "tls.key")
    kubectl.apply(CRD.replace("GROUP", group))
    kubectl("wait", f"crd/orchards.{group}", "--for=condition=Established", "--timeout=30s")
    environment = {"ORCHARD_GROUP": group, "ORCHARD_TLS": str(tmp_path)}
    configurations = [f"{sort}webhookconfiguration/{group}" for sort in ("validating", "mutating")]
    try:
        with running_kopf(kubectl, OPERATOR, tmp_path / "operator.log", environment):
            for configuration in configurations:
                kubectl("wait", "--for=create", configuration, "--timeout=40s")
                kubectl("wait", configuration, "--for=jsonpath={.webhooks[0].name}", "--timeout=40s")
            yield group
    finally:
        kubectl("delete", "--ignore-not-found", *configurations)
        kubectl("delete", f"crd/orchards.{group}", "--wait=false")


def test_an_operators_webhooks_fill_warn_and_refuse(kubectl: Kubectl, group: str) -> None:
    def orchard(trees: int) -> str:
        return ORCHARD.replace("GROUP", group).replace("TREES", str(trees))

    told = kubectl.run("apply", "-f", "-", stdin=orchard(1000))
    assert (told.returncode, "that is a forest" in told.stderr) == (1, True)
    assert "denied the request" in told.stderr
    told = kubectl.run("create", "--dry-run=server", "-o", "jsonpath={.spec.soil}", "-f", "-", stdin=orchard(20))
    assert (told.returncode, told.stdout) == (0, "loam"), told.stderr
    assert "Warning: 20 trees need water (but this is a dry run)" in told.stderr
    told = kubectl.run("apply", "-f", "-", stdin=orchard(20))
    assert (told.returncode, "Warning: 20 trees need water" in told.stderr) == (0, True)
    assert kubectl("get", "orchard", "home", "-o", "jsonpath={.spec.soil}") == "loam"
    refused = kubectl.refused("delete", "orchard", "home")
    assert "orchards stay" in refused
    kubectl("patch", "orchard", "home", "--type=merge", "-p", '{"spec":{"trees":3}}')
    assert "that is a forest" in kubectl.refused(
        "patch", "orchard", "home", "--type=merge", "-p", '{"spec":{"trees":101}}'
    )
