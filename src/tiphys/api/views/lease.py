"""Typed views of Leases. Every field is optional here: validation is the API server's. See views/meta.py."""

from __future__ import annotations

from tiphys.api.views.meta import ObjectMeta, View


class LeaseSpec(View, frozen=True):
    acquire_time: str | None = None
    holder_identity: str = ""
    lease_duration_seconds: int | None = None
    lease_transitions: int | None = None
    preferred_holder: str = ""
    renew_time: str | None = None
    strategy: str = ""


class Lease(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: LeaseSpec = LeaseSpec()
