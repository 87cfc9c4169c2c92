"""Quantities are exact, canonical and ordered."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.quantity import (
    BINARY_SI,
    DECIMAL_EXPONENT,
    DECIMAL_SI,
    MAX_VALUE,
    NANOS,
    Quantity,
    canonical_quantity,
    cpu_milli,
    memory_bytes,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("0Ki", "0"),
        ("1024Mi", "1Gi"),
        ("1000Mi", "1000Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("1.", "1"),
        ("+1", "1"),
        ("-1", "-1"),
        ("2000m", "2"),
        ("1500m", "1500m"),
        ("1000", "1k"),
        ("1e3", "1e3"),
        ("12e6", "12e6"),
        ("1E", "1E"),
        ("1E1", "10"),
        ("0.1n", "1n"),
        ("1000E", str(MAX_VALUE)),
        (1, "1"),
        (0.25, "250m"),
    ],
)
def test_canonical_form(text: str | int | float, canonical: str) -> None:
    assert canonical_quantity(text) == canonical


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "quantities must match the regular expression"),
        ("abc", "quantities must match the regular expression"),
        ("1x", "quantities must match the regular expression"),
        ("1.2.3", "quantities must match the regular expression"),
        ("1 Gi", "quantities must match the regular expression"),
        ("1KK", "unable to parse quantity's suffix"),
        ("m", "unable to parse numeric part of quantity"),
    ],
)
def test_bad_text_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_quantity(text)


def test_fractions_round_up() -> None:
    assert cpu_milli("100m") == 100
    assert cpu_milli("1u") == 1
    assert cpu_milli("2") == 2000
    assert memory_bytes("1Gi") == 2**30
    assert memory_bytes("1m") == 1
    assert parse_quantity("1500m").value() == 2


@given(
    st.integers(min_value=-MAX_VALUE * NANOS, max_value=MAX_VALUE * NANOS),
    st.sampled_from([DECIMAL_SI, BINARY_SI, DECIMAL_EXPONENT]),
)
def test_text_round_trips(nanos: int, format_: str) -> None:
    text = str(Quantity(nanos, format_))
    assert parse_quantity(text).nanos == nanos
    assert canonical_quantity(text) == text


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "e2"]))
def test_parsing_is_exact(whole: int, fraction: int, suffix: str) -> None:
    scale = {"": 1, "m": Fraction(1, 1000), "k": 1000, "M": 10**6, "Ki": 1024, "Mi": 1024**2, "e2": 100}[suffix]
    exact = (whole + Fraction(fraction, 1000)) * scale
    assert Fraction(parse_quantity(f"{whole}.{fraction:03d}{suffix}").nanos, NANOS) == exact


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_order_and_sum_follow_the_numbers(left: int, right: int) -> None:
    a, b = Quantity(left), Quantity(right)
    assert (a < b) == (left < right)
    assert (a + b).nanos == left + right
    assert (a - b).nanos == left - right
