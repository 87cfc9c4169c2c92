"""Laws of delete plans: what is held is never removed, and a plan never changes the object that it was made from."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.kinds import builtin_kinds
from tiphys.apiserver.deletion import FOREGROUND, ORPHAN, DeleteOptions, is_removable, plan_delete
from tiphys.base.clock import format_time, parse_time

NOW_S = 1_767_225_600.0
KINDS = {kind.plural: kind for kind in builtin_kinds((1, 37)) if kind.plural in ("pods", "configmaps", "namespaces")}

objects = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"name": st.just("a"), "uid": st.just("u")},
            optional={
                "finalizers": st.lists(st.sampled_from(["x/y", ORPHAN, FOREGROUND]), unique=True, min_size=1),
                "deletionTimestamp": st.just(format_time(NOW_S + 20)),
            },
        ),
        "spec": st.fixed_dictionaries(
            {}, optional={"nodeName": st.just("n"), "terminationGracePeriodSeconds": st.integers(0, 60)}
        ),
    }
)
options = st.builds(
    DeleteOptions,
    grace_period_s=st.none() | st.integers(-1, 60),
    propagation=st.sampled_from(["", "Orphan", "Background", "Foreground"]),
)


def prepared(obj: dict[str, Any]) -> dict[str, Any]:
    if "deletionTimestamp" in obj["metadata"]:
        obj["metadata"]["deletionGracePeriodSeconds"] = 20
    return obj


@given(objects, options, st.sampled_from(sorted(KINDS)))
def test_what_is_held_is_never_removed(obj: dict[str, Any], wishes: DeleteOptions, plural: str) -> None:
    obj = prepared(obj)
    before = copy.deepcopy(obj)
    plan = plan_delete(KINDS[plural], obj, wishes, NOW_S)
    assert obj == before
    kept = [f for f in obj["metadata"].get("finalizers", ()) if f not in (ORPHAN, FOREGROUND)]
    if plan.remove:
        assert plan.update is None
        assert not kept
        assert wishes.propagation not in ("Orphan", "Foreground")
    elif plan.update is not None:
        metadata = plan.update["metadata"]
        assert set(kept) <= set(metadata.get("finalizers", ()))
        assert "deletionTimestamp" in metadata
        assert metadata["deletionGracePeriodSeconds"] >= 0
        assert not is_removable(KINDS[plural], plan.update)


@given(objects, options)
def test_a_grace_period_only_gets_shorter(obj: dict[str, Any], wishes: DeleteOptions) -> None:
    obj = prepared(obj)
    plan = plan_delete(KINDS["pods"], obj, wishes, NOW_S)
    if plan.update is None or "deletionTimestamp" not in obj["metadata"]:
        return
    before, after = obj["metadata"], plan.update["metadata"]
    assert after["deletionGracePeriodSeconds"] <= before["deletionGracePeriodSeconds"]
    assert parse_time(after["deletionTimestamp"]) <= parse_time(before["deletionTimestamp"])


@given(objects, options, st.sampled_from(sorted(KINDS)))
def test_deleting_again_in_the_same_way_changes_nothing(
    obj: dict[str, Any], wishes: DeleteOptions, plural: str
) -> None:
    plan = plan_delete(KINDS[plural], prepared(obj), wishes, NOW_S)
    if plan.update is not None:
        again = plan_delete(KINDS[plural], plan.update, wishes, NOW_S)
        assert not again.remove
        assert again.update is None or again.update == plan.update
