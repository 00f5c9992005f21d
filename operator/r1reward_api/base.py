# SPDX-License-Identifier: Apache-2.0
"""What all models share: camelCase on the wire, nothing unknown accepted, markers."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Rule:
    """A CEL rule on the field's or model's schema (`x-kubernetes-validations`).

    Attributes:
        rule: the CEL expression; True when valid.
        message: what is wrong and the remedy.
    """

    rule: str
    message: str

    def to_wire(self) -> dict[str, str]:
        """As an entry of `x-kubernetes-validations`."""
        return {"rule": self.rule, "message": self.message}

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Called by pydantic for a Rule in an Annotated."""
        schema = dict(handler(core_schema))
        schema["x-kubernetes-validations"] = [
            *schema.get("x-kubernetes-validations", []),
            self.to_wire(),
        ]
        return schema


class ApiModel(BaseModel):
    """camelCase on the wire, snake_case in Python; unknown fields are errors."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """CEL rules of the whole object, put into the CRD."""

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready dict with wire names, unset optionals left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Adds the model's CEL rules to its schema."""
        schema = dict(handler(core_schema))
        if cls.rules:
            target = handler.resolve_ref_schema(schema)
            target["x-kubernetes-validations"] = [r.to_wire() for r in cls.rules]
        return schema


@dataclass(frozen=True)
class Operational:
    """Marks a field that does not change what a stage computes (replicas, resources,
    deadlines, transport): it is no part of the stage's key."""


@dataclass(frozen=True)
class Mutable:
    """Marks a field that may change after the job has started."""


OPERATIONAL = Operational()
MUTABLE = Mutable()


def in_words(pattern: str, message: str) -> Rule:
    """A pattern with its refusal in words. Beside `Field(pattern=…)`, which Python checks and
    whose refusal says only the pattern; in the CRD this rule takes its place."""
    return Rule(f"self.matches(r'{pattern}')", message)


NO_PARENT = Rule("!(self + '/').contains('/../')", "must not contain ..")
"""For paths: clients of object storage resolve `..`, and would leave bucket or folder."""

BUCKET_AND_KEY = r"s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/[^?#]*)?"
_OBJECT_URI = rf"^{BUCKET_AND_KEY}$"
_DNS_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_SECRET_KEY = r"^[-._a-zA-Z0-9]+$"

ShortText = Annotated[str, Field(min_length=1, max_length=253)]
DnsName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=_DNS_NAME),
    in_words(
        _DNS_NAME,
        "must be a name of lower-case letters, digits, '-' and '.', such as my-name",
    ),
]
SecretKey = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=_SECRET_KEY),
    in_words(_SECRET_KEY, "must be a key of letters, digits, '-', '_' and '.', such as api-key"),
]
ObjectUri = Annotated[
    str,
    Field(max_length=1024, pattern=_OBJECT_URI),
    in_words(
        _OBJECT_URI,
        "must look like s3://bucket/prefix, without ? and #; bucket names have 3 to 63 "
        "lower-case characters",
    ),
    NO_PARENT,
]
