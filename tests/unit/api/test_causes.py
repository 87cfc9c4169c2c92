"""Values as messages show them."""

from __future__ import annotations

import pytest

from tiphys.api.causes import format_go


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"spec": {"replicas": "x", "paused": True}}, "map[spec:map[paused:true replicas:x]]"),
        ({"a": [1, None, 2.5, 3.0, {}]}, "map[a:[1 <nil> 2.5 3 map[]]]"),
        ("text", "text"),
        (False, "false"),
    ],
)
def test_data_is_printed_as_go_does(value: object, text: str) -> None:
    assert format_go(value) == text
