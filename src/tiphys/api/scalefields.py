"""Who owns the replicas of a workload, told in terms of its Scale, and back.

The scale subresource has managedFields of its own: an owner of the workload's replicas owns `.spec.replicas` of the
Scale. `scale_entries` makes those entries from the workload's; after the Scale was written `workload_entries` puts what
became of them into the workload's entries, where everything but the replicas stays as it was. Both are pure.

Spec: Kubernetes documentation, "Server-Side Apply" (transferring ownership); KEP-555, scale subresource.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tiphys.api.fieldset import Tree, difference, intersection, union_sets

SCALE_VERSION = "autoscaling/v1"
_SCALE_REPLICAS: Tree = {"f:spec": {"f:replicas": {}}}

Entry = Mapping[str, Any]


def _path_tree(path: str) -> Tree:
    """Return the field set of one dotted path."""
    tree: Tree = {}
    for part in reversed(path.strip(".").split(".")):
        tree = {f"f:{part}": tree}
    return tree


def _same(left: Entry, right: Entry) -> bool:
    return all(left.get(key, "") == right.get(key, "") for key in ("manager", "operation", "subresource"))


def scale_entries(entries: Iterable[Entry] | None, replicas_path: str) -> list[dict[str, Any]]:
    """Return the managedFields of the Scale of a workload with these entries."""
    replicas = _path_tree(replicas_path)
    return [
        {**entry, "apiVersion": SCALE_VERSION, "fieldsV1": _SCALE_REPLICAS}
        for entry in entries or ()
        if intersection(entry.get("fieldsV1") or {}, replicas)
    ]


def workload_entries(
    entries: Iterable[Entry] | None, scale: Iterable[Entry] | None, replicas_path: str, api_version: str
) -> list[dict[str, Any]]:
    """Return the managedFields of a workload whose Scale has the entries `scale` now."""
    replicas = _path_tree(replicas_path)
    owners = [entry for entry in scale or () if intersection(entry.get("fieldsV1") or {}, _SCALE_REPLICAS)]
    result: list[dict[str, Any]] = []
    for entry in entries or ():
        owner = next((other for other in owners if _same(entry, other)), None)
        fields = entry.get("fieldsV1") or {}
        kept = union_sets(fields, replicas) if owner is not None else difference(fields, replicas)
        if owner is not None:
            owners.remove(owner)
            result.append({**entry, "time": owner.get("time", entry.get("time")), "fieldsV1": kept})
        elif kept:
            result.append({**entry, "fieldsV1": kept})
    result += [{**owner, "apiVersion": api_version, "fieldsV1": replicas} for owner in owners]
    return result
