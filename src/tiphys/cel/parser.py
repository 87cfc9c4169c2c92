"""The parser: from text to a tree, or all that is wrong with the text.

Reads tokens of `lexer.py`, expands macros through `macros.py`. Precedence climbing, two or three frames a level of
nesting; deeper texts than `DEPTH_MAXIMUM` are refused before Python's own stack is. It goes on after an error, as
ANTLR does with its one-token repairs, since several messages for one text are what users are used to.

Spec: cel-spec, "Language Definition", the chapter "Syntax"; limits: cel-go's defaults (250 levels, 100,000 characters).
DIFFERS: the depth of the whole tree counts, where upstream counts each rule of the grammar for itself. Nobody writes
trees of 250 levels; those who generate them get the same message a little earlier.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from tiphys.cel import lexer, macros
from tiphys.cel.errors import Issue
from tiphys.cel.lexer import Token
from tiphys.cel.source import Source
from tiphys.cel.syntax import (
    Bind,
    Call,
    Entry,
    Fold,
    Ident,
    ListNode,
    Literal,
    MapNode,
    Node,
    OptMap,
    Select,
    StructNode,
    qualified_name,
)
from tiphys.cel.values import INT_MAXIMUM, UINT_MAXIMUM, UInt

DEPTH_MAXIMUM: Final = 250
SIZE_MAXIMUM: Final = 100_000
_ERRORS_MAXIMUM: Final = 30

_BINARY: Final = {
    "||": (1, "_||_"),
    "&&": (2, "_&&_"),
    **{operator: (3, f"_{operator}_") for operator in ("<", "<=", ">=", ">", "==", "!=")},
    "in": (3, "@in"),
    "+": (4, "_+_"),
    "-": (4, "_-_"),
    "*": (5, "_*_"),
    "/": (5, "_/_"),
    "%": (5, "_%_"),
}
_START: Final = frozenset(
    "[ { ( . - ! true false null NUM_FLOAT NUM_INT NUM_UINT STRING BYTES IDENTIFIER".split()  # noqa: SIM905
)
_START_SHOWN: Final = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)
_BEGINNINGS: Final = {
    "": _START_SHOWN,
    ")": _START_SHOWN.replace("'(', ", "'(', ')', "),
    "]": _START_SHOWN.replace("'[', ", "'[', ']', ")
    .replace("'.', ", "'.', ',', ")
    .replace("'!', ", "'!', '\\u003F', "),
    "}": _START_SHOWN.replace("'{', ", "'{', '}', ")
    .replace("'.', ", "'.', ',', ")
    .replace("'!', ", "'!', '\\u003F', "),
    "[]": _START_SHOWN.replace("'!', ", "'!', '\\u003F', "),
    "Name{": "{'}', ',', '\\u003F', IDENTIFIER, ESC_IDENTIFIER}",
}
"""What messages say may stand at the beginning: of an expression, and of what ends with a token or is an index."""
_OPERATORS: Final = frozenset({*_BINARY, "?"})
_HIDDEN: Final = re.compile(r"[\t \r\n\f]+|//[^\n]*")
_OUTER_FOLLOW: Final = _OPERATORS | {"EOF"}
RESERVED: Final = frozenset(
    "as break const continue else for function if import let loop package namespace return var void while".split()  # noqa: SIM905
)


def parse(source: Source, bindings: bool = False) -> Node:
    """Return the tree of an expression, in which `cel.bind` may be a macro; raises CompileError."""
    if len(source.text) > SIZE_MAXIMUM:
        message = f"expression code point size exceeds limit: size: {len(source.text)}, limit {SIZE_MAXIMUM}"
        raise source.error([source.issue(-1, message)])
    parser = Parser(source, bindings)
    try:
        tree = parser.whole()
    except _Stop:
        tree = None
    if parser.issues or tree is None:
        raise source.error(parser.issues)
    return tree


class _Stop(Exception):
    """There is no use in reading on."""


class Parser:
    """The state of one parse: where it is, how deep, and what was wrong so far."""

    def __init__(self, source: Source, bindings: bool) -> None:
        self.issues: list[Issue] = []
        self.bindings = bindings
        self._source = source
        self._tokens, errors = lexer.tokens_of(source.text)
        self._position = 0
        self._nesting = 0
        self._open: list[frozenset[str]] = []
        for offset, message in errors[:_ERRORS_MAXIMUM]:
            self.issues.append(source.issue(offset, message))

    def whole(self) -> Node:
        """Read everything."""
        tree = self.expression(0)
        self._expect("EOF")
        return tree

    def refuse(self, offset: int, message: str) -> Node:
        """Note an error and return a node in the place of what has it."""
        self.issues.append(self._source.issue(offset, message))
        if len(self.issues) > _ERRORS_MAXIMUM:
            raise _Stop
        return Literal(max(offset, 0), None)

    # Expressions

    def expression(self, minimum: int) -> Node:
        """Read an expression whose binary operators bind at least so tightly; 0 allows `a ? b : c` too."""
        self._nesting += 1
        if self._nesting > DEPTH_MAXIMUM:
            self._too_deep()
        left = self._operand()
        while True:
            token = self._token
            precedence, function = _BINARY.get(token.kind, (0, ""))
            if precedence < max(minimum, 1):
                break
            if precedence <= 2:
                left = self._logical(left, token.kind, precedence, function)
                continue
            self._position += 1
            left = self.made(Call(token.offset, function, [left, self.expression(precedence + 1)]))
        if minimum == 0 and self._token.kind == "?":
            left = self._conditional(left)
        self._nesting -= 1
        return left

    def _conditional(self, condition: Node) -> Node:
        offset = self._begin(":")
        then = self.expression(1)
        self._end(":")
        return self.made(Call(offset, "_?_:_", [condition, then, self.expression(0)]))

    def _logical(self, left: Node, kind: str, precedence: int, function: str) -> Node:
        """Read all of `a && b && c` and return it as a tree of small depth."""
        terms, offsets = [left], []
        while self._token.kind == kind:
            offsets.append(self._next().offset)
            terms.append(self.expression(precedence + 1))
        return self._balanced(function, terms, offsets, 0, len(offsets) - 1)

    def _balanced(self, function: str, terms: list[Node], offsets: list[int], low: int, high: int) -> Node:
        middle = (low + high + 1) // 2
        left = terms[middle] if middle == low else self._balanced(function, terms, offsets, low, middle - 1)
        right = terms[middle + 1] if middle == high else self._balanced(function, terms, offsets, middle + 1, high)
        return self.made(Call(offsets[middle], function, [left, right]))

    def _operand(self) -> Node:
        """Read what stands between binary operators: signs, a primary, and what follows it."""
        token = self._token
        if token.kind not in ("!", "-") or self._at_negative_number():
            return self._members()
        times = 0
        sign = token
        while self._token.kind == token.kind:
            sign = self._next()
            times += 1
        if self._token.kind not in _START:
            return self._unsigned(sign)
        operand = self._members()
        return self.made(Call(token.offset, f"{token.kind}_", [operand])) if times % 2 else operand

    def _unsigned(self, sign: Token) -> Node:
        """Refuse what no sign may stand before."""
        token = self._token
        if sign.kind == "-":
            node = self._no_alternative(sign)
            return self._unexpected("") if token.kind == "EOF" else node
        self.refuse(token.offset, f"Syntax error: extraneous input '{token.text}' expecting {_START_SHOWN}")
        return self._skip(token)

    def _at_negative_number(self) -> bool:
        following = self._tokens[self._position + 1 : self._position + 2]
        return self._token.kind == "-" and bool(following) and following[0].kind in ("NUM_INT", "NUM_FLOAT")

    def _members(self) -> Node:
        node = self._primary()
        while True:
            token = self._token
            if token.kind == ".":
                node = self._member(node)
            elif token.kind == "[":
                self._begin("]")
                optional = self._accept("?")
                index = (
                    self._unexpected("[]") if self._token.kind not in _START and not optional else self.expression(0)
                )
                self._end("]")
                node = self.made(Call(token.offset, "_[?_]" if optional else "_[_]", [node, index]))
            elif token.kind == "{" and (name := qualified_name(node)) is not None:
                node = self._struct(node, name)
            else:
                return node

    def _member(self, node: Node) -> Node:
        dot = self._next()
        if self._token.kind not in ("?", "IDENTIFIER", "ESC_IDENTIFIER"):
            return self._no_alternative(dot)
        optional = self._accept("?")
        if self._token.kind == "ESC_IDENTIFIER":
            return self.refuse(self._next().offset, "unsupported syntax: '`'")
        name = self._next()
        if name.kind != "IDENTIFIER":
            wanted = "{IDENTIFIER, ESC_IDENTIFIER}"
            extraneous = name.kind != "EOF" and self._token.kind == "IDENTIFIER"
            how = "extraneous" if extraneous else "mismatched"
            self.refuse(name.offset, f"Syntax error: {how} input '{name.text}' expecting {wanted}")
            if not extraneous:
                raise _Stop
            name = self._next()
        if optional:
            field = Literal(name.offset, name.text)
            return self.made(Call(dot.offset, "_?._", [node, field]))
        if self._token.kind != "(":
            return self.made(Select(dot.offset, node, name.text))
        offset = self._begin("),")
        arguments = self._arguments()
        expanded = macros.expand_member(self, offset, node, name.text, arguments)
        return expanded or self.made(Call(offset, name.text, [node, *arguments], member=True))

    def _no_alternative(self, first: Token) -> Node:
        """Refuse a token that goes on with nothing that may begin with the one before it."""
        token = self._token
        text = "" if token.kind == "EOF" else token.text
        between = "".join(_HIDDEN.findall(self._source.text[first.offset + len(first.text) : token.offset]))
        self.refuse(token.offset, f"Syntax error: no viable alternative at input '{first.text}{between}{text}'")
        return self._skip(token)

    def _skip(self, token: Token) -> Node:
        follow = _OUTER_FOLLOW.union(*self._open)
        while self._token.kind not in follow:
            self._position += 1
        return Literal(token.offset, None)

    def _follow(self) -> frozenset[str]:
        """Return what may stand behind an operand here."""
        return _OPERATORS | self._open[-1] if self._open else _OUTER_FOLLOW

    def _primary(self) -> Node:
        token = self._token
        kind = token.kind
        if kind == "IDENTIFIER":
            return self._name("", self._next())
        if kind == ".":
            self._position += 1
            if self._token.kind != "IDENTIFIER":
                return self._no_alternative(token)
            return self._name(".", self._next())
        if kind == "(":
            self._begin(")")
            node = self.expression(0)
            self._end(")")
            return node
        if kind == "[":
            self._begin("],")
            elements, optional = self._elements()
            return self.made(ListNode(token.offset, elements, frozenset(optional)))
        if kind == "{":
            self._begin("},:")
            return self.made(MapNode(token.offset, self._entries("}")))
        if kind == "-" and not self._at_negative_number():
            self._position += 1
            return self._no_alternative(token)
        return self._literal() if kind in _START else self._unexpected("")

    def _unexpected(self, beginning: str) -> Node:
        """Refuse a token where an expression begins; pass over it if one begins behind it."""
        token = self._token
        shown = _BEGINNINGS[beginning]
        following = self._tokens[self._position + 1].kind if token.kind != "EOF" else "EOF"
        if following in _START or following == beginning:
            self.refuse(token.offset, f"Syntax error: extraneous input '{token.text}' expecting {shown}")
            self._position += 1
            if following == beginning:
                return Literal(token.offset, None)
            return self.expression(0) if beginning else self._primary()
        self.refuse(token.offset, f"Syntax error: mismatched input '{token.text}' expecting {shown}")
        if beginning or self._open or token.kind not in _BINARY:
            raise _Stop
        return self._skip(token)

    def _name(self, prefix: str, token: Token) -> Node:
        if self._token.kind == "(":
            offset = self._begin("),")
            arguments = self._arguments()
            if token.text in RESERVED:
                return self.refuse(token.offset, f"reserved identifier: {token.text}")
            expanded = None if prefix else macros.expand_global(self, offset, token.text, arguments)
            return expanded or self.made(Call(offset, prefix + token.text, arguments))
        if token.text in RESERVED:
            return self.refuse(token.offset, f"reserved identifier: {token.text}")
        return self.made(Ident(token.offset, prefix + token.text))

    def _literal(self) -> Node:
        token = self._next()
        negative = token.kind == "-"
        if negative:
            number = self._next()
            token = Token(number.kind, "-" + number.text, token.offset)
        text = token.text
        if token.kind in ("true", "false", "null"):
            return Literal(token.offset, {"true": True, "false": False, "null": None}[token.kind])
        if token.kind == "NUM_INT":
            number_value = int(text, 16 if "x" in text else 10) if len(text) < 40 else INT_MAXIMUM * 2
            if not -INT_MAXIMUM - 1 <= number_value <= INT_MAXIMUM:
                return self.refuse(token.offset, "invalid int literal")
            return Literal(token.offset, number_value)
        if token.kind == "NUM_UINT":
            number_value = int(text[:-1], 16 if "x" in text else 10) if len(text) < 40 else UINT_MAXIMUM * 2
            if number_value > UINT_MAXIMUM:
                return self.refuse(token.offset, "invalid uint literal")
            return Literal(token.offset, UInt(number_value))
        if token.kind == "NUM_FLOAT":
            value = float(text)
            if value in (float("inf"), float("-inf")):
                return self.refuse(token.offset, "invalid double literal")
            return Literal(token.offset, value)
        try:
            return Literal(token.offset, lexer.bytes_value(text) if token.kind == "BYTES" else lexer.string_value(text))
        except ValueError as error:
            return self.refuse(token.offset, str(error))

    # Parts of lists, maps and calls

    def _arguments(self) -> list[Node]:
        """Read the arguments of a call."""
        if self._accept(")"):
            self._open.pop()
            return []
        nodes = [self._unexpected(")") if self._token.kind not in _START else self.expression(0)]
        while self._accept(","):
            nodes.append(self.expression(0))
        self._end(")")
        return nodes

    def _elements(self) -> tuple[list[Node], list[int]]:
        """Read the elements of a list, and which of them have a question mark."""
        nodes: list[Node] = []
        optional: list[int] = []
        while self._goes_on("]", "]", bool(nodes)):
            if self._accept("?"):
                optional.append(len(nodes))
            nodes.append(self.expression(0))
        return nodes, optional

    def _entries(self, beginning: str) -> list[Entry]:
        """Read the entries of a map, or of an object where `beginning` says so."""
        entries: list[Entry] = []
        while self._goes_on("}", beginning, bool(entries)):
            optional = self._accept("?")
            if beginning == "}":
                key = self.expression(0)
            else:
                name = self._next()
                key = Literal(name.offset, name.text)
            colon = self._expect(":")
            entries.append(Entry(colon.offset if colon else key.offset, key, self.expression(0), optional))
        return entries

    def _goes_on(self, close: str, beginning: str, separated: bool) -> bool:
        """Tell whether an element comes, behind its comma, and otherwise read the end of a list or map."""
        starts = {"IDENTIFIER", "?"} if beginning == "Name{" else _START | {"?"}
        token = self._token
        if separated and token.kind not in (close, ","):
            self._refuse_element(token, f"{{'{close}', ','}}", frozenset({close, ","}))
        elif not separated and token.kind not in starts | {close, ","}:
            self._refuse_element(token, _BEGINNINGS[beginning], starts | {close, ","})
        comma = self._accept(",")
        if self._token.kind in starts and comma is separated:
            return True
        self._end(close)
        return False

    def _refuse_element(self, token: Token, shown: str, wanted: frozenset[str] | set[str]) -> None:
        """Refuse a token within a list or a map, and pass over it if what was wanted is behind it."""
        if token.kind != "EOF" and self._tokens[self._position + 1].kind in wanted:
            self.refuse(token.offset, f"Syntax error: extraneous input '{token.text}' expecting {shown}")
            self._position += 1
            return
        self.refuse(token.offset, f"Syntax error: mismatched input '{token.text}' expecting {shown}")
        raise _Stop

    def _struct(self, node: Node, name: str) -> Node:
        offset = self._begin("},:")
        return self.made(StructNode(offset, name, self._entries("Name{")))

    # Tokens

    @property
    def _token(self) -> Token:
        return self._tokens[self._position]

    def _next(self) -> Token:
        token = self._tokens[self._position]
        if token.kind != "EOF":
            self._position += 1
        return token

    def _accept(self, kind: str) -> bool:
        if self._token.kind != kind:
            return False
        self._position += 1
        return True

    def _expect(self, kind: str) -> Token | None:
        """Read a token of a kind. If another is there, repair that by one token if possible, and refuse the text."""
        token = self._token
        if token.kind == kind:
            return self._next()
        shown = "<EOF>" if kind == "EOF" else kind if kind.isupper() else f"'{kind}'"
        if token.kind != "EOF" and self._tokens[self._position + 1].kind == kind:
            self.refuse(token.offset, f"Syntax error: extraneous input '{token.text}' expecting {shown}")
            self._position += 1
            return self._next()
        follow = _START if kind == ":" else self._follow()
        if kind != "EOF" and token.kind in follow:
            self.refuse(token.offset, f"Syntax error: missing {shown} at '{token.text}'")
            return None
        self.refuse(token.offset, f"Syntax error: mismatched input '{token.text}' expecting {shown}")
        raise _Stop

    def _begin(self, ends: str) -> int:
        """Read an opening token, or the `?` of a conditional, and return its place; `ends` may follow an operand."""
        self._open.append(frozenset(ends))
        return self._next().offset

    def _end(self, close: str) -> None:
        """Read a closing token."""
        self._open.pop()
        self._expect(close)

    # Bounds

    def made(self, node: Node) -> Node:
        """Return the node with its depth."""
        node.depth = 1 + max((child.depth for child in children(node)), default=0)
        if node.depth > DEPTH_MAXIMUM:
            self._too_deep()
        return node

    def _too_deep(self) -> NoReturn:
        self.issues = [self._source.issue(-1, f"expression recursion limit exceeded: {DEPTH_MAXIMUM}")]
        raise _Stop


def children(node: Node) -> list[Node]:
    """Return the nodes right below a node."""
    match node:
        case Select():
            return [node.operand]
        case Call():
            return node.arguments
        case ListNode():
            return node.elements
        case MapNode() | StructNode():
            return [each for entry in node.entries for each in (entry.key, entry.value)]
        case Fold():
            return [each for each in (node.range, node.condition, node.body) if each is not None]
        case Bind():
            return [node.value, node.body]
        case OptMap():
            return [node.target, node.body]
        case _:
            return []
