"""An operator as its users write them: each Garden gets a Deployment of its own, a status, a finalizer and a timer.

Run by `kopf run`; the tests give its group as GARDEN_GROUP.
"""

import os
from typing import Any

import kopf
import kubernetes

GROUP = os.environ["GARDEN_GROUP"]


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    kubernetes.config.load_kube_config()
    settings.persistence.finalizer = f"{GROUP}/held"


@kopf.on.create(GROUP, "v1", "gardens")
@kopf.on.update(GROUP, "v1", "gardens", field="spec")
def grow(body: kopf.Body, spec: kopf.Spec, name: str, namespace: str, patch: kopf.Patch, **_: Any) -> dict[str, int]:
    labels = {"garden": name}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": spec["plants"],
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "plant"}]}},
        },
    }
    kopf.adopt(deployment)
    api = kubernetes.client.AppsV1Api()
    try:
        api.create_namespaced_deployment(namespace, deployment)
    except kubernetes.client.exceptions.ApiException as error:
        if error.status != 409:
            raise
        api.patch_namespaced_deployment(name, namespace, {"spec": {"replicas": spec["plants"]}})
    patch.status["plants"] = spec["plants"]
    kopf.info(body, reason="Grown", message=f"{spec['plants']} plants")
    return {"grown": spec["plants"]}


@kopf.timer(GROUP, "v1", "gardens", interval=0.5)
def water(status: kopf.Status, patch: kopf.Patch, **_: Any) -> None:
    patch.status["waterings"] = status.get("waterings", 0) + 1


@kopf.on.event("", "v1", "pods", labels={"garden": kopf.PRESENT})
def seen(name: str, **_: Any) -> None:
    print(f"saw {name}")


@kopf.on.delete(GROUP, "v1", "gardens")
def uproot(name: str, namespace: str, **_: Any) -> None:
    kubernetes.client.CoreV1Api().create_namespaced_config_map(
        namespace, {"metadata": {"name": f"{name}-was-here"}, "data": {"by": "the operator"}}
    )
