"""The one error tree.

API failures are `ApiError`, made by the named constructors below and turned into a `Status` object by `status()`
(the request boundary calls it, nobody else). Operating errors of other kinds (a runtime binary that fails, an address
pool that is empty) are `TiphysError` subclasses. Programmer errors are assertions.

Spec: API conventions, "Response Status Kind"; reasons and codes are those of metav1.StatusReason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class TiphysError(Exception):
    """Base of every error that an operator may see. The message says what failed, on what, and what to do next."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason of an Invalid status. `field` is a path such as `spec.containers[0].name`.

    `type` is a metav1.CauseType: FieldValueRequired, FieldValueInvalid, FieldValueDuplicate, FieldValueNotSupported,
    FieldValueForbidden, FieldValueNotFound, FieldValueTooLong, FieldValueTooMany, FieldValueTypeInvalid.
    `message` is upstream's text without the path, e.g. `Required value` or `Invalid value: "x": must be ...`.
    """

    type: str
    field: str
    message: str


class ApiError(TiphysError):
    """A failure that a client of the API sees as a Status."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = tuple(headers)

    def status(self) -> dict[str, Any]:
        """Return the `Status` object."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


def _details(group: str, resource: str, name: str = "", **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if resource:
        details["kind"] = resource
    details.update(more)
    return details


def qualified(group: str, resource: str) -> str:
    """Return `deployments.apps`, or `pods` for the core group."""
    return f"{resource}.{group}" if group else resource


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized(message: str = "Unauthorized") -> ApiError:
    return ApiError(401, "Unauthorized", message)


def forbidden(group: str, resource: str, name: str, why: str) -> ApiError:
    """A refused request to one resource. `why` follows the colon, e.g. `User "x" cannot get resource ...`."""
    what = f'{qualified(group, resource)} "{name}"' if name else qualified(group, resource)
    return ApiError(403, "Forbidden", f"{what} is forbidden: {why}", details=_details(group, resource, name))


def not_found(group: str, resource: str, name: str) -> ApiError:
    return ApiError(
        404, "NotFound", f'{qualified(group, resource)} "{name}" not found', details=_details(group, resource, name)
    )


def path_not_found() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


def method_not_allowed(message: str = "the server does not allow this method on the requested resource") -> ApiError:
    return ApiError(405, "MethodNotAllowed", message, details={})


def not_acceptable(message: str) -> ApiError:
    return ApiError(406, "NotAcceptable", message)


def already_exists(group: str, resource: str, name: str) -> ApiError:
    return ApiError(
        409,
        "AlreadyExists",
        f'{qualified(group, resource)} "{name}" already exists',
        details=_details(group, resource, name),
    )


def conflict(group: str, resource: str, name: str, why: str = "") -> ApiError:
    """An optimistic lock that failed, or another state that forbids the operation (then `why` says which)."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {qualified(group, resource)} "{name}": {why}',
        details=_details(group, resource, name),
    )


def gone(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def too_large(message: str) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", message)


def unsupported_media_type(message: str) -> ApiError:
    return ApiError(415, "UnsupportedMediaType", message)


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """A well-formed object with values that are not allowed; every cause is told at once."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    return ApiError(
        422,
        "Invalid",
        f'{qualified(group, kind)} "{name}" is invalid: {text}',
        details=_details(
            group,
            kind,
            name,
            causes=[{"reason": c.type, "message": c.message, "field": c.field} for c in causes],
        ),
    )


def too_many_requests(message: str, retry_after_s: int = 1) -> ApiError:
    """`retry_after_s` 0: the client decides itself when to come again."""
    return ApiError(
        429,
        "TooManyRequests",
        message,
        details={"retryAfterSeconds": retry_after_s} if retry_after_s else None,
        headers=[("Retry-After", str(retry_after_s))] if retry_after_s else (),
    )


def internal(message: str) -> ApiError:
    return ApiError(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        details={"causes": [{"message": message}]},
    )


def service_unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)


def gateway_timeout(message: str) -> ApiError:
    return ApiError(504, "Timeout", message, details={})


def from_status(status: dict[str, Any], code: int) -> ApiError:
    """Return the error that a `Status` answer of an API server stands for."""
    return ApiError(
        int(status.get("code") or code),
        str(status.get("reason") or ""),
        str(status.get("message") or f"the server answered {code}"),
        details=status.get("details"),
    )


def tells_of_another(error: ApiError) -> bool:
    """Return whether the object that a write meant (by its uid) is gone, changed, or has given way to a namesake.

    A delete or an update with another uid is a conflict; a patch that would change the uid is invalid.
    """
    if error.code != 422:
        return error.code in (404, 409)
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("field") == "metadata.uid" for cause in causes)
