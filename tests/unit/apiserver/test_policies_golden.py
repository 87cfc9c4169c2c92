"""Every case of tests/golden/policies: policies, bindings and one request in, the server's answer out.

`validating` and `mutating` are policies by name (their spec, with ConfigMaps as the default constraint), `bindings` are
bindings by name (without them, one for each policy), `objects` other things made before, by the path of their
collection. Without `request` a ConfigMap is made. The answer shows code, message, reason and warnings, or the parts
that `show` names. `TIPHYS_UPDATE_GOLDEN=1` (with -n0) rewrites the answers; read the difference before keeping it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from assembled_server import Server, running_server
from policy_objects import (
    CONFIG_MAPS,
    MUTATING,
    MUTATING_BINDINGS,
    VALIDATING,
    VALIDATING_BINDINGS,
    binding,
    config_map,
    mutating,
    validating,
)

from tiphys.wire.message import Response

DIRECTORY = Path(__file__).parents[2] / "golden" / "policies"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _load(path: Path) -> list[dict[str, Any]]:
    return list(yaml.load(path.read_text(), Loader=LOADER))


def _store(path: Path, cases: list[dict[str, Any]]) -> None:
    path.write_text(yaml.safe_dump(cases, sort_keys=False, width=110, allow_unicode=True))


def _cases() -> list[Any]:
    return [
        pytest.param(path, index, id=f"{path.stem}: {case['case']}")
        for path in sorted(DIRECTORY.glob("*.yaml"))
        for index, case in enumerate(_load(path))
    ]


async def _prepare(server: Server, case: dict[str, Any]) -> None:
    for made in case.get("objects", ()):
        await server.made(made["path"], made["body"])
    for kind, make, policies, bindings, actions in (
        ("validating", validating, VALIDATING, VALIDATING_BINDINGS, None),
        ("mutating", mutating, MUTATING, MUTATING_BINDINGS, []),
    ):
        names = list(case.get(kind, {}))
        for name in names:
            await server.made(policies, make(name, **case[kind][name]))
        if names:
            given = case.get("bindings") or {f"of-{name}": {"policyName": name} for name in names}
            for name, spec in given.items():
                spec = {"policyName": names[0], **spec}
                await server.made(bindings, binding(name=name, actions=actions, policy=spec.pop("policyName"), **spec))


async def _answer(server: Server, case: dict[str, Any]) -> dict[str, Any]:
    request = case.get("request") or {}
    answer = await server.answer(
        request.get("method", "POST"),
        request.get("path", CONFIG_MAPS),
        request.get("body", config_map(k="v") if "method" not in request else None),
        user=request.get("user", "admin"),
        content_type=request.get("type", "application/json"),
    )
    assert isinstance(answer, Response)
    # the volume of a token has a name of its own each time: it depends on all that was made before
    obj = orjson.loads(re.sub(rb"kube-api-access-[a-z0-9]{5}", b"kube-api-access-SOME", answer.body_bytes()))
    told: dict[str, Any] = {"code": answer.status}
    if obj["kind"] == "Status" and "message" in obj:
        told |= {"message": obj["message"], "reason": obj.get("reason")}
    for path in case.get("show", ()) if answer.status < 400 else ():
        value = obj
        for step in path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        told[path] = value
    warnings = [text for name, text in answer.headers if name == "Warning"]
    return told | ({"warnings": warnings} if warnings else {})


@pytest.mark.parametrize(("path", "index"), _cases())
async def test_golden(path: Path, index: int) -> None:
    cases = _load(path)
    async with running_server() as server:
        await _prepare(server, cases[index])
        answer = await _answer(server, cases[index])
    if os.environ.get("TIPHYS_UPDATE_GOLDEN"):
        cases[index]["answer"] = answer
        _store(path, cases)
    assert answer == cases[index].get("answer")
