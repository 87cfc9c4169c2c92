"""A client of the REST API made of the standard library only: what the wire says, with no client library between.

`Api` sends one request at a time over a kept connection and returns `Answer`s; a `Watch` has a connection of its own.
Nothing sleeps: whoever waits for a state of an object reads a watch of it until the state is there.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

TIMEOUT_S = 60.0
IDLE_S = 60.0
"""A connection that was not used for so long is opened anew: servers close idle ones."""
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""

    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Access:
    """Where the server is and who asks."""

    host: str
    port: int
    context: ssl.SSLContext

    @classmethod
    def of_kubeconfig(cls, path: Path) -> Access:
        """Read the kubeconfig's first cluster and user; the key passes through a file of a moment."""
        config = yaml.safe_load(path.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        data = {
            name: base64.b64decode(holder[f"{name}-data"]).decode()
            for name, holder in (
                ("certificate-authority", cluster),
                ("client-certificate", user),
                ("client-key", user),
            )
        }
        context = ssl.create_default_context(cadata=data["certificate-authority"])
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
            pair.write(data["client-certificate"] + data["client-key"])
            pair.flush()
            context.load_cert_chain(pair.name)
        address = urlsplit(cluster["server"])
        assert address.hostname is not None
        assert address.port is not None
        return cls(address.hostname, address.port, context)

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, self.port, timeout=TIMEOUT_S, context=self.context)


class Watch:
    """A watch under way; `with` ends it."""

    def __init__(self, connection: http.client.HTTPSConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()
        self._connection.close()

    def next(self) -> tuple[str, Json]:
        """Return type and object of the next event; fails the test when the watch ends or says nothing."""
        line = self._response.readline()
        assert line, "the watch ended"
        event = json.loads(line)
        return event["type"], event["object"]

    def __iter__(self) -> Iterator[tuple[str, Json]]:
        while line := self._response.readline():
            event = json.loads(line)
            yield event["type"], event["object"]

    def until(self, holds: Callable[[str, Json], bool]) -> Json:
        """Return the object of the first event that holds."""
        while True:
            kind, thing = self.next()
            assert kind != "ERROR", thing
            if holds(kind, thing):
                return thing


class Api:
    """The server, as one user sees it."""

    def __init__(self, access: Access, headers: Mapping[str, str] | None = None) -> None:
        self.access = access
        self.headers = dict(headers or {})
        self._connection = access.connect()
        self._used_s = time.monotonic()

    def close(self) -> None:
        self._connection.close()

    def acting_as(self, user: str, *groups: str) -> Api:
        """Return the same server for another user; the caller closes it."""
        return Api(self.access, {"Impersonate-User": user, **({"Impersonate-Group": groups[0]} if groups else {})})

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request; a body that is neither bytes nor str goes as JSON."""
        data = (
            body if isinstance(body, bytes | None) else (body if isinstance(body, str) else json.dumps(body)).encode()
        )
        target = f"{path}?{urlencode(query)}" if query else path
        sent = {"Accept": "application/json", **({"Content-Type": "application/json"} if data else {})}
        if time.monotonic() - self._used_s > IDLE_S:
            self._connection.close()  # the server may have closed it too; the next request opens it again
        try:
            self._connection.request(method, target, data, {**sent, **self.headers, **(headers or {})})
            response = self._connection.getresponse()
            answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except Exception:
            self._connection.close()
            raise
        self._used_s = time.monotonic()
        return answer

    def _good(self, method: str, path: str, body: Any = None, **options: Any) -> Json:
        kind = options.pop("type", "")
        if kind:
            options["headers"] = {"Content-Type": kind, **options.get("headers", {})}
        answer = self.ask(method, path, body, options.pop("query", None), options.pop("headers", None))
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {answer.body.decode()}"
        assert not options, options
        made: Json = answer.json
        return made

    def get(self, path: str, **query: Any) -> Json:
        return self._good("GET", path, query=query)

    def create(self, path: str, body: Any, **query: Any) -> Json:
        return self._good("POST", path, body, query=query)

    def replace(self, path: str, body: Any, **query: Any) -> Json:
        return self._good("PUT", path, body, query=query)

    def change(self, path: str, edit: Callable[[Json], None], subresource: str = "") -> Json:
        """Read an object, edit it and put it back, again and again while others write between."""
        target = f"{path}/{subresource}" if subresource else path
        while True:
            thing = self.get(path)
            edit(thing)
            answer = self.ask("PUT", target, thing)
            if answer.status != 409:
                assert answer.status == 200, f"PUT {target}: {answer.status} {answer.body.decode()}"
                made: Json = answer.json
                return made

    def patch(self, path: str, body: Any, kind: str = MERGE, **query: Any) -> Json:
        return self._good("PATCH", path, body, type=kind, query=query)

    def delete(self, path: str, options: Json | None = None, **query: Any) -> Json:
        return self._good("DELETE", path, options, query=query)

    def refused(self, method: str, path: str, body: Any = None, *, code: int, kind: str = "", **query: Any) -> Json:
        """Return the Status of a request that must fail with this code."""
        answer = self.ask(method, path, body, query, {"Content-Type": kind} if kind else None)
        assert answer.status == code, f"{method} {path}: {answer.status} {answer.body.decode()}"
        status: Json = answer.json
        assert status["kind"] == "Status"
        assert status["code"] == code
        return status

    def is_there(self, path: str) -> bool:
        status = self.ask("GET", path).status
        assert status in (200, 404), status
        return status == 200

    def watch(self, path: str, **query: Any) -> Watch:
        """Begin a watch on a connection of its own."""
        return self._begin_watch(self.access.connect(), f"{path}?{urlencode({'watch': 'true', **query})}")

    def _begin_watch(self, connection: http.client.HTTPSConnection, target: str) -> Watch:
        connection.request("GET", target, headers=self.headers)
        response = connection.getresponse()
        assert response.status == 200, f"watch {target}: {response.status} {response.read().decode()}"
        return Watch(connection, response)

    def wait(self, path: str, holds: Callable[[Json], Any]) -> Json:
        """Return the object at a path as soon as it is there and something holds of it."""
        collection, _, name = path.rpartition("/")
        with self.watch(collection, fieldSelector=f"metadata.name={name}") as events:
            return events.until(lambda kind, thing: kind != "DELETED" and bool(holds(thing)))

    def wait_until_gone(self, path: str) -> None:
        """Return when no object is at the path."""
        collection, _, name = path.rpartition("/")
        listed = self.get(collection, fieldSelector=f"metadata.name={name}")
        if listed["items"]:
            revision = listed["metadata"]["resourceVersion"]
            with self.watch(collection, fieldSelector=f"metadata.name={name}", resourceVersion=revision) as events:
                events.until(lambda kind, _: kind == "DELETED")


def soon(check: Callable[[], Any], limit_s: float = TIMEOUT_S) -> Any:
    """Return the first true value; for what no watch tells of (documents, metrics)."""
    end = time.monotonic() + limit_s
    while not (value := check()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return value


def names(listed: Json) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]
