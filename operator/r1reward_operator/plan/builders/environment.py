# SPDX-License-Identifier: Apache-2.0
"""Environment variables of containers. Secrets are only ever named."""

from collections.abc import Iterable
from typing import Any

from r1reward_api.constants import S3_CA_PATH
from r1reward_api.resource.common import EnvVar, SecretKeyRef
from r1reward_api.resource.job import ModelSpec, StorageSpec

EnvList = list[dict[str, Any]]

_REQUIRED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_OPTIONAL = ("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION")


def plain(name: str, value: str) -> dict[str, Any]:
    """A variable with a value."""
    return {"name": name, "value": value}


def from_field(name: str, path: str) -> dict[str, Any]:
    """A variable from the pod's own metadata."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def from_secret(name: str, ref: SecretKeyRef, optional: bool = False) -> dict[str, Any]:
    """A variable from a Secret's key."""
    key: dict[str, Any] = {"name": ref.name, "key": ref.key}
    if optional:
        key["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": key}}


def storage(spec: StorageSpec) -> EnvList:
    """What a container needs to reach the object store.

    Without a Secret (workload identity) the cluster supplies the credentials.
    """
    if spec.secret_ref is None:
        return []
    secret = spec.secret_ref.name
    return [
        *(from_secret(n, SecretKeyRef(name=secret, key=n)) for n in _REQUIRED),
        *(from_secret(n, SecretKeyRef(name=secret, key=n), optional=True) for n in _OPTIONAL),
        *storage_trust(spec),
    ]


def storage_trust(spec: StorageSpec) -> EnvList:
    """Where a container finds the object store's CA: a server needs it for presigned URLs."""
    return [] if spec.secret_ref is None else [plain("R1_S3_CA_FILE", S3_CA_PATH)]


def hub_token(spec: ModelSpec) -> EnvList:
    """What a container needs to read gated models of the Hugging Face hub."""
    ref = spec.token_secret_ref
    return [] if ref is None else [from_secret("HF_TOKEN", ref)]


def merged(template: Iterable[EnvVar], own: EnvList) -> EnvList:
    """The platform's variables and ours; ours win, and no name comes twice."""
    by_name = {e.name: plain(e.name, e.value) for e in template}
    by_name |= {e["name"]: e for e in own}
    return list(by_name.values())
