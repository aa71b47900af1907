"""Reading the masks of releases: by number or by colour, and never with two classes taken for each other."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eosin.core.classes import Classes, Colour
from eosin.core.errors import EosinError
from eosin.slides.image import image_size, read_mask, read_palette, read_rgb

Array = np.ndarray

# Masks of one tissue and the rest come with 0 and 1, or with 0 and 255; 0, 1 and 255 in one mask would be a riddle.
BINARY = ({0: 0, 1: 1}, {0: 0, 255: 1})
BLACK_WHITE: tuple[Colour, ...] = ((0, 0, 0), (255, 255, 255))


@dataclass(frozen=True, slots=True)
class Coding:
    """How the masks of a format say their classes.

    Attributes:
        classes: the classes.
        palettes: colours that masks of this format are known with, each the class and its colour in class order, and
            last that of the ignore index where there is one.
        numbers: what the values of a grey or palette mask mean, as value to class index; the first that has all values
            of a mask counts. Without it a value is the class, or the ignore index.
    """

    classes: Classes
    palettes: Sequence[Sequence[Colour]]
    numbers: Sequence[Mapping[int, int]] = ()


def read_coded(path: Path, coding: Coding) -> Array:
    """Read a mask of numbers, of black and white, or of colours of one of the known palettes.

    Returns:
        uint8 ``[H, W]``, class indices and the ignore index.

    Raises:
        EosinError: for a value or colour that stands for nothing, and for a palette image that shows one class in the
            colour of another, so that nobody can say which of the two is meant.
    """
    mode = mask_mode(path)
    if mode == "RGB":
        return _of_colours(path, coding)
    mask = _of_bits(path) if mode == "1" else read_mask(path)
    used = set(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist())
    meanings = coding.numbers or [{value: value for value in (*range(len(coding.classes)), coding.classes.ignore)}]
    for meaning in meanings:
        if used <= set(meaning):
            _refuse_swapped(path, used, meaning, coding)
            table = np.zeros(256, np.uint8)
            table[list(meaning)] = list(meaning.values())
            return table[mask]
    strange = min(used - set(meanings[0]))
    said = " or ".join(_said(meaning, coding.classes) for meaning in meanings)
    raise EosinError(f"{path}: value {strange} is none of {said}; take the mask that came with the data")


def mask_mode(path: Path) -> str:
    """Pillow's word for the kind of pixels: ``L`` and ``P`` are numbers, ``1`` bits, ``RGB`` colours.

    Raises:
        BadImage: if the file is missing or no image.
    """
    image_size(path)  # says what is wrong with a file that cannot be opened
    with Image.open(path) as image:
        return str(image.mode)


def _of_bits(path: Path) -> Array:
    try:
        with Image.open(path) as image:
            return np.array(image).astype(np.uint8)
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise EosinError(f"{path}: damaged or cut short ({error}); copy it again from its source") from None


def _of_colours(path: Path, coding: Coding) -> Array:
    pixels = read_rgb(path).astype(np.uint32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    found, inverse = np.unique(packed, return_inverse=True)
    used = [(int(value) >> 16, int(value) >> 8 & 255, int(value) & 255) for value in found]
    targets = (*range(len(coding.classes)), coding.classes.ignore)
    tables = [dict(zip(palette, targets, strict=False)) for palette in coding.palettes]
    for table in tables:
        if all(colour in table for colour in used):
            return np.array([table[colour] for colour in used], np.uint8)[inverse].reshape(packed.shape)
    known = {colour for table in tables for colour in table}
    foreign = next((colour for colour in used if colour not in known), used[-1])
    raise EosinError(f"{path}: colour {foreign} is none of this format's masks; save the class as the index instead")


def _refuse_swapped(path: Path, used: set[int], meaning: Mapping[int, int], coding: Coding) -> None:
    """Of a palette image the index counts, unless its colour says that another class is meant."""
    stored = read_palette(path)
    if stored is None:
        return
    names = coding.classes.names
    colours = {index: _rgb(stored[index]) for index in sorted(used) if index < len(stored)}
    for palette in coding.palettes:
        shown = dict(zip(palette, range(len(names)), strict=False))
        # One colour alone is no evidence of a lesser palette: most palettes have a black.
        if palette is not coding.palettes[0] and not (len(used) > 1 and set(colours.values()) <= set(palette)):
            continue
        for index, colour in colours.items():
            meant, other = meaning[index], shown.get(colour, meaning[index])
            if other != meant < len(names):
                says = f"palette index {index} ({names[meant]}) has the colour of {names[other]}"
                raise EosinError(f"{path}: {says}; save it with the class as the index and its own colour")


def _rgb(colour: Array) -> Colour:
    red, green, blue = map(int, colour)
    return red, green, blue


def _said(meaning: Mapping[int, int], classes: Classes) -> str:
    names = dict(enumerate(classes.names))
    return ", ".join(f"{value} {names.get(index, 'ignore')}" for value, index in meaning.items())
