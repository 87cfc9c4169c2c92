"""What is wrong with a text, to the letter and to the column: users read these in the answers to refused rules.

Long, because it is one table.
"""

from __future__ import annotations

import pytest
from cel_rows import VARIABLES

from tiphys.cel import types
from tiphys.cel.environment import Environment
from tiphys.cel.errors import CompileError
from tiphys.cel.types import ObjectType

ENVIRONMENT = Environment(
    {**VARIABLES, "o": ObjectType("object", {"name": types.STRING})},
    structs={"Thing": ObjectType("Thing", {"count": types.INT})},
)
START = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)
ROWS: list[tuple[str, list[str]]] = [
    ("1 +", [f"1:4: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    (
        "1 + +",
        [
            f"1:5: Syntax error: mismatched input '+' expecting {START}",
            f"1:6: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    ("+ 1", [f"1:1: Syntax error: extraneous input '+' expecting {START}"]),
    ("self.", ["1:6: Syntax error: no viable alternative at input '.'"]),
    ("x.", ["1:3: Syntax error: no viable alternative at input '.'"]),
    ("x.1", ["1:2: Syntax error: extraneous input '.1' expecting <EOF>"]),
    ("(1 + 2", ["1:7: Syntax error: missing ')' at '<EOF>'"]),
    ("1 + 2)", ["1:6: Syntax error: extraneous input ')' expecting <EOF>"]),
    ("[1, 2", ["1:6: Syntax error: mismatched input '<EOF>' expecting {']', ','}"]),
    ("[1 2]", ["1:4: Syntax error: extraneous input '2' expecting {']', ','}"]),
    ("[1,,2]", ["1:4: Syntax error: mismatched input ',' expecting ']'"]),
    ("{1 2}", ["1:4: Syntax error: missing ':' at '2'"]),
    ("{1:}", [f"1:4: Syntax error: mismatched input '}}' expecting {START}"]),
    (
        "{:1}",
        [
            "1:2: Syntax error: extraneous input ':' expecting {'[', '{', '}', '(', '.', ',', '-', '!', '\\u003F', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
            "1:4: Syntax error: mismatched input '}' expecting ':'",
        ],
    ),
    (
        "{",
        [
            "1:2: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '}', '(', '.', ',', '-', '!', '\\u003F', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
        ],
    ),
    ("}", [f"1:1: Syntax error: mismatched input '}}' expecting {START}"]),
    (
        "f(",
        [
            "1:3: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
        ],
    ),
    (
        "size(",
        [
            "1:6: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
        ],
    ),
    ("size(s", ["1:7: Syntax error: missing ')' at '<EOF>'"]),
    ("size(s,", [f"1:8: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("size(s s)", ["1:8: Syntax error: extraneous input 's' expecting ')'"]),
    ("size s", ["1:6: Syntax error: extraneous input 's' expecting <EOF>"]),
    ("x y", ["1:3: Syntax error: extraneous input 'y' expecting <EOF>"]),
    ("x y z", ["1:3: Syntax error: mismatched input 'y' expecting <EOF>"]),
    ("1 ? 2", ["1:6: Syntax error: mismatched input '<EOF>' expecting ':'"]),
    ("b ? 1 : ", [f"1:9: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("1 == ", [f"1:6: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("== 1", [f"1:1: Syntax error: extraneous input '==' expecting {START}"]),
    ("= 1", ["1:1: Syntax error: token recognition error at: '= '"]),
    (
        "x = 1",
        [
            "1:3: Syntax error: token recognition error at: '= '",
            "1:5: Syntax error: extraneous input '1' expecting <EOF>",
        ],
    ),
    (
        "x & 1",
        [
            "1:3: Syntax error: token recognition error at: '& '",
            "1:5: Syntax error: extraneous input '1' expecting <EOF>",
        ],
    ),
    (
        "x | 1",
        [
            "1:3: Syntax error: token recognition error at: '| '",
            "1:5: Syntax error: extraneous input '1' expecting <EOF>",
        ],
    ),
    (
        "x @ 1",
        [
            "1:3: Syntax error: token recognition error at: '@'",
            "1:5: Syntax error: extraneous input '1' expecting <EOF>",
        ],
    ),
    (
        "#",
        [
            "1:1: Syntax error: token recognition error at: '#'",
            f"1:2: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    ("$x", ["1:1: Syntax error: token recognition error at: '$'"]),
    (
        "'abc",
        [
            "1:1: Syntax error: token recognition error at: ''abc'",
            f"1:5: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        '"abc',
        [
            "1:1: Syntax error: token recognition error at: '\"abc'",
            f"1:5: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "'abc\\q'",
        [
            "1:1: Syntax error: token recognition error at: ''abc\\q'",
            "1:7: Syntax error: token recognition error at: '''",
            f"1:8: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "'a",
        [
            "1:1: Syntax error: token recognition error at: ''a'",
            f"1:3: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        '"\\xFh"',
        [
            "1:1: Syntax error: token recognition error at: '\"\\xFh'",
            "1:6: Syntax error: token recognition error at: '\"'",
            f"1:7: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "'\\u12'",
        [
            "1:1: Syntax error: token recognition error at: ''\\u12''",
            f"1:7: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    ("b'\\x'", ["1:2: Syntax error: token recognition error at: ''\\x''"]),
    ("x..y", ["1:3: Syntax error: no viable alternative at input '..'"]),
    ("x.[1]", ["1:3: Syntax error: no viable alternative at input '.['"]),
    ("x[1", ["1:4: Syntax error: missing ']' at '<EOF>'"]),
    ("x]", ["1:2: Syntax error: extraneous input ']' expecting <EOF>"]),
    ("if", ["1:1: reserved identifier: if"]),
    ("while", ["1:1: reserved identifier: while"]),
    ("for(1)", ["1:1: reserved identifier: for"]),
    ("!x", ["1:1: found no matching overload for '!_' applied to '(int)'"]),
    ("!-b", ["1:3: Syntax error: no viable alternative at input '-b'"]),
    ("0x", ["1:2: Syntax error: extraneous input 'x' expecting <EOF>"]),
    ("0xFG", ["1:4: Syntax error: extraneous input 'G' expecting <EOF>"]),
    ("1u2", ["1:3: Syntax error: extraneous input '2' expecting <EOF>"]),
    ("1e", ["1:2: Syntax error: extraneous input 'e' expecting <EOF>"]),
    ("1.5.5", ["1:4: Syntax error: extraneous input '.5' expecting <EOF>"]),
    ("1..5", ["1:3: Syntax error: no viable alternative at input '..5'"]),
    ("9223372036854775808", ["1:1: invalid int literal"]),
    ("-9223372036854775809", ["1:1: invalid int literal"]),
    ("18446744073709551616u", ["1:1: invalid uint literal"]),
    ("1e400", ["1:1: invalid double literal"]),
    ("a.b.c", ["1:1: undeclared reference to 'a' (in container '')"]),
    ("x.y", ["1:2: type 'int' does not support field selection"]),
    ("s.foo()", ["1:6: undeclared reference to 'foo' (in container '')"]),
    ("foo(1)", ["1:4: undeclared reference to 'foo' (in container '')"]),
    (
        "foo.bar(1)",
        [
            "1:1: undeclared reference to 'foo' (in container '')",
            "1:8: undeclared reference to 'bar' (in container '')",
        ],
    ),
    ("s.startsWith(1)", ["1:13: found no matching overload for 'startsWith' applied to 'string.(int)'"]),
    ("startsWith(s,'a')", ["1:11: found no matching overload for 'startsWith' applied to '(string, string)'"]),
    ("size(1)", ["1:5: found no matching overload for 'size' applied to '(int)'"]),
    ("1 + 1.0", ["1:3: found no matching overload for '_+_' applied to '(int, double)'"]),
    ("1 + s", ["1:3: found no matching overload for '_+_' applied to '(int, string)'"]),
    ("s + 1", ["1:3: found no matching overload for '_+_' applied to '(string, int)'"]),
    ("[1] + ['a']", ["1:5: found no matching overload for '_+_' applied to '(list(int), list(string))'"]),
    ("x in s", ["1:3: found no matching overload for '@in' applied to '(int, string)'"]),
    ("1 in m", ["1:3: found no matching overload for '@in' applied to '(int, map(string, int))'"]),
    ("x ? 1 : 2", ["1:3: found no matching overload for '_?_:_' applied to '(int, int, int)'"]),
    ("b ? 1 : 'a'", ["1:3: found no matching overload for '_?_:_' applied to '(bool, int, string)'"]),
    ("b && 1", ["1:3: found no matching overload for '_&&_' applied to '(bool, int)'"]),
    ("1 && b", ["1:3: found no matching overload for '_&&_' applied to '(int, bool)'"]),
    ("b || 'a'", ["1:3: found no matching overload for '_||_' applied to '(bool, string)'"]),
    ("-s", ["1:1: found no matching overload for '-_' applied to '(string)'"]),
    ("-b", ["1:1: found no matching overload for '-_' applied to '(bool)'"]),
    ("l[s]", ["1:2: found no matching overload for '_[_]' applied to '(list(int), string)'"]),
    ("m[1]", ["1:2: found no matching overload for '_[_]' applied to '(map(string, int), int)'"]),
    ("x[0]", ["1:2: found no matching overload for '_[_]' applied to '(int, int)'"]),
    ("l.all(x, x)", ["1:6: found no matching overload for '_&&_' applied to '(bool, int)'"]),
    ("l.all(1, x)", ["1:7: argument must be a simple name"]),
    ("l.exists(y, y)", ["1:9: found no matching overload for '_||_' applied to '(bool, int)'"]),
    ("l.exists_one(y, y)", ["1:13: found no matching overload for '_?_:_' applied to '(int, int, int)'"]),
    ("l.filter(y, y)", ["1:9: found no matching overload for '_?_:_' applied to '(int, list(int), list(int))'"]),
    ("l.map(1, y)", ["1:7: argument is not an identifier"]),
    (
        "x.all(y, true)",
        ["1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"],
    ),
    ("has(x)", ["1:5: invalid argument to has() macro"]),
    ("has(m['a'])", ["1:6: invalid argument to has() macro"]),
    ("has()", ["1:4: undeclared reference to 'has' (in container '')"]),
    ("has(m.a, m.b)", ["1:4: undeclared reference to 'has' (in container '')"]),
    ("{1: 2, 'a': 3}", ["1:8: expected type 'int' but found 'string'"]),
    ("int == 1", ["1:5: found no matching overload for '_==_' applied to '(type(int), int)'"]),
    ("timestamp", ["1:1: undeclared reference to 'timestamp' (in container '')"]),
    ("duration('1h') + 1", ["1:16: found no matching overload for '_+_' applied to '(google.protobuf.Duration, int)'"]),
    (
        "timestamp('2020-01-01T00:00:00Z') - 1",
        ["1:35: found no matching overload for '_-_' applied to '(google.protobuf.Timestamp, int)'"],
    ),
    ("null == 1", ["1:6: found no matching overload for '_==_' applied to '(null, int)'"]),
    ("x == null", ["1:3: found no matching overload for '_==_' applied to '(int, null)'"]),
    ("s < 1", ["1:3: found no matching overload for '_<_' applied to '(string, int)'"]),
    ("x == 1.0", ["1:3: found no matching overload for '_==_' applied to '(int, double)'"]),
    ("x == 1u", ["1:3: found no matching overload for '_==_' applied to '(int, uint)'"]),
    ("s == 1", ["1:3: found no matching overload for '_==_' applied to '(string, int)'"]),
    ("l == 1", ["1:3: found no matching overload for '_==_' applied to '(list(int), int)'"]),
    ("'a' + b'a'", ["1:5: found no matching overload for '_+_' applied to '(string, bytes)'"]),
    ("a && b", ["1:1: undeclared reference to 'a' (in container '')"]),
    ("(a && b", ["1:8: Syntax error: missing ')' at '<EOF>'"]),
    ("a &&", [f"1:5: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("&& a", [f"1:1: Syntax error: extraneous input '&&' expecting {START}"]),
    ("a ||| b", ["1:5: Syntax error: token recognition error at: '| '"]),
    ("a &&& b", ["1:5: Syntax error: token recognition error at: '& '"]),
    ("1 < 2 < 3", ["1:7: found no matching overload for '_<_' applied to '(bool, int)'"]),
    ("1 == 2 == 3", ["1:8: found no matching overload for '_==_' applied to '(bool, int)'"]),
    ("!1 == 2", ["1:1: found no matching overload for '!_' applied to '(int)'"]),
    (
        '"\\u00ff" + é',
        [
            "1:12: Syntax error: token recognition error at: 'é'",
            f"1:13: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "é",
        [
            "1:1: Syntax error: token recognition error at: 'é'",
            f"1:2: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    ("'é' + x", ["1:5: found no matching overload for '_+_' applied to '(string, int)'"]),
    (
        "'😁' in ['😁', '😑', '😦'] && in.😁",
        [
            f"1:27: Syntax error: extraneous input 'in' expecting {START}",
            "1:30: Syntax error: token recognition error at: '😁'",
            "1:31: Syntax error: no viable alternative at input '.'",
        ],
    ),
    ("    x +   y", ["1:11: undeclared reference to 'y' (in container '')"]),
    (".foo", ["1:2: undeclared reference to '.foo' (in container '')"]),
    ("..x", ["1:2: Syntax error: no viable alternative at input '..'"]),
    ("x[?0]", ["1:2: found no matching overload for '_[?_]' applied to '(int, int)'"]),
    ("l[?0].orValue('a')", ["1:14: found no matching overload for 'orValue' applied to 'optional_type(int).(string)'"]),
    ("[?1]", ["1:3: expected type 'optional_type(int)' but found 'int'"]),
    ("{?'a': 1}", ["1:8: expected type 'optional_type(int)' but found 'int'"]),
    ("Foo{a: 1}", ["1:4: undeclared reference to 'Foo' (in container '')"]),
    ("Foo{a 1}", ["1:7: Syntax error: missing ':' at '1'"]),
    (
        "Foo{1: 1}",
        ["1:5: Syntax error: mismatched input '1' expecting {'}', ',', '\\u003F', IDENTIFIER, ESC_IDENTIFIER}"],
    ),
    ("int{}", ["1:4: 'int' is not a message type"]),
    ("{'a': 1}.'a'", ["1:10: Syntax error: no viable alternative at input '.'a''"]),
    ("{'a': 1}.\"a\"", ["1:10: Syntax error: no viable alternative at input '.\"a\"'"]),
    ("'a'.1", ["1:4: Syntax error: extraneous input '.1' expecting <EOF>"]),
    ("a.true", ["1:3: Syntax error: no viable alternative at input '.true'"]),
    ("a.null", ["1:3: Syntax error: no viable alternative at input '.null'"]),
    (
        "a.in",
        [
            "1:3: Syntax error: no viable alternative at input '.in'",
            f"1:5: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    ("x in", [f"1:5: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("in x", [f"1:1: Syntax error: extraneous input 'in' expecting {START}"]),
    ("x not in l", ["1:3: Syntax error: mismatched input 'not' expecting <EOF>"]),
    ("x is 1", ["1:3: Syntax error: mismatched input 'is' expecting <EOF>"]),
    (
        "x ?? 1",
        [
            f"1:4: Syntax error: extraneous input '?' expecting {START}",
            "1:7: Syntax error: mismatched input '<EOF>' expecting ':'",
        ],
    ),
    (
        "x => 1",
        [
            "1:3: Syntax error: token recognition error at: '=>'",
            "1:6: Syntax error: extraneous input '1' expecting <EOF>",
        ],
    ),
    ("x <> 1", [f"1:4: Syntax error: extraneous input '>' expecting {START}"]),
    ("x === 1", ["1:5: Syntax error: token recognition error at: '= '"]),
    ("x ! 1", ["1:3: Syntax error: mismatched input '!' expecting <EOF>"]),
    ("x !== 1", ["1:5: Syntax error: token recognition error at: '= '"]),
    (
        "x => y",
        [
            "1:3: Syntax error: token recognition error at: '=>'",
            "1:6: Syntax error: extraneous input 'y' expecting <EOF>",
        ],
    ),
    ("`a`", [f"1:1: Syntax error: mismatched input '`a`' expecting {START}"]),
    ("x.`a`", ["1:3: unsupported syntax: '`'"]),
    ("rb'a'", ["1:3: Syntax error: extraneous input ''a'' expecting <EOF>"]),
    (
        '"\\777"',
        [
            "1:1: Syntax error: token recognition error at: '\"\\7'",
            "1:6: Syntax error: token recognition error at: '\"'",
        ],
    ),
    (
        '"\\400"',
        [
            "1:1: Syntax error: token recognition error at: '\"\\4'",
            "1:6: Syntax error: token recognition error at: '\"'",
        ],
    ),
    (
        "'\\",
        [
            "1:1: Syntax error: token recognition error at: ''\\'",
            f"1:3: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    ("// comment", [f"1:11: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    (
        "x /* c */",
        [
            f"1:4: Syntax error: extraneous input '*' expecting {START}",
            f"1:9: Syntax error: mismatched input '/' expecting {START}",
            f"1:10: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "x; y",
        [
            "1:2: Syntax error: token recognition error at: ';'",
            "1:4: Syntax error: extraneous input 'y' expecting <EOF>",
        ],
    ),
    ("x, y", ["1:2: Syntax error: mismatched input ',' expecting <EOF>"]),
    ("x:y", ["1:2: Syntax error: mismatched input ':' expecting <EOF>"]),
    ('"a" "b"', ["1:5: Syntax error: extraneous input '\"b\"' expecting <EOF>"]),
    ("[x", ["1:3: Syntax error: mismatched input '<EOF>' expecting {']', ','}"]),
    ("[x,", ["1:4: Syntax error: missing ']' at '<EOF>'"]),
    ("[x, y", ["1:6: Syntax error: mismatched input '<EOF>' expecting {']', ','}"]),
    ("[1 2 3]", ["1:4: Syntax error: mismatched input '2' expecting {']', ','}"]),
    ("[1, 2 3]", ["1:7: Syntax error: extraneous input '3' expecting {']', ','}"]),
    (
        "[1; 2]",
        [
            "1:3: Syntax error: token recognition error at: ';'",
            "1:5: Syntax error: extraneous input '2' expecting {']', ','}",
        ],
    ),
    ("(x", ["1:3: Syntax error: missing ')' at '<EOF>'"]),
    ("(x, 1)", ["1:3: Syntax error: mismatched input ',' expecting ')'"]),
    ("(", [f"1:2: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("()", [f"1:2: Syntax error: mismatched input ')' expecting {START}"]),
    ("x()", ["1:2: undeclared reference to 'x' (in container '')"]),
    ("((x)", ["1:5: Syntax error: missing ')' at '<EOF>'"]),
    ("f(g(x)", ["1:7: Syntax error: missing ')' at '<EOF>'"]),
    ("[f(x]", ["1:5: Syntax error: missing ')' at ']'"]),
    ("[f(x)", ["1:6: Syntax error: mismatched input '<EOF>' expecting {']', ','}"]),
    ("{'a': [1, 2}", ["1:12: Syntax error: mismatched input '}' expecting {']', ','}"]),
    ("{'a': 1", ["1:8: Syntax error: mismatched input '<EOF>' expecting {'}', ','}"]),
    ("{'a': 1, ", ["1:10: Syntax error: missing '}' at '<EOF>'"]),
    ("{'a': 1 'b': 2}", ["1:9: Syntax error: mismatched input ''b'' expecting {'}', ','}"]),
    ("{'a': 1,, 'b': 2}", ["1:9: Syntax error: mismatched input ',' expecting '}'"]),
    ("{'a'}", ["1:5: Syntax error: mismatched input '}' expecting ':'"]),
    ("{'a':: 1}", [f"1:6: Syntax error: extraneous input ':' expecting {START}"]),
    ("[?]", [f"1:3: Syntax error: mismatched input ']' expecting {START}"]),
    ("[?,]", [f"1:3: Syntax error: mismatched input ',' expecting {START}"]),
    ("{?}", [f"1:3: Syntax error: mismatched input '}}' expecting {START}"]),
    (
        "l.all(",
        [
            "1:7: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
        ],
    ),
    ("l.all(x", ["1:8: Syntax error: missing ')' at '<EOF>'"]),
    ("l.all(x,", [f"1:9: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("l.all(x, ", [f"1:10: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("l.all(x, x >", [f"1:13: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("l.all(x, x > 1", ["1:15: Syntax error: missing ')' at '<EOF>'"]),
    ("l.all(x, x > 1))", ["1:16: Syntax error: extraneous input ')' expecting <EOF>"]),
    ("s.matches('a' 'b')", ["1:15: Syntax error: extraneous input ''b'' expecting ')'"]),
    ("s.matches(1,)", [f"1:13: Syntax error: mismatched input ')' expecting {START}"]),
    ("b ? x : y : z", ["1:11: Syntax error: mismatched input ':' expecting <EOF>"]),
    ("(b ? 1 : 2", ["1:11: Syntax error: missing ')' at '<EOF>'"]),
    ("[b ? 1 : 2", ["1:11: Syntax error: mismatched input '<EOF>' expecting {']', ','}"]),
    (
        "a.b(",
        [
            "1:5: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
        ],
    ),
    ("a.b.", ["1:5: Syntax error: no viable alternative at input '.'"]),
    ("a.b.c(1).", ["1:10: Syntax error: no viable alternative at input '.'"]),
    ("a.b[1", ["1:6: Syntax error: missing ']' at '<EOF>'"]),
    ("a.b[1].", ["1:8: Syntax error: no viable alternative at input '.'"]),
    ("x +* 1", [f"1:4: Syntax error: extraneous input '*' expecting {START}"]),
    ("x ** 1", [f"1:4: Syntax error: extraneous input '*' expecting {START}"]),
    ("x !", ["1:3: Syntax error: extraneous input '!' expecting <EOF>"]),
    ("x -", [f"1:4: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("x && ", [f"1:6: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("x && || x", [f"1:6: Syntax error: extraneous input '||' expecting {START}"]),
    ("x || && x", [f"1:6: Syntax error: extraneous input '&&' expecting {START}"]),
    ("x == == 1", [f"1:6: Syntax error: extraneous input '==' expecting {START}"]),
    ("x < > 1", [f"1:5: Syntax error: extraneous input '>' expecting {START}"]),
    ("x <", [f"1:4: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    (
        "x in in",
        [
            f"1:6: Syntax error: mismatched input 'in' expecting {START}",
            f"1:8: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    ("x in l in m", ["1:8: found no matching overload for '@in' applied to '(bool, map(string, int))'"]),
    ("1 2 3 4", ["1:3: Syntax error: mismatched input '2' expecting <EOF>"]),
    ("'a' 'b' 'c'", ["1:5: Syntax error: mismatched input ''b'' expecting <EOF>"]),
    ("if (x) { 1 }", ["1:1: reserved identifier: if", "1:8: Syntax error: mismatched input '{' expecting <EOF>"]),
    ("x.?", ["1:4: Syntax error: mismatched input '<EOF>' expecting {IDENTIFIER, ESC_IDENTIFIER}"]),
    ("x.?1", ["1:4: Syntax error: mismatched input '1' expecting {IDENTIFIER, ESC_IDENTIFIER}"]),
    ("x.?[0]", ["1:4: Syntax error: mismatched input '[' expecting {IDENTIFIER, ESC_IDENTIFIER}"]),
    ("x[?", [f"1:4: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("x[?]", [f"1:4: Syntax error: mismatched input ']' expecting {START}"]),
    ("x[1, 2]", ["1:4: Syntax error: mismatched input ',' expecting ']'"]),
    ("x[1:2]", ["1:4: Syntax error: mismatched input ':' expecting ']'"]),
    (
        "x[:1]",
        [
            "1:3: Syntax error: extraneous input ':' expecting {'[', '{', '(', '.', '-', '!', '\\u003F', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
        ],
    ),
    (
        "'unterminated",
        [
            "1:1: Syntax error: token recognition error at: ''unterminated'",
            f"1:14: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        '"unterminated',
        [
            "1:1: Syntax error: token recognition error at: '\"unterminated'",
            f"1:14: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    ("'''abc", ["1:3: Syntax error: token recognition error at: ''abc'"]),
    ('"""abc', ["1:3: Syntax error: token recognition error at: '\"abc'"]),
    ("r'abc", ["1:2: Syntax error: token recognition error at: ''abc'"]),
    ("b'abc", ["1:2: Syntax error: token recognition error at: ''abc'"]),
    (
        "'a\\'",
        [
            "1:1: Syntax error: token recognition error at: ''a\\''",
            f"1:5: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "'a\\zb'",
        [
            "1:1: Syntax error: token recognition error at: ''a\\z'",
            "1:6: Syntax error: token recognition error at: '''",
        ],
    ),
    (
        "'\\8'",
        [
            "1:1: Syntax error: token recognition error at: ''\\8'",
            "1:4: Syntax error: token recognition error at: '''",
            f"1:5: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "'\\1'",
        [
            "1:1: Syntax error: token recognition error at: ''\\1''",
            f"1:5: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "'\\12'",
        [
            "1:1: Syntax error: token recognition error at: ''\\12''",
            f"1:6: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "'\\x1'",
        [
            "1:1: Syntax error: token recognition error at: ''\\x1''",
            f"1:6: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "'\\u123'",
        [
            "1:1: Syntax error: token recognition error at: ''\\u123''",
            f"1:8: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "'\\U1234567'",
        [
            "1:1: Syntax error: token recognition error at: ''\\U1234567''",
            f"1:12: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    ("0b1", ["1:2: Syntax error: extraneous input 'b1' expecting <EOF>"]),
    ("0o7", ["1:2: Syntax error: extraneous input 'o7' expecting <EOF>"]),
    ("1_000", ["1:2: Syntax error: extraneous input '_000' expecting <EOF>"]),
    ("1.", ["1:3: Syntax error: no viable alternative at input '.'"]),
    ("1.0.0", ["1:4: Syntax error: extraneous input '.0' expecting <EOF>"]),
    ("1f", ["1:2: Syntax error: extraneous input 'f' expecting <EOF>"]),
    ("1L", ["1:2: Syntax error: extraneous input 'L' expecting <EOF>"]),
    ("0X1", ["1:2: Syntax error: extraneous input 'X1' expecting <EOF>"]),
    (".e1", ["1:2: undeclared reference to '.e1' (in container '')"]),
    ("1e+", ["1:2: Syntax error: mismatched input 'e' expecting <EOF>"]),
    ("1e-", ["1:2: Syntax error: mismatched input 'e' expecting <EOF>"]),
    (
        "@",
        [
            "1:1: Syntax error: token recognition error at: '@'",
            f"1:2: Syntax error: mismatched input '<EOF>' expecting {START}",
        ],
    ),
    (
        "a@b",
        [
            "1:2: Syntax error: token recognition error at: '@'",
            "1:3: Syntax error: extraneous input 'b' expecting <EOF>",
        ],
    ),
    ("~x", ["1:1: Syntax error: token recognition error at: '~'"]),
    (
        "x ^ 1",
        [
            "1:3: Syntax error: token recognition error at: '^'",
            "1:5: Syntax error: extraneous input '1' expecting <EOF>",
        ],
    ),
    (
        "x ~ 1",
        [
            "1:3: Syntax error: token recognition error at: '~'",
            "1:5: Syntax error: extraneous input '1' expecting <EOF>",
        ],
    ),
    ("x % ", [f"1:5: Syntax error: mismatched input '<EOF>' expecting {START}"]),
    ("{}{}", ["1:3: Syntax error: mismatched input '{' expecting <EOF>"]),
    ("[](){}", ["1:3: Syntax error: mismatched input '(' expecting <EOF>"]),
    (
        "x\\n+\\ny",
        [
            "1:2: Syntax error: token recognition error at: '\\'",
            "1:3: Syntax error: mismatched input 'n' expecting <EOF>",
            "1:5: Syntax error: token recognition error at: '\\'",
        ],
    ),
    ("o.size", ["1:2: undefined field 'size'"]),
    ("has(o.size)", ["1:4: undefined field 'size'"]),
    ("o.?size", ["1:2: undefined field 'size'"]),
    ("o['name']", ["1:2: found no matching overload for '_[_]' applied to '(object, string)'"]),
    ("o == 1", ["1:3: found no matching overload for '_==_' applied to '(object, int)'"]),
    ("Thing{size: 1}", ["1:11: undefined field 'size'"]),
    ("Thing{count: 'a'}", ["1:12: expected type of field 'count' is 'int' but provided type is 'string'"]),
    (
        "[1, 'a', 2.0, 3.0, 4]",
        ["1:5: expected type 'int' but found 'string'", "1:20: expected type 'double' but found 'int'"],
    ),
    ("[?x]", ["1:3: expected type 'optional_type(int)' but found 'int'"]),
    ("{?'a': x}", ["1:8: expected type 'optional_type(int)' but found 'int'"]),
    ("x.optMap(y, y)", ["1:9: found no matching overload for 'hasValue' applied to 'int.()'"]),
    (
        "optional.of(x).optFlatMap(y, y)",
        ["1:26: found no matching overload for '_?_:_' applied to '(bool, int, optional_type(dyn))'"],
    ),
    ("optional.of(x).optMap(y.z, y)", ["1:24: optMap() variable name must be a simple identifier"]),
    ("l.all(__result__, true)", ["1:7: iteration variable overwrites accumulator variable"]),
    ("l.all(i, i, true)", ["1:10: duplicate variable name: i"]),
    (
        "cel.bind(a, 1, a)",
        [
            "1:1: undeclared reference to 'cel' (in container '')",
            "1:9: undeclared reference to 'bind' (in container '')",
            "1:10: undeclared reference to 'a' (in container '')",
            "1:16: undeclared reference to 'a' (in container '')",
        ],
    ),
    ("s.matches('(')", ["1:11: invalid matches argument"]),
    ("matches(s, '[')", ["1:12: invalid matches argument"]),
    ("duration('1x')", ["1:10: invalid duration argument"]),
    ("timestamp('2026')", ["1:11: invalid timestamp argument"]),
    (
        "'%d'.format(['a'])",
        ["1:14: error during formatting: decimal clause can only be used on integers, was given string"],
    ),
    ("'%s %s'.format(['a'])", ["1:15: index 1 out of range"]),
    ("'%s'.format(['a', 'b'])", ["1:12: too many arguments supplied to string.format (expected 1, got 2)"]),
    ("'%q'.format(['a'])", ['1:12: could not parse formatting clause: unrecognized formatting clause "q"']),
    ("'a'.reverse()", ["1:12: found no matching overload for 'reverse' applied to 'string.()'"]),
    ("(" * 300 + "1" + ")" * 300, ["-1:0: expression recursion limit exceeded: 250"]),
    ("1" + " + 1" * 300, ["-1:0: expression recursion limit exceeded: 250"]),
    ("'" + "a" * 100_000 + "'", ["-1:0: expression code point size exceeds limit: size: 100002, limit 100000"]),
]


@pytest.mark.parametrize(("text", "wanted"), ROWS, ids=[text[:40] for text, _ in ROWS])
def test_errors_and_their_places(text: str, wanted: list[str]) -> None:
    with pytest.raises(CompileError) as caught:
        ENVIRONMENT.compile(text)
    assert [f"{issue.line}:{issue.column + 1}: {issue.message}" for issue in caught.value.issues] == wanted


def test_the_print_shows_the_line_and_a_mark() -> None:
    with pytest.raises(CompileError) as caught:
        ENVIRONMENT.compile("s == 'a' &&\n\tx.size() > 0 || 'é' == y")
    assert str(caught.value) == (
        "ERROR: <input>:2:8: found no matching overload for 'size' applied to 'int.()'\n"
        " |  x.size() > 0 || 'é' == y\n"
        " | .......^\n"
        "ERROR: <input>:2:25: undeclared reference to 'y' (in container '')\n"
        " |  x.size() > 0 || 'é' == y\n"
        " | ..................．.....^"
    )


def test_a_wide_character_has_a_wide_mark() -> None:
    with pytest.raises(CompileError) as caught:
        ENVIRONMENT.compile("x + 😁")
    assert str(caught.value).splitlines()[2] == " | ....＾"


def test_no_place_has_no_line() -> None:
    with pytest.raises(CompileError) as caught:
        ENVIRONMENT.compile("[" * 300)
    assert str(caught.value) == "ERROR: <input>:-1:0: expression recursion limit exceeded: 250"


def test_the_list_of_errors_ends() -> None:
    with pytest.raises(CompileError) as caught:
        ENVIRONMENT.compile("[" + ", ".join(f"y{index}" for index in range(150)) + "]")
    assert len(caught.value.issues) == 150
    assert str(caught.value).splitlines()[-1] == "50 more errors were truncated"
