"""How deep JSON may be nested: one number for every body and every patched object.

Decoders, patches and encoders recurse by level, and the JSON encoder gives up at 254 levels, so what is accepted here
can be handled everywhere, with room for the managed fields, which mirror an object inside of it.

DIFFERS: upstream reads up to 10,000 levels. No kind has more than about 60; schemas of definitions are the deepest.
"""

from __future__ import annotations

from typing import Any

DEPTH_LIMIT = 128
"""Levels of objects and lists."""
TOO_DEEP = f"nested too deeply: at most {DEPTH_LIMIT} levels of objects and lists are allowed"


def is_too_deep(value: Any, limit: int = DEPTH_LIMIT) -> bool:
    """Return whether a JSON value has more levels than allowed. Never recurses."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
    return bool(level)
