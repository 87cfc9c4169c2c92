"""Values that are an integer or a percentage (`maxSurge: 25%`), and ports that are a number or a name.

Spec: Kubernetes API reference, "IntOrString".
"""

from __future__ import annotations

import re

_PERCENT = re.compile(r"([+-]?[0-9]+)%")


def resolve_int_or_percent(value: int | str, total: int, round_up: bool) -> int:
    """Return the integer that a value stands for. A percentage is of `total`, rounded as asked.

    Raises ValueError for text that is not a percentage.
    """
    if isinstance(value, int):
        return value
    match = _PERCENT.fullmatch(value)
    if match is None:
        raise ValueError(f'invalid value for IntOrString: invalid type: string is not a percentage ("{value}")')
    scaled = int(match[1]) * total
    return -(-scaled // 100) if round_up else scaled // 100
