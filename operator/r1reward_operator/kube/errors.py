# SPDX-License-Identifier: Apache-2.0
"""One exception for each way in which the API server says no."""

import json
import re
from collections.abc import Mapping
from typing import Any

_QUOTA = re.compile(
    r"exceeded quota: |failed quota: |(maximum|minimum) .* usage per |limit to request ratio per "
)
_TEXT_LIMIT = 500


class ApiError(Exception):
    """The API server refused a call, or could not be asked.

    Attributes:
        status: the HTTP status; 0 when no answer came.
        reason: the machine-readable reason of the Status object, such as `AlreadyExists`.
        message: the text for people.
        details: the Status object's details (causes, name, kind); may be empty.
        retry_after: the seconds that the server asks to wait, where it says so.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.retry_after = retry_after

    def has_cause(self, reason: str) -> bool:
        """Whether one of the Status object's causes has this reason."""
        return any(cause.get("reason") == reason for cause in self.details.get("causes") or ())


class NotFound(ApiError):
    """The object, or the resource itself, is not there."""


class Conflict(ApiError):
    """The object has changed since it was read, or a precondition does not hold."""


class AlreadyExists(ApiError):
    """An object of this name is already there."""


class Gone(ApiError):
    """The resource version or continue token is too old: list again."""


class Forbidden(ApiError):
    """RBAC, an admission policy or a quota refuses the call."""

    @property
    def is_quota(self) -> bool:
        """Whether a ResourceQuota or LimitRange refused it, so that waiting may help."""
        return _QUOTA.search(self.message) is not None

    @property
    def is_terminating(self) -> bool:
        """Whether the namespace is being deleted, so that nothing can be made in it."""
        return self.has_cause("NamespaceTerminating")


class Invalid(ApiError):
    """The object breaks its schema or a validation rule; the same call fails again."""


class TooManyRequests(ApiError):
    """The server, or this process's own limit, asks to come back later.

    `retry_after` is always a number here.
    """

    retry_after: float

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, reason, message, details=details)
        self.retry_after = 1.0 if retry_after is None else retry_after


class Unavailable(ApiError):
    """No answer in time, a broken connection, or an error inside the server."""


class NotLeader(Exception):
    """This process does not, or not certainly, hold the lease: it must not write."""


class OwnedByAnother(Exception):
    """An object of the wanted name belongs to somebody else and is left alone.

    Attributes:
        live: the object as it is.
    """

    def __init__(self, message: str, live: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.live = live


class LeftBehind(OwnedByAnother):
    """It belongs to an earlier owner of the same kind and name, and so to nobody any more."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    410: Gone,
    413: Invalid,
    422: Invalid,
    429: TooManyRequests,
}


def error_from(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> ApiError:
    """Maps a failed answer to its exception.

    Args:
        status: the HTTP status, at least 400.
        body: a Status object as JSON, or any text.
        headers: the answer's headers, for Retry-After.
    """
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict) or parsed.get("kind") != "Status":
        text = body[:_TEXT_LIMIT].decode(errors="replace").strip()
        parsed = {"message": text or "no body"}
    return error_from_status(
        parsed, status, retry_after=_seconds((headers or {}).get("Retry-After"))
    )


def error_from_status(
    status: Mapping[str, Any], code: int | None = None, *, retry_after: float | None = None
) -> ApiError:
    """Maps a Status object, as watches also send it, to its exception."""
    code = code or int(status.get("code") or 500)
    reason = str(status.get("reason") or "")
    details = status.get("details") or {}
    if retry_after is None:
        retry_after = _seconds(details.get("retryAfterSeconds"))
    error = _BY_STATUS.get(code, Unavailable if code >= 500 else ApiError)
    if reason == "AlreadyExists":
        error = AlreadyExists
    elif reason == "Expired":
        error = Gone
    return error(
        code, reason, str(status.get("message") or ""), details=details, retry_after=retry_after
    )


def _seconds(value: Any) -> float | None:
    """A Retry-After in seconds; its other form, a date, is never sent by API servers."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if seconds > 0 else None
