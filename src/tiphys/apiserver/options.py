"""What a LIST or WATCH asks for: its query parameters, parsed, checked and refused as upstream does.

`ListOptions` is the result; `Selection` says which objects belong to it. Nothing here looks at objects or revisions.

Spec: Kubernetes docs, "Kubernetes API concepts" (resource versions, streaming lists), metav1.ListOptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tiphys.api.kind import Kind
from tiphys.api.kinds.fields import unsupported_field
from tiphys.api.selectors import FieldSelector, LabelSelector, parse_field_selector, parse_label_selector
from tiphys.apiserver.cached import CachedObject
from tiphys.base.errors import Cause, bad_request, invalid
from tiphys.wire.message import Request

EXACT = "Exact"
NOT_OLDER_THAN = "NotOlderThan"
_MAX_UINT64 = 2**64 - 1
_MAX_INT64 = 2**63 - 1
_MAX_DIGITS = 20
"""Digits of the longest number read; more need not be converted to know that they are out of range."""
_METADATA_FIELDS = ("metadata.name", "metadata.namespace")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a resource: of a namespace ("" for all), with labels and fields."""

    kind: Kind
    namespace: str
    labels: LabelSelector
    fields: FieldSelector

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return what tells selections of one resource apart."""
        return (self.kind.api_version, self.namespace, str(self.labels), str(self.fields))

    @property
    def everything(self) -> bool:
        """Return whether there are no selectors (a namespace is none)."""
        return self.labels.empty and self.fields.empty

    @property
    def looks_inside(self) -> bool:
        """Return whether fields of the object decide that are not its name or namespace."""
        return any(requirement.field not in _METADATA_FIELDS for requirement in self.fields.requirements)

    @property
    def name(self) -> str:
        """Return the one name that can be selected, "" if not limited to one."""
        for requirement in self.fields.requirements:
            if requirement.field == "metadata.name" and requirement.operator == "=":
                return requirement.value
        return ""

    def matches(self, obj: CachedObject) -> bool:
        """Return whether an object belongs here."""
        if self.namespace and obj.namespace != self.namespace:
            return False
        for requirement in self.fields.requirements:
            if not requirement.matches(obj.field(self.kind, requirement.field)):
                return False
        return self.labels.empty or self.labels.matches(obj.labels)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The parameters of a list or watch, checked."""

    selection: Selection
    resource_version: str = ""
    """As it came: "" for the most recent, "0" for any."""
    revision: int = 0
    """`resource_version` as a number."""
    match: str = ""
    """resourceVersionMatch: "", Exact or NotOlderThan."""
    limit: int = 0
    token: str = ""
    """The continue parameter."""
    timeout_s: int = 0
    """0: the server chooses."""
    bookmarks: bool = False
    initial_events: bool | None = None
    """sendInitialEvents; None when it was not given."""


def parse_options(kind: Kind, namespace: str, request: Request, *, watch: bool, name: str = "") -> ListOptions:
    """Return the options of a request. Raises ApiError 400 and 422."""
    options = ListOptions(
        selection=parse_selection(kind, namespace, request, name),
        resource_version=request.param("resourceVersion"),
        match=request.param("resourceVersionMatch"),
        limit=max(_integer(request, "limit"), 0),
        token=request.param("continue"),
        timeout_s=max(_integer(request, "timeoutSeconds"), 0),
        bookmarks=bool(_boolean(request, "allowWatchBookmarks")),
        initial_events=_boolean(request, "sendInitialEvents"),
    )
    causes = _watch_causes(options) if watch else _list_causes(options)
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)
    text = options.resource_version
    if not text or text == "0":
        return options
    try:
        revision = parse_revision(text)
    except ValueError as error:
        cause = Cause("FieldValueInvalid", "resourceVersion", f'Invalid value: "{text}": {error}')
        if watch:
            raise invalid(kind.group, kind.plural, "", [cause]) from error
        raise bad_request(f"invalid resource version: resourceVersion: {cause.message}") from error
    return replace(options, revision=revision)


def parse_revision(text: str) -> int:
    """Return the number of a resourceVersion. Raises ValueError in Go's words, as clients see them."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    significant = text.lstrip("0") or "0"
    if len(significant) > _MAX_DIGITS or int(significant) > _MAX_UINT64:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(significant)


def parse_selection(kind: Kind, namespace: str, request: Request, name: str = "") -> Selection:
    """Return the selectors of a request; `name` narrows them to one object. Raises ApiError 400."""
    labels = parse_label_selector(request.param("labelSelector"))
    fields = parse_field_selector(request.param("fieldSelector"))
    for requirement in fields.requirements:
        refusal = unsupported_field(kind, requirement.field)
        if refusal:
            raise bad_request(refusal)
    selection = Selection(kind, namespace, labels, fields)
    if name and selection.name != name:
        if selection.name:
            raise bad_request("fieldSelector metadata.name doesn't match requested name")
        narrowed = (*fields.requirements, *parse_field_selector(f"metadata.name={name}").requirements)
        selection = Selection(kind, namespace, labels, FieldSelector(narrowed))
    return selection


def _integer(request: Request, name: str) -> int:
    text = request.param(name)
    if not text:
        return 0
    digits = text[1:] if text[0] in "+-" else text
    if not (digits.isascii() and digits.isdigit()):
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    significant = digits.lstrip("0") or "0"
    if len(significant) > _MAX_DIGITS or int(significant) > _MAX_INT64:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return -int(significant) if text[0] == "-" else int(significant)


def _boolean(request: Request, name: str) -> bool | None:
    values = request.query.get(name)
    return None if not values else values[0].lower() not in ("false", "0")


def _forbidden(field: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", field, f"Forbidden: {why}")


def _unsupported(value: str, supported: Sequence[str]) -> Cause:
    listed = ", ".join(f'"{text}"' for text in supported)
    text = f'Unsupported value: "{value}": supported values: {listed}'
    return Cause("FieldValueNotSupported", "resourceVersionMatch", text)


def _list_causes(options: ListOptions) -> list[Cause]:
    field, causes = "resourceVersionMatch", []
    if options.match:
        if not options.resource_version:
            causes.append(_forbidden(field, f"{field} is forbidden unless resourceVersion is provided"))
        if options.token:
            causes.append(_forbidden(field, f"{field} is forbidden when continue is provided"))
        if options.match not in (EXACT, NOT_OLDER_THAN):
            causes.append(_unsupported(options.match, (EXACT, NOT_OLDER_THAN, "")))
        if options.match == EXACT and options.resource_version == "0":
            causes.append(_forbidden(field, f'{field} "exact" is forbidden for resourceVersion "0"'))
    if options.initial_events is not None:
        causes.append(_forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return causes


def _watch_causes(options: ListOptions) -> list[Cause]:
    field, causes = "resourceVersionMatch", []
    if options.initial_events is not None and options.match != NOT_OLDER_THAN:
        causes.append(_forbidden(field, f"sendInitialEvents requires setting {field} to {NOT_OLDER_THAN}"))
    if options.match:
        if options.initial_events is None:
            causes.append(_forbidden(field, f"{field} is forbidden for watch unless sendInitialEvents is provided"))
        if options.match != NOT_OLDER_THAN:
            causes.append(_unsupported(options.match, (NOT_OLDER_THAN,)))
        if options.token:
            causes.append(_forbidden(field, f"{field} is forbidden when continue is provided"))
    return causes
