"""Lists as people read them: YAML and indented JSON, made item by item so that a long one does not hold the loop.

Input is a list's compact JSON head (up to and with the bracket before its items) and its items; output is what one
dump of the whole would give. Read by reads.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson

from tiphys.apiserver.cached import CachedObject
from tiphys.apiserver.rendering import Rendering
from tiphys.apiserver.slices import ENCODED_SLICE_BYTES, slices, weighed_slices, work_on

YAML_SLICE = 1
"""A pod takes 3 ms to write as YAML."""
YAML_BYTES = 8 * 1024
"""Larger items are written as YAML in a thread."""
INDENT_SLICE = 50


def dump_yaml(value: Any) -> bytes:
    """Return a value as YAML, with sorted keys."""
    import yaml

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=True)
    return text.encode()


def indent(value: Any) -> bytes:
    """Return a value as JSON for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


async def yaml_list(rendering: Rendering, head: bytes, objects: Sequence[CachedObject]) -> list[bytes]:
    """Return a list as YAML. Its keys are sorted, so some come before the items and some behind them."""
    outer = orjson.loads(head + b"]}")
    name = _items_name(outer)
    if not objects:
        return [dump_yaml(outer)]
    before = {key: value for key, value in outer.items() if key < name}
    behind = {key: value for key, value in outer.items() if key > name}
    parts = [dump_yaml(before) if before else b"", f"{name}:\n".encode()]
    for number, some in enumerate(slices(objects, YAML_SLICE)):
        if number:
            await asyncio.sleep(0)
        parts.append(await work_on(some, YAML_BYTES, partial(_yaml_items, rendering)))
    parts.append(dump_yaml(behind) if behind else b"")
    return parts


def _yaml_items(rendering: Rendering, objects: Sequence[CachedObject]) -> bytes:
    return dump_yaml([orjson.loads(rendering.item(obj)) for obj in objects])


async def indented_list(rendering: Rendering, head: bytes, objects: Sequence[CachedObject]) -> list[bytes]:
    """Return a list as indented JSON."""
    outer = orjson.loads(head + b"]}")
    name = _items_name(outer)
    if not objects:
        return [indent(outer)]
    outer.pop(name)
    before, behind = f'{{\n  "{name}": [\n'.encode(), b"\n  ]\n}"
    parts = [indent(outer)[:-2] + b",\n" + before[2:]]
    pieces = (piece for some in slices(objects, INDENT_SLICE) for piece in weighed_slices(some, ENCODED_SLICE_BYTES))
    for number, some in enumerate(pieces):
        if number:
            await asyncio.sleep(0)
        if len(parts) > 1:
            parts.append(b",\n")
        dumped = await work_on(some, ENCODED_SLICE_BYTES, partial(_indented_items, rendering, name))
        parts.append(dumped[len(before) : -len(behind)])
    parts.append(behind)
    return parts


def _indented_items(rendering: Rendering, name: str, objects: Sequence[CachedObject]) -> bytes:
    return indent({name: [orjson.loads(rendering.item(obj)) for obj in objects]})


def _items_name(outer: dict[str, Any]) -> str:
    return "rows" if "rows" in outer else "items"
