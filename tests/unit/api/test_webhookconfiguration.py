"""What a webhook configuration may say, and how refusals are told."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.kind import Context
from tiphys.api.strategies.webhookconfiguration import (
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
    validate_webhooks,
    validate_webhooks_update,
)

CREATING = Context("me", "now", creating=True)


def webhook(**more: Any) -> dict[str, Any]:
    return {
        "name": "a.example.com",
        "clientConfig": {"url": "https://example.com/path"},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **more,
    }


def rule(**more: Any) -> dict[str, Any]:
    whole = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    return {"rules": [{**whole, **more}]}


def told(*webhooks: dict[str, Any]) -> list[str]:
    causes = validate_webhooks({"webhooks": list(webhooks)}, CREATING)
    return [f"{cause.field}: {cause.message}" for cause in causes]


def service(**more: Any) -> dict[str, Any]:
    return {"clientConfig": {"service": {"namespace": "a", "name": "b", "port": 443, **more}}}


FORM = "; desired format: https://host[/path]"


@pytest.mark.parametrize(
    ("more", "causes"),
    [
        ({}, []),
        (rule(resources=["*/*"]), []),
        (rule(resources=["pods/*", "*/scale"]), []),
        ({"name": ""}, ["webhooks[0].name: Required value"]),
        ({"name": "a.b"}, ['webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments '
                           "separated by dots"]),
        (rule(apiVersions=[]), ["webhooks[0].rules[0].apiVersions: Required value"]),
        (rule(operations=["*", "CREATE"]), ['webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if \'*\' '
                                            "is present, must not specify other operations"]),
        (rule(operations=["PATCH"]), ['webhooks[0].rules[0].operations[0]: Unsupported value: "PATCH": supported '
                                      'values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"']),
        (rule(resources=["a/*", "a/x"]), ['webhooks[0].rules[0].resources[1]: Invalid value: "a/x": if \'a/*\' is '
                                          "present, must not specify a/x"]),
        (rule(scope="Here"), ['webhooks[0].rules[0].scope: Unsupported value: "Here": supported values: "*", '
                              '"Cluster", "Namespaced"']),
        ({"failurePolicy": "x"}, ['webhooks[0].failurePolicy: Unsupported value: "x": supported values: "Fail", '
                                  '"Ignore"']),
        ({"matchPolicy": "x"}, ['webhooks[0].matchPolicy: Unsupported value: "x": supported values: "Equivalent", '
                                '"Exact"']),
        ({"reinvocationPolicy": "x"}, ['webhooks[0].reinvocationPolicy: Unsupported value: "x": supported values: '
                                       '"IfNeeded", "Never"']),
        ({"sideEffects": None}, ["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"]),
        ({"sideEffects": "Some"}, ['webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", '
                                   '"NoneOnDryRun"']),
        ({"timeoutSeconds": 31}, ["webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 "
                                  "and 30 seconds"]),
        ({"timeoutSeconds": 0}, ["webhooks[0].timeoutSeconds: Invalid value: 0: the timeout value must be between 1 "
                                 "and 30 seconds"]),
        ({"admissionReviewVersions": []}, ["webhooks[0].admissionReviewVersions: Required value: must specify one of "
                                           "v1, v1beta1"]),
        ({"admissionReviewVersions": ["v2"]}, ['webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: must '
                                               "include at least one of v1, v1beta1"]),
        ({"admissionReviewVersions": ["v1", "v1"]}, ['webhooks[0].admissionReviewVersions[1]: Invalid value: "v1": '
                                                     "duplicate version"]),
        ({"namespaceSelector": {"matchLabels": {"a b": "c"}}}, ["webhooks[0].namespaceSelector.matchLabels: Invalid "
                                                               'value: "a b":']),
        ({"clientConfig": {}}, ["webhooks[0].clientConfig: Required value: exactly one of url or service is "
                                "required"]),
        ({"clientConfig": {"url": "http://a"}}, ['webhooks[0].clientConfig.url: Invalid value: "http": \'https\' is '
                                                 "the only allowed URL scheme" + FORM]),
        ({"clientConfig": {"url": "https:///a"}}, ['webhooks[0].clientConfig.url: Invalid value: "": host must be '
                                                   "specified" + FORM]),
        ({"clientConfig": {"url": "https://me@a/b"}}, ['webhooks[0].clientConfig.url: Invalid value: "me": user '
                                                       "information is not permitted in the URL"]),
        ({"clientConfig": {"url": "https://a/b?c#d"}}, ['webhooks[0].clientConfig.url: Invalid value: "d": fragments '
                                                        "are not permitted in the URL",
                                                        'webhooks[0].clientConfig.url: Invalid value: "c": query '
                                                        "parameters are not permitted in the URL"]),
        ({"clientConfig": {"url": "https://a:b"}}, ["webhooks[0].clientConfig.url: Required value: url must be a valid "
                                                    'URL: parse "https://a:b": invalid port ":b" after host' + FORM]),
        (service(), []),
        (service(path="/a/b/"), []),
        (service(name="", namespace=""), ["webhooks[0].clientConfig.service.name: Required value: service name is "
                                          "required", "webhooks[0].clientConfig.service.namespace: Required value: "
                                          "service namespace is required"]),
        (service(port=70000), ["webhooks[0].clientConfig.service.port: Invalid value: 70000: port is not valid: must "
                               "be between 1 and 65535, inclusive"]),
        (service(path="a"), ["webhooks[0].clientConfig.service.path: Invalid value: \"a\": must start with a '/'",
                             'webhooks[0].clientConfig.service.path: Invalid value: "a": segment[0] may not be empty']),
        (service(path="/a//b"), ['webhooks[0].clientConfig.service.path: Invalid value: "/a//b": segment[1] may not be '
                                 "empty"]),
        ({"matchConditions": [{"name": "ok", "expression": "true"}, {"name": "ok", "expression": " "}]},
         ["webhooks[0].matchConditions[1].expression: Required value", "webhooks[0].matchConditions[1].name: Duplicate "
          'value: "ok"']),
        ({"matchConditions": [{"name": "", "expression": "1 + 1"}]}, ["webhooks[0].matchConditions[0].expression: "
         'Invalid value: "1 + 1": must evaluate to bool', "webhooks[0].matchConditions[0].name: Required value"]),
        ({"matchConditions": [{"name": "x", "expression": "... [] bad expression"}]}, [
            'webhooks[0].matchConditions[0].expression: Invalid value: "... [] bad expression": compilation failed: ']),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_field_by_field(more: dict[str, Any], causes: list[str]) -> None:
    found = told(webhook(**more))
    assert len(found) == len(causes), found
    for text, begin in zip(found, causes, strict=True):
        assert text.startswith(begin)


def test_names_are_unique() -> None:
    assert told(webhook(), webhook()) == ['webhooks[1].name: Duplicate value: "a.example.com"']


def test_too_many_conditions_are_told() -> None:
    conditions = [{"name": f"c{number}", "expression": "true"} for number in range(65)]
    assert told(webhook(matchConditions=conditions)) == [
        "webhooks[0].matchConditions: Too many: 65: must have at most 64 items"
    ]


@pytest.mark.parametrize("more", [{"sideEffects": "Some"}, {"admissionReviewVersions": ["v0"]}])
def test_an_update_may_leave_what_older_versions_allowed(more: dict[str, Any]) -> None:
    old = {"webhooks": [webhook(**more)]}
    new = {"webhooks": [webhook(**more, timeoutSeconds=3)]}
    assert not validate_webhooks_update(new, old, Context("me", "now"))
    assert validate_webhooks_update(new, {"webhooks": [webhook()]}, Context("me", "now"))


def test_conditions_that_stay_are_not_compiled_again() -> None:
    bad = {"matchConditions": [{"name": "x", "expression": "bad("}]}
    old, new = ({"webhooks": [webhook(**bad, timeoutSeconds=number)]} for number in (1, 2))
    assert not validate_webhooks_update(new, old, Context("me", "now"))
    assert validate_webhooks_update(new, {"webhooks": [webhook()]}, Context("me", "now"))


def test_defaults_are_written_out() -> None:
    configuration = {"webhooks": [webhook(**rule(), clientConfig={"service": {"namespace": "a", "name": "b"}})]}
    MUTATING_WEBHOOKS.default(configuration)
    (made,) = configuration["webhooks"]
    assert made["clientConfig"]["service"]["port"] == 443
    assert made["rules"][0]["scope"] == "*"
    expected = {
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
        "timeoutSeconds": 10,
        "reinvocationPolicy": "Never",
    }
    assert expected.items() <= made.items()
    other = {"webhooks": [webhook()]}
    VALIDATING_WEBHOOKS.default(other)
    assert "reinvocationPolicy" not in other["webhooks"][0]
