"""The two admission plugins of webhooks, from their parts. Called once, by assembly.py."""

from __future__ import annotations

import orjson

from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.apiserver.cache import ResourceCache, WatchCache
from tiphys.apiserver.conversion import Converter
from tiphys.apiserver.pipeline import Authorizer
from tiphys.apiserver.rulematching import Equivalents, Matcher
from tiphys.apiserver.webhooks.calling import Caller, Convert
from tiphys.apiserver.webhooks.client import WebhookClient
from tiphys.apiserver.webhooks.hooks import GROUP, HookSource
from tiphys.apiserver.webhooks.metrics import WebhookMetrics
from tiphys.apiserver.webhooks.mutating import MutatingWebhooks
from tiphys.apiserver.webhooks.validating import ValidatingWebhooks
from tiphys.base.clock import Clock, Randomness
from tiphys.base.metrics import Metrics


def webhook_plugins(
    cache: WatchCache,
    kinds: Kinds,
    client: WebhookClient,
    converter: Converter,
    authorizer: Authorizer,
    clock: Clock,
    randomness: Randomness,
    metrics: Metrics,
) -> tuple[MutatingWebhooks, ValidatingWebhooks]:
    """Return both plugins, over one client."""

    def objects(group: str, plural: str) -> ResourceCache:
        kind = kinds.resource(group, "v1", plural)
        assert kind is not None, f"{plural} are served by every version"
        return cache.resource(kinds.stored(kind).storage_prefix())

    namespaces, equivalents = objects("", "namespaces"), Equivalents(kinds)
    matcher = Matcher(equivalents, namespaces)
    convert, counted = _conversion(converter), WebhookMetrics(metrics)
    caller = Caller(client, matcher, convert, namespaces, authorizer, clock, randomness, counted)
    mutating = HookSource(objects(GROUP, "mutatingwebhookconfigurations"), kinds, equivalents)
    validating = HookSource(objects(GROUP, "validatingwebhookconfigurations"), kinds, equivalents)
    return MutatingWebhooks(mutating, caller, kinds), ValidatingWebhooks(validating, caller)


def _conversion(converter: Converter) -> Convert:
    async def convert(kind: Kind, obj: JsonObject, target: Kind) -> JsonObject:
        if kind.api_version == target.api_version:
            return obj
        if kind.conversion is not None:
            return await converter.convert(kind, orjson.loads(orjson.dumps(obj)), target.api_version)
        if kind.convert is not None:
            return kind.convert(obj, kind.api_version, target.api_version)
        return dict(obj, apiVersion=target.api_version, kind=target.kind)

    return convert
