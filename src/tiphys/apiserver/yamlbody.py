"""YAML bodies: bounded before they are built.

libyaml composes nested nodes by recursion in C and scans unclosed brackets in quadratic time, and a handful of aliases
can stand for gigabytes. So the events are walked first, which costs no memory, and refused at a depth or at a size
with all aliases written out. Only then is the value built.

Spec: YAML 1.1, as upstream's reader understands it; its refusal of excessive aliasing.
"""

from __future__ import annotations

from typing import Any

import orjson

from tiphys.api.causes import go_quote
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
    except yaml.MarkedYAMLError as error:
        raise BadYaml(_go_words(error, isinstance(error, yaml.scanner.ScannerError))) from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # all but the first are what the library's constructors of tagged values raise for wrong text
        raise BadYaml(" ".join(str(error).split())) from None


def _go_words(error: Any, of_scanner: bool) -> str:
    """Return a syntax error as Go's reader words it, which is made after the same library, lines and all."""
    for mark in (error.problem_mark, error.context_mark):
        if mark is not None and mark.line:
            return f"yaml: line {mark.line + of_scanner}: {error.problem}"
    return f"yaml: {error.problem}"


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


def repeated_keys(body: bytes) -> list[str]:
    """Return `line 11: key "foo" already set in map` for each key of a loadable YAML text that is there again."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: list[str] = []
    open_nodes: list[_Open] = []
    for event in yaml.parse(body, Loader=loader):
        if isinstance(event, yaml.CollectionEndEvent):
            open_nodes.pop()
        elif isinstance(event, yaml.NodeEvent):
            around = open_nodes[-1] if open_nodes else None
            text = event.value if isinstance(event, yaml.ScalarEvent) else None
            if around is not None and around.repeats(text) and event.start_mark is not None:
                found.append(f"line {event.start_mark.line + 1}: key {go_quote(text or '')} already set in map")
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append(_Open(isinstance(event, yaml.MappingStartEvent)))
    return found


class _Open:
    """A collection whose end is not reached: its keys, if it is a mapping, and whether the next node is one."""

    def __init__(self, mapping: bool) -> None:
        self._keys: set[str] = set()
        self._mapping = mapping
        self._key_next = mapping

    def repeats(self, text: str | None) -> bool:
        """Take the next node below, None for one that is no scalar; tell whether it is a key for the second time."""
        is_key, self._key_next = self._key_next, self._mapping and not self._key_next
        if not is_key or text is None:
            return False
        known = text in self._keys
        self._keys.add(text)
        return known
