"""ValidatingAdmissionWebhook: webhooks refuse a write, all asked at once.

Every webhook that a write concerns is asked, whatever the others answer; the first refusal in their order is told.

Spec: Kubernetes documentation, "Dynamic Admission Control" (validating phase, failure policy).
"""

from __future__ import annotations

import asyncio
import logging

from tiphys.api.kind import Kind
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.webhooks.calling import Caller, Shown, Unanswered
from tiphys.apiserver.webhooks.hooks import Hook, HookSource
from tiphys.base.errors import internal

log = logging.getLogger(__name__)

_FAILED_OPEN = "failed-open.validating.webhook.admission.k8s.io/"


class ValidatingWebhooks(Plugin):
    """See the module's docstring."""

    sees_bodies = True

    def __init__(self, source: HookSource, caller: Caller) -> None:
        self._source = source
        self._caller = caller

    def is_active(self) -> bool:
        return not self._source.empty

    async def validate(self, attributes: Attributes) -> None:
        hooks = self._source.candidates(attributes)
        if not hooks:
            return
        shown = Shown(attributes, self._caller.convert, mutating=False)
        relevant: list[tuple[Hook, Kind]] = []
        for hook in hooks:
            matched = await self._caller.matched(hook, attributes, shown)
            if matched is not None:
                relevant.append((hook, matched))
                await shown.encoded(matched)  # once, before they are asked side by side
        if len(relevant) == 1:
            await self._ask(0, *relevant[0], attributes, shown)
        elif relevant:
            calls = (self._ask(index, *one, attributes, shown) for index, one in enumerate(relevant))
            answers = await asyncio.gather(*calls, return_exceptions=True)
            for answer in answers:
                if answer is not None:
                    raise answer

    async def _ask(self, index: int, hook: Hook, matched: Kind, attributes: Attributes, shown: Shown) -> None:
        try:
            await self._caller.ask(hook, matched, attributes, shown)
        except Unanswered as error:
            if not hook.fails_open:
                log.warning("%s; the request is refused, since failurePolicy is Fail", error)
                raise internal(str(error)) from error
            log.warning("%s; the request goes on, since failurePolicy is Ignore", error)
            attributes.annotate(f"{_FAILED_OPEN}round_0_index_{index}", hook.name)
