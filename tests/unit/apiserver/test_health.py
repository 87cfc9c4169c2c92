"""Health: what makes the server unready, and the letters in which it is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tiphys.apiserver.assembly import CACHE_LAG_S, _checks
from tiphys.apiserver.health import Health
from tiphys.base.errors import ApiError
from tiphys.wire.message import Request


def test_only_a_cache_that_stands_still_is_told() -> None:
    now = {"s": 100.0}
    store, cache = SimpleNamespace(revision=5), SimpleNamespace(revision=5)
    check = _checks(
        cast(Any, SimpleNamespace(current_revision=lambda: store.revision)),
        cast(Any, SimpleNamespace(revision=lambda: cache.revision)),
        cast(Any, SimpleNamespace(monotonic_s=lambda: now["s"])),
    )["informer-sync"]
    assert check() == ""
    for _ in range(20):
        # always behind, never still: a busy server
        store.revision += 10
        cache.revision = store.revision - 5
        now["s"] += CACHE_LAG_S / 2
        assert check() == ""
    store.revision += 10
    assert check() == ""
    now["s"] += CACHE_LAG_S + 1
    assert "does not reach revision" in check()
    cache.revision = store.revision
    assert check() == ""


ALIVE = """\
[+]ping ok
[+]log ok
[+]etcd ok
[+]poststarthook/start-apiserver-admission-initializer ok
[+]poststarthook/generic-apiserver-start-informers ok
[+]poststarthook/priority-and-fairness-config-consumer ok
[+]poststarthook/priority-and-fairness-filter ok
[+]poststarthook/storage-object-count-tracker-hook ok
[+]poststarthook/start-apiextensions-informers ok
[+]poststarthook/start-apiextensions-controllers ok
[+]poststarthook/crd-informer-synced ok
[+]poststarthook/start-system-namespaces-controller ok
[+]poststarthook/start-cluster-authentication-info-controller ok
[+]poststarthook/start-kube-apiserver-identity-lease-controller ok
[+]poststarthook/start-kube-apiserver-identity-lease-garbage-collector ok
[+]poststarthook/start-legacy-token-tracking-controller ok
[+]poststarthook/start-service-ip-repair-controllers ok
[+]poststarthook/rbac/bootstrap-roles ok
[+]poststarthook/scheduling/bootstrap-system-priority-classes ok
[+]poststarthook/priority-and-fairness-config-producer ok
[+]poststarthook/bootstrap-controller ok
[+]poststarthook/start-kubernetes-service-cidr-controller ok
[+]poststarthook/aggregator-reload-proxy-client-cert ok
[+]poststarthook/start-kube-aggregator-informers ok
[+]poststarthook/apiservice-status-local-available-controller ok
[+]poststarthook/apiservice-status-remote-available-controller ok
[+]poststarthook/apiservice-registration-controller ok
[+]poststarthook/apiservice-discovery-controller ok
[+]poststarthook/kube-apiserver-autoregistration ok
[+]autoregister-completion ok
[+]poststarthook/apiservice-openapi-controller ok
[+]poststarthook/apiservice-openapiv3-controller ok
livez check passed
"""


def ask(health: Health, path: str) -> tuple[int, str]:
    path, _, query = path.partition("?")
    answer = health.answer(Request("GET", path, query))
    return answer.status, answer.body_bytes().decode()


def test_a_start_is_ready_when_it_is_complete_and_alive_no_more_than_that() -> None:
    health = Health({"etcd": lambda: ""})
    status, text = ask(health, "/readyz")
    assert status == 500
    assert "[+]etcd ok\n[-]poststarthook/start-apiserver-admission-initializer failed: reason withheld\n" in text
    assert text.endswith("[+]shutdown ok\nreadyz check failed\n")
    health.complete()
    assert ask(health, "/readyz") == (200, "ok")
    assert ask(health, "/livez?verbose") == (200, ALIVE)


def test_shutdown_makes_it_unready_and_leaves_it_alive() -> None:
    health = Health({"etcd": lambda: ""})
    health.complete()
    health.shut_down()
    status, text = ask(health, "/readyz")
    assert status == 500
    assert text.endswith("[-]shutdown failed: reason withheld\nreadyz check failed\n")
    assert ask(health, "/livez") == (200, "ok")
    assert ask(health, "/readyz/shutdown") == (500, "internal server error: process is shutting down\n")
    with pytest.raises(ApiError):
        ask(health, "/livez/shutdown")


def test_checks_can_be_left_out_and_names_that_are_none_are_told() -> None:
    health = Health({"etcd": lambda: "disk is gone"})
    health.complete()
    assert ask(health, "/livez")[0] == 500
    status, text = ask(health, "/livez?exclude=etcd&exclude=b&exclude=a&verbose")
    assert status == 200
    assert "[+]log ok\n[+]etcd excluded: ok\n" in text
    assert text.endswith('no matches for "a", "b"\nlivez check passed\n')
    assert "disk" not in ask(health, "/livez?verbose")[1]
