"""Selectors parse, print and match as upstream's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.selectors import (
    parse_field_selector,
    parse_label_selector,
    selector_of,
    selector_of_labels,
    validate_label_selector,
)
from tiphys.api.views import meta
from tiphys.base.errors import ApiError

LABELS = {"app": "web", "tier": "2", "empty": ""}


@pytest.mark.parametrize(
    ("text", "printed", "matches"),
    [
        ("", "", True),
        ("app=web", "app=web", True),
        ("app==web", "app==web", True),
        ("app!=web", "app!=web", False),
        ("other!=web", "other!=web", True),
        ("app in (x, web)", "app in (web,x)", True),
        ("app notin (x,web)", "app notin (web,x)", False),
        ("app", "app", True),
        ("!app", "!app", False),
        ("! other", "!other", True),
        ("tier>1,tier<3", "tier>1,tier<3", True),
        ("tier>2", "tier>2", False),
        ("app>1", "app>1", False),
        ("empty=", "empty=", True),
        ("in in (in)", "in in (in)", False),
        ("b=1,a=2", "a=2,b=1", False),
        ("x/y.z=v", "x/y.z=v", False),
    ],
)
def test_label_selectors(text: str, printed: str, matches: bool) -> None:
    selector = parse_label_selector(text)
    assert str(selector) == printed
    assert selector.matches(LABELS) is matches
    assert parse_label_selector(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a>x", 'unable to parse requirement: values[0]: Invalid value: "x": for \'Gt\', \'Lt\' operators, '
            "the value must be an integer"),
    ],
)  # fmt: skip
def test_bad_label_selectors_are_refused(text: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_label_selector(text)
    assert caught.value.code == 400
    assert caught.value.message == message


def test_bad_keys_and_values_tell_the_rule() -> None:
    with pytest.raises(ApiError, match=r'unable to parse requirement: <nil>: Invalid value: "_x": name part must'):
        parse_label_selector("_x=1")
    with pytest.raises(ApiError, match=r'unable to parse requirement: values\[0\]\[a\]: Invalid value: "_": a valid'):
        parse_label_selector("a=_")


@given(st.text(alphabet="ab=!(),<> in", max_size=12))
def test_any_text_parses_or_is_a_bad_request(text: str) -> None:
    try:
        selector = parse_label_selector(text)
    except ApiError as error:
        assert error.code == 400
    else:
        assert parse_label_selector(str(selector)) == selector


def test_field_selectors() -> None:
    selector = parse_field_selector("status.phase!=Running,metadata.name==a\\,b")
    assert [tuple(requirement) for requirement in selector.requirements] == [
        ("metadata.name", "=", "a,b"),
        ("status.phase", "!=", "Running"),
    ]
    assert selector.matches({"metadata.name": "a,b", "status.phase": "Failed"})
    assert not selector.matches({"metadata.name": "a,b", "status.phase": "Running"})
    assert parse_field_selector(str(selector)) == selector
    assert parse_field_selector("").empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid selector: 'x'; can't understand 'x'"),
        ("a=\\x", "invalid field selector: invalid escape sequence: \\x"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ],
)
def test_bad_field_selectors_are_refused(text: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_field_selector(text)
    assert (caught.value.code, caught.value.message) == (400, message)


def test_selectors_of_objects() -> None:
    selector = selector_of(
        {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["1", "2"]}]}
    )
    assert selector.matches(LABELS)
    assert str(selector) == "app=web,tier in (1,2)"
    view = meta.LabelSelector(match_expressions=(meta.LabelSelectorRequirement(key="app", operator="DoesNotExist"),))
    assert not selector_of(view).matches(LABELS)


def test_no_selector_matches_nothing_and_an_empty_one_everything() -> None:
    assert not selector_of(None).matches(LABELS)
    assert selector_of({}).matches(LABELS)
    assert selector_of(meta.LabelSelector()).matches({})
    assert not selector_of_labels({}).matches({})


def test_validation_of_selectors_in_objects() -> None:
    causes = validate_label_selector(
        {
            "matchLabels": {"-a": "b"},
            "matchExpressions": [
                {"key": "a", "operator": "In"},
                {"key": "a", "operator": "Exists", "values": ["x"]},
                {"key": "a", "operator": "Like"},
            ],
        },
        "spec.selector",
    )
    assert [(cause.type, cause.field) for cause in causes] == [
        ("FieldValueInvalid", "spec.selector.matchLabels"),
        ("FieldValueRequired", "spec.selector.matchExpressions[0].values"),
        ("FieldValueForbidden", "spec.selector.matchExpressions[1].values"),
        ("FieldValueInvalid", "spec.selector.matchExpressions[2].operator"),
    ]
    assert causes[1].message == "Required value: must be specified when `operator` is 'In' or 'NotIn'"
    assert validate_label_selector(None, "spec.selector") == []
