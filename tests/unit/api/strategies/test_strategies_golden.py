"""Every case of tests/golden/strategies: an object in, the defaulted object, causes and warnings out.

A case with `old` is an update. `TIPHYS_UPDATE_GOLDEN=1` rewrites the expectations; read the difference before
keeping it.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiphys.api.kind import Context
from tiphys.api.strategies import STRATEGIES

DIRECTORY = Path(__file__).parents[3] / "golden" / "strategies"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CREATE = Context(user="tester", now="2026-01-01T00:00:00Z", creating=True)
UPDATE = Context(user="tester", now="2026-01-01T00:00:00Z")


def _load(path: Path) -> list[dict[str, Any]]:
    return list(yaml.load(path.read_text(), Loader=LOADER))


def _cases() -> list[Any]:
    return [
        pytest.param(path, index, id=f"{path.stem}: {case['case']}")
        for path in sorted(DIRECTORY.glob("*.yaml"))
        for index, case in enumerate(_load(path))
    ]


def _group_and_kind(obj: dict[str, Any]) -> tuple[str, str]:
    group, slash, _ = obj["apiVersion"].partition("/")
    return (group if slash else "", obj["kind"])


def _run(case: dict[str, Any]) -> dict[str, Any]:
    """Return what the registry would see, in its order of calls."""
    obj = copy.deepcopy(case["input"])
    strategy = STRATEGIES[_group_and_kind(obj)]
    strategy.default(obj)
    if "old" in case:
        old = copy.deepcopy(case["old"])
        strategy.default(old)
        strategy.prepare_for_create(old, CREATE)
        strategy.prepare_for_update(obj, old, UPDATE)
        causes = [*strategy.validate(obj, UPDATE), *strategy.validate_update(obj, old, UPDATE)]
    else:
        strategy.prepare_for_create(obj, CREATE)
        causes = strategy.validate(obj, CREATE)
    result: dict[str, Any] = {"causes": [f"{c.field}: {c.message}" for c in causes]}
    if "defaulted" in case:
        result["defaulted"] = obj
    if "warnings" in case:
        result["warnings"] = strategy.warnings(obj)
    return result


@pytest.mark.parametrize(("path", "index"), _cases())
def test_golden(path: Path, index: int) -> None:
    cases = _load(path)
    result = _run(cases[index])
    if os.environ.get("TIPHYS_UPDATE_GOLDEN"):
        cases[index].update(result)
        path.write_text(yaml.safe_dump(cases, sort_keys=False, width=110, allow_unicode=True))
        return
    expected = {key: cases[index].get(key, []) for key in result}
    assert result == expected


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.yaml")), ids=lambda path: path.stem)
def test_defaulting_twice_changes_nothing(path: Path) -> None:
    for case in _load(path):
        once = copy.deepcopy(case["input"])
        strategy = STRATEGIES[_group_and_kind(once)]
        strategy.default(once)
        twice = copy.deepcopy(once)
        strategy.default(twice)
        assert twice == once, case["case"]
