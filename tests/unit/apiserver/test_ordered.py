"""Objects in key order: the same as a sorted dict, whatever comes and goes."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiphys.apiserver import ordered
from tiphys.apiserver.cached import CachedObject
from tiphys.apiserver.ordered import OrderedObjects

KEYS = st.text("ab/", min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(KEYS, st.booleans()), max_size=60)


def obj(key: str, revision: int = 1) -> CachedObject:
    return CachedObject(key, "", key, b'{"metadata":{}}', revision)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES, KEYS, KEYS, st.integers(0, 5), st.booleans())
def test_any_part_is_that_of_a_sorted_dict(
    changes: list[tuple[str, bool]], start: str, end: str, limit: int, behind: bool
) -> None:
    ordered.BLOCK_KEYS, before = 3, ordered.BLOCK_KEYS
    try:
        objects, model = OrderedObjects(), dict[str, CachedObject]()
        for number, (key, gone) in enumerate(changes):
            if gone and key in model:
                del model[key]
                objects.discard(key)
            else:
                model[key] = obj(key, number)
                objects.put(key, model[key])
        assert objects.take() == [model[key] for key in sorted(model)]
        for first, last in ((start, end), ("", end), (start, ""), ("", "")):
            wanted = [
                model[key]
                for key in sorted(model)
                if (not first or key > first or (key == first and not behind)) and (not last or key < last)
            ]
            if not last or first < last:
                assert objects.take(first, last, behind=behind) == wanted
                assert objects.take(first, last, limit, behind=behind) == (wanted[:limit] if limit else wanted)
                assert objects.count(first, last, behind=behind) == len(wanted)
    finally:
        ordered.BLOCK_KEYS = before


def test_many_objects_stay_in_blocks_and_in_order() -> None:
    objects = OrderedObjects()
    for number in range(5000):
        objects.put(f"{number * 7919 % 5000:05d}", obj(str(number)))
    assert len(objects.take()) == objects.count() == 5000
    assert [o.key for o in objects.take("00010", "00013")] == [
        str(next(n for n in range(5000) if n * 7919 % 5000 == k)) for k in (10, 11, 12)
    ]
    objects.clear()
    assert objects.take() == [] and objects.count() == 0
