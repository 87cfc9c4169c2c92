"""How long admission takes, step by step: a chain with its times taken.

Stands before the chain in the registry; changes nothing. DIFFERS: single plugins are not timed; most take less time than
looking at the clock would.

Spec: Kubernetes documentation, "Kubernetes Metrics Reference" (apiserver_admission_step_admission_duration_seconds).
"""

from __future__ import annotations

from collections.abc import Iterable

from tiphys.apiserver.admission import Attributes, Chain
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.clock import Clock
from tiphys.base.metrics import Metrics

DURATIONS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5)


class MeasuredChain(Chain):
    """See the module's docstring."""

    def __init__(self, chain: Chain, metrics: Metrics, clock: Clock) -> None:
        super().__init__()
        self._chain = chain
        self._now_s = clock.monotonic_s
        self._steps = metrics.histogram(
            "apiserver_admission_step_admission_duration_seconds",
            "Time of the mutating and of the validating step of admission in seconds.",
            ("type", "operation", "rejected"),
            DURATIONS_S,
        )

    def follow(self, resources: Iterable[ResourceCache]) -> None:
        self._chain.follow(resources)

    def looks_at_bodies(self) -> bool:
        return self._chain.looks_at_bodies()

    async def mutate(self, attributes: Attributes) -> None:
        began_s, rejected = self._now_s(), "true"
        try:
            await self._chain.mutate(attributes)
            rejected = "false"
        finally:
            self._steps.of(("admit", attributes.operation, rejected)).observe(self._now_s() - began_s)

    async def validate(self, attributes: Attributes) -> None:
        began_s, rejected = self._now_s(), "true"
        try:
            await self._chain.validate(attributes)
            rejected = "false"
        finally:
            self._steps.of(("validate", attributes.operation, rejected)).observe(self._now_s() - began_s)
