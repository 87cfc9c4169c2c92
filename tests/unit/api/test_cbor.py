"""JSON values as CBOR: there and back, the examples of RFC 8949 that clients may send, and damage that is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.api.cbor import decode_cbor, encode_cbor

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=26) | st.dictionaries(st.text(), inner, max_size=26),
)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_any_value_comes_back(value: Any) -> None:
    assert decode_cbor(encode_cbor(value)) == value


def test_an_object_is_self_described_and_its_texts_are_byte_strings() -> None:
    assert encode_cbor({"a": ["ä", 24, -1, True, None, 1.5]}) == bytes.fromhex(
        "d9d9f7 a1 4161 86 42c3a4 1818 20 f5 f6 fb3ff8000000000000"
    )


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("00", 0),
        ("3903e7", -1000),
        ("f93e00", 1.5),
        ("fa47c35000", 100000.0),
        ("6161", "a"),
        ("c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z"),
        ("d64568656c6c6f", "aGVsbG8="),
        ("d54568656c6c6f", "aGVsbG8"),
        ("d74201ff", "01ff"),
        ("a2616101616202", {"a": 1, "b": 2}),
        ("9f009f01ff80ff", [0, [1], []]),
        ("bf61610161629f02ffff", {"a": 1, "b": [2]}),
        ("5f41614162ff", "ab"),
        ("7f6161ff", "a"),
        ("5fff", ""),
        ("d65f4268654100ff", "aGUA"),
        ("d81c80", []),
        ("f7", None),
    ],
)
def test_what_clients_may_send(data: str, value: Any) -> None:
    assert decode_cbor(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("", "unexpected EOF"),
        ("a1", "unexpected EOF"),
        ("42ff", "unexpected EOF"),
        ("0000", "1 bytes of extraneous data starting at index 1"),
        ("a10000", "key must be a string"),
        ("a2416101416102", 'duplicate map key "a"'),
        ("1bffffffffffffff7f", "does not fit"),
        ("e5", "simple value 5"),
        ("f97e00", "finite"),
        ("c249010000000000000000", "tag 2"),
        ("d66161", "must be on a byte string"),
        ("9f00", "unexpected EOF"),
        ("5f6161ff", "strings of its own type"),
        ("5f5f4161ffff", "strings of its own type"),
        ("ff", "simple value 31"),
        ("bf6161ff", "simple value 31"),
        ("1f", "additional information 31"),
        ("9c", "additional information 28"),
        ("9f" * 200, "nested level"),
        ("61ff", "codec can't decode"),
        ("81" * 200 + "00", "nested level"),
        ("9bffffffffffffffff00", "unexpected EOF"),
    ],
)
def test_damage_is_told(data: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        decode_cbor(bytes.fromhex(data))


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        decode_cbor(data)
    except ValueError:
        pass
