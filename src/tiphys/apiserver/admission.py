"""The seam of admission: plugins that change or refuse a write after authorization and before validation.

A chain runs every plugin's `mutate` in order, then the registry validates, then the chain runs every `validate`.
Built-in plugins are in plugins/, one a file; webhooks and policies make the same records. A plugin that names the
resources that it looks at is not even called for others: most writes pass through two or three plugins.

Spec: Kubernetes admission controllers, "What are they?".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import msgspec

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.user import User

AdmissionOperation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]


class Attributes(msgspec.Struct, eq=False):
    """One write under admission. Plugins change `obj` in place; `old` is never changed."""

    operation: AdmissionOperation
    kind: Kind
    namespace: str
    name: str
    user: User
    obj: JsonObject | None
    old: JsonObject | None = None
    subresource: str = ""
    dry_run: bool = False
    warnings: list[str] = msgspec.field(default_factory=list)
    finished: list[Callable[[bool], None]] = msgspec.field(default_factory=list)
    """Called once with True when the write is durable, with False when it failed: to give back reservations."""

    def finish(self, succeeded: bool) -> None:
        for callback in self.finished:
            callback(succeeded)
        self.finished.clear()


class Plugin:
    """One admission plugin. Both methods raise ApiError to refuse; they are idempotent, because a write that loses
    an optimistic lock is admitted again."""

    resources: Collection[tuple[str, str]] | None = None
    """(group, plural) of the only resources that it looks at; None for all."""

    async def mutate(self, attributes: Attributes) -> None:
        """Change the object before it is validated."""

    async def validate(self, attributes: Attributes) -> None:
        """Refuse the object as it would be stored."""


class Chain:
    """Runs plugins in order."""

    def __init__(self, plugins: Sequence[Plugin] = ()) -> None:
        self._mutating = [p for p in plugins if type(p).mutate is not Plugin.mutate]
        self._validating = [p for p in plugins if type(p).validate is not Plugin.validate]
        self._chosen: dict[tuple[str, str], tuple[tuple[Plugin, ...], tuple[Plugin, ...]]] = {}

    async def mutate(self, attributes: Attributes) -> None:
        for plugin in self._plugins(attributes.kind)[0]:
            await plugin.mutate(attributes)

    async def validate(self, attributes: Attributes) -> None:
        for plugin in self._plugins(attributes.kind)[1]:
            await plugin.validate(attributes)

    def _plugins(self, kind: Kind) -> tuple[tuple[Plugin, ...], tuple[Plugin, ...]]:
        resource = (kind.group, kind.plural)
        chosen = self._chosen.get(resource)
        if chosen is None:
            mutating, validating = (
                tuple(p for p in plugins if p.resources is None or resource in p.resources)
                for plugins in (self._mutating, self._validating)
            )
            chosen = self._chosen[resource] = mutating, validating
        return chosen
