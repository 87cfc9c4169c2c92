"""Objects of custom resources in another version than they are stored in: by the definition's webhook, or by name alone.

`Converter` asks webhooks: for reads it puts what they answer beside the cached object (`CachedObject.renditions`), where
every further reader finds it; for writes it converts objects on their way to and from the store. One call converts all
objects of a list that are in the same other version. What a webhook may not do (change identity, answer for another
request, forget objects) makes the read or write fail as a whole, and a watch end.

Invariant: what a reader gets has the schema of its version: unknown fields are pruned, defaults are filled, and
metadata other than labels and annotations is the stored one.

DIFFERS: managedFields of another version are kept as they are.

Spec: Kubernetes docs, "Versions in CustomResourceDefinitions", "Webhook conversion", "Response".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from tiphys.api.kind import CustomConversion, JsonObject, Kind
from tiphys.api.metadata import validate_annotations
from tiphys.api.selectors import validate_labels
from tiphys.apiserver.cached import CachedObject, fitted, in_version
from tiphys.apiserver.conversionmetrics import CALL, INVALID_OBJECT, MALFORMED, PARTIAL, ConversionMetrics
from tiphys.apiserver.webhooks.client import CallFailed
from tiphys.base.clock import Clock, Randomness, SystemClock
from tiphys.base.errors import ApiError, TiphysError

REVIEW_GROUP = "apiextensions.k8s.io"
REVIEW_VERSIONS = ("v1", "v1beta1")
"""ConversionReview versions that are spoken here."""
TIMEOUT_S = 30.0
"""What upstream gives a conversion webhook; a definition cannot change it."""
BATCH_OBJECTS = 500
"""Objects of one call: as many as a client asks for in one page."""
TURN_OBJECTS = 50
"""Objects that are made to fit their schema in one turn of the loop."""
BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of the objects of one call, unless one alone is larger: an answer may have four times as many."""


Post = Callable[[Mapping[str, Any], bytes, float], Awaitable[Any]]
"""(clientConfig, body, timeout in s) -> the answer's JSON value. Raises CallFailed."""


async def _no_webhooks(client_config: Mapping[str, Any], body: bytes, timeout_s: float) -> Any:
    raise CallFailed("this server was assembled without a client for webhooks")


class Converter:
    """See the module's docstring. One for all custom kinds of a server."""

    def __init__(
        self,
        randomness: Randomness,
        post: Post = _no_webhooks,
        clock: Clock | None = None,
        metrics: ConversionMetrics | None = None,
    ) -> None:
        self._randomness = randomness
        self._post = post
        self._clock = clock or SystemClock()
        self._metrics = metrics
        self._underway: dict[tuple[CachedObject, str], asyncio.Future[None]] = {}
        """Objects that are being converted for a reader, and for whom else asks meanwhile."""

    def may_call(self, kind: Kind) -> bool:
        """Tell whether reading objects of this kind may take a webhook."""
        return kind.conversion is not None and kind.conversion.webhook is not None

    async def convert(self, kind: Kind, obj: JsonObject, target: str) -> JsonObject:
        """Return an object of a custom kind as one of the apiVersion `target`, defaulted and pruned. Raises ApiError."""
        (converted,) = await self.convert_all(kind, [obj], target)
        return converted

    async def convert_all(self, kind: Kind, objs: Sequence[JsonObject], target: str) -> list[JsonObject]:
        """Convert objects of any versions of a custom kind's definition. Those that are in `target` stay as they are."""
        conversion = kind.conversion
        assert conversion is not None, f"{kind.plural} is no custom resource"
        results = list(objs)
        by_source: dict[str, list[int]] = {}
        for index, obj in enumerate(objs):
            if obj["apiVersion"] != target:
                by_source.setdefault(obj["apiVersion"], []).append(index)
        for source, indices in by_source.items():
            if conversion.webhook is None:
                for index in indices:
                    results[index] = fitted(conversion, {**objs[index], "apiVersion": target})
                continue
            for some in _batches(indices, [len(orjson.dumps(objs[index])) for index in indices]):
                converted = await self._call(kind, conversion, [objs[index] for index in some], source, target)
                for number, (index, obj) in enumerate(zip(some, converted, strict=True), 1):
                    results[index] = fitted(conversion, obj)
                    if number % TURN_OBJECTS == 0:
                        await asyncio.sleep(0)
        return results

    async def prepare(self, kind: Kind, objects: Iterable[CachedObject]) -> bool:
        """Make the renditions that a webhook makes, so that `in_version` finds them; tell whether others ran meanwhile.

        Raises ApiError when the webhook fails, for whoever asked for the same at the same time too.
        """
        if not self.may_call(kind):
            return False
        missing = [obj for obj in objects if in_version(kind, obj) is None]
        if not missing:
            return False
        waiting = [self._underway[key] for obj in missing if (key := (obj, kind.api_version)) in self._underway]
        mine = [obj for obj in missing if (obj, kind.api_version) not in self._underway]
        if mine:
            await self._render(kind, mine)
        if waiting:
            await asyncio.gather(*waiting)
            await self.prepare(kind, missing)  # who asked first may have asked for an earlier definition
        return True

    async def _render(self, kind: Kind, objects: Sequence[CachedObject]) -> None:
        done = asyncio.get_running_loop().create_future()
        for obj in objects:
            self._underway[obj, kind.api_version] = done
        try:
            converted = await self.convert_all(kind, [orjson.loads(obj.value) for obj in objects], kind.api_version)
            for obj, result in zip(objects, converted, strict=True):
                obj.remember(kind, _encode(result))
        except ApiError as error:
            done.set_exception(error)
            done.exception()  # it is told to who waits; nobody has to
            raise
        finally:
            for obj in objects:
                self._underway.pop((obj, kind.api_version), None)
            if not done.done():
                done.set_result(None)

    async def _call(
        self, kind: Kind, conversion: CustomConversion, objs: Sequence[JsonObject], source: str, target: str
    ) -> list[JsonObject]:
        """Ask the webhook to convert objects of one version. Raises ApiError(500) in upstream's words."""
        webhook = conversion.webhook or {}
        started_s, failure = self._clock.monotonic_s(), ""
        try:
            return await self._ask(webhook, kind.kind, objs, source, target)
        except _Failed as error:
            failure = error.sort
            raise ApiError(500, "", str(error)) from error
        finally:
            if self._metrics is not None:
                name = f"{kind.plural}.{kind.group}"
                self._metrics.observe(name, source, target, self._clock.monotonic_s() - started_s, failure)

    async def _ask(
        self, webhook: Mapping[str, Any], kind: str, objs: Sequence[JsonObject], source: str, target: str
    ) -> list[JsonObject]:
        known = webhook.get("conversionReviewVersions") or ()
        version = next((name for name in known if name in REVIEW_VERSIONS), "")
        if not version:
            raise _Failed(CALL, "no supported conversion review versions")
        what = f"conversion webhook for {source}, Kind={kind}"
        uid = self._randomness.uid()
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"{REVIEW_GROUP}/{version}",
            "request": {"uid": uid, "desiredAPIVersion": target, "objects": list(objs)},
        }
        try:
            answer = await self._post(webhook.get("clientConfig") or {}, orjson.dumps(review), TIMEOUT_S)
        except CallFailed as error:
            raise _Failed(CALL, f"{what} failed: {error}") from error
        problem, converted = read_review(answer, version, uid)
        if problem:
            raise _Failed(MALFORMED, f"{what} failed: {problem}")
        if len(converted) != len(objs):
            raise _Failed(PARTIAL, f"{what} returned {len(converted)} objects, expected {len(objs)}")
        alone = len(objs) == 1
        for index, (before, after) in enumerate(zip(objs, converted, strict=True)):
            problem = identity_problem(before, after, target, alone)
            if problem:
                where = "invalid object" if alone else f"invalid converted object at index {index}"
                raise _Failed(INVALID_OBJECT, f"{what} returned {where}{problem}")
            problem = restore_metadata(before, after)
            if problem:
                where = "invalid metadata" if alone else f"invalid metadata in object at index {index}"
                raise _Failed(INVALID_OBJECT, f"{what} returned {where}: {problem}")
        return converted


class _Failed(TiphysError):
    """What a call came to that did not convert; `sort` is upstream's name for it."""

    def __init__(self, sort: str, message: str) -> None:
        super().__init__(message)
        self.sort = sort


def _batches(indices: Sequence[int], sizes_bytes: Sequence[int]) -> Iterator[list[int]]:
    """Yield the indices in batches of one call each."""
    batch: list[int] = []
    batch_bytes = 0
    for index, size_bytes in zip(indices, sizes_bytes, strict=True):
        if batch and (len(batch) == BATCH_OBJECTS or batch_bytes + size_bytes > BATCH_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(index)
        batch_bytes += size_bytes
    yield batch


def _encode(obj: JsonObject) -> bytes:
    """Return an object as it would be stored in its version."""
    metadata = obj.get("metadata") or {}
    metadata.pop("resourceVersion", None)
    head = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}
    return orjson.dumps(head | {name: value for name, value in obj.items() if name not in head})


def read_review(answer: Any, version: str, uid: str) -> tuple[str, list[Any]]:
    """Return what is wrong with a webhook's answer ("" for nothing), and the converted objects."""
    if not isinstance(answer, dict):
        return "no response provided", []
    if version != "v1beta1":  # upstream checks neither kind nor uid of the older version
        wanted = f"{REVIEW_GROUP}/{version}, Kind=ConversionReview"
        got = f"{answer.get('apiVersion', '')}, Kind={answer.get('kind', '')}"
        if got != wanted:
            return f"expected webhook response of {wanted}, got {got}", []
    response = answer.get("response")
    if not isinstance(response, dict):
        return "no response provided", []
    if version != "v1beta1" and response.get("uid", "") != uid:
        return f'expected response.uid="{uid}", got "{response.get("uid", "")}"', []
    result = response.get("result")
    result = result if isinstance(result, dict) else {}
    if result.get("status") != "Success":
        told = result.get("message")
        return str(told or f"response.result.status was '{result.get('status', '')}', not 'Success'"), []
    converted = response.get("convertedObjects")
    return "", converted if isinstance(converted, list) else []


def identity_problem(before: JsonObject, after: Any, target: str, alone: bool) -> str:
    """Return what follows `invalid object` if an answered object is not the sent one in another version, "" if it is."""
    at = " at index 0" if alone else ""
    if not isinstance(after, dict) or not after.get("kind"):
        return ": Object 'Kind' is missing in '" + orjson.dumps(after).decode() + "'"
    if after.get("apiVersion") != target:
        return f"{at}: invalid groupVersion (expected {target}, received {after.get('apiVersion', '')})"
    if after["kind"] != before["kind"]:
        return f"{at}: invalid kind (expected {before['kind']}, received {after['kind']})"
    old, new = before.get("metadata") or {}, after.get("metadata")
    new = new if isinstance(new, dict) else {}
    for field in ("name", "namespace", "uid"):
        expected, got = old.get(field) or "", new.get(field) or ""
        if expected != got:
            return f": must have the same {'UID' if field == 'uid' else field}: {expected} != {got}"
    return ""


def restore_metadata(before: JsonObject, after: JsonObject) -> str:
    """Give the answered object the metadata that it had, but for labels and annotations. Return what is wrong, or ""."""
    answered = after.get("metadata")
    if "metadata" not in after:
        return "missing metadata in converted object"
    if not isinstance(answered, dict):
        return f"invalid metadata of type {_go_type(answered)} in converted object"
    metadata = dict(before.get("metadata") or {})
    for field in ("labels", "annotations"):
        had = metadata.pop(field, None) or {}
        values = answered.get(field)
        if values is None:
            continue
        if not isinstance(values, dict):
            return f"invalid metadata.{field} of type {_go_type(values)} in converted object"
        for key, value in values.items():
            if not isinstance(value, str):
                return f"metadata.{field}[{key}] must be a string, but is {_go_type(value)} in converted object"
        if values != had:
            if field == "labels":
                causes = validate_labels(values, "metadata.labels")
            else:
                causes = validate_annotations(values, "metadata.annotation")
            if causes:
                texts = [f"{cause.field}: {cause.message}" for cause in causes]
                return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        metadata[field] = values
    after["metadata"] = metadata
    return ""


def _go_type(value: Any) -> str:
    """Return the Go type that decoded JSON has."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    return "[]interface {}" if isinstance(value, list) else "map[string]interface {}"
