"""lightkube: typed objects, server-side apply, custom resources made on the spot, watches and logs."""

from __future__ import annotations

import pytest
from kubectl_cli import Kubectl
from lightkube import ApiError, Client, KubeConfig, codecs
from lightkube.generic_resource import create_namespaced_resource, load_in_cluster_generic_resources
from lightkube.models.core_v1 import Container, PodSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod
from lightkube.types import CascadeType, PatchType

# these libraries leave sockets to the garbage collector, and warn of their own future
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.light.tiphys.dev}
spec:
  group: light.tiphys.dev
  scope: Namespaced
  names: {plural: PLURAL, singular: SINGULAR, kind: KIND}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer}, colour: {type: string, default: blue}}}
          status: {type: object, properties: {size: {type: integer}}}
"""


@pytest.fixture
def api(kubectl: Kubectl) -> Client:
    config = KubeConfig.from_file(kubectl.environment["KUBECONFIG"])
    return Client(config=config, namespace=kubectl.namespace, field_manager="lightkube-test")


def test_objects(api: Client) -> None:
    assert len(list(api.list(Node))) == 2
    api.create(ConfigMap(metadata=ObjectMeta(name="made"), data={"a": "1"}))
    api.patch(ConfigMap, "made", {"data": {"b": "2"}}, patch_type=PatchType.MERGE)
    applied = api.apply(ConfigMap(metadata=ObjectMeta(name="applied"), data={"c": "3"}))
    assert applied.data == {"c": "3"}
    with pytest.raises(ApiError) as conflict:
        api.apply(ConfigMap(metadata=ObjectMeta(name="applied"), data={"c": "4"}), field_manager="other")
    assert conflict.value.status.code == 409
    forced = api.apply(
        ConfigMap(metadata=ObjectMeta(name="applied"), data={"c": "4"}), field_manager="other", force=True
    )
    assert forced.data == {"c": "4"}
    assert {m.metadata.name for m in api.list(ConfigMap)} == {"made", "applied", "kube-root-ca.crt"}
    for event, found in api.watch(ConfigMap, fields={"metadata.name": "made"}):
        assert (event, found.data) == ("ADDED", {"a": "1", "b": "2"})
        break
    api.delete(ConfigMap, "made", cascade=CascadeType.BACKGROUND)
    with pytest.raises(ApiError) as gone:
        api.get(ConfigMap, "made")
    assert gone.value.status.reason == "NotFound"


def test_pods_and_deployments(api: Client) -> None:
    pod = Pod(
        metadata=ObjectMeta(name="talker"),
        spec=PodSpec(
            containers=[Container(name="c", image="busybox", command=["sh", "-c", "echo hello; sleep 10000"])]
        ),
    )
    api.create(pod)
    api.wait(Pod, "talker", for_conditions=["Ready"])
    assert list(api.log("talker")) == ["hello\n"]
    text = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: nginx}]}}
"""
    for made in codecs.load_all_yaml(text):
        api.apply(made)
    api.wait(Deployment, "web", for_conditions=["Available"], raise_for_conditions=["ReplicaFailure"])
    api.delete(Pod, "talker", grace_period=0)


def test_custom_resources(api: Client, kubectl: Kubectl) -> None:
    kind = f"Light{kubectl.namespace.replace('-', '')}"
    plural = f"{kind.lower()}s"
    text = CRD.replace("PLURAL", plural).replace("SINGULAR", kind.lower()).replace("KIND", kind)
    kubectl.apply(text)
    try:
        kubectl("wait", f"crd/{plural}.light.tiphys.dev", "--for=condition=Established", "--timeout=30s")
        light = create_namespaced_resource("light.tiphys.dev", "v1", kind, plural)
        api.create(light(metadata=ObjectMeta(name="one"), spec={"size": 1}))
        assert api.get(light, "one").spec == {"size": 1, "colour": "blue"}
        api.patch(light.Status, "one", {"status": {"size": 1}, "spec": {"size": 9}}, patch_type=PatchType.MERGE)
        assert api.get(light, "one").spec["size"] == 1
        kubectl("scale", f"{plural}.light.tiphys.dev/one", "--replicas=5")
        assert api.get(light, "one").spec["size"] == 5
        load_in_cluster_generic_resources(api)
        assert "colour" in kubectl("explain", f"{plural}.spec")
        refused = kubectl.refused("patch", plural, "one", "--type=merge", "-p", '{"spec":{"size":"x"}}')
        assert 'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"' in refused
    finally:
        kubectl("delete", f"crd/{plural}.light.tiphys.dev", "--timeout=30s")
    kubectl.refused("get", plural)
