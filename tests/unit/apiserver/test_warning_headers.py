"""Warnings as headers: quoted, in UTF-8, and never too much."""

from __future__ import annotations

from tiphys.apiserver.resources import warning_headers


def sent(*warnings: str) -> list[str]:
    return [value.encode("latin-1").decode() for name, value in warning_headers(warnings) if name == "Warning"]


def test_warnings_are_quoted_and_told_once() -> None:
    assert sent('say "x\\y"', "b", "b", "") == ['299 - "say \\"x\\\\y\\""', '299 - "b"']


def test_text_goes_out_as_utf_8() -> None:
    assert sent("für 世界") == ['299 - "für 世界"']


def test_control_characters_never_reach_a_header() -> None:
    assert sent("a\r\nX-Evil: 1", "fine") == ['299 - "fine"']


def test_too_much_is_cut() -> None:
    told = sent("x" * 5000, *(f"{number:0100}" for number in range(100)))
    assert told[0] == f'299 - "{"x" * 256}"'
    assert len(told) == 1 + 39  # of 100 characters each, until 4,096 are told
    assert len(sent(*(f"{number:0100}" for number in range(40)))) == 40
