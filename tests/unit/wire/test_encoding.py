"""Targets, heads and compression, as values."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.wire.encoding import decode_target, encode_head, gzip_body


@pytest.mark.parametrize(
    ("target", "decoded"),
    [
        (b"/api/v1?watch=1", ("/api/v1", "watch=1", "/api/v1")),
        (b"/a%2Fb%20c", ("/a/b c", "", "/a%2Fb%20c")),
        (b"/api//v1/../x", ("/api//v1/../x", "", "/api//v1/../x")),
        (b"http://host:1/x?y", ("/x", "y", "/x")),
        (b"https://host", ("/", "", "/")),
        (b"/%ff", ("/\ufffd", "", "/%ff")),
    ],
)
def test_targets_are_decoded_and_not_cleaned(target: bytes, decoded: tuple[str, str, str]) -> None:
    assert decode_target(target) == decoded


@pytest.mark.parametrize("target", [b"/%", b"/%4", b"/%zz", b"nothing", b"ftp://host/x", b""])
def test_malformed_targets_are_refused(target: bytes) -> None:
    with pytest.raises(ValueError):
        decode_target(target)


@given(target=st.binary(max_size=40))
def test_a_target_is_decoded_or_refused(target: bytes) -> None:
    try:
        path, _, _ = decode_target(target)
    except ValueError:
        return
    assert path


@given(name=st.text(max_size=10), value=st.text(max_size=30))
def test_no_header_can_split_an_answer(name: str, value: str) -> None:
    head = encode_head(200, "application/json", [(name, value)], b"Date: x\r\n")
    assert len(head.split(b"\r\n")) == 5
    assert head.count(b"\n") == 4


def test_a_body_in_parts_is_compressed_as_one() -> None:
    assert gzip.decompress(gzip_body([b"a" * 10, b"b"])) == b"a" * 10 + b"b"
