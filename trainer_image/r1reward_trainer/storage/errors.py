# SPDX-License-Identifier: Apache-2.0
"""What an S3 failure means: try again, give up on the infrastructure, or ask the user."""

import socket
import ssl
import xml.etree.ElementTree as ElementTree
from enum import Enum, auto

import httpx
import urllib3
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError, StageError

_DENIED = frozenset(
    {
        "AccessDenied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "NoSuchBucket",
        "ExpiredToken",
        "InvalidToken",
        "AccountProblem",
        "AllAccessDisabled",
    }
)
_ABSENT = frozenset({"NoSuchKey", "NoSuchVersion", "ResourceNotFound"})
_FULL = frozenset(
    {
        "InsufficientStorage",
        "XMinioStorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "QuotaExceeded",
    }
)
_TRANSIENT = frozenset(
    {
        "SlowDown",
        "InternalError",
        "ServiceUnavailable",
        "RequestTimeout",
        "ConditionalRequestConflict",
        "OperationAborted",
        "RequestTimeTooSkewed",
        "XMinioServerNotInitialized",
    }
)


class NotFound(LookupError):
    """No object at the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no object {key}")
        self.key = key


class PreconditionFailed(Exception):
    """A conditional put met an object that is already there, or not the one expected."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} was written by somebody else")
        self.key = key


class StoreFull(Exception):
    """The store has no room, as an answer said that came through no client library."""


FAILURES: tuple[type[Exception], ...] = (
    MinioException,
    urllib3.exceptions.HTTPError,
    httpx.HTTPError,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    StoreFull,
)
"""All that a call through minio, urllib3 or httpx raises when S3 or the way to it is at fault."""


class Kind(Enum):
    """What a failure means for the caller."""

    ABSENT = auto()
    PRECONDITION = auto()
    TRANSIENT = auto()
    FULL = auto()
    DENIED = auto()
    UNTRUSTED = auto()
    UNSUPPORTED = auto()

    @property
    def passes(self) -> bool:
        """Whether the same call may succeed a little later."""
        return self in (Kind.TRANSIENT, Kind.FULL)


def classify(error: Exception) -> Kind:
    """The kind of a failure out of FAILURES.

    An unknown 4xx is DENIED: sending the same again would not help.
    """
    if any(isinstance(e, ssl.SSLCertVerificationError) for e in _chain(error)):
        return Kind.UNTRUSTED
    if isinstance(error, StoreFull):
        return Kind.FULL
    status, code = status_and_code(error)
    if status is None:
        return Kind.TRANSIENT
    return classify_answer(status, code)


def classify_answer(status: int, code: str) -> Kind:
    """The kind of an answer by its HTTP status and S3 error code (may be empty)."""
    if status == 412 or code == "PreconditionFailed":
        return Kind.PRECONDITION
    if code in _ABSENT:
        return Kind.ABSENT
    if code in _FULL or status == 507:
        return Kind.FULL
    if code in _DENIED:
        return Kind.DENIED
    if status == 501 or code == "NotImplemented":
        return Kind.UNSUPPORTED
    if code in _TRANSIENT or status in (408, 409, 425, 429) or status >= 500:
        return Kind.TRANSIENT
    return Kind.ABSENT if status == 404 else Kind.DENIED


def error_code(body: str) -> str:
    """The Code of an error document of S3 or STS, "" when it is none."""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return ""
    return next((e.text or "" for e in root.iter() if e.tag.rpartition("}")[2] == "Code"), "")


def status_and_code(error: Exception) -> tuple[int | None, str]:
    """HTTP status and S3 error code of a failure; None when no answer came."""
    if isinstance(error, S3Error):
        return error.response.status, error.code or ""
    if isinstance(error, ServerError):
        return error.status_code, ""
    if isinstance(error, InvalidResponseError):
        return error._code, ""
    return None, ""


def stage_error(error: Exception, what: str, place: str, waited: float) -> StageError:
    """The StageError that names the place, the fault and the remedy.

    Args:
        error: one of FAILURES, after the last try.
        what: the call, such as "put".
        place: the endpoint and the object's URI.
        waited: seconds in which it was tried again.
    """
    return answer_error(classify(error), fault_of(error), what, place, waited)


def fault_of(error: Exception) -> str:
    """What S3 answered, or what is in the way of an answer, in a few words."""
    status, code = status_and_code(error)
    if code == "RequestTimeTooSkewed":
        return f"{code}, as the clocks of this node and of the store are minutes apart"
    return code or (f"HTTP {status}" if status else _root(error))


def answer_error(kind: Kind, fault: str, what: str, place: str, waited: float = 0.0) -> StageError:
    """As `stage_error`, for a failure already classified."""
    match kind:
        case Kind.UNTRUSTED:
            return ConfigurationError(
                Reason.STORAGE_DENIED,
                f"{what} {place}: the server's certificate is not trusted ({fault}); "
                "put its CA as ca.crt into the Secret of spec.storage.secretRef",
            )
        case Kind.DENIED | Kind.ABSENT:
            return ConfigurationError(
                Reason.STORAGE_DENIED,
                f"{what} {place}: {fault}; check the bucket's name, AWS_REGION and the rights "
                "of the key in spec.storage.secretRef (get, put, delete, list)",
            )
        case Kind.UNSUPPORTED:
            return ConfigurationError(
                Reason.CONDITIONAL_PUT_UNSUPPORTED,
                f"{what} {place}: {fault}; the store must support conditional writes "
                "(If-None-Match and If-Match on PutObject)",
            )
        case Kind.FULL:
            return InfrastructureError(
                Reason.STORAGE_FULL,
                f"{what} {place}: {fault}, still so after {waited:g} s; free space in the store, "
                "or raise the bucket's quota",
            )
        case _:
            return InfrastructureError(
                Reason.STORAGE_UNAVAILABLE,
                f"{what} {place}: {fault}, still so after {waited:g} s of tries; "
                "check AWS_ENDPOINT_URL, the network policy and the store itself",
            )


def _root(error: BaseException) -> str:
    last = list(_chain(error))[-1]
    if isinstance(last, socket.gaierror):
        return f"its name does not resolve ({last})"[:300]
    return f"{type(last).__name__}: {last}"[:300]


def _chain(error: BaseException):
    """The error and what it was raised from, outermost first."""
    seen: set[int] = set()
    current: object = error
    while isinstance(current, BaseException) and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = (
            getattr(current, "reason", None) or current.__cause__ or current.__context__ or None
        )
