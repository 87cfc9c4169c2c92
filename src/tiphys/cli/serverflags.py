"""The API server's flags that `tiphys up --apiserver-arg` takes: upstream's names, each to a field of ServerOptions.

Pure but for reading the audit policy, so that what is wrong with it is told before anything starts.

Spec: Kubernetes documentation, "kube-apiserver" command reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tiphys.base.errors import TiphysError
from tiphys.cluster.config import ServerOptions

SHUTDOWN_LIMIT_S = 5.0
"""Who stops the cluster waits little longer than this for a process."""


class BadFlag(TiphysError):
    """A flag that is not known, or a value that it cannot have."""


def server_options(given: Iterable[str]) -> ServerOptions:
    """Return the options that KEY=VALUE texts ask for. Raises BadFlag, BadPolicy, OSError."""
    named: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.removeprefix("--").partition("=")
        if key not in FLAGS:
            raise BadFlag(f"{key!r} is no flag of this API server; there are {', '.join(sorted(FLAGS))}")
        field, parse = FLAGS[key]
        try:
            named[field] = parse(value if equals else "true")
        except ValueError as error:
            raise BadFlag(f"{key}={value} cannot be: {error}") from None
    options = ServerOptions(**named)
    if options.fairness and options.max_reads + options.max_writes == 0:
        raise BadFlag("without any seats fairness lets nothing in: give max-requests-inflight a number above 0")
    if options.audit_policy_file:
        from tiphys.apiserver.audit.policy import load_policy

        load_policy(options.audit_policy_file)
    elif options.audit_log_path:
        raise BadFlag("audit-log-path says where to, but nothing what to write: add audit-policy-file=FILE")
    return options


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError("it must be true or false")
    return text.lower() in ("true", "1")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("it must be a number that is not negative")
    return int(text)


def _seconds(most_s: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        from tiphys.apiserver.deadlines import parse_go_duration

        seconds = parse_go_duration(text)
        if not 0 <= seconds <= most_s:
            raise ValueError(f"it must be from 0s to {most_s:.0f}s")
        return seconds

    return parse


def _path(text: str) -> str:
    import os

    return text if text in ("", "-") else os.path.abspath(text)


FLAGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "shutdown-delay-duration": ("shutdown_delay_s", _seconds(SHUTDOWN_LIMIT_S)),
    "request-timeout": ("request_timeout_s", _seconds(3600.0)),
    "enable-priority-and-fairness": ("fairness", _boolean),
    "max-requests-inflight": ("max_reads", _count),
    "max-mutating-requests-inflight": ("max_writes", _count),
    "audit-policy-file": ("audit_policy_file", _path),
    "audit-log-path": ("audit_log_path", _path),
    "audit-log-maxsize": ("audit_log_max_mb", _count),
    "audit-log-maxbackup": ("audit_log_backups", _count),
    "audit-log-maxage": ("audit_log_days", _count),
}
