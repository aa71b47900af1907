"""Opening a slide or an image by whatever reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import openslide
from PIL import Image, UnidentifiedImageError
from tifffile import PHOTOMETRIC, TiffPage

from eosin.slides.plain import ImageSlide
from eosin.slides.reference import ReferenceSlide
from eosin.slides.slide import ENDINGS, BadSlide, Slide
from eosin.slides.tiff import TiffSlide, direct, has_tiles, pages

Reader = Literal["auto", "openslide", "tifffile"]


def is_slide(path: Path) -> bool:
    """Whether a file is a slide by its ending or its header, if a damaged one, and not a plain image.

    PNG, JPEG, BMP and TIFF files without tiles are images.
    """
    ending = path.suffix.lower() in ENDINGS
    return ending or openslide.OpenSlide.detect_format(path) is not None or has_tiles(path)


def open_slide(path: Path, reader: Reader = "auto") -> Slide:
    """Open a slide, or an image as a slide of one level; ``with`` closes it.

    Args:
        path: the file.
        reader: what reads the tiles of slides: ``tifffile`` (directly, for TIFF and SVS files that are known to come
            out alike), ``openslide``, or ``auto``, the first where it can. Images are always read as images.

    Raises:
        BadSlide: if the file is missing, empty, damaged, cut short or of a format that is not known, or if tifffile is
            asked for and cannot read it as OpenSlide does.
        BadImage: if it is an image that is damaged.
    """
    if not path.exists():
        raise BadSlide(f"{path}: no such file; correct the path")
    if path.is_dir():
        raise BadSlide(f"{path}: is a folder; name a slide")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise BadSlide(f"{path}: the file has 0 bytes; copy it again from its source")
    except PermissionError:
        raise BadSlide(f"{path}: may not be read; change its permissions") from None
    try:
        handle = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        if not is_slide(path):
            return ImageSlide(path)
        raise BadSlide(f"{path}: {_other(path)}") from None
    except openslide.OpenSlideError as error:
        raise BadSlide(f"{path}: OpenSlide cannot open it ({error}); copy it again from its source") from None
    try:
        return _best(ReferenceSlide(path, handle), reader)
    except BaseException:
        handle.close()
        raise


def _best(reference: ReferenceSlide, reader: Reader) -> Slide:
    """What reads an open slide; its pages are looked at in any case, where they are known."""
    why = f"a slide of {reference.vendor}"
    if reference.vendor in ("aperio", "generic-tiff"):
        with pages(reference.path) as found:
            if reference.vendor == "generic-tiff":
                _refuse_maps(reference.path, found[0])
            tiled = direct(reference, found)
        if reader != "openslide" and not isinstance(tiled, str):
            return TiffSlide(reference, tiled)
        why = str(tiled)
    if reader == "tifffile":
        raise BadSlide(f"{reference.path}: tifffile might read other pixels ({why}); read it by openslide")
    return reference


def _refuse_maps(path: Path, page: TiffPage) -> None:
    """Refuse what OpenSlide would turn into colours: grey and palette pages, such as class maps, and 16 bits."""
    if page.photometric not in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR) or page.bitspersample != 8:
        kind = f"photometric {int(page.photometric)}, {page.bitspersample} bits"
        raise BadSlide(f"{path}: holds no colours of 8 bits ({kind}); is it a map and not a slide?")


def _other(path: Path) -> str:
    """What a file is that OpenSlide knows for no slide."""
    try:
        with Image.open(path) as image:
            kind = image.format or "other"
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return "not a slide that OpenSlide knows, or cut short; copy it again from its source"
    if kind != "TIFF":
        return f"holds a {kind} image and no slide; give it the ending of one"
    with pages(path) as tiled:  # which tells of a file that is cut short
        if tiled:
            return "a TIFF file whose pages OpenSlide cannot follow; write it anew with tiles and levels"
    return "a TIFF file without tiles; write it anew with tiles and levels, or name it .tif to read it as an image"
