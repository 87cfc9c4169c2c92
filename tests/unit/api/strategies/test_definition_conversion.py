"""spec.conversion of CustomResourceDefinitions: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.strategies.conversion import check_conversion
from tiphys.base.errors import Cause

CONFIG = "spec.conversion.webhookClientConfig"


def told(strategy: str = "Webhook", config: Any = None, versions: Any = ("v1",)) -> list[str]:
    causes: list[Cause] = []
    webhook = {"conversionReviewVersions": list(versions)} | ({} if config is None else {"clientConfig": config})
    check_conversion(causes, {"strategy": strategy, "webhook": webhook})
    return [f"{cause.field}: {cause.message}" for cause in causes]


@pytest.mark.parametrize(
    "config",
    [
        {"url": "https://example.com"},
        {"url": "https://10.0.0.1:8443/convert"},
        {"service": {"name": "a", "namespace": "b", "port": 443, "path": "/convert/x/"}},
        {"service": {"name": "a", "namespace": "b"}},
    ],
)
def test_what_can_be_called_is_taken(config: Any) -> None:
    assert told(config=config) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, f"{CONFIG}: Required value: required when strategy is set to Webhook"),
        ({}, f"{CONFIG}: Required value: exactly one of url or service is required"),
        (
            {"url": "http://a.b"},
            f"{CONFIG}.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; "
            "desired format: https://host[/path]",
        ),
        (
            {"url": "https://"},
            f'{CONFIG}.url: Invalid value: "": host must be specified; desired format: https://host[/path]',
        ),
        (
            {"url": "https://u:p@a.b"},
            f'{CONFIG}.url: Invalid value: "u:p": user information is not permitted in the URL',
        ),
        ({"url": "https://a.b#c"}, f'{CONFIG}.url: Invalid value: "c": fragments are not permitted in the URL'),
        (
            {"url": "https://a.b?c=d"},
            f'{CONFIG}.url: Invalid value: "c=d": query parameters are not permitted in the URL',
        ),
        ({"service": {"namespace": "b"}}, f"{CONFIG}.service.name: Required value: service name is required"),
        (
            {"service": {"name": "a", "namespace": "b", "port": 0}},
            f"{CONFIG}.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
        ),
        (
            {"service": {"name": "a", "namespace": "b", "path": "x"}},
            f"{CONFIG}.service.path: Invalid value: \"x\": must start with a '/'",
        ),
        (
            {"service": {"name": "a", "namespace": "b", "path": "/a//b"}},
            f'{CONFIG}.service.path: Invalid value: "/a//b": segment[1] may not be empty',
        ),
    ],
)
def test_what_cannot_be_called_is_refused(config: Any, message: str) -> None:
    assert message in told(config=config)


def test_review_versions_need_one_that_is_known() -> None:
    path, config = "spec.conversion.conversionReviewVersions", {"url": "https://a.b"}
    assert told(config=config, versions=()) == [f"{path}: Required value"]
    assert told(config=config, versions=("v2", "v1beta1")) == []
    assert told(config=config, versions=("v1", "v1")) == [f'{path}[1]: Invalid value: "v1": duplicate version']
    assert told(config=config, versions=("v2",)) == [
        f'{path}: Invalid value: ["v2"]: must include at least one of v1, v1beta1'
    ]


def test_without_a_webhook_nothing_may_be_said_of_one() -> None:
    detail = "Forbidden: should not be set when strategy is not set to Webhook"
    assert told("None", {"url": "https://a.b"}) == [
        f"{CONFIG}: {detail}",
        f"spec.conversion.conversionReviewVersions: {detail}",
    ]
    assert told("None", versions=()) == []
    assert told("Magic", versions=()) == [
        'spec.conversion.strategy: Unsupported value: "Magic": supported values: "None", "Webhook"'
    ]
