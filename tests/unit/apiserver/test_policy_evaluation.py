"""What expressions of one policy may cost, and that a dear one lets others have their turn."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tiphys.api.admissionexpressions import Compiled, Expressions, Scope
from tiphys.api.cellibrary.authorizer import AuthorizerValue, Decision, Question
from tiphys.apiserver.policies.evaluation import QUICK_LIMIT, Evaluation, OutOfBudget

SCOPE = Scope()
DIGITS = "'0123456789'.split('')"


def loops(depth: int) -> str:
    """An expression that takes 10 ** depth steps."""
    text = "true"
    for level in range(depth):
        text = f"{DIGITS}.all(v{level}, {text} && v{level} != '')"
    return text


def compiled(text: str, **variables: str) -> tuple[Compiled, list[tuple[str, Compiled]]]:
    expressions = Expressions((1, 37))
    declared = [(name, expressions.declare(name, value, SCOPE)) for name, value in variables.items()]
    return expressions.compile(text, SCOPE), declared


async def test_a_cheap_expression_costs_what_it_costs() -> None:
    evaluation = Evaluation({"object": {"a": 1}}, (), 100)
    expression, _ = compiled("object.a == 1")
    assert await evaluation.evaluate(expression) == (True, "")
    assert 90 < evaluation.left < 100


async def test_a_dear_expression_runs_beside_the_loop() -> None:
    expression, _ = compiled(loops(4))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(tick())
    evaluation = Evaluation({}, (), 10_000_000)
    assert await evaluation.evaluate(expression) == (True, "")
    beside.cancel()
    assert 10_000_000 - evaluation.left > QUICK_LIMIT
    assert ticks, "others ran meanwhile"


async def test_an_expression_has_a_limit_of_its_own() -> None:
    expression, _ = compiled(loops(6))
    evaluation = Evaluation({}, (), 10_000_000)
    value, error = await evaluation.evaluate(expression)
    assert value is None
    assert error == f"expression '{expression.text}' resulted in error: operation cancelled: actual cost limit exceeded"
    assert evaluation.left <= 9_000_000


async def test_expressions_share_the_budget_of_their_group() -> None:
    expression, _ = compiled(loops(3))
    evaluation = Evaluation({}, (), 10_000)
    with pytest.raises(OutOfBudget) as caught:
        for _ in range(1000):
            await evaluation.evaluate(expression)
    assert str(caught.value) == (
        "validation failed due to running out of cost budget, no further validation rules will be run"
    )


async def test_a_variable_is_evaluated_once_and_its_cost_is_counted_once() -> None:
    expression, variables = compiled("variables.dear && variables.dear", dear=loops(3))
    evaluation = Evaluation({}, variables, 1_000_000)
    assert await evaluation.evaluate(expression) == (True, "")
    first = 1_000_000 - evaluation.left
    assert await evaluation.evaluate(expression) == (True, "")
    assert 1_000_000 - evaluation.left < first + 10


async def test_a_dear_variable_runs_beside_the_loop_with_who_reads_it() -> None:
    expression, variables = compiled("variables.dear || variables.gone", dear=loops(4), gone="object.x == 1")
    evaluation = Evaluation({"object": {}}, variables, 10_000_000)
    assert await evaluation.evaluate(expression) == (True, "")


async def test_a_variable_over_the_limit_is_an_error_of_who_reads_it() -> None:
    expression, variables = compiled("variables.dear", dear=loops(6))
    evaluation = Evaluation({}, variables, 10_000_000)
    _, error = await evaluation.evaluate(expression)
    assert error == (
        "expression 'variables.dear' resulted in error: composited variable \"dear\" fails to evaluate: "
        "operation cancelled: actual cost limit exceeded"
    )


async def test_authorizers_are_asked_in_the_thread_of_the_loop() -> None:
    from tiphys.apiserver.pipeline import Decision as Verdict
    from tiphys.apiserver.policies.variables import _asker
    from tiphys.apiserver.requestinfo import RequestInfo
    from tiphys.apiserver.user import User

    threads: list[int] = []

    class Recorder:
        def authorize(self, user: User, info: RequestInfo) -> Verdict:
            threads.append(threading.get_ident())
            return Verdict(info.verb == "get", "because")

    ask = _asker(Recorder(), User("u"))
    expression, _ = compiled(f"{loops(4)} && authorizer.group('').resource('pods').check('get').allowed()")
    bindings: dict[str, Any] = {"authorizer": AuthorizerValue(ask)}
    assert await Evaluation(bindings, (), 10_000_000).evaluate(expression) == (True, "")
    assert await asyncio.to_thread(ask, Question(verb="list", resource="pods")) == Decision(False, "because")
    assert threads == [threading.get_ident()] * len(threads)
    assert len(threads) == 2
