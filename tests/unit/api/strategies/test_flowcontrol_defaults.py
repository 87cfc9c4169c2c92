"""Defaults of priority and fairness objects: zero is no number, since Go clients send it where nothing is set."""

from __future__ import annotations

import pytest

from tiphys.api.strategies.flowcontrol import default_level, default_schema


def test_a_schema_without_precedence_gets_one() -> None:
    schema = {"spec": {"matchingPrecedence": 0}}
    default_schema(schema)
    assert schema == {"spec": {"matchingPrecedence": 1000}}


@pytest.mark.parametrize(
    ("version", "shares"),
    [("v1", "nominalConcurrencyShares"), ("v1beta3", "nominalConcurrencyShares")]
    + [(version, "assuredConcurrencyShares") for version in ("v1beta1", "v1beta2")],
)
def test_a_level_gets_shares_by_the_name_of_its_version(version: str, shares: str) -> None:
    level = {"apiVersion": f"flowcontrol.apiserver.k8s.io/{version}", "spec": {"type": "Limited", "limited": {}}}
    default_level(level)
    assert level["spec"]["limited"] == {shares: 30, "lendablePercent": 0}


def test_zero_queues_are_defaulted() -> None:
    queuing = {"queues": 0, "handSize": 0, "queueLengthLimit": 7}
    level = {"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}}
    default_level(level)
    assert queuing == {"queues": 64, "handSize": 8, "queueLengthLimit": 7}
