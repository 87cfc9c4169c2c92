"""StorageVersionMigrations: which resource is to be rewritten, fixed once it is asked for.

Spec: Kubernetes documentation, "Migrate Kubernetes Objects Using Storage Version Migration".
"""

from __future__ import annotations

from tiphys.api.causes import immutable, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_dns_1035_label, validate_dns_subdomain
from tiphys.api.strategies.fields import (
    check_required_text,
    check_text,
    clear_status,
    is_same,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.base.errors import Cause


def validate(migration: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    resource = spec_of(migration).get("resource")
    if not resource:
        return [required("spec.resource.resource", "resource is required")]
    check_required_text(
        causes, "spec.resource.resource", resource.get("resource"), validate_dns_1035_label, "resource is required"
    )
    if resource.get("group"):
        check_text(causes, "spec.resource.group", resource["group"], validate_dns_subdomain)
    return causes


def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    if is_same(new.get("spec"), old.get("spec")):
        return []
    return [immutable("spec", new.get("spec"))]


STORAGE_VERSION_MIGRATION = Strategy(
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate,
    validate_update=validate_update,
    generation=True,
)
