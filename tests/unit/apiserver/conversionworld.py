"""A definition with two versions and a webhook between them: test support of this folder.

v1 keeps `hostPort: "a:1"`, v2 splits it into `host` and `port`, as the documentation's example does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GROUP = "stable.example.com"
THINGS = f"/apis/{GROUP}/v1/namespaces/default/things"
THINGS_V2 = f"/apis/{GROUP}/v2/namespaces/default/things"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITION = f"{DEFINITIONS}/things.{GROUP}"


def version(name: str, fields: Mapping[str, Any], *, storage: bool, **more: Any) -> dict[str, Any]:
    status = {"type": "object", "properties": {"replicas": {"type": "integer"}}}
    properties = {**fields, "replicas": {"type": "integer"}, "status": status}
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
        },
        **more,
    }


def definition(stored: str = "v1", client_config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    text = {"type": "string"}
    v1 = version("v1", {"hostPort": text}, storage=stored == "v1")
    fields = {"host": text, "port": text, "zone": {"type": "string", "default": "here"}}
    columns = [{"name": "Host", "type": "string", "jsonPath": ".host"}]
    v2 = version(
        "v2",
        fields,
        storage=stored == "v2",
        additionalPrinterColumns=columns,
        selectableFields=[{"jsonPath": ".host"}],
    )
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    conversion = {
        "strategy": "Webhook",
        "webhook": {
            "clientConfig": client_config or {"url": "https://127.0.0.1:1/convert"},
            "conversionReviewVersions": ["v2", "v1", "v1beta1"],
        },
    }
    spec = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [v1, v2], "conversion": conversion}
    return {"metadata": {"name": f"things.{GROUP}"}, "spec": spec}


def convert(obj: dict[str, Any], target: str) -> dict[str, Any]:
    """Convert one object, as the webhook does."""
    result = {**obj, "apiVersion": target}
    if target.endswith("/v2") and "hostPort" in result:
        result["host"], _, result["port"] = result.pop("hostPort").partition(":")
    elif target.endswith("/v1") and ("host" in result or "port" in result):
        result["hostPort"] = f"{result.pop('host', '')}:{result.pop('port', '')}"
        result.pop("zone", None)
    return result


class Conversions:
    """Answers ConversionReviews, and counts them. `spoil` changes an answer, to see what becomes of bad ones."""

    def __init__(self) -> None:
        self.reviews: list[Mapping[str, Any]] = []
        self.spoil: Any = None

    def answer(self, path: str, review: Mapping[str, Any]) -> dict[str, Any]:
        self.reviews.append(review)
        request = review["request"]
        converted = [convert(obj, request["desiredAPIVersion"]) for obj in request["objects"]]
        response = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}
        answer = {"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response}
        if self.spoil is not None:
            self.spoil(answer)
        return answer

    def sent(self) -> list[int]:
        """Return how many objects each call carried, and forget the calls."""
        counts = [len(review["request"]["objects"]) for review in self.reviews]
        self.reviews.clear()
        return counts
