"""Flags of the API server: upstream's names become options, and what cannot be is told before the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiphys.base.errors import TiphysError
from tiphys.cli.serverflags import server_options
from tiphys.cluster.config import ServerOptions

POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"


def test_flags(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    given = [
        "--shutdown-delay-duration=2s",
        "enable-priority-and-fairness=false",
        "max-requests-inflight=10",
        f"audit-policy-file={policy}",
        "audit-log-path=-",
    ]
    wanted = ServerOptions(
        shutdown_delay_s=2.0, fairness=False, max_reads=10, audit_policy_file=str(policy), audit_log_path="-"
    )
    assert server_options(given) == wanted
    assert server_options([]) == ServerOptions()


def test_fairness_needs_seats() -> None:
    none = ["max-requests-inflight=0", "max-mutating-requests-inflight=0"]
    with pytest.raises(TiphysError, match="without any seats"):
        server_options(none)
    assert not server_options([*none, "enable-priority-and-fairness=false"]).fairness


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("fly=1", "'fly' is no flag of this API server; there are audit-log-maxage, "),
        ("shutdown-delay-duration=1m", "from 0s to 5s"),
        ("shutdown-delay-duration=soon", "invalid duration"),
        ("max-requests-inflight=-1", "not negative"),
        ("enable-priority-and-fairness=maybe", "true or false"),
        ("audit-log-path=x", "add audit-policy-file"),
    ],
)
def test_what_cannot_be_is_told(flag: str, said: str) -> None:
    with pytest.raises(TiphysError, match=said):
        server_options([flag])
