"""When a ServiceCIDR is ready, and when it may go."""

from __future__ import annotations

import orjson

from tiphys.api.views.meta import decode_view
from tiphys.controllers.servicecidr import FINALIZER, IN_USE, READY, Plan, ServiceCidr, plan_service_cidr


def cidr(name: str, *cidrs: str, deleted: bool = False, held: bool = True, ready: str = "") -> ServiceCidr:
    metadata = {"name": name, "finalizers": [FINALIZER] if held else []}
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": ready}] if ready else []
    obj = {"metadata": metadata, "spec": {"cidrs": cidrs}, "status": {"conditions": conditions}}
    return decode_view(orjson.dumps(obj), ServiceCidr)


def test_a_new_one_is_held_and_told_ready() -> None:
    made = cidr("a", "10.0.0.0/24", held=False)
    assert plan_service_cidr(made, [], []) == Plan((FINALIZER,), ("True", "", READY))
    assert plan_service_cidr(cidr("a", "10.0.0.0/24", ready="True"), [], ["10.0.0.1"]) == Plan()


def test_a_deleted_one_stays_while_an_address_is_in_no_other() -> None:
    going = cidr("a", "10.0.0.0/24", deleted=True, ready="True")
    assert plan_service_cidr(going, [], ["10.0.0.7"]) == Plan(None, ("False", "Terminating", IN_USE))
    told = cidr("a", "10.0.0.0/24", deleted=True, ready="False")
    assert plan_service_cidr(told, [], ["10.0.0.7"]) == Plan()


def test_a_deleted_one_goes_when_others_cover_its_addresses() -> None:
    going = cidr("a", "10.0.0.0/24", deleted=True, ready="True")
    assert plan_service_cidr(going, [cidr("b", "10.0.0.0/16")], ["10.0.0.7", "10.9.0.1"]) == Plan(())
    assert plan_service_cidr(going, [], ["10.9.0.1"]) == Plan(())
