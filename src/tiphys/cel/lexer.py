"""Tokens of an expression, with their places, and what is no token.

The parser asks for all tokens at once. Invariant: the list ends with one `EOF` token, whatever the text is; characters
that begin no token are reported and passed over, as ANTLR's lexers do it, since users see those messages.

Spec: cel-spec, "Language Definition", the chapter "Syntax".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ESCAPE = r"""\\(?:[abfnrtv"'\\?`]|[0-3][0-7]{2}|[xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"""
_STRINGS = "|".join(
    (
        rf'[bB]?"""(?:{_ESCAPE}|[^\\])*?"""',
        rf"[bB]?'''(?:{_ESCAPE}|[^\\])*?'''",
        rf'[bB]?"(?:{_ESCAPE}|[^\\"\n\r])*"',
        rf"[bB]?'(?:{_ESCAPE}|[^\\'\n\r])*'",
        r'(?:[bB]?[rR])"""(?s:.)*?"""',
        r"(?:[bB]?[rR])'''(?s:.)*?'''",
        r'(?:[bB]?[rR])"[^"\n\r]*"',
        r"(?:[bB]?[rR])'[^'\n\r]*'",
    )
)
_TOKENS = re.compile(
    rf"""(?P<space>[\t\ \r\n\f]+|//[^\n]*)
    |(?P<STRING>{_STRINGS.replace(" ", "[ ]")})
    |(?P<NUM_FLOAT>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    |(?P<NUM_UINT>(?:0x[0-9a-fA-F]+|[0-9]+)[uU])
    |(?P<NUM_INT>0x[0-9a-fA-F]+|[0-9]+)
    |(?P<ESC_IDENTIFIER>`[a-zA-Z0-9_./\ -]+`)
    |(?P<IDENTIFIER>[_a-zA-Z][_a-zA-Z0-9]*)
    |(?P<operator>==|!=|<=|>=|&&|\|\||[\[\]{{}}().,:?<>+\-*/%!])""",
    re.VERBOSE,
)
_PART_OF_ESCAPE = r"\\(?:[0-3][0-7]?|[xX][0-9a-fA-F]?|u[0-9a-fA-F]{0,3}|U[0-9a-fA-F]{0,7})?"
_BROKEN_STRING = re.compile(
    rf"""[bB]?"(?:{_ESCAPE}|[^\\"\n\r])*(?:{_PART_OF_ESCAPE})?|[bB]?'(?:{_ESCAPE}|[^\\'\n\r])*(?:{_PART_OF_ESCAPE})?"""
    r"""|[bB]?[rR]"[^"\n\r]*|[bB]?[rR]'[^'\n\r]*"""
)
_WORDS = frozenset({"true", "false", "null", "in"})
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_SHOWN = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})
_ESCAPED = re.compile(_ESCAPE)


@dataclass(slots=True)
class Token:
    """A token. `kind` is its text for operators and words, else NUM_INT, NUM_UINT, NUM_FLOAT, STRING, BYTES,
    IDENTIFIER, ESC_IDENTIFIER or EOF."""

    kind: str
    text: str
    offset: int


def tokens_of(text: str) -> tuple[list[Token], list[tuple[int, str]]]:
    """Return the tokens, and the places and messages of what is none."""
    tokens: list[Token] = []
    errors: list[tuple[int, str]] = []
    offset = 0
    while offset < len(text):
        match = _TOKENS.match(text, offset)
        if match is None:
            end = _end_of_error(text, offset)
            errors.append((offset, f"Syntax error: token recognition error at: '{text[offset:end].translate(_SHOWN)}'"))
            offset = end
            continue
        kind = match.lastgroup
        word = match[0]
        if kind != "space":
            tokens.append(Token(_kind(kind or "", word), word, offset))
        offset = match.end()
    tokens.append(Token("EOF", "<EOF>", len(text)))
    return tokens, errors


def _kind(kind: str, word: str) -> str:
    if kind == "operator" or word in _WORDS:
        return word
    if kind == "STRING" and word[0] in "bB":
        return "BYTES"
    return kind


def _end_of_error(text: str, offset: int) -> int:
    """Return where reading goes on: behind the character that does not fit what began so well."""
    match = _BROKEN_STRING.match(text, offset)
    if match is not None:
        return min(match.end() + 1, len(text))
    if text[offset] in "=&|":
        return min(offset + 2, len(text))
    return offset + 1


def string_value(literal: str) -> str:
    """Return what a string token says; raises ValueError with the reason."""
    body, raw = _body(literal)
    return body if raw else _ESCAPED.sub(lambda match: _character(match[0]), body)


def bytes_value(literal: str) -> bytes:
    """Return what a bytes token says; raises ValueError with the reason."""
    body, raw = _body(literal[1:])
    if raw:
        return body.encode()
    parts: list[bytes] = []
    position = 0
    for match in _ESCAPED.finditer(body):
        parts.append(body[position : match.start()].encode())
        parts.append(_byte(match[0]))
        position = match.end()
    parts.append(body[position:].encode())
    return b"".join(parts)


def _body(literal: str) -> tuple[str, bool]:
    raw = literal[0] in "rR"
    if raw:
        literal = literal[1:]
    quotes = 3 if literal[:3] in ('"""', "'''") else 1
    return literal[quotes:-quotes].replace("\r\n", "\n").replace("\r", "\n"), raw


def _character(escape: str) -> str:
    letter = escape[1]
    if letter in _SIMPLE:
        return _SIMPLE[letter]
    if letter in "xXuU":
        code = int(escape[2:], 16)
    elif letter.isdigit():
        code = int(escape[1:], 8)
    else:
        return letter
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError("invalid unicode code point")
    return chr(code)


def _byte(escape: str) -> bytes:
    letter = escape[1]
    if letter in "uU":
        raise ValueError("unable to unescape string")
    if letter in "xX":
        return bytes((int(escape[2:], 16),))
    if letter.isdigit():
        return bytes((int(escape[1:], 8),))
    return _SIMPLE.get(letter, letter).encode()
