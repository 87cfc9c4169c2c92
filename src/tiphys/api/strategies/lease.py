"""Leases: heartbeats of nodes and locks of leaders.

Spec: Kubernetes documentation, "Leases"; KEP-4355 (coordinated leader election).
"""

from __future__ import annotations

from tiphys.api.causes import invalid_value, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import POSITIVE, check_nonnegative, spec_of
from tiphys.base.errors import Cause


def validate(lease: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(lease)
    duration_s = spec.get("leaseDurationSeconds")
    if duration_s is not None and duration_s <= 0:
        causes.append(invalid_value("spec.leaseDurationSeconds", duration_s, POSITIVE))
    check_nonnegative(causes, "spec.leaseTransitions", spec.get("leaseTransitions"))
    holder = spec.get("holderIdentity")
    if holder is not None and not holder and spec.get("strategy"):
        causes.append(required("spec.holderIdentity"))
    return causes


LEASE = Strategy(validate=validate, allow_create_on_update=True, allow_unconditional_update=False)
