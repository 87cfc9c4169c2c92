"""RBAC: rules against an evaluation written the naive way, and what nobody may grant."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tiphys.apiserver.plugins.escalation import uncovered
from tiphys.apiserver.rbac import parse_rule
from tiphys.apiserver.requestinfo import RequestInfo

VERBS, GROUPS, NAMES = ["get", "list", "create"], ["", "apps"], ["a", "b"]
RESOURCES = ["pods", "pods/log", "deployments", "deployments/scale"]

rules = st.fixed_dictionaries(
    {
        "verbs": st.lists(st.sampled_from([*VERBS, "*"]), min_size=1, max_size=2, unique=True),
        "apiGroups": st.lists(st.sampled_from([*GROUPS, "*"]), min_size=1, max_size=2, unique=True),
        "resources": st.lists(st.sampled_from([*RESOURCES, "*", "*/scale"]), min_size=1, max_size=2, unique=True),
    },
    optional={"resourceNames": st.lists(st.sampled_from(NAMES), max_size=2, unique=True)},
)


def request(verb: str, group: str, resource: str, name: str) -> RequestInfo:
    plural, _, subresource = resource.partition("/")
    return RequestInfo(True, verb, "", group, "v1", "default", plural, name, subresource)


EVERY_REQUEST = [request(v, g, r, n) for v in VERBS for g in GROUPS for r in RESOURCES for n in ("", *NAMES)]


def naive(rule: dict[str, Any], info: RequestInfo) -> bool:
    resource = info.resource + (f"/{info.subresource}" if info.subresource else "")
    ways = {resource, "*"} | ({f"*/{info.subresource}"} if info.subresource else set())
    return (
        bool({info.verb, "*"} & set(rule["verbs"]))
        and bool({info.group, "*"} & set(rule["apiGroups"]))
        and bool(ways & set(rule["resources"]))
        and (not rule.get("resourceNames") or info.name in rule["resourceNames"])
    )


@given(rules)
def test_a_rule_allows_what_a_naive_reading_allows(rule: dict[str, Any]) -> None:
    parsed = parse_rule(rule)
    for info in EVERY_REQUEST:
        assert parsed.allows(info) == naive(rule, info), info


@given(st.lists(rules, max_size=3), st.lists(rules, max_size=3))
def test_covered_rules_allow_nothing_that_is_not_held(granted: list[Any], held: list[Any]) -> None:
    parsed = [parse_rule(rule) for rule in held]
    if uncovered(granted, parsed):
        return
    for info in EVERY_REQUEST:
        if any(naive(rule, info) for rule in granted):
            assert any(rule.allows(info) for rule in parsed), info


@given(st.lists(rules, max_size=3))
def test_everybody_covers_his_own_rules(own: list[Any]) -> None:
    assert uncovered(own, [parse_rule(rule) for rule in own]) == []


def test_urls_are_covered_by_prefixes() -> None:
    held = [parse_rule({"verbs": ["get"], "nonResourceURLs": ["/healthz*", "/metrics"]})]
    assert uncovered([{"verbs": ["get"], "nonResourceURLs": ["/healthz/etcd", "/metrics"]}], held) == []
    assert uncovered([{"verbs": ["get"], "nonResourceURLs": ["/metrics*", "/logs"]}], held) == [
        '{NonResourceURLs:["/logs"], Verbs:["get"]}',
        '{NonResourceURLs:["/metrics*"], Verbs:["get"]}',
    ]
