"""PersistentVolumeClaims. See the functions."""

from __future__ import annotations

from tiphys.api.kind import JsonObject
from tiphys.base.errors import Cause


def check_claim_spec(causes: list[Cause], spec: JsonObject, path: str) -> None:
    return None
