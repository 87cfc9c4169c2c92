"""Typed views of object metadata, and the base of all views.

A view is decoded straight from JSON bytes (`decode_view`); fields it does not name are skipped by the decoder, which
is what makes it cheap. Attribute names are the API's in snake case. Absent text is "", absent lists and maps are
empty, other absent values are None. Views are frozen and are never written back: components write patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import field


class View(msgspec.Struct, frozen=True, rename="camel", kw_only=True, gc=False):
    """Base of all views. Equal content means equal views."""


V = TypeVar("V", bound=View)


@cache
def _decoder(view: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(view)


def decode_view(data: bytes, view: type[V]) -> V:
    """Return the view of an object's JSON bytes. Raises msgspec.ValidationError on a wrong type."""
    result: V = _decoder(view).decode(data)
    return result


class OwnerReference(View, frozen=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(View, frozen=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()


class PartialObject(View, frozen=True):
    """Any object, by its metadata alone."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()


def metadata_of(view: View) -> ObjectMeta:
    """Return the metadata of a view of a whole object."""
    metadata = getattr(view, "metadata", None)
    assert isinstance(metadata, ObjectMeta), f"{type(view).__name__} is no view of a whole object"
    return metadata


class LabelSelectorRequirement(View, frozen=True):
    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class LabelSelector(View, frozen=True):
    match_labels: Mapping[str, str] = field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class ObjectReference(View, frozen=True):
    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class Condition(View, frozen=True):
    """The condition shape that most kinds share."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    observed_generation: int | None = None

    def to_object(self) -> dict[str, Any]:
        """Return the condition as it is written back into a list of conditions: without what is empty."""
        return {key: value for key, value in msgspec.to_builtins(self).items() if value not in (None, "")}
