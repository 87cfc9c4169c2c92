"""Custom resources: served kinds, tables, rules and status that follow from a definition."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tiphys.api.crdschema import schema_causes
from tiphys.api.kind import Context, Kinds
from tiphys.api.kinds import builtin_kinds
from tiphys.apiserver.customresources import custom_kinds, plan_crd_status

NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T01:00:00Z"
NOW_S = 1_767_225_600.0
CONTEXT = Context(user="admin", now=NOW, creating=True)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["image"],
            "properties": {
                "image": {"type": "string"},
                "replicas": {"type": "integer", "minimum": 0, "default": 1},
                "color": {"type": "string"},
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "since": {"type": "string"}}},
    },
}

(CUSTOM_RESOURCE_DEFINITION,) = (
    kind.strategy for kind in builtin_kinds((1, 37)) if kind.kind == "CustomResourceDefinition"
)


def crd(**changes: Any) -> dict[str, Any]:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": copy.deepcopy(SCHEMA)},
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
        },
        "additionalPrinterColumns": [
            {"name": "Image", "type": "string", "jsonPath": ".spec.image"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
            {"name": "Since", "type": "date", "jsonPath": ".status.since"},
        ],
        "selectableFields": [{"jsonPath": ".spec.color"}],
        **changes,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "carts.shop.example.com"},
        "spec": {
            "group": "shop.example.com",
            "scope": "Namespaced",
            "names": {
                "plural": "carts",
                "singular": "cart",
                "kind": "Cart",
                "listKind": "CartList",
                "shortNames": ["ct"],
                "categories": ["all"],
            },
            "versions": [version],
            "conversion": {"strategy": "None"},
        },
    }


def causes(definition: dict[str, Any]) -> list[str]:
    return [f"{c.field}: {c.message}" for c in CUSTOM_RESOURCE_DEFINITION.validate(definition, CONTEXT)]


def test_a_definition_becomes_a_kind_with_all_that_it_says() -> None:
    (kind,) = custom_kinds(crd())
    assert (kind.group, kind.version, kind.kind, kind.plural, kind.singular) == (
        "shop.example.com",
        "v1",
        "Cart",
        "carts",
        "cart",
    )
    assert kind.short_names == ("ct",) and kind.categories == ("all",) and kind.namespaced and kind.custom
    assert [s.name for s in kind.subresources] == ["status", "scale"]
    assert kind.scale_paths == ("spec.replicas", "status.replicas", "")
    assert kind.selectable_fields["spec.color"]({"spec": {"color": "red"}}) == "red"
    assert kind.selectable_fields["spec.color"]({}) == ""
    assert "patch" in kind.verbs
    (old,) = custom_kinds(crd(), (1, 30))
    assert not old.selectable_fields


def test_rows_follow_the_printer_columns() -> None:
    (kind,) = custom_kinds(crd())
    assert [(c.name, c.type, c.priority) for c in kind.columns] == [
        ("Name", "string", 0),
        ("Image", "string", 0),
        ("Replicas", "integer", 1),
        ("Since", "date", 0),
    ]
    cart = {
        "metadata": {"name": "a"},
        "spec": {"image": "x", "replicas": 2},
        "status": {"since": "2025-12-31T23:55:00Z"},
    }
    assert kind.row(cart, NOW_S) == ["a", "x", 2, "5m"]
    assert kind.row({"metadata": {"name": "a"}, "spec": {"replicas": "no"}}, NOW_S) == ["a", None, None, None]


def test_a_kind_without_columns_shows_its_age() -> None:
    (kind,) = custom_kinds(crd(additionalPrinterColumns=[]))
    assert [c.name for c in kind.columns] == ["Name", "Age"]
    assert kind.row({"metadata": {"name": "a", "creationTimestamp": "2025-12-31T00:00:00Z"}}, NOW_S) == ["a", "24h"]


def test_versions_share_storage_and_only_served_ones_are_served() -> None:
    definition = crd()
    old = {**definition["spec"]["versions"][0], "name": "v1beta1", "storage": False}
    gone = {**old, "name": "v1alpha1", "served": False}
    definition["spec"]["versions"] += [old, gone]
    kinds = custom_kinds(definition)
    assert [kind.version for kind in kinds] == ["v1", "v1beta1"]
    assert {kind.storage_api_version for kind in kinds} == {"shop.example.com/v1"}


def test_objects_are_defaulted_validated_and_their_status_is_apart() -> None:
    (kind,) = custom_kinds(crd())
    strategy = kind.strategy
    cart: dict[str, Any] = {"metadata": {"name": "a"}, "spec": {"image": "x"}, "status": {"replicas": 9}}
    strategy.default(cart)
    strategy.prepare_for_create(cart, CONTEXT)
    assert cart["spec"]["replicas"] == 1 and "status" not in cart
    assert strategy.validate(cart, CONTEXT) == []
    wrong = {"metadata": {"name": "a"}, "spec": {"replicas": -1}}
    assert {cause.field for cause in strategy.validate(wrong, CONTEXT)} == {"spec.image", "spec.replicas"}
    old = {"metadata": {}, "spec": {"image": "x"}, "status": {"replicas": 1}}
    new = {"metadata": {}, "spec": {"image": "y"}, "status": {"replicas": 5}}
    by_update, by_status = copy.deepcopy(new), copy.deepcopy(new)
    strategy.prepare_for_update(by_update, old, CONTEXT)
    assert by_update == {"metadata": {}, "spec": {"image": "y"}, "status": {"replicas": 1}}
    strategy.prepare_for_status_update(by_status, old, CONTEXT)
    assert by_status == {"metadata": {}, "spec": {"image": "x"}, "status": {"replicas": 5}}


def test_a_first_definition_gets_its_names_and_is_established_and_then_settles() -> None:
    kinds = Kinds(builtin_kinds((1, 37), {}), (1, 37))
    definition = crd()
    status = plan_crd_status(definition, kinds, NOW)
    assert status["acceptedNames"] == definition["spec"]["names"]
    assert status["storedVersions"] == ["v1"]
    assert [(c["type"], c["status"], c["reason"]) for c in status["conditions"]] == [
        ("NamesAccepted", "True", "NoConflicts"),
        ("Established", "True", "InitialNamesAccepted"),
    ]
    definition["status"] = status
    for kind in custom_kinds(definition):
        kinds.add(kind)
    assert plan_crd_status(definition, kinds, LATER) == status


def test_a_name_in_use_keeps_a_definition_from_being_established_until_it_is_free() -> None:
    kinds = Kinds(builtin_kinds((1, 37), {}), (1, 37))
    for kind in custom_kinds(crd()):
        kinds.add(kind)
    rival = crd()
    rival["metadata"]["name"] = "wagons.shop.example.com"
    rival["spec"]["names"] = {"plural": "wagons", "singular": "wagon", "kind": "Cart", "listKind": "CartList"}
    status = plan_crd_status(rival, kinds, NOW)
    conditions = {c["type"]: c for c in status["conditions"]}
    assert conditions["NamesAccepted"]["status"] == "False"
    assert conditions["NamesAccepted"]["reason"] == "ListKindConflict"
    assert conditions["NamesAccepted"]["message"] == '"CartList" is already in use'
    assert conditions["Established"]["reason"] == "NotAccepted"
    assert status["acceptedNames"]["plural"] == "wagons" and status["acceptedNames"]["kind"] == ""
    kinds.remove(kinds.versions_of("shop.example.com", "carts")[0])
    rival["status"] = status
    free = {c["type"]: c for c in plan_crd_status(rival, kinds, LATER)["conditions"]}
    assert free["Established"]["status"] == "True" and free["Established"]["lastTransitionTime"] == LATER


def test_a_short_name_in_use_leaves_an_established_definition_served_without_it() -> None:
    kinds = Kinds(builtin_kinds((1, 37), {}), (1, 37))
    definition = crd()
    definition["spec"]["names"].pop("shortNames")
    definition["status"] = plan_crd_status(definition, kinds, NOW)
    other = crd()
    other["spec"]["names"] = {"plural": "wagons", "singular": "wagon", "kind": "Wagon", "shortNames": ["ct"]}
    for kind in custom_kinds(other):
        kinds.add(kind)
    definition["spec"]["names"]["shortNames"] = ["ct"]
    status = plan_crd_status(definition, kinds, LATER)
    conditions = {c["type"]: c for c in status["conditions"]}
    assert conditions["NamesAccepted"]["reason"] == "ShortNamesConflict"
    assert conditions["Established"]["status"] == "True"
    assert "shortNames" not in status["acceptedNames"]


def test_groups_of_the_community_need_an_approval() -> None:
    definition = crd()
    definition["metadata"]["name"] = "carts.shop.k8s.io"
    definition["spec"]["group"] = "shop.k8s.io"
    assert any("protected groups must have approval annotation" in cause for cause in causes(definition))
    definition["metadata"]["annotations"] = {"api-approved.kubernetes.io": "https://example.com/1"}
    assert causes(definition) == []
    status = plan_crd_status(definition, Kinds([], (1, 37)), NOW)
    assert status["conditions"][-1]["message"] == "approved in https://example.com/1"


def test_a_good_definition_has_no_causes_and_defaults_fill_its_names() -> None:
    definition = crd()
    del (
        definition["spec"]["names"]["singular"],
        definition["spec"]["names"]["listKind"],
        definition["spec"]["conversion"],
    )
    CUSTOM_RESOURCE_DEFINITION.default(definition)
    CUSTOM_RESOURCE_DEFINITION.prepare_for_create(definition, CONTEXT)
    assert definition["spec"]["names"]["singular"] == "cart"
    assert definition["spec"]["names"]["listKind"] == "CartList"
    assert definition["spec"]["conversion"] == {"strategy": "None"}
    assert definition["status"]["storedVersions"] == ["v1"]
    assert causes(definition) == []


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"metadata": {"name": "x"}}, 'metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group'),
        ({"scope": "Galaxy"}, 'spec.scope: Unsupported value: "Galaxy": supported values: "Cluster", "Namespaced"'),
        ({"group": "shop"}, 'spec.group: Invalid value: "shop": should be a domain with at least one dot'),
        ({"schema": None}, "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"),
        ({"conversion": {"strategy": "Magic"}}, 'spec.conversion.strategy: Unsupported value: "Magic"'),
        ({"storage": False}, "must have exactly one version marked as storage version"),
        ({"version": "V1"}, "spec.versions[0].name: Invalid value"),
        ({"kind": "Ca rt"}, "spec.names.kind: Invalid value"),
        ({"column": {"name": "A", "type": "map", "jsonPath": ".a"}}, "additionalPrinterColumns[0].type: Invalid value"),
        ({"column": {"name": "A", "type": "string", "jsonPath": "a"}}, "additionalPrinterColumns[0].JSONPath"),
        ({"scale": {"specReplicasPath": ".x", "statusReplicasPath": ".status.r"}}, "should be a json path under .spec"),
    ],
)
def test_each_rule_tells_its_cause(change: dict[str, Any], cause: str) -> None:
    definition = crd()
    version = definition["spec"]["versions"][0]
    match next(iter(change.items())):
        case "metadata", value:
            definition["metadata"] = value
        case "schema", value:
            version["schema"] = value
        case "storage", value:
            version["storage"] = value
        case "version", value:
            version["name"] = value
        case "kind", value:
            definition["spec"]["names"]["kind"] = value
        case "column", value:
            version["additionalPrinterColumns"] = [value]
        case "scale", value:
            version["subresources"]["scale"] = value
        case key, value:
            definition["spec"][key] = value
    assert any(cause in text for text in causes(definition)), causes(definition)


@pytest.mark.parametrize(
    ("schema", "cause"),
    [
        ({}, "s.type: Required value: must not be empty at the root"),
        ({"type": "string"}, 's.type: Invalid value: "string": must be object at the root'),
        (
            {"type": "object", "properties": {"a": {}}},
            "s.properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "array"}}},
            "s.properties[a].items: Required value: must be specified",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "array", "items": {}}}},
            "s.properties[a].items.type: Required value: must not be empty for specified array items",
        ),
        (
            {"type": "object", "allOf": [{"type": "object"}]},
            "s.allOf[0].type: Forbidden: must be empty to be structural",
        ),
        ({"type": "object", "$ref": "#/x"}, "s.$ref: Forbidden: $ref is not supported"),
    ],
)
def test_schemas_must_be_structural(schema: dict[str, Any], cause: str) -> None:
    assert cause in [f"{c.field}: {c.message}" for c in schema_causes(schema, "s", has_status=False)]


def test_int_or_string_and_free_fields_need_no_type() -> None:
    either = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    free = {"x-kubernetes-preserve-unknown-fields": True}
    assert schema_causes({"type": "object", "properties": {"a": either, "b": free}}, "s", has_status=True) == []


def test_an_established_definition_keeps_its_scope_and_kind() -> None:
    old = crd()
    old["status"] = plan_crd_status(old, Kinds([], (1, 37)), NOW)
    new = copy.deepcopy(old)
    new["spec"]["scope"] = "Cluster"
    new["spec"]["names"]["kind"] = "Wagon"
    found = CUSTOM_RESOURCE_DEFINITION.validate_update(new, old, CONTEXT)
    assert [(c.field, c.message) for c in found] == [
        ("spec.scope", 'Invalid value: "Cluster": field is immutable'),
        ("spec.names.kind", 'Invalid value: "Wagon": field is immutable'),
    ]


def test_a_new_storage_version_is_added_to_the_stored_ones_and_the_old_one_must_stay() -> None:
    old = crd()
    CUSTOM_RESOURCE_DEFINITION.prepare_for_create(old, CONTEXT)
    new = copy.deepcopy(old)
    new["spec"]["versions"][0]["name"] = "v2"
    CUSTOM_RESOURCE_DEFINITION.prepare_for_update(new, old, CONTEXT)
    assert new["status"]["storedVersions"] == ["v1", "v2"]
    found = CUSTOM_RESOURCE_DEFINITION.validate_update(new, old, CONTEXT)
    assert [cause.field for cause in found] == ["status.storedVersions[0]"]
    assert "v1 was previously a storage version" in found[0].message
