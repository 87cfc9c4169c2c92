"""Jobs: defaults, the generated selector, validation and what an update may change.

The selector is made from the job's uid, so the registry fills metadata before `prepare_for_create`. Spec: Kubernetes
documentation, "Jobs" (selector, completion mode, pod failure policy, success policy); KEP-3998, KEP-3850, KEP-4368.
"""

from __future__ import annotations

from typing import Any

from tiphys.api import names
from tiphys.api.causes import duplicate, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.fields import (
    check_nonnegative,
    check_same,
    check_text,
    fill,
    is_same,
    keep_spec,
    keep_status,
    spec_of,
    warn_of_name,
)
from tiphys.api.strategies.pod_defaults import default_pod_template
from tiphys.api.strategies.pod_template import MISMATCH, check_template, selector_matches
from tiphys.api.strategies.pod_warnings import warn_template
from tiphys.base.errors import Cause

_PREFIX = "batch.kubernetes.io/"
_MODES = ("NonIndexed", "Indexed")
_REPLACEMENTS = ("Failed", "TerminatingOrFailed")
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_MAX_INT32 = 2**31 - 1
_MAX_INDEXED_PARALLELISM = 100_000
_TEMPLATE_SCHEDULING = ("affinity", "nodeSelector", "tolerations", "schedulingGates")


def default(job: JsonObject) -> None:
    spec = job.setdefault("spec", {})
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    fill(spec, "parallelism", 1)
    fill(spec, "backoffLimit", 6 if spec.get("backoffLimitPerIndex") is None else _MAX_INT32)
    template = spec.setdefault("template", {})
    metadata = job.setdefault("metadata", {})
    labels = (template.get("metadata") or {}).get("labels")
    if labels and not metadata.get("labels"):
        metadata["labels"] = dict(labels)
    fill(spec, "completionMode", "NonIndexed")
    fill(spec, "suspend", False)
    policy = spec.get("podFailurePolicy")
    for rule in (policy or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            fill(pattern, "status", "True")
    fill(spec, "podReplacementPolicy", "Failed" if policy is not None else "TerminatingOrFailed")
    fill(spec, "manualSelector", False)
    default_pod_template(template)


def prepare_for_create(job: JsonObject, context: Context) -> None:
    """Clear the status; unless the user brings a selector, select by the job's uid."""
    job["status"] = {}
    spec = job["spec"]
    if not spec.get("manualSelector"):
        generate_selector(job)
    # upstream defaults again whatever it reads, so a job without labels of its own always shows the template's
    labels = (spec["template"].get("metadata") or {}).get("labels")
    if labels and not job["metadata"].get("labels"):
        job["metadata"]["labels"] = dict(labels)


def generate_selector(job: JsonObject) -> None:
    """Label the template with the job's name and uid and select the uid. Labels that are there stay: a wrong one is
    refused by validation."""
    metadata = job["metadata"]
    uid, name = metadata.get("uid") or "", metadata.get("name") or ""
    template = job["spec"]["template"]
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    for key, value in (("controller-uid", uid), ("job-name", name)):
        labels.setdefault(key, value)
        labels.setdefault(_PREFIX + key, value)
    selector = job["spec"].setdefault("selector", {})
    selector.setdefault("matchLabels", {}).setdefault(f"{_PREFIX}controller-uid", uid)


def validate(job: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(job)
    _check_generated_selector(causes, job, spec)
    check_job_spec(causes, spec, context, "spec")
    selector = spec.get("selector")
    if selector is None:
        causes.append(required("spec.selector"))
        return causes
    causes += validate_label_selector(selector, "spec.selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if not selector_matches(selector, labels):
        causes.append(invalid_value("spec.template.metadata.labels", labels, MISMATCH))
    return causes


def _check_generated_selector(causes: list[Cause], job: JsonObject, spec: JsonObject) -> None:
    if spec.get("manualSelector") or spec.get("selector") is None:
        return
    metadata = job.get("metadata") or {}
    uid, name = metadata.get("uid") or "", metadata.get("name") or ""
    if not uid:
        causes.append(required("metadata.uid"))
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    path = "spec.template.metadata.labels"
    expected = {"controller-uid": uid, "job-name": name}
    for prefix in ("", _PREFIX):
        for key, value in expected.items():
            found = labels.get(prefix + key)
            if found is None:
                causes.append(required(f"{path}[{prefix}{key}]", f"must be '{value}'"))
            elif found != value:
                causes.append(invalid_value(f"{path}[{prefix}{key}]", labels, f"must be '{value}'"))
    generated = {**expected, **{_PREFIX + key: value for key, value in expected.items()}}
    if not selector_matches(spec["selector"], generated):
        causes.append(invalid_value("spec.selector", spec["selector"], "`selector` not auto-generated"))


def check_job_spec(causes: list[Cause], spec: JsonObject, context: Context, path: str) -> None:
    """Check the spec of a Job or of a CronJob's template, but for the selector."""
    for field in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ):
        check_nonnegative(causes, f"{path}.{field}", spec.get(field))
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        causes.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    mode = spec.get("completionMode")
    if mode is not None:
        _check_mode(causes, spec, mode, path)
    if spec.get("backoffLimitPerIndex") is not None and mode != "Indexed":
        causes.append(
            invalid_value(
                f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], "requires indexed completion mode"
            )
        )
    if spec.get("managedBy"):
        _check_managed_by(causes, spec["managedBy"], f"{path}.managedBy")
    if spec.get("successPolicy") is not None:
        _check_success_policy(causes, spec, f"{path}.successPolicy")
    check_template(causes, spec.get("template") or {}, context, f"{path}.template")
    _check_restart_policy(causes, spec, path)
    if spec.get("podFailurePolicy") is not None:
        _check_failure_policy(causes, spec["podFailurePolicy"], f"{path}.podFailurePolicy")
    _check_replacement(causes, spec, path)


def _check_mode(causes: list[Cause], spec: JsonObject, mode: str, path: str) -> None:
    if mode not in _MODES:
        causes.append(not_supported(f"{path}.completionMode", mode, _MODES))
        return
    if mode == "NonIndexed":
        return
    if spec.get("completions") is None:
        causes.append(required(f"{path}.completions", "when completion mode is Indexed"))
    parallelism = spec.get("parallelism") or 0
    if parallelism > _MAX_INDEXED_PARALLELISM:
        detail = f"must be less than or equal to {_MAX_INDEXED_PARALLELISM} when completion mode is Indexed"
        causes.append(invalid_value(f"{path}.parallelism", parallelism, detail))


def _check_managed_by(causes: list[Cause], manager: str, path: str) -> None:
    domain, slash, rest = manager.partition("/")
    if not slash or not rest:
        causes.append(invalid_value(path, manager, 'must be a domain-prefixed path (such as "acme.io/foo")'))
        return
    check_text(causes, path, domain, names.validate_dns_subdomain)
    if len(manager) > 63:
        from tiphys.api.causes import too_long

        causes.append(too_long(path, 63))


def _check_restart_policy(causes: list[Cause], spec: JsonObject, path: str) -> None:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    where = f"{path}.template.spec.restartPolicy"
    if policy in (None, "", "Always"):
        causes.append(required(where, 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        causes.append(not_supported(where, policy, ("OnFailure", "Never")))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        causes.append(invalid_value(where, policy, 'only "Never" is supported when podFailurePolicy is specified'))


def _check_failure_policy(causes: list[Cause], policy: JsonObject, path: str) -> None:
    rules = policy.get("rules") or []
    if len(rules) > 20:
        from tiphys.api.causes import too_many

        causes.append(too_many(f"{path}.rules", len(rules), 20))
    for index, rule in enumerate(rules):
        at = f"{path}.rules[{index}]"
        action = rule.get("action") or ""
        if not action:
            causes.append(required(f"{at}.action", "valid values: [Count FailIndex FailJob Ignore]"))
        elif action not in _ACTIONS:
            causes.append(not_supported(f"{at}.action", action, _ACTIONS))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if codes is not None and conditions:
            detail = "specifying both OnExitCodes and OnPodConditions is not supported"
            causes.append(invalid_value(at, rule, detail))
        elif codes is None and not conditions:
            causes.append(invalid_value(at, rule, "specifying one of OnExitCodes and OnPodConditions is required"))
        if codes is not None:
            _check_exit_codes(causes, codes, f"{at}.onExitCodes")
        for place, pattern in enumerate(conditions or ()):
            _check_condition(causes, pattern, f"{at}.onPodConditions[{place}]")


def _check_exit_codes(causes: list[Cause], codes: JsonObject, path: str) -> None:
    operator = codes.get("operator") or ""
    if not operator:
        causes.append(required(f"{path}.operator", "valid values: [In NotIn]"))
    elif operator not in ("In", "NotIn"):
        causes.append(not_supported(f"{path}.operator", operator, ("In", "NotIn")))
    values = codes.get("values") or []
    seen: set[int] = set()
    for index, value in enumerate(values):
        if value in seen:
            causes.append(duplicate(f"{path}.values[{index}]", value))
        if value == 0 and operator == "In":
            causes.append(invalid_value(f"{path}.values[{index}]", value, "must not be 0 for the In operator"))
        seen.add(value)
    if not values:
        causes.append(invalid_value(f"{path}.values", values, "at least one value is required"))
    elif values != sorted(values):
        causes.append(invalid_value(f"{path}.values", values, "must be ordered"))


def _check_condition(causes: list[Cause], pattern: JsonObject, path: str) -> None:
    check_text(causes, f"{path}.type", pattern.get("type") or "", names.validate_qualified_name)
    status = pattern.get("status") or ""
    if not status:
        causes.append(required(f"{path}.status", "valid values: [False True Unknown]"))
    elif status not in ("False", "True", "Unknown"):
        causes.append(not_supported(f"{path}.status", status, ("False", "True", "Unknown")))


def _check_success_policy(causes: list[Cause], spec: JsonObject, path: str) -> None:
    policy = spec["successPolicy"]
    if spec.get("completionMode") != "Indexed":
        causes.append(invalid_value(path, policy, "requires indexed completion mode"))
        return
    rules = policy.get("rules") or []
    if not rules:
        causes.append(
            required(f"{path}.rules", "at least one rules must be specified when the successPolicy is specified")
        )
    for index, rule in enumerate(rules):
        if rule.get("succeededIndexes") is None and rule.get("succeededCount") is None:
            causes.append(
                required(
                    f"{path}.rules[{index}]", "at least one of succeededCount or succeededIndexes must be specified"
                )
            )


def _check_replacement(causes: list[Cause], spec: JsonObject, path: str) -> None:
    policy = spec.get("podReplacementPolicy")
    where = f"{path}.podReplacementPolicy"
    if policy is None:
        return
    if spec.get("podFailurePolicy") is not None:
        if policy != "Failed":
            causes.append(not_supported(where, policy, ("Failed",)))
    elif policy not in _REPLACEMENTS:
        causes.append(not_supported(where, policy, _REPLACEMENTS))


def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """Fixed are the completions, the selector, the template and the policies; a suspended job that never started may
    get other scheduling constraints."""
    causes: list[Cause] = []
    spec, before = spec_of(new), spec_of(old)
    _check_completions(causes, spec, before)
    check_same(causes, "spec.selector", spec.get("selector"), before.get("selector"))
    _check_template_change(causes, spec, before, old.get("status") or {})
    for field in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        check_same(causes, f"spec.{field}", spec.get(field), before.get(field))
    return causes


def _check_completions(causes: list[Cause], spec: JsonObject, before: JsonObject) -> None:
    new, old = spec.get("completions"), before.get("completions")
    if new == old:
        return
    if spec.get("completionMode") != "Indexed" or new is None or old is None:
        check_same(causes, "spec.completions", new, old)
    elif new != spec.get("parallelism") or old != before.get("parallelism"):
        causes.append(invalid_value("spec.completions", new, "can only be modified in tandem with spec.parallelism"))


def _check_template_change(causes: list[Cause], spec: JsonObject, before: JsonObject, status: JsonObject) -> None:
    new, old = spec.get("template") or {}, before.get("template") or {}
    if is_same(new, old):
        return
    if before.get("suspend") and status.get("startTime") is None:
        new, old = _without_scheduling(new), _without_scheduling(old)
    if not is_same(new, old):
        causes.append(invalid_value("spec.template", spec.get("template"), "field is immutable"))


def _without_scheduling(template: JsonObject) -> dict[str, Any]:
    """The template without what a queueing controller may change before the start."""
    pod = {k: v for k, v in (template.get("spec") or {}).items() if k not in _TEMPLATE_SCHEDULING}
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if k not in ("labels", "annotations")}
    return {"metadata": metadata, "spec": pod}


def validate_status_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    status = new.get("status") or {}
    for field in ("active", "succeeded", "failed", "ready", "terminating"):
        check_nonnegative(causes, f"status.{field}", status.get(field))
    before = old.get("status") or {}
    if before.get("startTime") and status.get("startTime") != before["startTime"] and not spec_of(old).get("suspend"):
        causes.append(required("status.startTime", "startTime cannot be removed for unsuspended job"))
    return causes


def warnings(job: JsonObject) -> list[str]:
    spec = spec_of(job)
    found = [*warn_of_name(job), *warn_template(spec.get("template") or {}, "spec.template")]
    completions, parallelism = spec.get("completions") or 0, spec.get("parallelism") or 0
    if spec.get("completionMode") == "Indexed" and completions > 100_000 and parallelism > 10_000:
        found.append(
            "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
            "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        )
    return found


JOB = Strategy(
    default=default,
    prepare_for_create=prepare_for_create,
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
    warnings=warnings,
    generation=True,
    default_propagation="Orphan",
)
