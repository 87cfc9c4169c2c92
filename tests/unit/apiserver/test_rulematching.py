"""Rules, selectors and equivalent versions: what a request matches."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tiphys.api.kind import Kinds
from tiphys.api.kinds import builtin_kinds
from tiphys.apiserver.admission import Attributes
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.rulematching import Equivalents, Index, Matcher, Matching, parse_matching
from tiphys.apiserver.user import User
from tiphys.base.errors import ApiError

KINDS = Kinds(builtin_kinds((1, 37)), (1, 37))


def rule(**changes: Any) -> dict[str, Any]:
    whole = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}
    return {**whole, **changes}


def matching(*rules: dict[str, Any], **more: Any) -> Matching:
    return parse_matching({"resourceRules": list(rules), **more})


def matcher() -> Matcher:
    namespaces = ResourceCache("/registry/core/namespaces/", 1)
    for name, labels in {"shop": {"team": "a"}, "plain": {}}.items():
        obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        namespaces.load(f"/registry/core/namespaces/{name}", orjson.dumps(obj), 1)
    return Matcher(Equivalents(KINDS), namespaces)


def request(
    group: str = "apps",
    version: str = "v1",
    plural: str = "deployments",
    operation: Any = "CREATE",
    namespace: str = "shop",
    name: str = "web",
    subresource: str = "",
    labels: dict[str, str] | None = None,
    old_labels: dict[str, str] | None = None,
) -> Attributes:
    requested = KINDS.resource(group, version, plural)
    assert requested is not None
    obj = {"metadata": {"name": name, "labels": labels}}
    old = None if old_labels is None else {"metadata": {"name": name, "labels": old_labels}}
    stored = KINDS.stored(requested)
    return Attributes(
        operation, stored, namespace, name, User("u"), obj, old, subresource=subresource, requested=requested
    )


NODE = {"group": "", "plural": "nodes", "namespace": ""}


@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [
        ({}, {}, True),
        ({"operations": ["UPDATE"]}, {}, False),
        ({"operations": ["UPDATE", "CREATE"]}, {}, True),
        ({"operations": ["CONNECT"]}, {"operation": "CONNECT"}, True),
        ({"apiGroups": [""]}, {}, False),
        ({"apiGroups": ["", "apps"]}, {}, True),
        ({"apiVersions": ["v1beta1"]}, {}, False),
        ({"resources": ["deployments"]}, {}, True),
        ({"resources": ["deployments"]}, {"subresource": "status"}, False),
        ({"resources": ["*"]}, {"subresource": "status"}, False),
        ({"resources": ["*/*"]}, {"subresource": "status"}, True),
        ({"resources": ["*/*"]}, {}, True),
        ({"resources": ["*/status"]}, {"subresource": "status"}, True),
        ({"resources": ["*/status"]}, {}, False),
        ({"resources": ["deployments/*"]}, {}, True),
        ({"resources": ["deployments/scale"]}, {"subresource": "scale"}, True),
        ({"resources": ["replicasets/*"]}, {}, False),
        ({"scope": "Cluster"}, {}, False),
        ({"scope": "Namespaced"}, {}, True),
        ({"scope": "Cluster"}, NODE, True),
        ({"scope": "Namespaced"}, NODE, False),
        ({"scope": "Cluster"}, {**NODE, "plural": "namespaces"}, True),
        ({"resourceNames": ["web"]}, {}, True),
        ({"resourceNames": ["db"]}, {}, False),
    ],
)
def test_a_rule_covers_operations_groups_versions_resources_scopes_and_names(
    given: dict[str, Any], asked: dict[str, Any], expected: bool
) -> None:
    attributes, wanted = request(**asked), matching(rule(**given))
    found = matcher().match(wanted, attributes)
    assert (found is attributes.requested) is expected
    if expected:
        assert Index([(wanted, 1)], KINDS, Equivalents(KINDS)).candidates(attributes) == (1,)


def test_an_equivalent_version_matches_and_is_what_the_object_is_shown_in() -> None:
    asked = request("autoscaling", "v1", "horizontalpodautoscalers")
    wanted = matching(rule(apiGroups=["autoscaling"], apiVersions=["v2"]))
    found = matcher().match(wanted, asked)
    assert found is not None
    assert found.api_version == "autoscaling/v2"
    assert Index([(wanted, 1)], KINDS, Equivalents(KINDS)).candidates(asked) == (1,)


def test_events_are_equivalent_in_both_groups() -> None:
    found = matcher().match(matching(rule(apiGroups=["events.k8s.io"])), request("", "v1", "events"))
    assert found is not None
    assert found.group == "events.k8s.io"


def test_exact_asks_for_the_version_of_the_request() -> None:
    wanted = matching(rule(apiVersions=["v2"]), matchPolicy="Exact")
    assert matcher().match(wanted, request("autoscaling", "v1", "horizontalpodautoscalers")) is None


def test_excluded_rules_win() -> None:
    wanted = matching(rule(), excludeResourceRules=[rule(resources=["deployments"])])
    assert matcher().match(wanted, request()) is None
    assert matcher().match(wanted, request(plural="replicasets")) is not None


SELECTS = {"namespaceSelector": {"matchLabels": {"team": "a"}}}


def test_a_namespace_selector_looks_at_the_labels_of_the_namespace() -> None:
    wanted = matching(rule(), **SELECTS)
    assert matcher().match(wanted, request()) is not None
    assert matcher().match(wanted, request(namespace="plain")) is None


def test_objects_outside_of_namespaces_are_never_left_out_by_a_namespace_selector() -> None:
    assert matcher().match(matching(rule(), **SELECTS), request(**NODE)) is not None  # type: ignore[arg-type]


def test_a_namespace_is_selected_by_the_labels_that_it_will_have() -> None:
    wanted = matching(rule(), **SELECTS)
    asked: dict[str, Any] = {**NODE, "plural": "namespaces"}
    assert matcher().match(wanted, request(**asked, name="new", labels={"team": "a"})) is not None
    assert matcher().match(wanted, request(**asked, name="shop", labels={})) is None


def test_a_namespace_that_is_not_there_is_a_404_only_if_the_rules_match() -> None:
    wanted = matching(rule(resources=["deployments"]), **SELECTS)
    with pytest.raises(ApiError) as caught:
        matcher().match(wanted, request(namespace="gone"))
    assert caught.value.code == 404
    assert matcher().match(wanted, request(plural="replicasets", namespace="gone")) is None


def test_either_state_of_an_object_may_match_the_object_selector() -> None:
    wanted = matching(rule(), objectSelector={"matchLabels": {"app": "web"}})
    assert matcher().match(wanted, request(labels={"app": "web"})) is not None
    assert matcher().match(wanted, request(labels={}, old_labels={"app": "web"})) is not None
    assert matcher().match(wanted, request(labels={})) is None


def test_no_rules_match_every_resource() -> None:
    attributes = request()
    assert matcher().match(parse_matching(None), attributes) is attributes.requested


def test_the_index_leaves_out_what_other_resources_are_about_and_follows_the_kinds() -> None:
    index = Index([(matching(rule(resources=["pods"])), "pods"), (Matching(), "all")], KINDS, Equivalents(KINDS))
    assert index.candidates(request()) == ("all",)
    assert not index.empty
    assert Index[int]((), KINDS, Equivalents(KINDS)).candidates(request()) == ()
