"""HTTP behaviour as data: each case of tests/golden/api/http is a short conversation with a fresh server.

A case is `name` and `steps`; a step is `request` ("METHOD path"), optional `body`, `raw`, `type`, `headers`, `user`,
the expected `status`, and the parts of the answer that matter: `answer` (a subset; lists whole, `~text` for "contains"),
`text` (the whole body), `absent` (dotted paths), `sent` (answer headers, `~text` for "contains"). `$name` in a path or
body stands for what an earlier step kept with `keep: {name: dotted.path}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from assembled_server import Server, running_server

from tiphys.wire.message import Response

FOLDER = Path(__file__).parents[2] / "golden" / "api" / "http"
CASES = [
    pytest.param(case, id=f"{file.stem}: {case['name']}")
    for file in sorted(FOLDER.glob("*.yaml"))
    for case in yaml.safe_load(file.read_text())
]


@pytest.mark.parametrize("case", CASES)
async def test_conversation(case: dict[str, Any]) -> None:
    async with running_server() as server:
        kept: dict[str, Any] = {}
        for number, step in enumerate(case["steps"], 1):
            where = f"step {number}: {step['request']}"
            answer, data = await ask(server, step, kept)
            shown = data.decode("utf-8", "replace")[:2000]
            assert answer.status == step.get("status", 200), f"{where}: {shown}"
            if "text" in step:
                assert data.decode() == step["text"], where
            body = orjson.loads(data) if data[:1] in (b"{", b"[") else None
            problems = list(differences(substituted(step.get("answer", {}), kept), body or {}, ""))
            assert not problems, f"{where}: {problems} in {shown}"
            for path in step.get("absent", ()):
                assert at(body, path) is None, f"{where}: {path} is there: {shown}"
            headers = {name.lower(): value for name, value in answer.headers} | {"content-type": answer.content_type}
            problems = list(differences({k.lower(): v for k, v in step.get("sent", {}).items()}, headers, "headers"))
            assert not problems, f"{where}: {problems}"
            kept |= {name: at(body, path) for name, path in step.get("keep", {}).items()}


async def ask(server: Server, step: dict[str, Any], kept: dict[str, Any]) -> tuple[Response, bytes]:
    method, path = substituted(step["request"], kept).split(" ", 1)
    body: Any = substituted(step.get("body"), kept)
    if "raw" in step:
        body = str(step["raw"]).encode()
    answer = await server.answer(
        method,
        path,
        body,
        user=step.get("user", "admin"),
        headers=step.get("headers"),
        content_type=step.get("type", "application/json"),
    )
    assert isinstance(answer, Response)
    return answer, answer.body_bytes()


def substituted(value: Any, kept: dict[str, Any]) -> Any:
    if isinstance(value, str):
        for name, known in kept.items():
            value = value.replace(f"${name}", str(known))
        return value
    if isinstance(value, list):
        return [substituted(item, kept) for item in value]
    if isinstance(value, dict):
        return {key: substituted(item, kept) for key, item in value.items()}
    return value


def at(value: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(value, list):
            value = value[int(part)] if int(part) < len(value) else None
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            return None
    return value


def differences(wanted: Any, got: Any, path: str) -> Any:
    """Yield where `got` lacks what is wanted."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key, value in wanted.items():
            yield from differences(value, got.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for index, value in enumerate(wanted):
            yield from differences(value, got[index], f"{path}[{index}]")
    elif isinstance(wanted, str) and wanted.startswith("~"):
        if wanted[1:] not in str(got):
            yield f"{path}: {got!r} has no {wanted[1:]!r}"
    elif wanted != got:
        yield f"{path}: {got!r}, not {wanted!r}"


async def test_a_question_has_no_table() -> None:
    async with running_server() as server:
        body = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
        headers = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        status, answer = await server.call("POST", path, body, headers=headers)
        assert (status, answer["reason"]) == (406, "NotAcceptable")


async def test_the_store_tells_its_health_as_a_component() -> None:
    async with running_server() as server:
        listed = await server.named("/api/v1/componentstatuses")
        assert [(c["metadata"]["name"], c["conditions"][0]["status"]) for c in listed["items"]] == [("etcd-0", "True")]
        assert (await server.named("/api/v1/componentstatuses/etcd-0"))["kind"] == "ComponentStatus"
        assert (await server.call("GET", "/api/v1/componentstatuses/gone"))[0] == 404
        assert (await server.call("POST", "/api/v1/componentstatuses", {"metadata": {"name": "x"}}))[0] == 405
        headers = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        table = (await server.call("GET", "/api/v1/componentstatuses", headers=headers))[1]
        assert table["rows"][0]["cells"] == ["etcd-0", "Healthy", "ok", ""]
