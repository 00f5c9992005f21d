# SPDX-License-Identifier: Apache-2.0
"""Credentials that change on disk while the process runs, as the kubelet rotates them."""

from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from kubernetes.config import incluster_config

from r1reward_operator.kube.client import KubeClient, Resource
from tests.cluster.apiserver import Kubernetes

ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REREAD = timedelta(minutes=1)
"""How old a token may be that is used; the kubelet rotates an hour's token after 48 minutes."""


def token(client: KubeClient, namespace: str, account: str) -> str:
    client.create(ACCOUNTS, {"metadata": {"namespace": namespace, "name": account}})
    path = ACCOUNTS.path(namespace, account, "token")
    return client.post(path, {"spec": {"expirationSeconds": 600}})["status"]["token"]


def who_am_i(client: KubeClient) -> str:
    review = client.post(REVIEWS, {"apiVersion": "authentication.k8s.io/v1",
                                   "kind": "SelfSubjectReview"})  # fmt: skip
    return review["status"]["userInfo"]["username"].rpartition(":")[2]


def test_a_rotated_token_is_used_without_a_restart(
    apiserver: Kubernetes,
    client: KubeClient,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = timedelta()

    class Later(datetime):
        @classmethod
        def now(cls, tz=None) -> datetime:
            return datetime.now(tz) + late

    file = tmp_path / "token"
    file.write_text(token(client, namespace, "old"))
    address = urlsplit(apiserver.url)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(file))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(apiserver.authority))
    times = SimpleNamespace(datetime=Later, timedelta=timedelta)
    monkeypatch.setattr(incluster_config, "datetime", times)

    in_a_pod = KubeClient.from_environment()
    assert who_am_i(in_a_pod) == "old"
    file.write_text(token(client, namespace, "new"))
    late = REREAD
    assert who_am_i(in_a_pod) == "new"
