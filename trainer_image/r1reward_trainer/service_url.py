# SPDX-License-Identifier: Apache-2.0
"""Addresses of services, out of the job or a flag, as an HTTP client can use them."""

import httpx

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError


def usable(url: str, field: str, example: str = "https://host:port/v1") -> str:
    """The URL without "/" at its end.

    Args:
        url: of a service.
        field: of the job, or flag, which has it.
        example: of one that would do.

    Raises:
        ConfigurationError: for one that could never be asked: an HTTP client finds that out only
            as it asks, and raises what is none of its errors.
    """
    try:
        parsed = httpx.URL(url)
        host, port = parsed.host, parsed.port
        if parsed.scheme not in ("http", "https"):
            raise httpx.InvalidURL(f"scheme {parsed.scheme!r}")
        if not host or (port is not None and not 0 < port < 65536):
            raise httpx.InvalidURL(f"host {host!r}, port {port}")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigurationError(
            Reason.CONFIGURATION_ERROR,
            f"{field} {url!r} is no URL that can be asked: {error}; it must look like {example}",
        ) from error
    return url.rstrip("/")
