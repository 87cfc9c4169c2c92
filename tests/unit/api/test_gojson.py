"""Go's words for texts that are no JSON, and that they come for exactly these."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tiphys.api.gojson import go_syntax_error

CASES = [
    ("", "unexpected end of JSON input"),
    ("{", "unexpected end of JSON input"),
    ('{"a": tr', "unexpected end of JSON input"),
    ("{bad", "invalid character 'b' looking for beginning of object key string"),
    ("{'a': 1}", r"invalid character '\'' looking for beginning of object key string"),
    ('{"a" 1}', "invalid character '1' after object key"),
    ('{"a": 1 "b"}', "invalid character '\"' after object key:value pair"),
    ("[1 2]", "invalid character '2' after array element"),
    ("[1,]", "invalid character ']' looking for beginning of value"),
    ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    ("{} x", "invalid character 'x' after top-level value"),
    ("abc", "invalid character 'a' looking for beginning of value"),
    ("nul1", "invalid character '1' in literal null (expecting 'l')"),
    ('"a\nb"', r"invalid character '\n' in string literal"),
    (r'"\x"', "invalid character 'x' in string escape code"),
    (r'"\u12g4"', r"invalid character 'g' in \u hexadecimal character escape"),
    ("-a", "invalid character 'a' in numeric literal"),
    ("1.x", "invalid character 'x' after decimal point in numeric literal"),
    ("1e+x", "invalid character 'x' in exponent of numeric literal"),
    ("01", "invalid character '1' after top-level value"),
    ("\x8b", r"invalid character '\u008b' looking for beginning of value"),
    (' {"a": [1.5e-3, -0, "\\u00e4", {}, [], null, true, false]} ', ""),
]


@pytest.mark.parametrize(("text", "told"), CASES)
def test_words(text: str, told: str) -> None:
    assert go_syntax_error(text.encode("latin-1")) == told


@given(st.text(alphabet='{}[]",:\\ue1.-+0 tfnrlas', max_size=12))
@example("[" * 100_000)
@example('{"":' * 10_000)
def test_what_is_no_json_is_told_and_nothing_else(text: str) -> None:
    try:
        json.loads(text)
    except RecursionError:
        assert go_syntax_error(text.encode()) == "unexpected end of JSON input"
    except ValueError:
        assert go_syntax_error(text.encode())
    else:
        assert not go_syntax_error(text.encode())
