"""The tissues of a data set: their order, names and colours."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Colour = tuple[int, int, int]


class Tissue(BaseModel):
    """One class: ``name`` as the field says it, ``colour`` as 8-bit RGB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    colour: Colour

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(r"[\w][\w .+-]*", name):
            raise ValueError(f"class name {name!r} must be letters, digits, blanks and . + - _")
        return name

    @field_validator("colour")
    @classmethod
    def _bytes(cls, colour: Colour) -> Colour:
        if any(not 0 <= c <= 255 for c in colour):
            raise ValueError(f"colour {colour} must be three numbers in 0..255")
        return colour


class Classes(BaseModel):
    """The ordered tissues; a mask's value ``k`` means ``tissues[k]``, ``ignore`` means "not scored"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tissues: tuple[Tissue, ...] = Field(min_length=1)
    ignore: int = Field(default=255, ge=0, le=255)

    @model_validator(mode="after")
    def _distinct(self) -> Classes:
        if len({t.name for t in self.tissues}) != len(self.tissues):
            raise ValueError("two classes have the same name")
        if self.ignore < len(self.tissues):
            raise ValueError(f"the ignore index {self.ignore} is also a class; use 255")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The class names in mask order."""
        return tuple(t.name for t in self.tissues)

    @property
    def colours(self) -> tuple[Colour, ...]:
        """The RGB colours in mask order."""
        return tuple(t.colour for t in self.tissues)

    def __len__(self) -> int:
        return len(self.tissues)

    def __iter__(self) -> Iterator[Tissue]:  # type: ignore[override]
        return iter(self.tissues)
