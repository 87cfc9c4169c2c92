"""What the tables of expressions are about, and how a row of them is tried: test support of this folder."""

from __future__ import annotations

import math

import pytest

from tiphys.cel import types
from tiphys.cel.environment import Environment
from tiphys.cel.equality import equals, runtime_name
from tiphys.cel.errors import EvaluationError
from tiphys.cel.values import Value

VARIABLES = {
    "x": types.INT,
    "s": types.STRING,
    "b": types.BOOL,
    "l": types.list_of(types.INT),
    "m": types.map_of(types.STRING, types.INT),
    "d": types.DYN,
}
DATA = {"x": 5, "s": "abc", "b": True, "l": [1, 2, 3], "m": {"a": 1}, "d": {"k": [1, 2.5, "z", None]}}
ENVIRONMENT = Environment(VARIABLES)


def check_value(text: str, wanted: Value) -> None:
    """The expression has this value, of just this class."""
    found = ENVIRONMENT.compile(text).evaluate(DATA)
    assert runtime_name(found) == runtime_name(wanted)
    if isinstance(wanted, float) and math.isnan(wanted):
        assert math.isnan(found)
    else:
        assert equals(found, wanted)


def check_error(text: str, wanted: str) -> None:
    """The expression fails with this message."""
    with pytest.raises(EvaluationError) as caught:
        ENVIRONMENT.compile(text).evaluate(DATA)
    assert str(caught.value) == wanted
