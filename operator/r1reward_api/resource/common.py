# SPDX-License-Identifier: Apache-2.0
"""Pieces that job and runtime share."""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from r1reward_api.base import (
    BUCKET_AND_KEY,
    NO_PARENT,
    ApiModel,
    DnsName,
    Rule,
    SecretKey,
    ShortText,
    in_words,
)

_QUANTITY = r"^[0-9]*\.?[0-9]+([numkMGTPE]|[KMGTPE]i|[eE][0-9]+)?$"
Quantity = Annotated[
    str | int,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "maxLength": 32,  # else the API server takes the rule for too dear
        }
    ),
    Rule(
        f"type(self) == int || self.matches(r'{_QUANTITY}')",
        "must be an amount such as 2, 500m or 16Gi: a number without a sign, then nothing or one "
        "of m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei",
    ),
]
"""As Kubernetes writes them (500m, 2, 16Gi), but never negative."""
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
_HOST = r"([a-zA-Z0-9]([-._a-zA-Z0-9]*[.a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])"
_PORT = r":([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HTTP_URL = rf'^https?://{_HOST}({_PORT})?(/[!"$->@-~]*)?$'  # a path of ASCII, but for ? and #
HttpUrl = Annotated[
    str,
    Field(max_length=1024, pattern=_HTTP_URL),
    in_words(
        _HTTP_URL,
        "must be an http:// or https:// URL such as https://host:port/v1, in ASCII, without user, "
        "password or query",
    ),
]
_HUB_REPOSITORY = r"hf://[a-zA-Z0-9][-._a-zA-Z0-9]*/[a-zA-Z0-9][-._a-zA-Z0-9]*/?"
_CLAIM_PATH = r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.*)?"
_MODEL_URI = rf"^({_HUB_REPOSITORY}|{BUCKET_AND_KEY}|{_CLAIM_PATH})$"
_FETCHED_MODEL_URI = rf"^({_HUB_REPOSITORY}|{BUCKET_AND_KEY})$"
ModelUri = Annotated[
    str,
    Field(max_length=1024, pattern=_MODEL_URI),
    in_words(_MODEL_URI, "must be hf://organisation/name, s3://bucket/prefix or pvc://claim/path"),
    NO_PARENT,
]
FetchedModelUri = Annotated[
    str,
    Field(max_length=1024, pattern=_FETCHED_MODEL_URI),
    in_words(_FETCHED_MODEL_URI, "must be hf://organisation/name or s3://bucket/prefix"),
    NO_PARENT,
]
"""Of a model that a server downloads itself: it mounts no claim."""


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


_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


class EnvVar(ApiModel):
    """A plain environment variable; secrets are never given this way."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=128, pattern=_VARIABLE),
        in_words(_VARIABLE, "must be a name of letters, digits and '_', such as NCCL_DEBUG"),
    ]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its value."""


_IMAGE = r"^[^\s]+$"
Image = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=_IMAGE),
    in_words(_IMAGE, "must be an image such as registry.example/r1reward/trainer:tag"),
]
Name = ShortText
