"""Policies come, change and go: what is in force follows every write; who may write them; what they cost others."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from assembled_server import Server, running_server
from policy_objects import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    MUTATING,
    MUTATING_BINDINGS,
    VALIDATING,
    VALIDATING_BINDINGS,
    binding,
    config_map,
    mutating,
    rule,
    validating,
)

from tiphys.apiserver.admission import Attributes
from tiphys.apiserver.user import User
from tiphys.store.interface import Operation
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Response

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LIMITS = "/apis/rules.example.com/v1/namespaces/default/limits"


def limits_definition() -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {"max": {"type": "integer"}, "names": {"type": "string"}}}
        },
    }
    return {
        "metadata": {"name": "limits.rules.example.com"},
        "spec": {
            "group": "rules.example.com",
            "scope": "Namespaced",
            "names": {"plural": "limits", "kind": "Limit"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


async def refusal(server: Server, obj: dict[str, Any] | None = None) -> str:
    """Return why a ConfigMap is refused, "" if it is not."""
    code, answer = await server.call("POST", f"{CONFIG_MAPS}?dryRun=All", obj or config_map(k="v"))
    return "" if code == 201 else str(answer["message"].partition("denied request: ")[2])


async def test_changes_of_policies_bindings_and_parameters_are_in_force_with_their_writes() -> None:
    async with running_server() as server:
        policy = validating(
            "p",
            {"expression": "object.data.k == params.data.want", "messageExpression": "'wants ' + params.data.want"},
            paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        )
        await server.made(CONFIG_MAPS, config_map("want", want="w"))
        await server.made(VALIDATING, policy)
        ref = {"name": "want", "namespace": "default", "parameterNotFoundAction": "Allow"}
        await server.made(VALIDATING_BINDINGS, binding(paramRef=ref))
        assert await refusal(server) == "wants w"
        merge = {"content_type": "application/merge-patch+json"}
        await server.call("PATCH", f"{VALIDATING}/p", {"spec": {"failurePolicy": "Ignore"}}, **merge)
        assert (await server.call("PATCH", f"{CONFIG_MAPS}/want", {"data": {"want": "v"}}, **merge))[0] == 200
        assert await refusal(server) == ""
        await server.call("DELETE", f"{CONFIG_MAPS}/want")
        assert await refusal(server, config_map(k="x")) == ""
        other = [{"expression": "false", "message": "none at all"}]
        await server.call("PATCH", f"{VALIDATING}/p", {"spec": {"validations": other, "paramKind": None}}, **merge)
        assert await refusal(server) == "none at all"
        await server.call("PATCH", f"{VALIDATING_BINDINGS}/b", {"spec": {"validationActions": ["Audit"]}}, **merge)
        assert await refusal(server) == ""
        await server.call("PATCH", f"{VALIDATING_BINDINGS}/b", {"spec": {"validationActions": ["Deny"]}}, **merge)
        assert await refusal(server) == "none at all"
        await server.call("DELETE", f"{VALIDATING}/p")
        assert await refusal(server) == ""


async def test_parameters_of_a_custom_kind_whose_definition_goes_are_missing() -> None:
    async with running_server() as server:
        policy = validating(
            "p",
            {"expression": "size(object.data.k) <= params.spec.max", "message": "too long"},
            paramKind={"apiVersion": "rules.example.com/v1", "kind": "Limit"},
        )
        await server.made(VALIDATING, policy)
        ref = {"name": "max", "parameterNotFoundAction": "Deny"}
        await server.made(VALIDATING_BINDINGS, binding(paramRef=ref))
        unknown = "failed to configure policy: failed to find resource referenced by paramKind: "
        assert await refusal(server) == f"{unknown}'rules.example.com/v1, Kind=Limit'"
        await server.made(CRDS, limits_definition())
        missing = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        await server_until(server, missing)
        body = {"apiVersion": "rules.example.com/v1", "kind": "Limit", "metadata": {"name": "max"}, "spec": {"max": 2}}
        await server.made(LIMITS, body)
        assert await refusal(server) == ""
        assert await refusal(server, config_map(k="vvv")) == "too long"
        await server.call("DELETE", f"{CRDS}/limits.rules.example.com")
        await server_until(server, f"{unknown}'rules.example.com/v1, Kind=Limit'")


async def server_until(server: Server, wanted: str) -> None:
    """Wait for definitions to be established or to go: a few turns of the loop."""
    told = ""
    for _ in range(200):
        told = await refusal(server)
        if told == wanted:
            return
        await asyncio.sleep(0)
    raise AssertionError(told)


async def test_custom_kinds_are_type_checked_by_their_schema() -> None:
    async with running_server() as server:
        await server.made(CRDS, limits_definition())
        await server_until(server, "")
        policy = validating(
            "p",
            "object.spec.max > 1 && object.metadata.labels['a'] == 'b'",
            "object.spec.max > '1' || variables.names + 1 == 2",
            matchConstraints={
                "resourceRules": [rule("rules.example.com", "limits", apiVersions=["v1"])],
            },
            variables=[{"name": "names", "expression": "object.spec.names"}],
        )
        await server.made(VALIDATING, policy)
        for _ in range(200):
            status = (await server.named(f"{VALIDATING}/p")).get("status", {})
            if "typeChecking" in status:
                break
            await asyncio.sleep(0)
        (warning,) = status["typeChecking"]["expressionWarnings"]
        assert warning["fieldRef"] == "spec.validations[1].expression"
        assert warning["warning"].startswith("rules.example.com/v1, Kind=Limit: ERROR: <input>:1:17: ")
        assert "found no matching overload for '_>_' applied to '(int, string)'" in warning["warning"]
        assert "found no matching overload for '_+_' applied to '(string, int)'" in warning["warning"]


async def test_the_status_of_a_policy_is_written_by_its_own_way_only() -> None:
    async with running_server() as server:
        made = await server.made(VALIDATING, {**validating("p", "true"), "status": {"observedGeneration": 7}})
        assert made.get("status") == {}
        merge = {"content_type": "application/merge-patch+json"}
        condition = {"type": "A", "status": "True", "reason": "R", "message": "m"}
        status: dict[str, Any] = {"status": {"conditions": [condition]}, "metadata": {"labels": {"a": "b"}}}
        code, answer = await server.call("PATCH", f"{VALIDATING}/p/status", status, **merge)
        assert code == 200
        assert "labels" not in answer["metadata"]
        assert answer["status"]["conditions"][0]["type"] == "A"
        code, answer = await server.call("PATCH", f"{VALIDATING}/p", {"spec": {"failurePolicy": "Ignore"}}, **merge)
        assert answer["status"]["conditions"][0]["type"] == "A"
        assert answer["metadata"]["generation"] == 2


@pytest.mark.parametrize("plural", ["validating", "mutating"])
async def test_writers_must_be_allowed_to_read_the_parameters(plural: str) -> None:
    policies, bindings = (VALIDATING, VALIDATING_BINDINGS) if plural == "validating" else (MUTATING, MUTATING_BINDINGS)
    expression = "true" if plural == "validating" else "Object{}"
    kind = {"paramKind": {"apiVersion": "v1", "kind": "Secret"}}
    make = validating if plural == "validating" else mutating
    ref = {"name": "s", "namespace": "default", "parameterNotFoundAction": "Deny"}
    bound = binding(paramRef=ref, actions=None if plural == "validating" else [])
    async with running_server() as server:
        rules = [{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]}]
        await server.made(f"{RBAC}/clusterroles", {"metadata": {"name": "writer"}, "rules": rules})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "writer"}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}
        granted = {"metadata": {"name": "writer"}, "roleRef": reference, "subjects": [subject]}
        await server.made(f"{RBAC}/clusterrolebindings", granted)
        code, answer = await server.call("POST", policies, make("p", expression, **kind), user="bob")
        assert code == 422
        bob = "&{bob  [system:authenticated] map[]}"
        assert answer["details"]["causes"] == [
            {
                "reason": "FieldValueForbidden",
                "field": "spec.paramKind",
                "message": f'Forbidden: user {bob} must have "get" permission on all objects of the referenced paramKind '
                "(kind=Secret, apiVersion=v1)",
            }
        ]
        await server.made(policies, make("p", expression), user="bob")
        await server.made(policies, make("q", expression, **kind))
        code, answer = await server.call("POST", bindings, binding_of("q", bound), user="bob")
        assert code == 422
        assert answer["details"]["causes"][0]["field"] == "spec.paramRef"
        assert answer["details"]["causes"][0]["message"] == (
            f'Forbidden: user {bob} does not have "get" permission on the object referenced by paramRef'
        )
        readable = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["s"]}]
        await server.made(f"{RBAC}/namespaces/default/roles", {"metadata": {"name": "r"}, "rules": readable})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
        granted = {"metadata": {"name": "r"}, "roleRef": role, "subjects": [subject]}
        await server.made(f"{RBAC}/namespaces/default/rolebindings", granted)
        await server.made(bindings, binding_of("q", bound), user="bob")
        code, _ = await server.call(
            "PATCH",
            f"{bindings}/b",
            {"metadata": {"labels": {"a": "b"}}},
            user="bob",
            content_type="application/merge-patch+json",
        )
        assert code == 200


def binding_of(policy: str, bound: dict[str, Any]) -> dict[str, Any]:
    return {**bound, "spec": {**bound["spec"], "policyName": policy}}


@pytest.mark.parametrize(("version", "served"), [((1, 29), 0), ((1, 30), 1), ((1, 35), 1), ((1, 36), 2)])
async def test_versions_have_the_policies_that_upstream_has(version: tuple[int, int], served: int) -> None:
    async with running_server(version=version) as server:
        assert (await server.call("GET", VALIDATING))[0] == (200 if served else 404)
        assert (await server.call("GET", MUTATING))[0] == (200 if served > 1 else 404)
        await server.made(CONFIG_MAPS, config_map())


async def test_policies_about_other_resources_cost_a_write_nothing() -> None:
    async with running_server() as server:
        for number in range(100):
            policy = validating(
                f"p{number}", "false", matchConstraints={"resourceRules": [rule("apps", "deployments")]}
            )
            await server.made(VALIDATING, policy)
            await server.made(VALIDATING_BINDINGS, binding(f"p{number}", f"b{number}"))
        chain = server.assembled.registry.admission
        kind = server.assembled.kinds.resource("", "v1", "configmaps")
        assert kind is not None
        attributes = Attributes("CREATE", kind, "default", "c", User("u"), config_map())
        await chain.validate(attributes)
        start = time.process_time()
        for _ in range(1000):
            await chain.validate(attributes)
        assert (time.process_time() - start) / 1000 < 0.0002
        code, _ = await server.call("POST", DEPLOYMENTS, {"metadata": {"name": "d"}})
        assert code == 422


async def test_an_audit_annotation_is_recorded_with_the_failure() -> None:
    async with running_server() as server:
        policy = validating(
            "p",
            {"expression": "false", "message": "no"},
            auditAnnotations=[
                {"key": "size", "valueExpression": "'size is ' + string(size(object.data))"},
                {"key": "none", "valueExpression": "null"},
                {"key": "empty", "valueExpression": "' '"},
            ],
        )
        await server.made(VALIDATING, policy)
        await server.made(VALIDATING_BINDINGS, binding(actions=["Audit"]))
        chain = server.assembled.registry.admission
        kind = server.assembled.kinds.resource("", "v1", "configmaps")
        assert kind is not None
        attributes = Attributes("CREATE", kind, "default", "c", User("u"), config_map(k="v"))
        await chain.validate(attributes)
        assert attributes.audit == {
            "validation.policy.admission.k8s.io/validation_failure": '[{"message":"no","policy":"p","binding":"b",'
            '"expressionIndex":0,"validationActions":["Audit"]}]',
            "p/size": "size is 1",
        }


async def test_an_audit_annotation_that_fails_is_a_refusal_whatever_the_actions() -> None:
    async with running_server() as server:
        annotations = [{"key": "a", "valueExpression": "string(object.data.gone)"}]
        await server.made(VALIDATING, validating("p", "true", auditAnnotations=annotations))
        await server.made(VALIDATING_BINDINGS, binding(actions=["Audit"]))
        told = "expression 'string(object.data.gone)' resulted in error: no such key: gone"
        assert await refusal(server) == told
        merge = {"content_type": "application/merge-patch+json"}
        await server.call("PATCH", f"{VALIDATING}/p", {"spec": {"failurePolicy": "Ignore"}}, **merge)
        assert await refusal(server) == ""


async def test_a_generated_name_is_told_to_validating_policies_only() -> None:
    async with running_server() as server:
        await server.made(MUTATING, mutating("m", "Object{data: {'named': string(has(request.name))}}"))
        await server.made(MUTATING_BINDINGS, binding("m", "bm", []))
        await server.made(
            VALIDATING, validating("v", "request.name.startsWith('gen-') && object.data.named == 'false'")
        )
        await server.made(VALIDATING_BINDINGS, binding("v", "bv"))
        answer = await server.answer("POST", CONFIG_MAPS, {"metadata": {"generateName": "gen-"}})
        assert isinstance(answer, Response)
        assert answer.status == 201, answer.body


async def test_refusals_warnings_and_mutations_are_counted_under_upstreams_names() -> None:
    async with running_server() as server:
        await server.made(VALIDATING, validating("v", "object.data.k == 'v'"))
        await server.made(VALIDATING_BINDINGS, binding("v", "deny"))
        await server.made(VALIDATING_BINDINGS, binding("v", "warn", ["Warn"]))
        await server.made(MUTATING, mutating("m", "Object{data: {'l': object.data.k}}"))
        await server.made(MUTATING_BINDINGS, binding("m", "bm", []))
        assert await refusal(server) == ""
        assert await refusal(server, config_map(k="w")) != ""
        assert await refusal(server, config_map(l="w")) != ""
        code, text = await server.call("GET", "/metrics")
        assert code == 200
        name = "apiserver_validating_admission_policy_check"
        series = '{policy="v",policy_binding="%s",error_type="no_error",enforcement_action="%s"} 1\n'
        assert f"{name}_total{series % ('deny', 'deny')}" in text
        assert f"{name}_total{series % ('warn', 'warn')}" in text
        assert f'{name}_duration_seconds_count{{policy="v",policy_binding="deny",error_type="no_error"' in text
        name = 'apiserver_mutating_admission_policy_check_total{policy="m",policy_binding="bm",error_type='
        assert f'{name}"no_error"}} 2\n' in text
        assert f'{name}"invalid_error"}} 1\n' in text


async def test_versions_of_custom_kinds_are_equivalent_for_policies_and_their_parameters() -> None:
    definition = limits_definition()
    (version,) = definition["spec"]["versions"]
    definition["spec"]["versions"].append({**version, "name": "v2", "storage": False})
    v2 = LIMITS.replace("/v1/", "/v2/")
    rules = {"matchConstraints": {"resourceRules": [rule("rules.example.com", "limits", apiVersions=["v1"])]}}
    kind = {"paramKind": {"apiVersion": "rules.example.com/v2", "kind": "Limit"}}
    async with running_server() as server:
        await server.made(CRDS, definition)
        for _ in range(20):
            await asyncio.sleep(0)
        await server.made(LIMITS, limit("v1", "param", 5))
        await server.made(MUTATING, mutating("m", "Object{spec: Object.spec{names: object.apiVersion}}", **rules))
        await server.made(MUTATING_BINDINGS, binding("m", "bm", []))
        policy = validating(
            "v",
            {
                "expression": "object.spec.max < params.spec.max",
                "messageExpression": "string(object.spec.names) + ' ' + string(params.apiVersion) + ' ' + "
                "request.kind.version + ' ' + request.requestKind.version",
            },
            **rules,
            **kind,
        )
        await server.made(VALIDATING, policy)
        ref = {"name": "param", "parameterNotFoundAction": "Deny"}
        await server.made(VALIDATING_BINDINGS, binding("v", "bv", paramRef=ref))
        made = await server.made(v2, limit("v2", "small", 1))
        assert made["apiVersion"] == "rules.example.com/v2"
        assert made["spec"] == {"max": 1, "names": "rules.example.com/v1"}
        code, answer = await server.call("POST", v2, limit("v2", "big", 9))
        assert code == 422
        told = answer["message"].partition("denied request: ")[2]
        assert told == "rules.example.com/v1 rules.example.com/v2 v1 v2"


def limit(version: str, name: str, most: int) -> dict[str, Any]:
    return {
        "apiVersion": f"rules.example.com/{version}",
        "kind": "Limit",
        "metadata": {"name": name},
        "spec": {"max": most},
    }


async def test_a_policy_made_just_before_its_definition_is_checked_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.apiserver.policies.status.UNKNOWN_KINDS_S", 3600)
    async with running_server() as server:
        rules = {"matchConstraints": {"resourceRules": [rule("rules.example.com", "limits", apiVersions=["v1"])]}}
        await server.made(VALIDATING, validating("p", "object.spec.max > '1'", **rules))
        policies = server.assembled.kinds.resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies")
        assert policies is not None
        changed = asyncio.Event()
        server.assembled.cache.resource(policies.storage_prefix()).listeners.add(lambda events: changed.set())
        await server.made(CRDS, limits_definition())
        async with asyncio.timeout(10):
            await changed.wait()
        status = (await server.named(f"{VALIDATING}/p"))["status"]
        assert len(status["typeChecking"]["expressionWarnings"]) == 1


async def test_a_policy_whose_kind_does_not_come_is_told_to_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.apiserver.policies.status.UNKNOWN_KINDS_S", 0.01)
    async with running_server() as server:
        policies = server.assembled.kinds.resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies")
        assert policies is not None
        changes: asyncio.Queue[Any] = asyncio.Queue()
        server.assembled.cache.resource(policies.storage_prefix()).listeners.add(changes.put_nowait)
        rules = {"matchConstraints": {"resourceRules": [rule("rules.example.com", "limits", apiVersions=["v1"])]}}
        await server.made(VALIDATING, validating("p", "object.spec.max > '1'", **rules))
        async with asyncio.timeout(10):
            await changes.get()
            await changes.get()
        assert (await server.named(f"{VALIDATING}/p"))["status"] == {"observedGeneration": 1, "typeChecking": {}}


async def test_a_policy_of_many_expressions_is_compiled_beside_the_loop_and_judged_as_any_other() -> None:
    fine = [f"object.data.k != '{number}'" for number in range(20)]
    async with running_server() as server:
        await server.made(VALIDATING, validating("fine", *fine))
        code, answer = await server.call("POST", VALIDATING, validating("bad", *fine, "object.data.k ==", "1"))
        assert code == 422
        fields = [cause["field"] for cause in answer["details"]["causes"]]
        assert fields == ["spec.validations[20].expression", "spec.validations[21].expression"]
        await server.made(VALIDATING_BINDINGS, binding("fine"))
        assert await refusal(server, config_map(k="7")) == "failed expression: object.data.k != '7'"


async def test_a_stored_policy_that_no_longer_compiles_is_refused_by_its_failure_policy() -> None:
    store = MemoryStore()
    async with running_server(store) as server:
        await server.made(VALIDATING, validating("p", "object.data.k == 'v'", failurePolicy="Fail"))
        await server.made(VALIDATING_BINDINGS, binding())
        key = "/registry/admissionregistration.k8s.io/validatingadmissionpolicies/p"
        stored = await store.get(key)
        assert stored is not None
        await rewrite(server, store, key, stored.value.replace(b"object.data.k == 'v'", b"object.data.k = 'v'"))
        told = await refusal(server)
        assert told.startswith("compilation error: compilation failed: ERROR: <input>:1:15: Syntax error: ")
        await rewrite(server, store, key, stored.value.replace(b'"Fail"', b'"Ignore"').replace(b"== 'v'", b"= 'v'"))
        assert await refusal(server) == ""
        await rewrite(server, store, key, stored.value)
        assert await refusal(server, config_map(k="w")) == "failed expression: object.data.k == 'v'"


async def rewrite(server: Server, store: MemoryStore, key: str, value: bytes) -> None:
    await server.assembled.cache.wait_for(await store.commit([Operation(key, value)]))


DEAR = "'0123456789'.split('').all(a, '0123456789'.split('').all(b, a + b != ''))"
SPENT = "validation failed due to running out of cost budget, no further validation rules will be run"


async def test_validations_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.apiserver.policies.validating.POLICY_LIMIT", 5_000)
    merge = {"content_type": "application/merge-patch+json"}
    async with running_server() as server:
        await server.made(VALIDATING, validating("p", *[f"{DEAR} || {number} == 0" for number in range(9)]))
        await server.made(VALIDATING_BINDINGS, binding())
        assert await refusal(server) == SPENT
        await server.call("PATCH", f"{VALIDATING}/p", {"spec": {"failurePolicy": "Ignore"}}, **merge)
        assert await refusal(server) == ""


async def test_messages_are_paid_from_what_validations_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.apiserver.policies.validating.POLICY_LIMIT", 300)
    async with running_server() as server:
        policy = validating("p", {"expression": "object.data.k == 'v'", "messageExpression": f"string({DEAR})"})
        await server.made(VALIDATING, policy)
        await server.made(VALIDATING_BINDINGS, binding())
        assert await refusal(server) == ""
        assert await refusal(server, config_map(k="w")) == f"failed messageExpression: {SPENT}"


async def test_match_conditions_have_a_budget_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.apiserver.policies.conditions.MATCH_CONDITIONS_LIMIT", 300)
    conditions = [{"name": "dear", "expression": DEAR}]
    async with running_server() as server:
        await server.made(VALIDATING, validating("p", "true", matchConditions=conditions))
        await server.made(VALIDATING_BINDINGS, binding())
        assert await refusal(server) == SPENT


async def test_a_mutation_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.apiserver.policies.mutating.POLICY_LIMIT", 300)
    async with running_server() as server:
        await server.made(MUTATING, mutating("m", f"Object{{data: {{'x': string({DEAR})}}}}"))
        await server.made(MUTATING_BINDINGS, binding("m", "bm", []))
        assert await refusal(server) == SPENT
