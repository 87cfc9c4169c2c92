"""The reference page of served kinds, docs/kinds.md, made from the table: `python -m tiphys.api.kinds.document`.

A test compares the page with the table, so that no kind goes undocumented.
"""

from __future__ import annotations

import sys

from tiphys.api.kinds.table import NEWEST_MINOR, OLDEST_MINOR, Record, parse_table

_HEAD = f"""# Kinds

Every resource that Tiphys serves, and in which Kubernetes versions (`tiphys up --kubernetes-version`). All of
1.{OLDEST_MINOR} to 1.{NEWEST_MINOR} where nothing else is said. Made from the table in `src/tiphys/api/kinds/table.py` by
`python -m tiphys.api.kinds.document > docs/kinds.md`.

Custom resources are served too: see CustomResourceDefinition.

| API version | resource | kind | short names | scope | subresources | versions |
|---|---|---|---|---|---|---|
"""


def format_kinds() -> str:
    """Return the page."""
    minors: dict[tuple[str, str, str], list[int]] = {}
    newest: dict[tuple[str, str, str], Record] = {}
    for minor in range(OLDEST_MINOR, NEWEST_MINOR + 1):
        for record in parse_table(minor):
            key = record.group, record.version, record.plural
            minors.setdefault(key, []).append(minor)
            newest[key] = record
    return _HEAD + "".join(_line(newest[key], minors[key]) for key in sorted(newest))


def _line(record: Record, minors: list[int]) -> str:
    versions = f"1.{minors[0]} to 1.{minors[-1]}" if len(minors) > 1 else f"1.{minors[0]}"
    if minors[-1] == NEWEST_MINOR:
        versions = "all" if minors[0] == OLDEST_MINOR else f"from 1.{minors[0]}"
    cells = (
        f"{record.group}/{record.version}" if record.group else record.version,
        record.plural,
        record.kind,
        ", ".join(record.short_names),
        "namespace" if record.namespaced else "cluster",
        ", ".join(subresource.name for subresource in record.subresources),
        versions,
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.stdout.write(format_kinds())
