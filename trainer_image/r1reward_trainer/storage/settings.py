# SPDX-License-Identifier: Apache-2.0
"""Where the store is and who asks it, out of the environment. No error shows a secret value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError

_NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
)
_REGION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_LOOK = "must look like https://host[:port], without user, folder or query"


@dataclass(frozen=True)
class StoreSettings:
    """An S3 store.

    Attributes:
        endpoint: its URL.
        host: host[:port].
        secure: whether it is spoken to over TLS.
        region: its region.
        key: access key id, secret access key, session token (may be empty); None: workload
            identity.
    """

    endpoint: str
    host: str
    secure: bool
    region: str
    key: tuple[str, str, str] | None


def store_settings(environ: Mapping[str, str]) -> StoreSettings:
    """The settings, with white space around each value left out: a Secret made with `echo` ends in
    a newline.

    Raises:
        ConfigurationError: StorageDenied, when one of them makes no sense. An HTTP client would
            put a key that no header can hold into its error.
    """
    given = {name: _printable(name, environ.get(name) or "") for name in _NAMES}
    region = given["AWS_REGION"] or "us-east-1"
    if not _REGION.fullmatch(region):
        raise _denied(f"AWS_REGION {region!r} must look like us-east-1")
    endpoint = given["AWS_ENDPOINT_URL"] or f"https://s3.{region}.amazonaws.com"
    address = _address(endpoint)
    key, secret = given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"]
    if bool(key) != bool(secret):
        raise _denied("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be given together")
    return StoreSettings(
        endpoint=endpoint,
        host=address.netloc,
        secure=address.scheme == "https",
        region=region,
        key=(key, secret, given["AWS_SESSION_TOKEN"]) if key else None,
    )


def _printable(name: str, value: str) -> str:
    value = value.strip()
    if not (value.isascii() and value.isprintable()):
        raise _denied(
            f"{name} holds a line break, a control character or a character outside of ASCII, "
            "which no HTTP header can carry; correct the Secret of spec.storage.secretRef"
        )
    return value


def _address(endpoint: str) -> SplitResult:
    if set("@?#") & set(endpoint):  # such a part may be a secret
        raise _denied(f"AWS_ENDPOINT_URL {_LOOK}; correct the Secret of spec.storage.secretRef")
    try:
        address = urlsplit(endpoint)
        host, port = address.hostname, address.port  # only now a wrong port is seen
    except ValueError as error:
        raise _denied(f"AWS_ENDPOINT_URL {endpoint!r} {_LOOK}: {error}") from error
    senseless = not host or " " in host or port == 0 or address.path.strip("/")
    if address.scheme not in ("http", "https") or senseless:
        raise _denied(f"AWS_ENDPOINT_URL {endpoint!r} {_LOOK}")
    return address


def _denied(message: str) -> ConfigurationError:
    return ConfigurationError(Reason.STORAGE_DENIED, message)
