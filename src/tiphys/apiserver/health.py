"""/livez, /readyz and /healthz: named checks, told the way probes and people read them.

Decides which checks belong to which endpoint and the text of the answers. A check returns "" or what is wrong; the
reason goes to the log, never to the client, because these paths are open to everybody. What a start has to finish is a
check too (`poststarthook/...`): it fails until somebody calls `complete`.

Spec: Kubernetes documentation, "Kubernetes API health endpoints".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from tiphys.api.causes import go_quote
from tiphys.base.errors import path_not_found
from tiphys.wire.message import Request, Response

log = logging.getLogger(__name__)

Check = Callable[[], str]
"""Returns "" when all is well, otherwise what is not."""
ENDPOINTS = ("healthz", "livez", "readyz")
SHUTTING_DOWN = "process is shutting down"
_TEXT = "text/plain; charset=utf-8"
_NOSNIFF = (("X-Content-Type-Options", "nosniff"),)
_READY_ONLY = frozenset({"etcd-readiness", "informer-sync", "shutdown"})

START_HOOKS = (
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "storage-object-count-tracker-hook",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "start-cluster-authentication-info-controller",
    "start-kube-apiserver-identity-lease-controller",
    "start-kube-apiserver-identity-lease-garbage-collector",
    "start-legacy-token-tracking-controller",
    "start-service-ip-repair-controllers",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kubernetes-service-cidr-controller",
    "aggregator-reload-proxy-client-cert",
    "start-kube-aggregator-informers",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "apiservice-discovery-controller",
    "kube-apiserver-autoregistration",
)
"""What a start finishes before the server is ready, in the order in which it is told."""
_LATE_HOOKS = ("apiservice-openapi-controller", "apiservice-openapiv3-controller")


class Health:
    """See the module's docstring."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        """`checks` may hold etcd, etcd-readiness and informer-sync; others are told after those."""
        self._starting = True
        self._stopping = False
        started = self._started
        self._checks: dict[str, Check] = {"ping": _fine, "log": _fine, **checks}
        self._checks |= {f"poststarthook/{name}": started for name in START_HOOKS}
        self._checks["autoregister-completion"] = started
        self._checks |= {f"poststarthook/{name}": started for name in _LATE_HOOKS}
        self._checks["shutdown"] = lambda: SHUTTING_DOWN if self._stopping else ""
        self._of = {
            endpoint: {n: c for n, c in self._checks.items() if endpoint == "readyz" or n not in _READY_ONLY}
            for endpoint in ENDPOINTS
        }

    def complete(self) -> None:
        """The start is over: what every cluster has stands."""
        self._starting = False

    def shut_down(self) -> None:
        """Not ready any more; what runs goes on."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        return self._stopping

    def paths(self) -> list[str]:
        """Return the paths that are listed at `/`."""
        return [
            f"/{endpoint}{path}" for endpoint, checks in self._of.items() for path in ("", *map("/{}".format, checks))
        ]

    def results(self) -> list[tuple[str, str, bool]]:
        """Return (name, endpoint, is well) of every check."""
        return [
            (name, endpoint, not check()) for endpoint, checks in self._of.items() for name, check in checks.items()
        ]

    def answer(self, request: Request) -> Response:
        """Answer one of the endpoints, or one check of it by path. Raises ApiError(404) for checks that are not."""
        endpoint, _, name = request.path.strip("/").partition("/")
        checks = self._of[endpoint]
        if name:
            check = checks.get(name)
            if check is None:
                raise path_not_found()
            problem = check()
            if problem:
                return Response(500, f"internal server error: {problem}\n".encode(), _TEXT, _NOSNIFF)
            return Response(200, b"ok", _TEXT, _NOSNIFF)
        return _tell(endpoint, checks, set(request.query.get("exclude", ())), verbose="verbose" in request.query)

    def _started(self) -> str:
        return "not finished" if self._starting else ""


def _tell(endpoint: str, checks: Mapping[str, Check], excluded: set[str], *, verbose: bool) -> Response:
    lines: list[str] = []
    failed: list[str] = []
    for name, check in checks.items():
        if name in excluded:
            excluded.discard(name)
            lines.append(f"[+]{name} excluded: ok\n")
            continue
        problem = check()
        if problem:
            failed.append(f"{name}: {problem}")
            lines.append(f"[-]{name} failed: reason withheld\n")
        else:
            lines.append(f"[+]{name} ok\n")
    if excluded:
        names = ", ".join(go_quote(name) for name in sorted(excluded))
        lines.append(f"warn: some health checks cannot be excluded: no matches for {names}\n")
    if failed:
        log.warning("%s: %s", endpoint, "; ".join(failed))
        return Response(500, "".join([*lines, f"{endpoint} check failed\n"]).encode(), _TEXT, _NOSNIFF)
    if not verbose:
        return Response(200, b"ok", _TEXT, _NOSNIFF)
    return Response(200, "".join([*lines, f"{endpoint} check passed\n"]).encode(), _TEXT, _NOSNIFF)


def _fine() -> str:
    return ""
