"""Leader election by a Lease: of several equal processes one leads.

Decides whether this process may act. `run` waits for the lease, runs `lead`, and stops it when the lease cannot be
renewed in time. Invariant: `lead` is cancelled before another process can take the lease, as long as clocks run at
about the same speed (what they show does not matter: a lease counts as expired when it was seen unchanged for its
whole duration by the own clock).

Crash: the lease stays, and another process takes it `duration_s` after its last renewal.

Spec: the coordination.k8s.io/v1 Lease fields; 15 s, 10 s and 2 s as upstream's components by default.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tiphys.api.views.lease import Lease
from tiphys.api.views.meta import decode_view
from tiphys.base.clock import Clock, Randomness, format_micro_time
from tiphys.base.errors import ApiError, TiphysError
from tiphys.client.interface import Client
from tiphys.client.resources import LEASES

log = logging.getLogger(__name__)

DURATION_S = 15.0
RENEW_DEADLINE_S = 10.0
RETRY_S = 2.0
RETRY_JITTER = 1.2


class LeaseLost(TiphysError):
    """The lease could not be renewed, so this process must not lead any more. Start it again to stand once more."""


class LeaderElection:
    """See the module's docstring. `identity` must be unique among the candidates."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        clock: Clock,
        randomness: Randomness,
        *,
        duration_s: float = DURATION_S,
        renew_deadline_s: float = RENEW_DEADLINE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        assert retry_s * RETRY_JITTER < renew_deadline_s < duration_s
        self._client = client
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._clock = clock
        self._randomness = randomness
        self._duration_s = duration_s
        self._renew_deadline_s = renew_deadline_s
        self._retry_s = retry_s
        self.leading = False
        self._seen: Lease | None = None
        """The lease as it was when it last changed, and when that was noticed:"""
        self._seen_s = 0.0

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease and run `lead` under it. Returns when `lead` does; raises LeaseLost when the lease is
        lost. Cancellation stops `lead` first and then gives the lease back, so that the next one need not wait."""
        await self._acquire()
        log.info("%s leads %s/%s", self.identity, self._namespace, self._name)
        self.leading = True
        leader = asyncio.ensure_future(lead())
        renewer = asyncio.create_task(self._renew(), name=f"renew-{self._name}")
        try:
            await asyncio.wait([leader, renewer], return_when=asyncio.FIRST_COMPLETED)
        finally:
            renewer.cancel()
            leader.cancel()
            await asyncio.wait([leader, renewer])
            self.leading = False
            await self._release()
        if leader.cancelled():
            await renewer
        await leader

    async def _acquire(self) -> None:
        while not await self._try(self._duration_s):  # noqa: ASYNC110
            # The server tells nobody that a lease ran out: it must be looked at.
            await asyncio.sleep(self._retry_s * self._randomness.uniform(1, RETRY_JITTER))

    async def _renew(self) -> None:
        """Renew until that failed for the whole deadline, then raise LeaseLost."""
        renewed_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(self._retry_s)
            tried_s = self._clock.monotonic_s()
            left_s = self._renew_deadline_s - (tried_s - renewed_s)
            if left_s > 0 and await self._try(left_s):
                renewed_s = tried_s
            elif self._clock.monotonic_s() - renewed_s >= self._renew_deadline_s:
                raise LeaseLost(f"the lease {self._namespace}/{self._name} could not be renewed in time")

    async def _try(self, timeout_s: float) -> bool:
        """Take or renew the lease; tell whether it is ours now. Failures of the server are a no."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._take()
        except ApiError as error:
            log.debug("the lease %s/%s was not taken: %s", self._namespace, self._name, error)
        except (OSError, msgspec.ValidationError) as error:
            log.warning("the lease %s/%s cannot be read or written: %s", self._namespace, self._name, error)
        return False

    async def _take(self) -> bool:
        now = format_micro_time(self._clock.now_s())
        try:
            current = decode_view(await self._client.get(LEASES, self._namespace, self._name), Lease)
        except ApiError as error:
            if error.code != 404:
                raise
            spec = self._spec(now, acquired=now, transitions=0)
            await self._client.create(LEASES, self._namespace, {**self._body(), "spec": spec})
            return True
        if self._seen is None or current.metadata.resource_version != self._seen.metadata.resource_version:
            self._seen, self._seen_s = current, self._clock.monotonic_s()
        ours = current.spec.holder_identity == self.identity
        if current.spec.holder_identity and not ours:
            lasts_s = float(current.spec.lease_duration_seconds or self._duration_s)
            if self._clock.monotonic_s() - self._seen_s < lasts_s:
                return False
        transitions = (current.spec.lease_transitions or 0) + (not ours)
        acquired = (current.spec.acquire_time if ours else None) or now
        patch = {
            "metadata": {"resourceVersion": current.metadata.resource_version},
            "spec": self._spec(now, acquired=acquired, transitions=transitions),
        }
        await self._client.patch(LEASES, self._namespace, self._name, patch)
        return True

    async def _release(self) -> None:
        """Give the lease back if it is still ours; failing that it runs out by itself."""
        try:
            async with asyncio.timeout(self._retry_s):
                current = decode_view(await self._client.get(LEASES, self._namespace, self._name), Lease)
                if current.spec.holder_identity != self.identity:
                    return
                patch = {
                    "metadata": {"resourceVersion": current.metadata.resource_version},
                    "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
                }
                await self._client.patch(LEASES, self._namespace, self._name, patch)
        except (ApiError, OSError) as error:
            log.debug("the lease %s/%s was not given back: %s", self._namespace, self._name, error)

    def _body(self) -> dict[str, Any]:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
        }

    def _spec(self, now: str, *, acquired: str, transitions: int) -> dict[str, Any]:
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._duration_s)),
            "acquireTime": acquired,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
