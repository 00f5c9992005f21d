# SPDX-License-Identifier: Apache-2.0
"""Credentials of a pod's workload identity.

minio raises one ValueError for whatever answer it did not want, with the URL in its text; of a web
identity that URL holds the pod's token. So answers are judged here before minio sees them.
"""

import ssl
import threading
import xml.etree.ElementTree as ElementTree
from typing import Any
from urllib.parse import urlsplit

from minio.credentials import Credentials, IamAwsProvider, Provider

from r1reward_api.reasons import Reason
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.storage.errors import Kind, classify_answer, error_code
from r1reward_trainer.storage.transport import Pool

_THROTTLED = "Throttl"
"""STS says `Throttling` with HTTP 400."""


class WorkloadIdentity(Provider):
    """What minio asks for credentials; thread-safe.

    Args:
        region: of the store.
        trust: whose certificates are trusted.
    """

    def __init__(self, region: str, trust: ssl.SSLContext) -> None:
        self._provider = IamAwsProvider(region=region, http_client=_Answers(trust))
        self._lock = threading.Lock()

    def retrieve(self) -> Credentials:
        """Credentials that hold for a while.

        Raises:
            ConnectionError: nobody gives them now.
            ConfigurationError: StorageDenied, nobody will.
        """
        with self._lock:  # when they end, many threads notice at once
            try:
                return self._provider.retrieve()
            except (ValueError, KeyError, FileNotFoundError, ElementTree.ParseError) as error:
                kind = type(error).__name__
        # Not within the handler: what is raised there carries the first error, and its text.
        raise _denied(f"what gives credentials cannot be read ({kind})")


class _Answers(Pool):
    """Raises for every answer that holds no credentials."""

    def urlopen(self, method: str, url: str, redirect: bool = True, **rest: Any) -> Any:
        """As the base class, for status 200 alone.

        Raises:
            ConnectionError: the same question may be answered later.
            ConfigurationError: StorageDenied.
        """
        answer = super().urlopen(method, url, redirect, **rest)
        if answer.status in (200, 204, 206):
            return answer
        code = error_code(answer.data.decode(errors="replace"))
        fault = f"{urlsplit(url).hostname} answers HTTP {answer.status} {code}".rstrip()
        if code.startswith(_THROTTLED) or classify_answer(answer.status, code) is Kind.TRANSIENT:
            raise ConnectionError(f"credentials of the workload identity: {fault}")
        raise _denied(fault)


def _denied(fault: str) -> ConfigurationError:
    return ConfigurationError(
        Reason.STORAGE_DENIED,
        f"credentials of the workload identity: {fault}; check the role of the ServiceAccount in "
        "spec.storage.serviceAccountName, and whom the role trusts",
    )
