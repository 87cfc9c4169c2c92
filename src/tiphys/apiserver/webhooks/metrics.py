"""What is counted of admission webhooks, under upstream's names.

Bound: webhooks that are configured, times operations and codes.
Spec: Kubernetes documentation, "Kubernetes Metrics Reference".
"""

from __future__ import annotations

from tiphys.apiserver.webhooks.hooks import Hook
from tiphys.base.metrics import Metrics

MUTATING, VALIDATING = "admit", "validating"
NO_ERROR, CALLING, INTERNAL = "no_error", "calling_webhook_error", "apiserver_internal_error"
LARGEST_CODE = 600
_BOUNDS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0)


class WebhookMetrics:
    """Counts calls and what they came to."""

    def __init__(self, metrics: Metrics) -> None:
        self._duration = metrics.histogram(
            "apiserver_admission_webhook_admission_duration_seconds",
            "Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API "
            "resource and type (validate or admit).",
            ("name", "operation", "rejected", "type"),
            _BOUNDS_S,
        )
        self._requests = metrics.counter(
            "apiserver_admission_webhook_request_total",
            "Admission webhook request total, identified by name and broken out for each admission type and operation.",
            ("code", "name", "operation", "rejected", "type"),
        )
        self._rejections = metrics.counter(
            "apiserver_admission_webhook_rejection_count",
            "Admission webhook rejection count, identified by name and broken out for each admission type and operation.",
            ("error_type", "name", "operation", "rejection_code", "type"),
        )
        self._fail_open = metrics.counter(
            "apiserver_admission_webhook_fail_open_count",
            "Admission webhook fail open count, identified by name and broken out for each admission type.",
            ("name", "type"),
        )

    def answered(self, hook: Hook, sort: str, operation: str, duration_s: float, code: int) -> None:
        """Count a call that was answered. `code` is 200, or that of a refusal."""
        rejected = "false" if code == 200 else "true"
        shown = str(min(code, LARGEST_CODE))
        self._duration.observe(duration_s, (hook.name, operation, rejected, sort))
        self._requests.inc((shown, hook.name, operation, rejected, sort))
        if code != 200:
            self._rejections.inc((NO_ERROR, hook.name, operation, shown, sort))

    def failed(self, hook: Hook, sort: str, operation: str, duration_s: float) -> None:
        """Count a call without a usable answer: the write is refused, or goes on without it."""
        rejected = "false" if hook.fails_open else "true"
        self._duration.observe(duration_s, (hook.name, operation, rejected, sort))
        self._requests.inc(("0" if hook.fails_open else "500", hook.name, operation, rejected, sort))
        if hook.fails_open:
            self._fail_open.inc((hook.name, sort))
        else:
            self._rejections.inc((CALLING, hook.name, operation, "0", sort))
