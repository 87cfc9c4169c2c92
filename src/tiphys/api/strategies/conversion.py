"""How a CustomResourceDefinition says that its versions are converted: `spec.conversion`.

Read by extension.py. Paths are those that upstream tells, whose inner form of the definition has other names than v1.

Spec: Kubernetes documentation, "Versions in CustomResourceDefinitions", "Webhook conversion".
"""

from __future__ import annotations

from collections.abc import Sequence

from tiphys.api.causes import forbidden, required
from tiphys.api.kind import JsonObject
from tiphys.api.strategies.clientconfig import check_client_config, check_review_versions
from tiphys.api.strategies.fields import check_enum
from tiphys.base.errors import Cause

_PATH = "spec.conversion"
_CONFIG = f"{_PATH}.webhookClientConfig"
_STRATEGIES = ("None", "Webhook")


def check_conversion(causes: list[Cause], conversion: JsonObject) -> None:
    """Add the causes of a conversion that cannot work."""
    strategy = conversion.get("strategy") or ""
    webhook: JsonObject = conversion.get("webhook") or {}
    config: JsonObject | None = webhook.get("clientConfig")
    versions: Sequence[str] = webhook.get("conversionReviewVersions") or ()
    check_enum(causes, f"{_PATH}.strategy", strategy, _STRATEGIES)
    if strategy == "Webhook":
        if config is None:
            causes.append(required(_CONFIG, "required when strategy is set to Webhook"))
        else:
            check_client_config(causes, config, _CONFIG)
        _check_review_versions(causes, versions)
        return
    detail = "should not be set when strategy is not set to Webhook"
    if config is not None:
        causes.append(forbidden(_CONFIG, detail))
    if versions:
        causes.append(forbidden(f"{_PATH}.conversionReviewVersions", detail))


def _check_review_versions(causes: list[Cause], versions: Sequence[str]) -> None:
    path = f"{_PATH}.conversionReviewVersions"
    if not versions:
        causes.append(required(path))
        return
    check_review_versions(causes, versions, path)
