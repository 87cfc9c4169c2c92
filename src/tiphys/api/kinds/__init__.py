"""Built-in kinds as data: which resources a Kubernetes version serves, and all that makes each one a `Kind`.

`builtin_kinds(version)` joins the table of resources (table.py), selectable fields (fields.py), conversions
(conversion.py), printer columns (api/columns) and strategies (api/strategies) into `Kind` records. Nothing is loaded or
compiled here: schemas are lazy (schemas.py). The API server puts the list into its `Kinds`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiphys.api.columns import NO_TABLE, ROW_CONDITIONS, TABLES
from tiphys.api.conversions import CONVERSIONS
from tiphys.api.kind import Kind, Strategy
from tiphys.api.kinds.deprecations import deprecation_warning
from tiphys.api.kinds.fields import selectable_fields
from tiphys.api.kinds.schemas import Definitions, LazySchema, definition_name
from tiphys.api.kinds.table import BODIES, NEWEST_MINOR, OLDEST_MINOR, Record, parse_table

__all__ = ["NEWEST_MINOR", "OLDEST_MINOR", "builtin_kinds"]

_SCALE_PATHS = ("spec.replicas", "status.replicas", "spec.selector")


def builtin_kinds(version: tuple[int, int], strategies: Mapping[tuple[str, str], Strategy] | None = None) -> list[Kind]:
    """Return the kinds that Kubernetes of this version serves by default, and the bodies of their subresources.

    `strategies` maps (group, kind) to its strategy; None takes the built-in ones. A kind without one gets `Strategy()`.
    Raises ValueError for a version outside 1.25 to 1.37.
    """
    major, minor = version
    if major != 1 or not OLDEST_MINOR <= minor <= NEWEST_MINOR:
        raise ValueError(
            f"Kubernetes {major}.{minor} is not known here; choose a version from 1.{OLDEST_MINOR} to 1.{NEWEST_MINOR}"
        )
    if strategies is None:
        from tiphys.api.crdvalidation import with_version_rules
        from tiphys.api.strategies import STRATEGIES

        definition = "apiextensions.k8s.io", "CustomResourceDefinition"
        strategies = {**STRATEGIES, definition: with_version_rules(STRATEGIES.get(definition) or Strategy())}
    definitions = Definitions(version)
    storage_versions: dict[tuple[str, str], str] = {}
    kinds = []
    for record in parse_table(minor):
        storage_version = storage_versions.setdefault((record.group, record.plural), record.version)
        kinds.append(_kind(record, storage_version, definitions, strategies, minor))
    kinds.extend(_body(*body, definitions) for body in BODIES)
    return kinds


def _kind(
    record: Record,
    storage_version: str,
    definitions: Definitions,
    strategies: Mapping[tuple[str, str], Strategy],
    minor: int,
) -> Kind:
    columns, row = TABLES.get((record.group, record.kind), NO_TABLE)
    definition = definition_name(record.group, record.version, record.kind)
    return Kind(
        group=record.group,
        version=record.version,
        kind=record.kind,
        plural=record.plural,
        singular=record.kind.lower(),
        short_names=record.short_names,
        categories=record.categories,
        namespaced=record.namespaced,
        verbs=record.verbs,
        subresources=record.subresources,
        storage_version=storage_version,
        storage_group="" if record.group == "events.k8s.io" else None,
        schema=LazySchema(definitions, definition),
        strategy=strategies.get((record.group, record.kind)) or Strategy(),
        columns=columns,
        row=row,
        row_conditions=ROW_CONDITIONS.get((record.group, record.kind)),
        selectable_fields=selectable_fields(record.group, record.plural, minor),
        convert=CONVERSIONS.get((record.group, record.plural)),
        definition=definition,
        deprecation=deprecation_warning(minor, record.group, record.version, record.kind),
        virtual="watch" not in record.verbs,
        scale_paths=_SCALE_PATHS if any(sub.name == "scale" for sub in record.subresources) else None,
    )


def _body(group: str, version: str, kind: str, definitions: Definitions) -> Kind:
    definition = definition_name(group, version, kind)
    columns, row = TABLES.get((group, kind), NO_TABLE)
    return Kind(
        group=group,
        version=version,
        kind=kind,
        plural="",
        verbs=(),
        columns=columns,
        row=row,
        schema=LazySchema(definitions, definition),
        definition=definition,
        virtual=True,
    )
