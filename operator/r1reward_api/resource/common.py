# SPDX-License-Identifier: Apache-2.0
"""Pieces that job and runtime share."""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from r1reward_api.base import ApiModel, DnsName, Rule, SecretKey, ShortText

_NUMBER = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
_QUANTITY = rf"^(\+|-)?{_NUMBER}(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?{_NUMBER}))?$"
Quantity = Annotated[
    str | int,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": _QUANTITY,
        }
    ),
]
FreeObject = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""A Kubernetes object that is passed on as it is; the API server checks it in the child."""

ResourceName = Annotated[str, Field(min_length=1, max_length=253)]
Labels = Annotated[
    dict[
        Annotated[str, Field(max_length=317)],
        Annotated[str, Field(max_length=63)],
    ],
    Field(max_length=32),
]
HttpUrl = Annotated[
    str,
    Field(max_length=1024),
    Rule("isURL(self) && self.startsWith('http')", "must be an http:// or https:// URL"),
]


class LocalSecretRef(ApiModel):
    """A Secret of the job's namespace."""

    name: DnsName
    """Name of the Secret."""


class SecretKeyRef(ApiModel):
    """One key of a Secret of the job's namespace."""

    name: DnsName
    """Name of the Secret."""
    key: SecretKey
    """Key inside the Secret."""


class ResourceRequirements(ApiModel):
    """Container resources, of any vendor."""

    requests: Annotated[dict[ResourceName, Quantity], Field(max_length=16)] = {}
    """Amounts that the scheduler reserves."""
    limits: Annotated[dict[ResourceName, Quantity], Field(max_length=16)] = {}
    """Amounts that the container may not exceed."""


class Toleration(ApiModel):
    """A toleration as in a pod spec."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Taint key; empty matches all with operator Exists."""
    operator: Annotated[str, Field(pattern="^(Exists|Equal)$")] | None = None
    """Exists or Equal."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Taint value to match."""
    effect: Annotated[str, Field(pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")] | None = None
    """Taint effect to match; empty matches all."""
    toleration_seconds: int | None = None
    """How long NoExecute is tolerated, in seconds."""


class EnvVar(ApiModel):
    """A plain environment variable; secrets are never given this way."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its value."""


Image = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s]+$")]
Name = ShortText
