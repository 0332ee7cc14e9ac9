"""The base of all configuration: closed, frozen, finite, explained; and what of it defines a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


def label(name: str) -> str:
    """Return how a form names a field or a choice: `learning_rate` -> `Learning rate`."""
    return (name[:1].upper() + name[1:]).replace("_", " ")


class Config(BaseModel):
    """A closed and frozen set of values. An unknown key, infinity or NaN is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema with labels for a form: every field has one, and a choice is called by its `kind`."""
        schema = handler(core)
        model = handler.resolve_ref_schema(schema)
        kind = cls.model_fields.get("kind")
        model["title"] = label(str(kind.default) if kind is not None else cls.__name__.removesuffix("Config"))
        for name, field in model.get("properties", {}).items():
            field["title"] = label(name)
            if "const" in field:  # one to choose from: a form lets nobody type another
                field.setdefault("enum", [field["const"]])
                field.setdefault("description", "Which choice this is.")
        return schema

    def key_revision(self) -> int:
        """Return how often what these values lead to has changed while what most values lead to has not; it is in the key.

        A stage's version says the same of all its configs, and has all of them computed again.
        """
        return 0


@dataclass(frozen=True)
class NotIdentity:
    """Marks a field that says where something runs or lies, not what it is: left out of every stage key."""


@dataclass(frozen=True)
class LeftOutWhile:
    """Marks a field added after the first release: left out of the key while it has the value of the old behaviour."""

    value: Any


Location = Annotated[str, NotIdentity()]
"""A path or URI. Its content enters a stage's identity as an input digest, its place never does."""

License = Annotated[str, NotIdentity()]
"""What others may do with a source or a base. It is carried to the model card and defines no result."""

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Licensed(Config):
    """Something that others made and that goes into a model."""

    license: License = Field(
        default="",
        description="Its licence, as an SPDX id (CC-BY-4.0) or in words; told on the model card. '' = not stated.",
    )


def canonical(config: Any) -> Any:
    """Return the JSON value that defines a result: fields in name order, places left out.

    Floats that are whole numbers stay floats, so that 1 and 1.0 of a float field give one key: pydantic has
    already made them the same type.
    """
    if isinstance(config, BaseModel):
        out: dict[str, Any] = {}
        for name, info in sorted(type(config).model_fields.items()):
            value = getattr(config, name)
            if any(isinstance(mark, NotIdentity) for mark in info.metadata):
                continue
            if any(isinstance(mark, LeftOutWhile) and mark.value == value for mark in info.metadata):
                continue
            out[name] = canonical(value)
        if isinstance(config, Config) and config.key_revision():
            out["key_revision"] = config.key_revision()
        return out
    if isinstance(config, dict):
        return {str(key): canonical(value) for key, value in sorted(config.items())}
    if isinstance(config, (list, tuple)):
        return [canonical(value) for value in config]
    return config
