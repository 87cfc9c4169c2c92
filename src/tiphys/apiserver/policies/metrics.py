"""What is counted of policies, under upstream's names: refusals, warnings, audits, and evaluations that failed.

Validations that hold are not counted, as upstream does not. Series stay when their policy goes.

Spec: Kubernetes metrics reference, apiserver_validating_admission_policy_*, apiserver_mutating_admission_policy_*.
"""

from __future__ import annotations

from tiphys.base.clock import Clock
from tiphys.base.metrics import Metrics

_BOUNDS = (0.0000005, 0.001, 0.01, 0.1, 1.0)
NO_ERROR = "no_error"
_VALIDATING = ("policy", "policy_binding", "error_type", "enforcement_action")
_MUTATING = ("policy", "policy_binding", "error_type")


class PolicyMetrics:
    """Made once for a server. `started` is the monotonic time at which a check began."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._clock = clock
        self._validations = metrics.counter(
            "apiserver_validating_admission_policy_check_total",
            "[BETA] Validation admission policy check total, labeled by policy and further identified by binding and "
            "enforcement action taken.",
            _VALIDATING,
        )
        self._validation_s = metrics.histogram(
            "apiserver_validating_admission_policy_check_duration_seconds",
            "[BETA] Validation admission latency for individual validation expressions in seconds, labeled by policy "
            "and further including binding and enforcement action taken.",
            _VALIDATING,
            _BOUNDS,
        )
        self._mutations = metrics.counter(
            "apiserver_mutating_admission_policy_check_total",
            "[ALPHA] Mutation admission policy check total, labeled by policy and further identified by binding.",
            _MUTATING,
        )
        self._mutation_s = metrics.histogram(
            "apiserver_mutating_admission_policy_check_duration_seconds",
            "[ALPHA] Mutation admission latency for individual mutation expressions in seconds, labeled by policy and "
            "binding.",
            _MUTATING,
            _BOUNDS,
        )

    def now_s(self) -> float:
        return self._clock.monotonic_s()

    def validated(self, policy: str, binding: str, error: str, action: str, started_s: float) -> None:
        """Count a validation that failed (`error` as from `error_type`) and led to deny, warn, audit or allow."""
        labels = (policy, binding, error, action)
        self._validations.inc(labels)
        self._validation_s.observe(self.now_s() - started_s, labels)

    def mutated(self, policy: str, binding: str, error: str, started_s: float) -> None:
        """Count a mutation, applied or failed."""
        labels = (policy, binding, error)
        self._mutations.inc(labels)
        self._mutation_s.observe(self.now_s() - started_s, labels)


def error_type(message: str) -> str:
    """Return what sort of failure a message tells."""
    if message.startswith("compilation"):
        return "compile_error"
    if message.startswith("validation failed due to running out of cost budget"):
        return "out_of_budget"
    return "invalid_error"
