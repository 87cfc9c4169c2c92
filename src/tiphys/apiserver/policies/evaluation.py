"""Evaluates the expressions of one policy for one request, within what they may cost together.

An `Evaluation` holds the bindings of one group of expressions (all match conditions, all validations, all messages, ...):
variables of the policy are evaluated when an expression first reads them, once for the group. A failure of one
expression is its own result; running out of the group's budget ends the group.

Nearly all expressions cost a few dozen units. What may hold the event loop for longer than a request may (`QUICK_LIMIT`)
is begun anew in a thread; expressions are pure, so nothing happens twice. Invariant: authorizers are asked in the event
loop's thread only.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes" (resource constraints); "Validating Admission
Policy" (variable composition).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tiphys.api.admissionexpressions import CALL_LIMIT, Compiled
from tiphys.api.cellibrary.authorizer import CHECK_COST
from tiphys.base.errors import TiphysError
from tiphys.cel.cost import Budget
from tiphys.cel.environment import Program
from tiphys.cel.errors import BudgetExceeded, EvaluationError

Variables = Sequence[tuple[str, Compiled]]
"""The variables of a policy, in their order."""

QUICK_LIMIT = 15_000
"""What an expression may cost in the event loop's thread: 5 to 15 ms."""
_QUICK_ASKING = QUICK_LIMIT + CALL_LIMIT // CHECK_COST * CHECK_COST
"""The same with as many questions to an authorizer as there can be."""


class OutOfBudget(TiphysError):
    """A group of expressions cost more than it may; the rest of it is not evaluated."""

    def __init__(self) -> None:
        super().__init__("validation failed due to running out of cost budget, no further validation rules will be run")


class Result(NamedTuple):
    """What became of one expression: a value, or an error that is not empty."""

    value: Any
    error: str = ""


class Evaluation:
    """See the module's docstring. `left` is what the group may still cost."""

    def __init__(self, bindings: Mapping[str, Any], variables: Variables, limit: int) -> None:
        self.left = limit
        self._bindings = dict(bindings)
        self._is_quick = False
        self._variables_cost = 0
        if variables:
            self._bindings["variables"] = _LazyFields(self._evaluate_variable, dict(variables))

    async def evaluate(self, compiled: Compiled) -> Result:
        """Evaluate one expression. Raises OutOfBudget. A cancelled caller leaves a thread behind that ends by itself."""
        program = compiled.program
        if program is None:
            return Result(None, f"compilation error: {compiled.error}")
        budget = Budget(_QUICK_ASKING if compiled.asks else QUICK_LIMIT)
        try:
            result = self._run(program, budget, quick=True)
        except BudgetExceeded:
            budget = Budget(CALL_LIMIT)
            result = await asyncio.to_thread(self._run, program, budget, quick=False)
        self.left -= budget.spent + self._variables_cost
        self._variables_cost = 0
        if self.left < 0:
            raise OutOfBudget
        return result

    def _run(self, program: Program, budget: Budget, *, quick: bool) -> Result:
        """Evaluate a program; a quick one may raise BudgetExceeded, from the program or a variable."""
        self._is_quick = quick
        try:
            return Result(program.evaluate(self._bindings, budget))
        except EvaluationError as error:
            return Result(None, _failure(program, error))
        except BudgetExceeded as error:
            if quick:
                raise
            return Result(None, _failure(program, error))

    def _evaluate_variable(self, name: str, compiled: Compiled) -> Any:
        """Return the value of a variable; its cost is counted with the expression that reads it."""
        program = compiled.program
        if program is None:
            raise EvaluationError(f'composited variable "{name}" fails to compile: {compiled.error}')
        quick_limit = _QUICK_ASKING if compiled.asks else QUICK_LIMIT
        budget = Budget(quick_limit if self._is_quick else CALL_LIMIT)
        try:
            value = program.evaluate(self._bindings, budget)
        except BudgetExceeded as error:
            if self._is_quick:
                raise
            self._variables_cost += budget.spent
            raise EvaluationError(f'composited variable "{name}" fails to evaluate: {error}') from error
        except EvaluationError as error:
            self._variables_cost += budget.spent
            raise EvaluationError(f'composited variable "{name}" fails to evaluate: {error}') from error
        self._variables_cost += budget.spent
        return value


def _failure(program: Program, error: Exception) -> str:
    return f"expression '{program.text}' resulted in error: {error}"


class _LazyFields(dict[str, Any]):
    """The variable `variables`: each field is evaluated when it is first read, and kept, its failure too."""

    def __init__(self, evaluate: Callable[[str, Compiled], Any], variables: Mapping[str, Compiled]) -> None:
        super().__init__()
        self._evaluate = evaluate
        self._variables = variables
        self._failures: dict[str, EvaluationError] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __missing__(self, name: str) -> Any:
        if name in self._failures:
            raise self._failures[name]
        compiled = self._variables[name]
        try:
            self[name] = value = self._evaluate(name, compiled)
        except EvaluationError as error:
            self._failures[name] = error
            raise
        return value
