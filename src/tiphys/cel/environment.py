"""What an expression may name, and the way from its text to a program.

Made by whoever has expressions (rules of definitions, policies, match conditions): variables with their types, and
libraries. `compile` parses, checks and plans; the program is kept and evaluated for every write. Invariant: neither
environments nor programs change, so both may be shared.

Spec: cel-spec, "Language Definition"; Kubernetes documentation, "Common Expression Language in Kubernetes".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tiphys.cel.cost import Budget, CostRange, Sizes
from tiphys.cel.declarations import Library
from tiphys.cel.types import Type
from tiphys.cel.values import Value


class Program:
    """A compiled expression."""

    __slots__ = ("result_type", "text")

    def __init__(self, text: str, result_type: Type) -> None:
        self.text: Final = text
        self.result_type: Final = result_type

    def evaluate(self, bindings: Mapping[str, Value], budget: Budget | None = None) -> Value:
        """Return the value for these variables; JSON data becomes values as the variables' types say.

        Raises EvaluationError, and BudgetExceeded when the evaluation costs more than is left; what it cost is
        counted in the budget in every case.
        """
        raise NotImplementedError

    def estimate_cost(self, sizes: Sizes | None = None) -> CostRange:
        """Return the least and the most that an evaluation costs, with data of the sizes that are known."""
        raise NotImplementedError


class Environment:
    """Variables and functions. The standard library, with strings, sets, lists and optionals, is always in it."""

    __slots__ = ("libraries", "variables")

    def __init__(self, variables: Mapping[str, Type], libraries: tuple[Library, ...] = ()) -> None:
        self.variables: Final = dict(variables)
        self.libraries: Final = libraries

    def extend(self, variables: Mapping[str, Type] | None = None, libraries: tuple[Library, ...] = ()) -> Environment:
        """Return an environment with more in it; a variable of the same name replaces that of this one."""
        return Environment({**self.variables, **(variables or {})}, self.libraries + libraries)

    def compile(self, text: str) -> Program:
        """Return the program of an expression; raises CompileError."""
        raise NotImplementedError
