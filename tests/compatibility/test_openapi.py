"""The server against its own OpenAPI v3 document: whatever the document allows or forbids, no request is answered with a
failure of the server, every refusal is a Status that says why, and every success has the form that the document tells.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "apiserver"))

from assembled_server import Server, running_server
from openapi_bodies import Bodies
from probe import sample, stored_kinds

from tiphys.api.kind import Kind

REFUSALS = {400, 403, 404, 405, 406, 409, 413, 415, 422}
BODIES = 4
"""Bodies of each sort for each kind."""


class Document:
    """The OpenAPI v3 document of one group version, as the server publishes it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.paths: Mapping[str, Any] = document["paths"]
        components = document["components"]["schemas"]
        # what holds objects of any kind holds any JSON, whatever the document says
        self.components: Mapping[str, Any] = {
            n: {} if n.endswith(".RawExtension") else c for n, c in components.items()
        }

    def operation(self, path: str, method: str) -> Mapping[str, Any]:
        operation: Mapping[str, Any] = self.paths[path][method]
        return operation

    def check(self, answer: Any, schema: Mapping[str, Any]) -> None:
        """Fail when an answer has not the form of a schema."""
        root = {**schema, "components": {"schemas": self.components}}
        errors = jsonschema.Draft4Validator(root).iter_errors(without_nulls(answer))
        error = jsonschema.exceptions.best_match(error for error in errors if not is_empty_list(error))
        assert error is None, f"{answer['kind']} {error.json_path}: {error.message}"


def is_empty_list(error: jsonschema.ValidationError) -> bool:
    """Return whether what is missing is a list: a required list that is empty may be null or absent."""
    if error.validator != "required":
        return False
    missing = [name for name in error.validator_value if name not in error.instance]
    return all(error.schema["properties"][name].get("type") == "array" for name in missing)


def without_nulls(value: Any) -> Any:
    """Return a value without the nulls that stand for absent times and lists, which the document does not tell."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


async def document_of(server: Server, kind: Kind) -> Document:
    group = f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"
    return Document(await server.named(f"/openapi/v3/{group}"))


def collection(kind: Kind) -> str:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    return f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"


def check_refusal(status: int, answer: Any, about: str) -> None:
    assert status in REFUSALS, f"{about}: {status} {answer}"
    assert isinstance(answer, dict), f"{about}: {answer}"
    assert answer["kind"] == "Status" and answer["status"] == "Failure" and answer["message"], f"{about}: {answer}"
    assert answer["code"] == status and answer["reason"], f"{about}: {answer}"
    assert not re.search(r"Traceback|KeyError|TypeError|AttributeError|'NoneType'", answer["message"]), answer


@pytest.mark.parametrize("seed", range(3))
async def test_no_body_is_answered_with_a_failure_of_the_server(seed: int) -> None:
    async with running_server() as server:
        for kind in stored_kinds(server):
            document = await document_of(server, kind)
            path = collection(kind)
            operation = document.operation(path, "post")
            (body,) = list(operation["requestBody"]["content"].values())[:1]
            bodies = Bodies(document.components, seed)
            good = sample(kind)
            head = {"apiVersion": kind.api_version, "kind": kind.kind}
            tries: list[Any] = []
            for number in range(BODIES):
                made = {**bodies.allowed(body["schema"]), **head}
                named = {**made, "metadata": {"name": f"n{number}"}}
                tries += [
                    made,
                    named,
                    bodies.broken(named),
                    bodies.broken(good),
                    {**good, "metadata": made.get("metadata")},
                ]
            for tried in tries:
                text = json.dumps(tried)
                where = path.replace("{namespace}", "default") + "?dryRun=All"
                status, answer = await server.call("POST", where, text.encode())
                about = f"{kind.api_version} {kind.kind} {text[:2000]}"
                if status == 201:
                    document.check(answer, operation["responses"]["201"]["content"]["application/json"]["schema"])
                else:
                    check_refusal(status, answer, about)


@pytest.mark.parametrize("content_type", ["application/merge-patch+json", "application/strategic-merge-patch+json"])
async def test_no_patch_is_answered_with_a_failure_of_the_server(content_type: str) -> None:
    async with running_server() as server:
        for kind in stored_kinds(server):
            document = await document_of(server, kind)
            path = collection(kind).replace("{namespace}", "default")
            schema = document.operation(collection(kind), "post")["requestBody"]["content"]
            bodies = Bodies(document.components, 5)
            good = sample(kind)
            await server.made(path, good)
            schema = next(iter(schema.values()))["schema"]
            for _ in range(BODIES):
                patch = {
                    name: value for name, value in bodies.allowed(schema).items() if name not in ("apiVersion", "kind")
                }
                for tried in (patch, bodies.broken(patch)):
                    where = f"{path}/{good['metadata']['name']}?dryRun=All"
                    status, answer = await server.call(
                        "PATCH", where, json.dumps(tried).encode(), content_type=content_type
                    )
                    if status != 200:
                        check_refusal(status, answer, f"{kind.kind} {tried}")
            await server.call("DELETE", f"{path}/{good['metadata']['name']}?gracePeriodSeconds=0")


async def test_lists_and_objects_have_the_published_form() -> None:
    async with running_server() as server:
        for kind in stored_kinds(server):
            document = await document_of(server, kind)
            path = collection(kind).replace("{namespace}", "default")
            made = await server.made(path, sample(kind))
            answers = document.operation(collection(kind), "get")["responses"]["200"]["content"]
            document.check(await server.named(path), answers["application/json"]["schema"])
            one = document.operation(f"{collection(kind)}/{{name}}", "get")["responses"]["200"]["content"]
            where = f"{path}/{made['metadata']['name']}"
            document.check(await server.named(where), one["application/json"]["schema"])
            await server.call("DELETE", f"{where}?gracePeriodSeconds=0")
