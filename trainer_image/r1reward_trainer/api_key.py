# SPDX-License-Identifier: Apache-2.0
"""Keys of services, out of Secrets, as an HTTP header can carry them."""

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError


def bearer(api_key: str | None, field: str) -> dict[str, str]:
    """The Authorization header; none without a key. Arguments and errors as of `carriable`."""
    key = carriable(api_key, field)
    return {"Authorization": f"Bearer {key}"} if key else {}


def carriable(api_key: str | None, field: str) -> str:
    """The key; empty without one.

    White space around the key is left out: a Secret made with `echo` ends in a newline.

    Args:
        api_key: a Secret's value; no error shows it.
        field: of the job, which names the Secret.

    Raises:
        ConfigurationError: for a key that no header can hold. An HTTP client would put it, key
            and all, into its error.
    """
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(
            Reason.CONFIGURATION_ERROR,
            f"{field}: the key in the Secret holds a line break, a control character or a "
            "character outside of ASCII, which no HTTP header can carry; correct the Secret",
        )
    return key
