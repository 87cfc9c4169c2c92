"""Name rules, and the words of causes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api import causes, names


@pytest.mark.parametrize(
    ("rule", "name", "good"),
    [
        ("dns-subdomain", "a.b-c.d", True),
        ("dns-subdomain", "a..b", False),
        ("dns-subdomain", "a" * 254, False),
        ("dns-subdomain", "a\n", False),
        ("dns-label", "a-b", True),
        ("dns-label", "a.b", False),
        ("dns-label", "a" * 64, False),
        ("dns-1035-label", "a1", True),
        ("dns-1035-label", "1a", False),
        ("path-segment", "System:Any thing", True),
        ("path-segment", "..", False),
        ("pod", "web-0", True),
    ],
)
def test_object_names(rule: str, name: str, good: bool) -> None:
    assert (names.validate_name(rule, name) == []) is good


def test_a_prefix_may_end_with_a_dash() -> None:
    assert names.validate_name("dns-subdomain", "web-", prefix=True) == []
    assert names.validate_name("dns-subdomain", "web-") != []
    assert names.validate_name("path-segment", ".", prefix=True) == []


def test_lengths_count_bytes() -> None:
    assert names.validate_label_value("a" * 63) == []
    assert "must be no more than 63 bytes" in names.validate_label_value("a" * 64)
    assert "name part must be no more than 63 bytes" in names.validate_qualified_name("x/" + "a" * 64)


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("http", []),
        ("a" * 16, ["must be no more than 15 bytes"]),
        ("a--b", ["must not contain consecutive hyphens"]),
        ("-a", ["must not begin or end with a hyphen"]),
        ("80", ["must contain at least one letter (a-z)"]),
        ("A1", ["must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "must contain at least one letter (a-z)"]),
    ],
)  # fmt: skip
def test_port_names(text: str, complaints: list[str]) -> None:
    assert names.validate_port_name(text) == complaints


def test_environment_and_config_keys() -> None:
    assert names.validate_relaxed_env_var_name("1 a-b") == []
    assert names.validate_relaxed_env_var_name("") == ["environment variable name must be non-empty"]
    assert len(names.validate_relaxed_env_var_name("a=b")) == 1
    assert names.validate_env_var_name("1a") != []
    assert names.validate_config_key("..data") == ["must not start with '..'"]
    assert names.validate_config_key(".") == ["must not be '.'"]
    assert names.validate_ip("::1") == []
    assert names.validate_ip("1.2.3") == ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]


def test_causes_render_values_as_go_does() -> None:
    assert causes.invalid_value("a", 'x"\n\x01é', "bad").message == 'Invalid value: "x\\"\\n\\x01é": bad'
    assert causes.invalid_value("a", 3, "bad").message == "Invalid value: 3: bad"
    assert causes.invalid_value("a", True, "bad").message == "Invalid value: true: bad"
    assert causes.invalid_value("a", None, "bad").message == 'Invalid value: "null": bad'
    assert causes.invalid_value("a", {"b": ["<"]}, "bad").message == 'Invalid value: {"b":["\\u003c"]}: bad'
    assert causes.not_supported("a", "x", ["A", "B"]).message == 'Unsupported value: "x": supported values: "A", "B"'
    assert causes.required("a").message == "Required value"
    assert causes.too_many("a", 4, 1).message == "Too many: 4: must have at most 1 item"
    assert causes.too_long("a", 1).message == "Too long: may not be more than 1 byte"
    assert causes.duplicate("a", "x").message == 'Duplicate value: "x"'
    assert causes.not_found("a", "x").message == 'Not found: "x"'
    assert causes.forbidden("a", "no").message == "Forbidden: no"


@given(st.text(max_size=20))
def test_every_rule_answers_for_any_text(text: str) -> None:
    for rule in ("dns-subdomain", "dns-label", "dns-1035-label", "path-segment", "pod"):
        names.validate_name(rule, text)
    names.validate_qualified_name(text)
    quoted = causes.go_quote(text)
    assert quoted.startswith('"') and quoted.endswith('"')
