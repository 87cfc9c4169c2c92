"""The seam of admission: plugins that change or refuse a write after authorization and before validation.

A chain runs every plugin's `mutate` in order, then the registry validates, then the chain runs every `validate`.
Built-in plugins are in admission_plugins.py; webhooks and policies make the same records.

Spec: Kubernetes admission controllers, "What are they?".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.user import User

AdmissionOperation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]


@dataclass(slots=True)
class Attributes:
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
    warnings: list[str] = field(default_factory=list)
    finished: list[Callable[[bool], None]] = field(default_factory=list)
    """Called once with True when the write is durable, with False when it failed: to give back reservations."""

    def finish(self, succeeded: bool) -> None:
        for callback in self.finished:
            callback(succeeded)
        self.finished.clear()


class Plugin(Protocol):
    """One admission plugin. Both methods raise ApiError to refuse; they are idempotent, because a write that loses
    an optimistic lock is admitted again."""

    async def mutate(self, attributes: Attributes) -> None: ...

    async def validate(self, attributes: Attributes) -> None: ...


class Chain:
    """Runs plugins in order."""

    def __init__(self, plugins: Sequence[Plugin] = ()) -> None:
        self._plugins = tuple(plugins)

    async def mutate(self, attributes: Attributes) -> None:
        for plugin in self._plugins:
            await plugin.mutate(attributes)

    async def validate(self, attributes: Attributes) -> None:
        for plugin in self._plugins:
            await plugin.validate(attributes)
