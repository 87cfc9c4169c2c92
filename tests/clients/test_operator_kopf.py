"""A kopf operator in its own process: children, status, timer, finalizer; what it adopted goes with its owner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kopf_process import running_kopf
from kubectl_cli import Kubectl

OPERATOR = Path(__file__).parent / "kopf_operator.py"

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gardens.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {plural: gardens, singular: garden, kind: Garden}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Plants, type: integer, jsonPath: .status.plants}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [plants], properties: {plants: {type: integer, minimum: 0}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
GARDEN = """
apiVersion: GROUP/v1
kind: Garden
metadata: {name: eden}
spec: {plants: 2}
"""


@pytest.fixture
def group(kubectl: Kubectl) -> Iterator[str]:
    """Give a group of its own, with the kind Garden, while the operator runs."""
    group = f"{kubectl.namespace}.kopf.tiphys.dev"
    kubectl.apply(CRD.replace("GROUP", group))
    kubectl("wait", f"crd/gardens.{group}", "--for=condition=Established", "--timeout=30s")
    log = Path(kubectl.environment["HOME"]) / f"{kubectl.namespace}.log"
    try:
        with running_kopf(kubectl, OPERATOR, log, {"GARDEN_GROUP": group}):
            yield group
    finally:
        kubectl("delete", f"crd/gardens.{group}", "--wait=false")


def test_an_operator_keeps_its_gardens(kubectl: Kubectl, group: str) -> None:
    kubectl.apply(GARDEN.replace("GROUP", group))
    kubectl("wait", "garden/eden", "--for=jsonpath={.status.plants}=2", "--timeout=40s")
    kubectl("rollout", "status", "deployment/eden", "--timeout=40s")
    assert kubectl("get", "garden", "eden", "-o", "jsonpath={.metadata.finalizers[0]}") == f"{group}/held"
    owner = kubectl("get", "deployment", "eden", "-o", "jsonpath={.metadata.ownerReferences[0].kind}")
    assert owner == "Garden"
    kubectl("wait", "garden/eden", "--for=jsonpath={.status.waterings}", "--timeout=20s")
    assert kubectl("get", "garden", "--no-headers").split() == ["eden", "2"]
    kubectl("patch", "garden", "eden", "--type=merge", "-p", '{"spec":{"plants":3}}')
    kubectl("wait", "deployment/eden", "--for=jsonpath={.spec.replicas}=3", "--timeout=30s")
    assert "2 plants" in kubectl("events", "--for", "garden/eden")
    kubectl("delete", "garden", "eden", "--timeout=30s")
    assert kubectl("get", "configmap", "eden-was-here", "-o", "jsonpath={.data.by}") == "the operator"
    kubectl("wait", "deployment/eden", "--for=delete", "--timeout=30s")
    kubectl("wait", "pods", "-l", "garden=eden", "--for=delete", "--timeout=30s")
