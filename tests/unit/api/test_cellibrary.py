"""Kubernetes' functions of expressions, called as the evaluator calls them: by overload, with values."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tiphys.api.cellibrary import libraries
from tiphys.api.cellibrary.authorizer import AuthorizerValue, Decision, Question
from tiphys.cel.errors import EvaluationError
from tiphys.cel.values import NONE, Duration, Optional, UInt

OVERLOADS = {o.id: o for library in libraries(37) for function in library for o in function.overloads}


def call(overload: str, *values: Any) -> Any:
    return OVERLOADS[overload].call(*values)


def text_of(value: Any) -> str:
    for overload in ("ip_to_string", "cidr_to_string"):
        if OVERLOADS[overload].arguments[0] == value.cel_type:
            return str(call(overload, value))
    return str(value.amount)


def test_overloads_are_unique_and_versions_have_their_libraries() -> None:
    ids = [o.id for library in libraries(37) for function in library for o in function.overloads]
    assert len(ids) == len(set(ids))
    names = {minor: {f.name for library in libraries(minor) for f in library} for minor in (25, 29, 30, 31, 33, 34)}
    assert "quantity" not in names[25] and "quantity" in names[29]
    assert "ip" not in names[30] and "cidr" in names[31]
    assert "semver" not in names[33] and "semver" in names[34]


@pytest.mark.parametrize(
    ("overload", "values", "result"),
    [
        ("list_int_isSorted", ([1, 2, 2],), True),
        ("list_string_isSorted", (["b", "a"],), False),
        ("list_int_sum", ([1, 2],), 3),
        ("list_int_sum", ([],), 0),
        ("list_uint_sum", ([UInt(1), UInt(2)],), UInt(3)),
        ("list_duration_sum", ([Duration(1), Duration(2)],), Duration(3)),
        ("list_double_min", ([1.5, 0.5],), 0.5),
        ("list_string_max", (["a", "b"],), "b"),
        ("list_a_indexOf_int", ([True, 1], 1), 1),
        ("list_a_lastIndexOf_int", ([1, 2, 1], 1), 2),
        ("list_a_indexOf_int", ([1], 5), -1),
        ("string_find_string", ("abc 123", "[0-9]+"), "123"),
        ("string_find_string", ("abc", "[0-9]+"), ""),
        ("string_find_all_string", ("12 3", "[0-9]"), ["1", "2", "3"]),
        ("string_find_all_string_int", ("12 3", "[0-9]", 2), ["1", "2"]),
        ("string_find_all_string_int", ("12 3", "[0-9]", 0), []),
        ("string_jsonpatch_escapeKey_string", ("a/b~c",), "a~1b~0c"),
        ("string_to_isQuantity", ("1.5Gi",), True),
        ("string_to_isQuantity", ("1.5Gigs",), False),
        ("is_ip", ("127.0.0.256",), False),
        ("is_ip", ("::ffff:1.2.3.4",), False),
        ("is_ip", ("fe80::1%eth0",), False),
        ("ip_is_canonical", ("2001:DB8::ABCD",), False),
        ("ip_is_canonical", ("2001:db8::abcd",), True),
        ("is_cidr", ("10.0.0.0/33",), False),
        ("is_cidr", ("10.0.0.1/8",), True),
        ("is_url_string", ("https://a.b/c?d=e",), True),
        ("is_url_string", ("../c",), False),
        ("is_semver_string", ("v1.0",), False),
        ("is_semver_string_bool", ("v01.2", True), True),
        ("is_semver_string", ("1.0.0-alpha.1+x",), True),
    ],
)
def test_plain_functions(overload: str, values: tuple[Any, ...], result: Any) -> None:
    found = call(overload, *values)
    assert found == result and type(found) is type(result)


def test_quantities() -> None:
    one, half = call("string_to_quantity", "1"), call("string_to_quantity", "500m")
    assert call("string_to_quantity", "1000m") == one != half
    assert call("quantity_add", half, half) == one
    assert text_of(call("quantity_sub_int", one, 2)) == "-1"
    assert call("quantity_compare_to", half, one) == -1 and call("quantity_is_greater_than", one, half)
    assert call("quantity_is_less_than", half, one) and call("quantity_sign", half) == 1
    assert call("quantity_is_integer", one) and not call("quantity_is_integer", half)
    assert call("quantity_as_integer", one) == 1 and call("quantity_as_float", half) == 0.5


def test_addresses() -> None:
    ip = call("string_to_ip", "192.168.0.1")
    assert call("ip_family", ip) == 4 and call("ip_is_global_unicast", ip) and not call("ip_is_loopback", ip)
    assert call("ip_is_link_local_multicast", call("string_to_ip", "ff02::1"))
    assert not call("ip_is_link_local_multicast", call("string_to_ip", "224.0.1.1"))
    assert call("ip_is_link_local_unicast", call("string_to_ip", "fe80::1"))
    assert not call("ip_is_global_unicast", call("string_to_ip", "255.255.255.255"))
    cidr = call("string_to_cidr", "192.168.1.5/16")
    assert text_of(call("cidr_masked", cidr)) == "192.168.0.0/16" and text_of(cidr) == "192.168.1.5/16"
    assert call("cidr_prefix_length", cidr) == 16 and text_of(call("cidr_ip", cidr)) == "192.168.1.5"
    assert call("cidr_contains_ip_ip", cidr, ip) and not call("cidr_contains_ip_string", cidr, "10.0.0.1")
    assert call("cidr_contains_cidr_string", cidr, "192.168.2.0/24")
    assert not call("cidr_contains_cidr_string", cidr, "192.0.0.0/8")
    assert not call("cidr_contains_ip_string", cidr, "::1")


def test_urls() -> None:
    url = call("string_to_url", "HTTPS://user@[::1]:80/a b/c?k=1&k=2&j#frag")
    assert call("url_get_scheme", url) == "https" and call("url_get_host", url) == "[::1]:80"
    assert call("url_get_hostname", url) == "::1" and call("url_get_port", url) == "80"
    assert call("url_get_escaped_path", url) == "/a%20b/c"
    assert call("url_get_query", url) == {"k": ["1", "2"], "j": [""]}
    path = call("string_to_url", "/path")
    assert call("url_get_host", path) == "" and call("url_get_scheme", path) == ""


def test_versions() -> None:
    def order(left: str, right: str) -> int:
        return int(call("semver_compare_to", call("string_to_semver", left), call("string_to_semver", right)))

    ladder = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0", "1.0.1"]
    assert all(order(low, high) == -1 for low, high in pairwise(ladder))
    assert call("semver_major", call("string_bool_to_semver", "v3.2", True)) == 3
    assert call("string_to_semver", "1.0.0+a") == call("string_to_semver", "1.0.0+b")


def test_formats() -> None:
    label = call("format.dns1123Label")
    assert call("format-validate", label, "good") is NONE
    assert "RFC 1123 label" in call("format-validate", label, "Bad_").value[0]
    named = call("format-named", "uuid")
    assert isinstance(named, Optional)
    assert call("format-validate", named.value, "x").value == ["does not match the UUID format"]
    assert call("format-named", "nothing") is NONE


def test_the_authorizer_asks_what_was_put_together() -> None:
    asked: list[Question] = []

    def ask(question: Question) -> Decision:
        asked.append(question)
        return Decision(question.verb == "get", "because")

    authorizer = AuthorizerValue(ask)
    group = call("authorizer_group", call("authorizer_serviceaccount", authorizer, "default", "bob"), "apps")
    check = call("resourcecheck_namespace", call("groupcheck_resource", group, "deployments"), "default")
    check = call("authorizer_labelselector", check, "a=b")
    decision = call("resourcecheck_check", check, "get")
    assert call("decision_allowed", decision) and call("decision_reason", decision) == "because"
    assert not call("decision_errored", decision) and call("decision_error", decision) == ""
    assert asked == [
        Question(
            verb="get",
            group="apps",
            resource="deployments",
            namespace="default",
            label_selector="a=b",
            service_account=("default", "bob"),
        )
    ]
    assert not call("decision_allowed", call("pathcheck_check", call("authorizer_path", authorizer, "/x"), "put"))


@pytest.mark.parametrize(
    ("overload", "values", "message"),
    [
        ("list_int_min", ([],), "min called on empty list"),
        ("list_int_sum", ([2**63 - 1, 1],), "integer overflow"),
        ("string_find_string", ("a", "("), "Illegal regex: "),
        ("string_to_quantity", ("x",), "quantities must match the regular expression"),
        ("quantity_as_integer", (None,), "cannot convert value to integer"),
        ("string_to_ip", ("127.0.0.256",), 'IP Address "127.0.0.256" parse error during conversion from string: '),
        ("string_to_ip", ("::ffff:1.2.3.4",), 'IPv4-mapped IPv6 address "::ffff:1.2.3.4" is not allowed'),
        ("string_to_cidr", ("10.0.0.0",), "network address parse error during conversion from string: "),
        ("string_to_url", ("x",), 'URL parse error during conversion from string: parse "x": invalid URI for request'),
        ("string_to_semver", ("1.0",), "No Major.Minor.Patch elements found"),
        ("string_to_semver", ("01.0.0",), 'Major number must not contain leading zeroes "01"'),
        ("authorizer_path", (AuthorizerValue(lambda q: Decision(True)), " "), "path must not be empty"),
    ],
)
def test_failures_are_worded_as_upstream_words_them(overload: str, values: tuple[Any, ...], message: str) -> None:
    if overload == "quantity_as_integer":
        values = (call("string_to_quantity", "1500m"),)
    with pytest.raises(EvaluationError) as failure:
        call(overload, *values)
    assert message in str(failure.value)
