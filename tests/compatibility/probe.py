"""What each built-in kind can do, found out by asking: writes the compatibility table in docs/compatibility.md.

Every kind of a version is created, read, listed, watched, updated, patched in four ways, applied, deleted; its status and
scale are written; bad objects are offered to it. Each answer is checked for what upstream promises of that verb. A
cell of the table is `done`, `refused` (discovery does not offer the verb, and the server refuses it with 405), or
`differs: why`.

Run: python tests/compatibility/probe.py > docs/compatibility.md
"""

from __future__ import annotations

import asyncio
import base64
import copy
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "unit" / "apiserver"))

from assembled_server import Server, running_server  # noqa: E402

from tiphys.api.kind import Kind  # noqa: E402
from tiphys.wire.message import Stream  # noqa: E402

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
PROBE_LABEL = "compatibility.example.com/probe"
NEWEST = (1, 37)
OLDEST = (1, 25)


class Differs(AssertionError):
    """An answer is not what upstream promises."""


class Recorder:
    """A sink that keeps what a watch sends."""

    def __init__(self) -> None:
        self.data = b""
        self.grown = asyncio.Event()

    def send(self, data: bytes) -> None:
        self.data += data
        self.grown.set()

    def pending_bytes(self) -> int:
        return 0

    def close(self) -> None:
        pass

    async def drain(self) -> None:
        """Nothing is ever waiting."""

    def events(self) -> list[tuple[str, str]]:
        """Return (type, name) of the events."""
        lines = [orjson.loads(line) for line in self.data.splitlines() if line]
        return [(line["type"], line["object"]["metadata"].get("name", "")) for line in lines]


def need(truth: object, why: str) -> None:
    """Raise Differs unless it is so."""
    if not truth:
        raise Differs(why)


@lru_cache(maxsize=1)
def _keys() -> Mapping[str, str]:
    """Return a certificate and requests for kinds that hold them, as their fields hold them."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "probe")])
    begin = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA256())
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    stub = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    return {
        "CERTIFICATE": certificate.public_bytes(pem).decode(),
        "CERTIFICATE_REQUEST": base64.b64encode(request.public_bytes(pem)).decode(),
        "STUB_REQUEST": base64.b64encode(stub.public_bytes(der)).decode(),
    }


@lru_cache(maxsize=1)
def samples() -> Mapping[str, dict[str, Any]]:
    """Return the samples of samples.yaml with keys in place of their names."""
    text = (HERE / "samples.yaml").read_text()
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(text)

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return _keys().get(value, value) if isinstance(value, str) else value

    return {key: fill(value) for key, value in loaded.items()}


def resource_of(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def sample(kind: Kind) -> dict[str, Any]:
    """Return a fresh valid object of a kind. Raises KeyError when samples.yaml has none."""
    known = samples()
    resource = resource_of(kind)
    body = copy.deepcopy(known.get(f"{resource}/{kind.version}") or known[resource])
    metadata = {"name": "probe", "labels": {PROBE_LABEL: "made"}, **body.pop("metadata", {})}
    if kind.plural == "events" and kind.group:
        metadata["namespace"] = "default"
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **body}


class Probe:
    """Asks one kind for everything. Methods are named after the columns of the table."""

    def __init__(self, server: Server, kind: Kind) -> None:
        self.server = server
        self.kind = kind
        root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        self.list_path = f"{root}/namespaces/default/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
        self.obj = sample(kind)
        self.name = self.obj["metadata"]["name"]
        self.path = f"{self.list_path}/{self.name}"

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        status, answer = await self.server.call(method, path, body, **more)
        need(status in (200, 201), f"{method} answered {status}: {answer}")
        return answer

    async def refused(self, code: int, reason: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        status, answer = await self.server.call(method, path, body, **more)
        got = answer.get("reason") if isinstance(answer, dict) else answer
        need((status, got) == (code, reason), f"{method} answered {status} {got}, not {code} {reason}")
        return answer

    async def create(self) -> None:
        dry = await self.ask("POST", f"{self.list_path}?dryRun=All", self.obj)
        need(dry["metadata"]["name"] == self.name, "a dry run answers with the object")
        await self.refused(404, "NotFound", "GET", self.path)
        made = await self.ask("POST", self.list_path, self.obj)
        metadata = made["metadata"]
        need(made["kind"] == self.kind.kind and made["apiVersion"] == self.kind.api_version, "the kind is named")
        need(all(metadata.get(k) for k in ("uid", "resourceVersion", "creationTimestamp")), "the server's metadata")
        owners = [(m["operation"], m["apiVersion"]) for m in metadata.get("managedFields", ())]
        need(len(owners) == 1 and owners[0][0] == "Update", "the fields have an owner")
        await self.refused(409, "AlreadyExists", "POST", self.list_path, self.obj)

    async def get(self) -> None:
        got = await self.ask("GET", self.path)
        need(got["metadata"]["name"] == self.name, "the object of that name")
        missing = await self.refused(404, "NotFound", "GET", f"{self.list_path}/absent")
        resource = resource_of(self.kind)
        need(missing["message"] == f'{resource} "absent" not found', missing["message"])
        headers = {"accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
        partial = await self.ask("GET", self.path, headers=headers)
        need(partial["kind"] == "PartialObjectMetadata" and "spec" not in partial, "metadata alone")

    async def list(self) -> None:
        got = await self.ask("GET", f"{self.list_path}?limit=500")
        need(got["kind"] == f"{self.kind.kind}List" and got["metadata"]["resourceVersion"], "a list with its revision")
        need(self.name in [item["metadata"]["name"] for item in got["items"]], "the object is listed")
        one = await self.ask("GET", f"{self.list_path}?fieldSelector=metadata.name%3D{self.name}")
        need([item["metadata"]["name"] for item in one["items"]] == [self.name], "one is selected")
        none = await self.ask("GET", f"{self.list_path}?labelSelector=absent%3Dx")
        need(none["items"] == [], "none is selected")
        await self.refused(400, "BadRequest", "GET", f"{self.list_path}?fieldSelector=absent%3Dx")
        headers = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        table = await self.ask("GET", self.list_path, headers=headers)
        width = len(table["columnDefinitions"])
        need(table["kind"] == "Table" and all(len(r["cells"]) == width for r in table["rows"]), "a table")

    async def watch(self) -> None:
        before = (await self.ask("GET", self.list_path))["metadata"]["resourceVersion"]
        answer = await self.server.answer("GET", f"{self.list_path}?watch=true&resourceVersion={before}")
        need(isinstance(answer, Stream), "a watch is a stream")
        assert isinstance(answer, Stream)
        sink = Recorder()
        stop = answer.start(sink)
        try:
            patch = {"metadata": {"labels": {PROBE_LABEL: "watched"}}}
            await self.ask("PATCH", self.path, patch, content_type=MERGE)
            async with asyncio.timeout(5):
                while ("MODIFIED", self.name) not in sink.events():
                    sink.grown.clear()
                    await sink.grown.wait()
        finally:
            stop()

    async def update(self) -> None:
        current = await self.ask("GET", self.path)
        stale = copy.deepcopy(current)
        current["metadata"].setdefault("labels", {})[PROBE_LABEL] = "updated"
        updated = await self.ask("PUT", self.path, current)
        need(updated["metadata"]["labels"][PROBE_LABEL] == "updated", "the change is there")
        need(updated["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"], "a new revision")
        stale["metadata"].setdefault("labels", {})[PROBE_LABEL] = "stale"
        await self.refused(409, "Conflict", "PUT", self.path, stale)

    async def patch(self) -> None:
        await self._patch(MERGE, {"metadata": {"labels": {PROBE_LABEL: "merged"}}}, "merged")
        pointer = "/metadata/labels/" + PROBE_LABEL.replace("/", "~1")
        await self._patch(JSON_PATCH, [{"op": "replace", "path": pointer, "value": "replaced"}], "replaced")
        await self._patch(STRATEGIC, {"metadata": {"labels": {PROBE_LABEL: "strategic"}}}, "strategic")
        failing = [{"op": "test", "path": pointer, "value": "else"}]
        await self.refused(422, "Invalid", "PATCH", self.path, failing, content_type=JSON_PATCH)

    async def _patch(self, content_type: str, body: Any, expected: str) -> None:
        patched = await self.ask("PATCH", self.path, body, content_type=content_type)
        need(patched["metadata"]["labels"][PROBE_LABEL] == expected, f"{content_type} changes the label")

    async def apply(self) -> None:
        body = {
            "apiVersion": self.kind.api_version,
            "kind": self.kind.kind,
            "metadata": {"name": self.name, "annotations": {"applied": "yes"}},
        }
        path = f"{self.path}?fieldManager=probe"
        applied = await self.ask("PATCH", path, body, content_type=APPLY)
        managers = [(m["manager"], m["operation"]) for m in applied["metadata"]["managedFields"]]
        need(("probe", "Apply") in managers, "the manager owns what it applied")
        body["metadata"] = {"name": self.name}
        removed = await self.ask("PATCH", path, body, content_type=APPLY)
        need("applied" not in removed["metadata"].get("annotations", {}), "what is given up is removed")

    async def delete(self) -> None:
        await self.refused(409, "Conflict", "DELETE", self.path, {"preconditions": {"uid": "another"}})
        await self.ask("DELETE", f"{self.path}?dryRun=All")
        await self.ask("DELETE", f"{self.path}?gracePeriodSeconds=0")
        await self._gone()

    async def _gone(self) -> None:
        """Take away what finalizers hold, as the controllers that are not here would."""
        status, left = await self.server.call("GET", self.path)
        if status == 200:
            need(left["metadata"].get("deletionTimestamp"), "a deleted object is gone or going")
            # a controller of this server may be faster
            await self.server.call("PATCH", self.path, {"metadata": {"finalizers": None}}, content_type=MERGE)
            if self.kind.plural == "namespaces":
                left["spec"]["finalizers"] = []
                left["metadata"].pop("resourceVersion")
                await self.ask("PUT", f"{self.path}/finalize", left)
        await self.refused(404, "NotFound", "GET", self.path)

    async def deletecollection(self) -> None:
        await self.ask("POST", self.list_path, self.obj)
        selected = f"{self.list_path}?fieldSelector=metadata.name%3D{self.name}&gracePeriodSeconds=0"
        await self.ask("DELETE", selected)
        await self._gone()

    async def validation(self) -> None:
        unknown = {**self.obj, "surprise": 1, "metadata": {**self.obj["metadata"], "name": self.name}}
        path = f"{self.list_path}?dryRun=All"
        answer = await self.refused(400, "BadRequest", "POST", f"{path}&fieldValidation=Strict", unknown)
        need('unknown field "surprise"' in answer["message"], answer["message"])
        await self.refused(400, "BadRequest", "POST", path, {**self.obj, "metadata": {"name": 5}})
        bad = {**self.obj, "metadata": {**self.obj["metadata"], "name": "-/-"}}
        answer = await self.refused(422, "Invalid", "POST", path, bad)
        need(answer["details"]["causes"], "an invalid object has causes")
        await self.refused(400, "BadRequest", "POST", path, {**self.obj, "kind": "Wrong"})

    async def status(self) -> None:
        body = {"metadata": {"annotations": {"from": "status"}}}
        patched = await self.ask("PATCH", f"{self.path}/status", body, content_type=MERGE)
        need(patched["kind"] == self.kind.kind, "the object is answered")
        current = await self.ask("GET", f"{self.path}/status")
        spec = current.get("spec")
        if isinstance(spec, dict) and spec:
            changed = await self.ask("PUT", f"{self.path}/status", {**current, "spec": {}})
            need(changed.get("spec") == spec, "a write of the status leaves the spec alone")

    async def scale(self) -> None:
        got = await self.ask("GET", f"{self.path}/scale")
        need((got["kind"], got["apiVersion"]) == ("Scale", "autoscaling/v1"), "a Scale")
        got["spec"]["replicas"] = 2
        put = await self.ask("PUT", f"{self.path}/scale", got)
        need(put["spec"]["replicas"] == 2, "replicas are set")
        patched = await self.ask("PATCH", f"{self.path}/scale", {"spec": {"replicas": 3}}, content_type=MERGE)
        need(patched["spec"]["replicas"] == 3, "replicas are patched")
        body = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": self.name},
            "spec": {"replicas": 4},
        }
        path = f"{self.path}/scale?fieldManager=scaler&force=true"
        applied = await self.ask("PATCH", path, body, content_type=APPLY)
        need(applied["spec"]["replicas"] == 4, "replicas are applied")
        current = await self.ask("GET", self.path)
        owners = [m for m in current["metadata"]["managedFields"] if m["manager"] == "scaler"]
        need(owners and owners[0].get("subresource") == "scale", "the applier owns replicas by way of scale")


VERBS = ("create", "get", "list", "watch", "update", "patch", "apply", "validation", "status", "scale", "delete")
COLUMNS = (*VERBS, "deletecollection")
_METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}


def offered(kind: Kind, column: str) -> bool:
    """Return whether discovery offers what a column asks for."""
    if column in ("status", "scale"):
        return kind.subresource(column) is not None
    verb = {"apply": "patch", "validation": "create"}.get(column, column)
    return verb in kind.verbs


async def probe(server: Server, kind: Kind) -> dict[str, str]:
    """Return column -> cell for one stored kind."""
    asked = Probe(server, kind)
    cells: dict[str, str] = {}
    for column in COLUMNS:
        method: Callable[[], Awaitable[None]] = getattr(asked, column)
        if not offered(kind, column):
            cells[column] = "" if column in ("status", "scale") else "refused"
            continue
        try:
            await method()
            cells[column] = "done"
        except Differs as error:
            cells[column] = f"differs: {error}"
        except (KeyError, TypeError, TimeoutError) as error:
            cells[column] = f"differs: {type(error).__name__} {error}"
    return cells


def stored_kinds(server: Server) -> list[Kind]:
    return [kind for kind in server.assembled.kinds.all() if not kind.virtual and "create" in kind.verbs]


async def table(version: tuple[int, int]) -> dict[str, dict[str, str]]:
    """Return `resource version` -> column -> cell for every stored kind of a Kubernetes version."""
    async with running_server(version=version) as server:
        return {f"{resource_of(kind)} {kind.version}": await probe(server, kind) for kind in stored_kinds(server)}


HEAD = """# Compatibility

What every stored kind answers, found out by a program: `python tests/compatibility/probe.py > docs/compatibility.md`
asks a server of the newest version for each verb, checks what upstream promises of it, and writes this table; a test
compares them, and asks the oldest version too. `done`: as upstream; `refused`: upstream does not offer it either;
anything else says what differs. `validation` offers unknown fields, wrong types, bad names and wrong kinds; `get` and
`list` include partial metadata, tables and selectors; `patch` is JSON patch, merge patch and strategic merge patch.
What is not an object's own verb (logs, exec, proxies, reviews, tokens, eviction, binding) has tests of its own in
`tests/clients` and `tests/unit/apiserver`.

"""


def render(cells: Mapping[str, Mapping[str, str]]) -> str:
    """Return the document."""
    lines = [f"| resource | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(row[column] for column in COLUMNS)} |" for name, row in sorted(cells.items())]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(asyncio.run(table(NEWEST))), end="")
