"""What makes the server unready: a watch cache that stands still, not one that is some writes behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from tiphys.apiserver.assembly import CACHE_LAG_S, _checks


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
