"""kr8s, synchronous and asynchronous."""

from __future__ import annotations

import kr8s
import kr8s.asyncio
import kr8s.asyncio.objects
import kr8s.objects
import pytest
from kubectl_cli import Kubectl

# these libraries leave sockets to the garbage collector, and warn of their own future
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Kubernetes version:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "talker", "labels": {"app": "talker"}},
    "spec": {"containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", "echo hello; sleep 10000"]}]},
}


def test_a_pod_and_what_is_around_it(kubectl: Kubectl) -> None:
    api = kr8s.api(kubeconfig=kubectl.environment["KUBECONFIG"], namespace=kubectl.namespace)
    assert int(api.version()["minor"]) == 37
    assert len(list(api.get("nodes"))) == 2
    pod = kr8s.objects.Pod({**POD, "metadata": {**POD["metadata"], "namespace": kubectl.namespace}}, api=api)
    pod.create()
    pod.wait("condition=Ready", timeout=30)
    assert pod.exists()
    assert list(pod.logs()) == ["hello"]
    assert pod.exec(["echo", "hi"]).stdout == b"hi\n"
    pod.label({"more": "labels"})
    pod.annotate({"note": "x"})
    assert [p.name for p in api.get("pods", label_selector="more=labels", namespace=kubectl.namespace)] == ["talker"]
    assert any(kind["kind"] == "Deployment" for kind in api.api_resources())
    pod.delete()
    pod.wait("delete", timeout=30)


async def test_a_deployment_asynchronously(kubectl: Kubectl) -> None:
    api = await kr8s.asyncio.api(kubeconfig=kubectl.environment["KUBECONFIG"], namespace=kubectl.namespace)
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    deployment = await kr8s.asyncio.objects.Deployment(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": kubectl.namespace},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
        api=api,
    )
    await deployment.create()
    await deployment.wait("condition=Available", timeout=60)
    await deployment.scale(2)
    await deployment.refresh()
    assert deployment.replicas == 2
    pods = [pod async for pod in api.get("pods", namespace=kubectl.namespace, label_selector=labels)]
    assert pods
    await deployment.delete()
    assert not await deployment.exists()
