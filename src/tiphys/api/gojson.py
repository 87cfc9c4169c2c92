"""What Go's JSON reader says of a text that is none: clients show these words, and tests of theirs compare them.

Only looked at when a text could not be read, so it may be slow. Input is the text; output the message, "" for a text
that Go reads (it takes bytes that are no UTF-8 for U+FFFD).

Spec: RFC 8259 for the grammar; Go's encoding/json for the wording.
"""

from __future__ import annotations

import re

from tiphys.api.causes import go_quote

_SPACE = b" \t\r\n"
_NUMBER = re.compile(rb"-?(?:(0|[1-9][0-9]*)(?:(\.)([0-9]+)?)?(?:([eE])([+-])?([0-9]+)?)?)?")
_STRING_PART = re.compile(rb'[^"\\\x00-\x1f]*')
_LITERALS = (b"true", b"false", b"null")
_END = "unexpected end of JSON input"


class _Refused(Exception):
    """The message is Go's."""


def go_syntax_error(data: bytes) -> str:
    """Return Go's message for a text that is no JSON, "" if it is."""
    try:
        at = _Scanner(data).document()
    except _Refused as refused:
        return str(refused)
    return "" if at == len(data) else _unexpected(data[at], "after top-level value")


def _unexpected(byte: int, where: str) -> str:
    char = chr(byte)
    shown = {"'": r"'\''", '"': "'\"'"}.get(char) or f"'{go_quote(char)[1:-1]}'"
    return f"invalid character {shown} {where}"


class _Scanner:
    """A position in a text. `open` has the closing brackets that are waited for: no recursion, whatever the depth."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def document(self) -> int:
        """Read one value and the space behind it; return where that ends. Raises _Refused."""
        waiting: list[str] = []
        while True:
            opened = self._value(waiting)
            if opened:
                continue
            while waiting:
                byte = self._next()
                if byte == ord(waiting[-1]):
                    waiting.pop()
                    self._at += 1
                elif byte == ord(","):
                    self._at += 1
                    if waiting[-1] == "}":
                        self._key()
                    break
                else:
                    where = "after object key:value pair" if waiting[-1] == "}" else "after array element"
                    raise _Refused(_unexpected(byte, where))
            else:
                self._skip()
                return self._at

    def _value(self, waiting: list[str]) -> bool:
        """Read a value, or the opening of one; tell whether another value comes first in what was opened."""
        byte = self._next()
        char = chr(byte)
        if char in "{[":
            self._at += 1
            closing = "}" if char == "{" else "]"
            if self._next() == ord(closing):
                self._at += 1
                return False
            waiting.append(closing)
            if char == "{":
                self._key()
            return True
        if char == '"':
            self._string()
        elif char == "-" or (char.isdigit() and byte < 128):
            self._number()
        else:
            self._literal(byte)
        return False

    def _key(self) -> None:
        byte = self._next()
        if byte != ord('"'):
            raise _Refused(_unexpected(byte, "looking for beginning of object key string"))
        self._string()
        byte = self._next()
        if byte != ord(":"):
            raise _Refused(_unexpected(byte, "after object key"))
        self._at += 1

    def _string(self) -> None:
        self._at += 1
        while True:
            part = _STRING_PART.match(self._data, self._at)
            assert part is not None
            self._at = part.end()
            byte = self._here()
            self._at += 1
            if byte == ord('"'):
                return
            if byte != ord("\\"):
                raise _Refused(_unexpected(byte, "in string literal"))
            escape = self._here()
            self._at += 1
            if escape == ord("u"):
                self._hexadecimal()
            elif chr(escape) not in '"\\/bfnrt':
                raise _Refused(_unexpected(escape, "in string escape code"))

    def _hexadecimal(self) -> None:
        for _ in range(4):
            byte = self._here()
            if chr(byte) not in "0123456789abcdefABCDEF":
                raise _Refused(_unexpected(byte, "in \\u hexadecimal character escape"))
            self._at += 1

    def _number(self) -> None:
        found = _NUMBER.match(self._data, self._at)
        assert found is not None
        whole, dot, fraction, exponent, _, power = found.groups()
        self._at = found.end()
        if not whole:
            raise _Refused(_unexpected(self._here(), "in numeric literal"))
        if dot and not fraction:
            self._at = found.start(2) + 1
            raise _Refused(_unexpected(self._here(), "after decimal point in numeric literal"))
        if exponent and not power:
            raise _Refused(_unexpected(self._here(), "in exponent of numeric literal"))

    def _literal(self, byte: int) -> None:
        wanted = next((literal for literal in _LITERALS if literal[0] == byte), None)
        if wanted is None:
            raise _Refused(_unexpected(byte, "looking for beginning of value"))
        for expected in wanted:
            got = self._here()
            if got != expected:
                where = f"in literal {wanted.decode()} (expecting '{chr(expected)}')"
                raise _Refused(_unexpected(got, where))
            self._at += 1

    def _next(self) -> int:
        self._skip()
        return self._here()

    def _skip(self) -> None:
        while self._at < len(self._data) and self._data[self._at] in _SPACE:
            self._at += 1

    def _here(self) -> int:
        if self._at >= len(self._data):
            raise _Refused(_END)
        return self._data[self._at]
