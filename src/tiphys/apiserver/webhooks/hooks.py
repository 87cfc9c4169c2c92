"""The webhooks that are in force: those of all configurations of one sort, in their order, by what they match.

Reads MutatingWebhookConfigurations or ValidatingWebhookConfigurations from the watch cache. A change marks the
arrangement as old; the next write makes it anew, so a configuration is in force for every write after the answer to its
own. Match conditions are compiled when a webhook first needs them.

Invariant: webhooks come in the order of their configurations' names, then as they stand in them; nothing is asked about
configurations and policies themselves, so that none can lock itself in.

Spec: Kubernetes documentation, "Dynamic Admission Control"; API reference, admissionregistration.k8s.io/v1.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tiphys.api.kind import JsonObject, Kinds
from tiphys.apiserver.admission import Attributes
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.rulematching import Equivalents, Index, parse_matching
from tiphys.base.errors import ApiError

if TYPE_CHECKING:
    from tiphys.api.admissionexpressions import Compiled

log = logging.getLogger(__name__)

GROUP = "admissionregistration.k8s.io"
EXEMPT = frozenset(
    (
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    )
)
REVIEW_VERSIONS = ("v1", "v1beta1")
DEFAULT_TIMEOUT_S = 10


class Hook:
    """One webhook of a configuration."""

    def __init__(self, configuration: str, position: int, webhook: JsonObject, version: tuple[int, int]) -> None:
        self.configuration = configuration
        self.position = position
        """Its place among all webhooks of its sort, as audit annotations tell it."""
        self.name: str = webhook.get("name") or ""
        self.client_config: JsonObject = webhook.get("clientConfig") or {}
        self.matching = parse_matching(webhook, "rules")
        self.fails_open = webhook.get("failurePolicy") == "Ignore"
        self.timeout_s: int = webhook.get("timeoutSeconds") or DEFAULT_TIMEOUT_S
        self.may_run_again = webhook.get("reinvocationPolicy") == "IfNeeded"
        self.side_effects: str = webhook.get("sideEffects") or ""
        accepted = webhook.get("admissionReviewVersions") or ()
        self.review_version = next((name for name in accepted if name in REVIEW_VERSIONS), "")
        """"" when it accepts none that is known here."""
        self._conditions: Sequence[JsonObject] = webhook.get("matchConditions") or ()
        self._version = version

    @property
    def key(self) -> tuple[str, int]:
        return self.configuration, self.position

    @property
    def is_conditional(self) -> bool:
        return bool(self._conditions)

    @cached_property
    def conditions(self) -> Sequence[Compiled]:
        """Return the compiled match conditions."""
        from tiphys.api.admissionexpressions import CONDITION, Expressions, Scope

        expressions, scope = Expressions(self._version), Scope()
        return [expressions.compile(c.get("expression") or "", scope, CONDITION) for c in self._conditions]


class HookSource:
    """See the module's docstring. `configurations` is the cache of one of the two kinds."""

    def __init__(self, configurations: ResourceCache, kinds: Kinds, equivalents: Equivalents) -> None:
        self._configurations = configurations
        self._kinds = kinds
        self._equivalents = equivalents
        self._index: Index[Hook] | None = None
        configurations.listeners.add(self._on_change)
        configurations.on_reset.add(self._on_change)

    @property
    def empty(self) -> bool:
        index = self._index
        return (self._arrange() if index is None else index).empty

    def candidates(self, attributes: Attributes) -> Sequence[Hook]:
        """Return the webhooks that may be about a write."""
        index = self._index
        if index is None:
            index = self._arrange()
        if index.empty or (attributes.kind.group == GROUP and attributes.kind.plural in EXEMPT):
            return ()
        return index.candidates(attributes)

    def _on_change(self, *events: Any) -> None:
        self._index = None

    def _arrange(self) -> Index[Hook]:
        hooks: list[Hook] = []
        for cached in sorted(self._configurations.objects(), key=lambda one: one.name):
            for webhook in cached.decode().get("webhooks") or ():
                try:
                    hooks.append(Hook(cached.name, len(hooks), webhook, self._kinds.kubernetes_version))
                except ApiError as error:  # stored by an older version that did not refuse it
                    log.error("webhook %s of %s is left out: %s", webhook.get("name"), cached.name, error.message)
        self._index = Index([(hook.matching, hook) for hook in hooks], self._kinds, self._equivalents)
        return self._index
