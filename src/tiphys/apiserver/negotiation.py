"""Which form of an answer a client wants: the Accept header, read as upstream reads it.

Input is the header's text; the result names the form (plain objects, a Table, or PartialObjectMetadata) and the media
type, and is remembered, since clients send few different headers. What cannot be served is skipped: custom resources and
tables have no protobuf, so that `application/vnd.kubernetes.protobuf,application/json` gets JSON for them.

Spec: RFC 9110 section 12.5.1 (q-values, specificity); Kubernetes docs, "Receiving resources as Tables", "Alternate
representations of resources".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tiphys.base.errors import not_acceptable

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
CBOR = "application/cbor"
PLAIN = ""
TABLE = "Table"
PARTIAL = "PartialObjectMetadata"
PARTIAL_LIST = "PartialObjectMetadataList"
_META_GROUP = "meta.k8s.io"
_META_VERSIONS = ("v1", "v1beta1")


@dataclass(frozen=True, slots=True)
class Form:
    """`target` is PLAIN, TABLE or PARTIAL; `version` is that of the meta.k8s.io group; `media` JSON, YAML,
    PROTOBUF or CBOR."""

    target: str = PLAIN
    version: str = ""
    media: str = JSON

    @property
    def api_version(self) -> str:
        return f"{_META_GROUP}/{self.version}"


def accepted_form(
    accept: str, *, collection: bool = False, stream: bool = False, custom: bool = False, tables: bool = True
) -> Form:
    """Return the first form in the client's order of preference that can be served. Raises ApiError 406.

    `collection`: the answer is a list (PartialObjectMetadataList is then the name of the partial form).
    `stream`: the answer is a watch, which is never YAML. `custom`: the kind is a custom resource.
    `tables`: the kind has columns; reviews and the like have none.
    """
    form = _accepted(accept or JSON, collection, stream, custom, tables)
    if form is None:
        offered = f"{JSON};stream=watch, {PROTOBUF};stream=watch" if stream else f"{JSON}, {YAML}, {PROTOBUF}"
        raise not_acceptable(f"only the following media types are accepted: {offered}")
    return form


def accepted_media(accept: str) -> str:
    """Return the media type for an answer that has no other forms, such as a Status: JSON if none would do."""
    form = _accepted(accept or JSON, False, False, False, False)
    return JSON if form is None else form.media


@lru_cache(maxsize=512)
def _accepted(accept: str, collection: bool, stream: bool, custom: bool, tables: bool) -> Form | None:
    for media, parameters in _clauses(accept):
        form = _form(media, parameters, collection, stream)
        if form is None or (form.target == TABLE and (not tables or form.media == PROTOBUF)):
            continue
        if custom and form.target == PLAIN and form.media == PROTOBUF:
            continue
        return None if stream and form.media == YAML else form
    return None


def _clauses(accept: str) -> list[tuple[str, Mapping[str, str]]]:
    """Return media types with their parameters, the most wanted first; ties by specificity, then as written."""
    ranked: list[tuple[float, int, int, str, Mapping[str, str]]] = []
    for position, clause in enumerate(accept.split(",")):
        media, *rest = (part.strip() for part in clause.split(";"))
        parameters = {
            name.strip(): value.strip().strip('"') for name, _, value in (part.partition("=") for part in rest)
        }
        quality = _quality(parameters.pop("q", "1"))
        if media and quality > 0:
            ranked.append((-quality, media.count("*"), position, media.lower(), parameters))
    ranked.sort(key=lambda item: item[:3])
    return [(media, parameters) for *_, media, parameters in ranked]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def _form(media: str, parameters: Mapping[str, str], collection: bool, stream: bool) -> Form | None:
    if media in ("*/*", "application/*", JSON):
        media = JSON
    elif media not in (YAML, PROTOBUF, CBOR):
        return None
    if parameters.get("charset", "utf-8").lower() != "utf-8":
        return None
    if parameters.get("stream", "watch") != "watch" or ("stream" in parameters and not stream):
        return None
    target = parameters.get("as", "")
    if not target:
        return Form(PLAIN, "", media)
    version = parameters.get("v", "")
    if parameters.get("g") != _META_GROUP or version not in _META_VERSIONS:
        return None
    if target == TABLE:
        return Form(TABLE, version, media)
    # A watch sends single objects; clients name either form for it.
    allowed = (PARTIAL, PARTIAL_LIST) if stream else (PARTIAL_LIST,) if collection else (PARTIAL,)
    return Form(PARTIAL, version, media) if target in allowed else None
