"""One call of one webhook: may it be called at all, how long may it take, what does a failure mean.

`Caller.choose` tells which webhooks a write concerns; `Caller.ask` asks one and returns its `Outcome`, records warnings
and audit annotations, and raises: `Unanswered` when the webhook could not be asked (failurePolicy decides what that
means), ApiError when it refused.

Spec: Kubernetes documentation, "Dynamic Admission Control" (timeouts, failure policy, side effects, match conditions).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from tiphys.api.kind import JsonObject, Kind
from tiphys.api.names import validate_qualified_name
from tiphys.apiserver.admission import Attributes
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.pipeline import Authorizer
from tiphys.apiserver.rulematching import Matcher
from tiphys.apiserver.webhooks.client import CallFailed, WebhookClient
from tiphys.apiserver.webhooks.hooks import Hook
from tiphys.apiserver.webhooks.metrics import MUTATING, VALIDATING, WebhookMetrics
from tiphys.apiserver.webhooks.review import (
    BadReview,
    Outcome,
    dry_run_unsupported,
    encode_review,
    read_review,
    refusal,
    shown_object,
)
from tiphys.base.clock import Clock, Randomness
from tiphys.base.errors import ApiError, TiphysError, forbidden, gateway_timeout, internal

log = logging.getLogger(__name__)

Convert = Callable[[Kind, JsonObject, Kind], Awaitable[JsonObject]]
"""(kind of the object, object, wanted kind) -> the object in the version of the wanted kind; not changed."""

_WITHOUT_SIDE_EFFECTS = ("None", "NoneOnDryRun")
LATE = "Timeout: request did not complete within requested timeout"


class Unanswered(TiphysError):
    """A webhook could not be asked, or answered nothing usable."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f'failed calling webhook "{name}": {reason}')


class Shown:
    """The objects of one write as webhooks see them, in each version that one of them asks for."""

    def __init__(self, attributes: Attributes, convert: Convert, *, mutating: bool) -> None:
        self._attributes = attributes
        self._convert = convert
        self.mutating = mutating
        self._objects: dict[str, JsonObject | None] = {}
        self._olds: dict[str, JsonObject | None] = {}
        self._encoded: dict[str, tuple[bytes, bytes]] = {}

    async def objects(self, matched: Kind) -> tuple[JsonObject | None, JsonObject | None]:
        """Return new and old object in the version of `matched`. Raises ApiError if a conversion fails."""
        version, attributes = matched.api_version, self._attributes
        if version not in self._objects:
            self._objects[version] = await self._in(matched, attributes.obj, is_old=False)
        if version not in self._olds:
            self._olds[version] = await self._in(matched, attributes.old, is_old=True)
        return self._objects[version], self._olds[version]

    async def encoded(self, matched: Kind) -> tuple[bytes, bytes]:
        """Return both as JSON."""
        version = matched.api_version
        found = self._encoded.get(version)
        if found is None:
            obj, old = await self.objects(matched)
            found = self._encoded[version] = orjson.dumps(obj), orjson.dumps(old)
        return found

    def forget(self) -> None:
        """The new object was changed."""
        self._objects.clear()
        self._encoded.clear()

    async def _in(self, matched: Kind, obj: JsonObject | None, *, is_old: bool) -> JsonObject | None:
        attributes = self._attributes
        if obj is not None and attributes.body is None:
            try:
                obj = await self._convert(attributes.kind, obj, matched)
            except ApiError as error:
                raise internal(error.message) from error
        return shown_object(obj, attributes, mutating=self.mutating, is_old=is_old)


class Caller:
    """See the module's docstring. One for all webhooks."""

    def __init__(
        self,
        client: WebhookClient,
        matcher: Matcher,
        convert: Convert,
        namespaces: ResourceCache,
        authorizer: Authorizer,
        clock: Clock,
        randomness: Randomness,
        metrics: WebhookMetrics,
    ) -> None:
        self.convert = convert
        self._metrics = metrics
        self._client = client
        self._matcher = matcher
        self._namespaces = namespaces
        self._authorizer = authorizer
        self._clock = clock
        self._randomness = randomness

    async def matched(self, hook: Hook, attributes: Attributes, shown: Shown) -> Kind | None:
        """Return the version in which a webhook is to be shown the write, None if it is not about it."""
        matched = self._matcher.match(hook.matching, attributes)
        if matched is None or not hook.is_conditional:
            return matched
        from tiphys.apiserver.policies.conditions import ConditionsFailed, conditions_match
        from tiphys.apiserver.policies.variables import Inputs

        obj, old = await shown.objects(matched)
        inputs = Inputs(attributes, matched, obj, old, self._namespaces, self._authorizer)
        try:
            fits = await conditions_match(hook.conditions, inputs.bindings(), fail=not hook.fails_open)
        except ConditionsFailed as error:
            kind = attributes.requested_kind
            raise forbidden(kind.group, kind.plural, attributes.told_name, str(error)) from error
        return matched if fits else None

    async def ask(self, hook: Hook, matched: Kind, attributes: Attributes, shown: Shown) -> Outcome:
        """Ask a webhook. Raises Unanswered, and ApiError for a refusal."""
        if attributes.dry_run and hook.side_effects not in _WITHOUT_SIDE_EFFECTS:
            raise dry_run_unsupported(hook.name)
        sort, began_s = MUTATING if shown.mutating else VALIDATING, self._clock.monotonic_s()
        try:
            outcome = await self._outcome(hook, matched, attributes, shown)
        except Unanswered:
            self._metrics.failed(hook, sort, attributes.operation, self._clock.monotonic_s() - began_s)
            raise
        self._record(hook, outcome, attributes)
        error = None if outcome.allowed else refusal(hook.name, outcome.status)
        code = 200 if error is None else error.code
        self._metrics.answered(hook, sort, attributes.operation, self._clock.monotonic_s() - began_s, code)
        if error is not None:
            raise error
        return outcome

    async def _outcome(self, hook: Hook, matched: Kind, attributes: Attributes, shown: Shown) -> Outcome:
        version, uid = hook.review_version, self._randomness.uid()
        if not version:
            known = "webhook does not accept known AdmissionReview versions (v1, v1beta1)"
            raise Unanswered(hook.name, f"could not create admission objects: {known}")
        obj, old = await shown.encoded(matched)
        body = encode_review(version, uid, attributes, matched, obj, old, mutating=shown.mutating)
        timeout_s = self._timeout_s(hook, attributes)
        try:
            answer = await self._client.post(hook.client_config, body, timeout_s)
            return read_review(answer, version, uid, mutating=shown.mutating)
        except CallFailed as error:
            if error.timed_out and hook.fails_open and timeout_s < hook.timeout_s:
                raise gateway_timeout(LATE) from error  # the time of the whole request is over
            raise Unanswered(hook.name, f"failed to call webhook: {error}") from error
        except BadReview as error:
            raise Unanswered(hook.name, f"received invalid webhook response: {error}") from error

    def _timeout_s(self, hook: Hook, attributes: Attributes) -> float:
        """Return how long a call may take: never longer than its request."""
        if not attributes.deadline_s:
            return hook.timeout_s
        left_s = attributes.deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise gateway_timeout(LATE)
        return min(hook.timeout_s, left_s)

    def _record(self, hook: Hook, outcome: Outcome, attributes: Attributes) -> None:
        attributes.warnings.extend(outcome.warnings)
        for name, value in outcome.audit_annotations.items():
            key = f"{hook.name}/{name}"
            problems = validate_qualified_name(key.lower())
            if problems:
                log.warning("webhook %s: audit annotation %r is left out: %s", hook.name, key, problems[0])
            else:
                attributes.annotate(key, value)


def annotation(hook: Hook, **more: Any) -> str:
    """Return the value of an audit annotation about a mutating webhook."""
    told: Mapping[str, Any] = {"configuration": hook.configuration, "webhook": hook.name, **more}
    return orjson.dumps(told).decode()
