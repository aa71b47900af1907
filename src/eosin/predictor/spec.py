"""The card of a model folder: what the model is, where it comes from, and the digests of its files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eosin.core.artifact import read_json, write_bytes
from eosin.core.classes import Classes
from eosin.core.errors import EosinError
from eosin.core.values import Selection
from eosin.predictor.domain import Domain

CARD = "card.json"
PROGRAM = "program.pt2"

Runtime = Literal["torch", "onnx", "openvino"]
"""What runs a model."""

Precision = Literal["fp32", "bf16", "int8"]
"""What it computes in."""

Form = Literal["onnx", "openvino", "openvino-int8", "wsinfer"]
"""What a model is stored as beside its program."""


_RESTRICTED = re.compile(
    r"research|academic|evaluation|\bnon-?\s?commercial|\b(no|not for) commercial|\bNC\b", re.IGNORECASE
)


class Parity(BaseModel):
    """How far one form of a model is from another, over tiles in batches of 1 and of 5.

    Attributes:
        max_difference: largest difference of a probability.
        argmax_agreement: share of the pixels with the same most probable class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_difference: float = Field(ge=0)
    argmax_agreement: float = Field(ge=0, le=1)


class Export(BaseModel):
    """A model in another form than its program.

    Attributes:
        files: SHA-256 (hex) of each file, by its path in the folder.
        parity: against the program, on drawn tissue and noise; for ``wsinfer``, of the probabilities of tags, where
            the more probable of present and absent counts as the class; for ``openvino-int8``, on images that it was
            not calibrated on.
        made_with: for ``wsinfer`` the trained step that answers, for ``openvino-int8`` the data it was calibrated on
            and their terms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, str] = Field(min_length=1)
    parity: Parity
    made_with: str | None = None


class Card(BaseModel):
    """Everything a user of the model must know; ``card.json`` in the model folder.

    Attributes:
        version: of this format (``schema`` in the file).
        classes: the tissues, in the order of the output channels.
        tile: side in pixels of the square input.
        margin: pixels at a tile's border that are trusted less; tiles overlap by twice as much.
        mpp: micrometres per pixel that the model was trained at; None where it was not known.
        method: the method's name.
        recipe: digest of the recipe.
        selection: what the epoch was chosen by.
        scores: as in ``scores.json``.
        temperature: T at which p ** (1 / T), made to sum to 1, is calibrated on the validation masks; None without.
        dataset: name of the data set.
        licences: of the data and of the weights the training began with.
        domain: what training tiles look like; None where that was not measured.
        eosin: version that wrote the model.
        use: always "research use only".
        files: SHA-256 (hex) of the program, by its name. A folder that holds other forms alone names it all the same:
            it is what they were made from.
        parity: of the program against the network, filled when the model is written.
        exports: the other forms, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    classes: Classes
    tile: int = Field(ge=1)
    margin: int = Field(ge=0)
    mpp: float | None = Field(default=None, gt=0)
    method: str
    recipe: str
    selection: Selection
    scores: tuple[dict[str, Any], ...] = ()
    temperature: float | None = Field(default=None, gt=0)
    dataset: str
    licences: tuple[str, ...] = ()
    domain: Domain | None = None
    eosin: str
    use: Literal["research use only"] = "research use only"
    files: dict[str, str] = {}
    parity: Parity | None = None
    exports: dict[Form, Export] = {}

    @model_validator(mode="after")
    def _overlap(self) -> Card:
        if 2 * self.margin >= self.tile:
            raise ValueError(f"a margin of {self.margin} px leaves nothing of a tile of {self.tile} px")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the card, and through ``files`` of the program; further forms do not change it."""
        return hashlib.sha256(_text(self._said({"exports"}))).hexdigest()

    def write(self, folder: Path) -> None:
        """Write ``card.json`` into ``folder``."""
        write_bytes(folder / CARD, _text(self._said(set())))

    def _said(self, unsaid: set[str]) -> dict[str, Any]:
        # A card from before there was a domain keeps its text and its digest.
        return self.model_dump(
            mode="json", by_alias=True, exclude=unsaid | ({"domain"} if self.domain is None else set())
        )

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Read ``card.json`` of a model folder.

        Raises:
            EosinError: if it is missing, of another schema, or has a wrong, missing or unknown value.
        """
        path = folder / CARD
        if not path.is_file():
            raise EosinError(f"{folder}: not a model folder (no {CARD}); give the model/ folder that `eosin run` wrote")
        value = read_json(path)
        schema = value.get("schema") if isinstance(value, dict) else None
        if schema != 1:
            raise EosinError(f"{path}: schema {schema!r} is not known here, only 1; use the eosin that wrote the model")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the card"
            raise EosinError(f"{path}: {where}: {first['msg']}; export the model again") from None


def restricted(licences: Iterable[str]) -> list[str]:
    """Those lines of a card's ``licences`` that say that they allow research only, or no commercial use.

    Names stand before the colon of a line and do not count.
    """
    return [line for line in licences if _RESTRICTED.search(line.partition(": ")[2] or line)]


def _text(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
