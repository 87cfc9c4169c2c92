"""What is counted of conversion webhooks, under upstream's names.

Bound: definitions with a webhook, times pairs of their versions.
Spec: Kubernetes documentation, "Kubernetes Metrics Reference".
"""

from __future__ import annotations

from tiphys.base.metrics import Metrics, exponential

CALL = "conversion_webhook_call_failure"
MALFORMED = "conversion_webhook_malformed_response_failure"
PARTIAL = "conversion_webhook_partial_response_failure"
INVALID_OBJECT = "conversion_webhook_invalid_converted_object_failure"
_BOUNDS_S = exponential(0.001, 2, 15)


class ConversionMetrics:
    """Counts calls and what they came to."""

    def __init__(self, metrics: Metrics) -> None:
        labels = ("failure_type", "result")
        self._requests = metrics.counter(
            "apiserver_conversion_webhook_request_total",
            "Counter for conversion webhook requests with success/failure and failure error type",
            labels,
        )
        self._latency = metrics.histogram(
            "apiserver_conversion_webhook_duration_seconds", "Conversion webhook request latency", labels, _BOUNDS_S
        )
        self._duration = metrics.histogram(
            "apiserver_crd_conversion_webhook_duration_seconds",
            "CRD webhook conversion duration in seconds",
            ("crd_name", "from_version", "succeeded", "to_version"),
            _BOUNDS_S,
        )

    def observe(self, definition: str, source: str, target: str, duration_s: float, failure: str) -> None:
        """Count a call from one version to another; `failure` is "" for none."""
        labels = (failure, "failure" if failure else "success")
        self._requests.inc(labels)
        self._latency.observe(duration_s, labels)
        self._duration.observe(duration_s, (definition, source, "false" if failure else "true", target))
