"""Match conditions: whether a policy or webhook is about a request at all, by expressions.

One that is false decides: no match, whatever else fails. Else a failure is an error for failurePolicy Fail, and no match
for Ignore.

Spec: Kubernetes documentation, "Dynamic Admission Control" (matchConditions), "Validating Admission Policy".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiphys.api.admissionexpressions import MATCH_CONDITIONS_LIMIT, Compiled
from tiphys.apiserver.policies.evaluation import Evaluation, OutOfBudget, Variables
from tiphys.base.errors import TiphysError


class ConditionsFailed(TiphysError):
    """Match conditions could not be evaluated, and failurePolicy is Fail. The text is what the client is told."""


async def conditions_match(
    conditions: Sequence[Compiled], bindings: Mapping[str, Any], variables: Variables = (), *, fail: bool
) -> bool:
    """Tell whether all conditions are true. `fail`: failurePolicy is Fail; then raises ConditionsFailed."""
    if not conditions:
        return True
    evaluation = Evaluation(bindings, variables, MATCH_CONDITIONS_LIMIT)
    errors: dict[str, None] = {}
    for compiled in conditions:
        try:
            value, error = await evaluation.evaluate(compiled)
        except OutOfBudget as exceeded:
            if fail:
                raise ConditionsFailed(str(exceeded)) from None
            return False
        if error:
            errors[error] = None
        elif value is False:
            return False
    if errors and fail:
        raise ConditionsFailed(next(iter(errors)) if len(errors) == 1 else f"[{', '.join(errors)}]")
    return not errors
