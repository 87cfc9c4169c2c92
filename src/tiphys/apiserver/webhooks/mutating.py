"""MutatingAdmissionWebhook: webhooks change a write, one after another.

Each sees what the one before made of the object. When any of them changed it, built-in plugins and the webhooks that
wish it (reinvocationPolicy IfNeeded) run once more. A changed object is pruned and defaulted as if it had come from the
client; the registry prepares and validates it again.

Spec: Kubernetes documentation, "Dynamic Admission Control" (reinvocation policy, ordering, failure policy).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import orjson

from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.api.patch import PatchUnfit, apply_json_patch
from tiphys.apiserver.admission import Attributes, Plugin, Reinvocation
from tiphys.apiserver.webhooks.calling import Caller, Shown, Unanswered, annotation
from tiphys.apiserver.webhooks.hooks import Hook, HookSource
from tiphys.base.errors import ApiError, internal

log = logging.getLogger(__name__)

NAME = "MutatingAdmissionWebhook"
_MUTATION = "mutation.webhook.admission.k8s.io/"
_PATCH = "patch.webhook.admission.k8s.io/"
_FAILED_OPEN = "failed-open.mutation.webhook.admission.k8s.io/"
_SERVER_METADATA = ("uid", "creationTimestamp", "generation", "selfLink", "managedFields")


class _Rounds:
    """What is known between the two rounds of one write."""

    def __init__(self) -> None:
        self.asked: set[tuple[str, int]] = set()
        """Webhooks that were asked and may be asked again, as long as nothing changed since."""
        self.due: set[tuple[str, int]] = set()
        """Webhooks to be asked again, since the object changed after they saw it."""
        self.last: bytes | None = None
        """The object after the first round, when a webhook may be asked again."""

    def on_change(self) -> None:
        self.due |= self.asked
        self.asked.clear()


class MutatingWebhooks(Plugin):
    """See the module's docstring."""

    sees_bodies = True

    def __init__(self, source: HookSource, caller: Caller, kinds: Kinds) -> None:
        self._source = source
        self._caller = caller
        self._kinds = kinds

    def is_active(self) -> bool:
        return not self._source.empty

    async def mutate(self, attributes: Attributes) -> None:
        hooks = self._source.candidates(attributes)
        if hooks:
            await self._run(hooks, attributes)

    async def _run(self, hooks: Sequence[Hook], attributes: Attributes) -> None:
        invocation = attributes.reinvoked()
        rounds: _Rounds = invocation.states.setdefault(NAME, _Rounds())
        if invocation.second_round and rounds.last is not None and rounds.last != _snapshot(attributes.obj):
            rounds.on_change()  # built-in plugins changed what the webhooks left
        shown = Shown(attributes, self._caller.convert, mutating=True)
        for hook in hooks:
            if invocation.second_round and hook.key not in rounds.due:
                continue
            matched = await self._caller.matched(hook, attributes, shown)
            if matched is None:
                continue
            rounds.due.discard(hook.key)
            if await self._ask(hook, matched, attributes, shown, invocation):
                invocation.again = True
                rounds.on_change()
            if hook.may_run_again:
                rounds.asked.add(hook.key)
        if rounds.asked or rounds.due:
            rounds.last = _snapshot(attributes.obj)

    async def _ask(
        self, hook: Hook, matched: Kind, attributes: Attributes, shown: Shown, invocation: Reinvocation
    ) -> bool:
        """Ask one webhook and apply what it answers; tell whether the object changed."""
        place = f"round_{int(invocation.second_round)}_index_{hook.position}"
        changed = False
        try:
            outcome = await self._caller.ask(hook, matched, attributes, shown)
            operations = _operations(outcome.patch) if outcome.patch else []
            if operations:
                changed = await self._apply(hook, matched, outcome.patch_type, operations, attributes, shown)
                told = annotation(hook, patch=operations, patchType=outcome.patch_type)
                attributes.annotate(_PATCH + place, told)
        except Unanswered as error:
            if not hook.fails_open:
                log.warning("%s; the request is refused, since failurePolicy is Fail", error)
                raise internal(str(error)) from error
            log.warning("%s; the request goes on, since failurePolicy is Ignore", error)
            attributes.annotate(_FAILED_OPEN + place, hook.name)
        finally:
            attributes.annotate(_MUTATION + place, annotation(hook, mutated=changed))
        return changed

    async def _apply(
        self,
        hook: Hook,
        matched: Kind,
        patch_type: str,
        operations: list[Any],
        attributes: Attributes,
        shown: Shown,
    ) -> bool:
        """Apply a patch that is not empty; tell whether the object changed."""
        obj = attributes.obj
        if obj is None:
            raise internal(
                f'admission webhook "{hook.name}" attempted to modify the object, which is not supported for this '
                "operation"
            )
        if patch_type != "JSONPatch":
            raise Unanswered(hook.name, f'unsupported patch type "{patch_type}"')
        before, _ = await shown.objects(matched)
        assert before is not None
        try:
            after = apply_json_patch(before, operations)
        except ApiError as error:
            raise internal(error.fault if isinstance(error, PatchUnfit) else error.message) from error
        if after == before:
            return False
        made = await self._accept(matched, after, attributes)
        obj.clear()
        obj.update(made)
        shown.forget()
        return True

    async def _accept(self, matched: Kind, after: Any, attributes: Attributes) -> JsonObject:
        """Return what a patch made as an object of the version that is worked on: pruned, converted and defaulted."""
        if not isinstance(after, dict):
            raise internal("json: cannot unmarshal into an object")
        body = attributes.body
        if body is not None:
            kind = self._kinds.by_kind(*body)
            after["apiVersion"], after["kind"] = body.api_version, body.kind
            if kind is not None:
                _decode(kind, after)
            return after
        kind = attributes.kind
        after["apiVersion"], after["kind"] = matched.api_version, matched.kind
        _decode(matched, after)
        made: JsonObject = await self._caller.convert(matched, after, kind)
        made = dict(made, metadata=dict(made.get("metadata") or {}))
        _restore(made["metadata"], attributes)
        kind.strategy.default(made)
        return made


def _snapshot(obj: JsonObject | None) -> bytes:
    return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)


def _operations(patch: bytes) -> list[Any]:
    try:
        operations = orjson.loads(patch)
    except orjson.JSONDecodeError as error:
        raise internal(f"the patch is not JSON: {error}") from error
    if not isinstance(operations, list):
        raise internal("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    return operations


def _decode(kind: Kind, obj: JsonObject) -> None:
    """Prune unknown fields; for built-in kinds wrong types are an error, custom resources are validated later."""
    errors = kind.schema.decode(obj).type_errors
    if errors:
        raise internal(errors[0])


def _restore(metadata: dict[str, Any], attributes: Attributes) -> None:
    """Put back what webhooks neither see nor may change: what the server says of an object."""
    assert attributes.obj is not None
    before = attributes.obj.get("metadata") or {}
    metadata.pop("resourceVersion", None)
    if "resourceVersion" in before:
        metadata["resourceVersion"] = before["resourceVersion"]
    for key in _SERVER_METADATA:
        if key in before:
            metadata[key] = before[key]
        else:
            metadata.pop(key, None)
    if not metadata.get("name") and "name" in before:
        metadata["name"] = before["name"]
