"""Table rows of built-in kinds: golden rows, and rules that hold for every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tiphys.api.columns import TABLES
from tiphys.api.columns.pod import row_conditions
from tiphys.api.columns.text import duration, selector
from tiphys.api.kinds import builtin_kinds

NOW_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z
GOLDEN = yaml.safe_load((Path(__file__).parent / "columns.yaml").read_text())
KINDS = {(kind.group, kind.kind): kind for kind in builtin_kinds((1, 37), {})}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["is"])
def test_golden_rows(case: dict[str, Any]) -> None:
    *group, kind = case["kind"]
    columns, row = TABLES[group[0] if group else "", kind]
    cells = row(case["object"], NOW_S)
    assert dict(zip((c.name for c in columns), cells, strict=True)) == dict(
        zip((c.name for c in columns), case["row"], strict=True)
    )


@pytest.mark.parametrize("key", TABLES, ids=lambda key: ".".join(key))
def test_every_table_makes_a_full_row_of_an_object_that_has_only_a_name(key: tuple[str, str]) -> None:
    columns, row = TABLES[key]
    cells = row({"metadata": {"name": "x"}}, NOW_S)
    assert len(cells) == len(columns)
    assert cells[[c.name for c in columns].index("Name")] == "x"


def test_every_table_belongs_to_a_served_kind() -> None:
    assert set(TABLES) <= set(KINDS)


def test_names_are_told_by_their_format() -> None:
    for columns, _ in TABLES.values():
        assert [c.format for c in columns if c.name == "Name"] == ["name"]
        assert all(c.type in ("string", "integer", "boolean") for c in columns)
        assert all(c.description for c in columns)


def test_columns_that_kubectl_users_know() -> None:
    def names(kind: str, group: str = "") -> list[str]:
        return [f"{c.name}{'*' if c.priority else ''}" for c in TABLES[group, kind][0]]

    assert names("Pod") == [
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
        "IP*",
        "Node*",
        "Nominated Node*",
        "Readiness Gates*",
    ]
    assert names("Deployment", "apps")[:5] == ["Name", "Ready", "Up-to-date", "Available", "Age"]
    assert names("Service") == ["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector*"]
    assert names("Event")[:4] == ["Last Seen", "Type", "Reason", "Object"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (312, "5m12s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 25 * 60, "3h25m"),
        (8 * 3600 + 60, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (76 * 3600, "3d4h"),
        (8 * 86400 + 3600, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (740 * 86400, "2y10d"),
        (8 * 365 * 86400, "8y"),
    ],
)
def test_durations_get_coarser_with_their_length(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_selectors_are_written_in_order_of_keys() -> None:
    expressions = [
        {"key": "z", "operator": "Exists"},
        {"key": "b", "operator": "DoesNotExist"},
        {"key": "c", "operator": "NotIn", "values": ["y", "x"]},
    ]
    assert selector({"matchLabels": {"d": "1"}, "matchExpressions": expressions}) == "!b,c notin (x,y),d=1,z"


def test_a_pod_that_has_ended_says_so_beside_its_row() -> None:
    assert row_conditions({"status": {"phase": "Succeeded"}})[0]["message"] == "The pod has completed successfully."
    assert row_conditions({"status": {"phase": "Running"}}) == []
