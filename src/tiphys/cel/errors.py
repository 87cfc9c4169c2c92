"""What goes wrong with an expression: in its text, while it runs, or by costing too much.

Raised by the parser, the checker and programs; read by rules, policies and webhooks, which show the texts to users.
Invariant: the texts are those of cel-go, since tools and tests look for them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with a text."""

    offset: int
    """Where, in characters from the beginning; -1 for no place."""
    line: int
    """From 1."""
    column: int
    """From 0, as cel-go counts it inside; it is printed from 1."""
    message: str


class CompileError(Exception):
    """An expression that has no meaning. `str` lists the issues, each with its line of the text and a mark below."""

    def __init__(self, text: str, issues: tuple[Issue, ...]) -> None:
        super().__init__(text)
        self.issues = issues


class EvaluationError(Exception):
    """An evaluation without a value, such as `no such key: x`. `&&`, `||` and some macros swallow it."""


class BudgetExceeded(Exception):
    """An evaluation that cost more than it may. Nothing swallows it."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")
