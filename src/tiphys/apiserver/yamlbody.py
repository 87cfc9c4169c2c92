"""YAML bodies: bounded before they are built.

libyaml composes nested nodes by recursion in C and scans unclosed brackets in quadratic time, and a handful of aliases
can stand for gigabytes. So the events are walked first, which costs no memory, and refused at a depth or at a size
with all aliases written out. Only then is the value built.

Spec: YAML 1.1, as upstream's reader understands it; its refusal of excessive aliasing.
"""

from __future__ import annotations

from typing import Any

import orjson

from tiphys.api.nesting import DEPTH_LIMIT, TOO_DEEP

EXPANDED_LIMIT_BYTES = 3 * 1024 * 1024
"""Size of the value with its aliases written out: that of the largest body."""
_NODE_BYTES = 4
"""What the smallest node counts."""


class BadYaml(ValueError):
    """The text is not YAML, has no JSON form, or is more than allowed. The message says why."""


def load_yaml(body: bytes) -> Any:
    """Return the JSON value of a YAML text. Raises BadYaml."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(body, Loader=loader), yaml)
        # timestamps, sets and the like have no JSON form; this also refuses keys that are not text
        return orjson.loads(orjson.dumps(yaml.load(body, Loader=loader)))
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # all but the first are what the library's constructors of tagged values raise for wrong text
        raise BadYaml(" ".join(str(error).split())) from None


def _check_events(events: Any, yaml: Any) -> None:
    """Raise BadYaml for too many levels, for an alias within its own node, and for too large a value."""
    open_nodes: list[tuple[str | None, int]] = []  # the anchors of the containers around, and the size before them
    anchors: dict[str, int | None] = {}  # None while its node is open
    size = 0
    for event in events:
        if isinstance(event, yaml.ScalarEvent):
            weight = len(event.value) + _NODE_BYTES
            size += weight
            if event.anchor:
                anchors[event.anchor] = weight
        elif isinstance(event, yaml.AliasEvent):
            known = anchors.get(event.anchor, 0)
            if known is None:
                raise BadYaml(f"anchor '{event.anchor}' value contains itself")
            size += known
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(open_nodes) >= DEPTH_LIMIT:
                raise BadYaml(TOO_DEEP)
            open_nodes.append((event.anchor, size))
            size += _NODE_BYTES
            if event.anchor:
                anchors[event.anchor] = None
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                anchors[anchor] = size - before
        if size > EXPANDED_LIMIT_BYTES:
            raise BadYaml("document contains excessive aliasing")
