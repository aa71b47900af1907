"""Reading a file of a model folder: nothing is looked at before its digest was found to be the card's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eosin.core.errors import EosinError
from eosin.predictor.spec import Card


def listed(folder: Path, name: str, files: Mapping[str, str]) -> bytes:
    """The content of a file whose digest is known.

    Args:
        folder: the model folder.
        name: of the file; always one of ours, never what a card says.
        files: SHA-256 (hex) by name.

    Raises:
        EosinError: if it is not listed, missing, or has another digest.
    """
    path = folder / name
    if name not in files:
        raise EosinError(f"{folder / 'card.json'}: files: {name} is not listed; export the model again")
    if not path.is_file():
        raise EosinError(f"{path}: no such file; copy the model folder whole")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != files[name]:
        raise EosinError(f"{path}: its SHA-256 is not the card's; the file is damaged or changed, copy it again")
    return data


def check_ends(path: Path, card: Card, found: Any) -> None:
    """Refuse a file that takes and gives something else than its card says.

    Args:
        path: of the file.
        card: of the folder.
        found: (shape without the batch, type) of what it takes and of what it gives.

    Raises:
        EosinError: if they differ.
    """
    wanted = ((card.tile, card.tile, 3), "uint8"), ((len(card.classes), card.tile, card.tile), "float32")
    if found != wanted:
        raise EosinError(f"{path}: takes and gives {found}, but the card says {wanted}; export the model again")
