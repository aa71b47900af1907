"""Reading and writing whole images and masks. Nothing is converted silently: what is not plain 8-bit is an error.

A reader that quietly drops alpha, scales 16 bits down or ignores a camera's turn trains on other pixels than the ones
the user sees, so each of these is a :class:`BadImage` that names the file, the value and the mend.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from eosin.core.artifact import atomic_file
from eosin.core.classes import Classes
from eosin.core.errors import EosinError

Pixels = NDArray[np.uint8]

# Pillow warns at half of the size at which it refuses; only the refusal is of use here, and it is answered below.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What it warns of in damaged TIFF files is told here as an error, in one line.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL.TiffImagePlugin")

_ORIENTATION = 0x0112
# What Pillow's decoders raise on damaged files, as found by cutting and altering files of every format we read.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError, struct.error, zlib.error)
_NOT_RGB = {
    "L": "a greyscale image; save it as RGB",
    "1": "a black-and-white image; save it as RGB",
    "P": "a palette image; save it as RGB",
    "CMYK": "a CMYK image; convert it to RGB",
}


class BadImage(EosinError):
    """An image or mask file that cannot be taken as it is."""


def read_rgb(path: Path) -> Pixels:
    """Read an RGB image as it is stored.

    Returns:
        uint8 ``[H, W, 3]``, 0..255.

    Raises:
        BadImage: for a missing, empty, damaged or oversized file, and for one that is 16-bit, grey, palette, CMYK, has
            an alpha channel or is turned by EXIF.
    """
    with _opened(path) as image:
        if image.mode != "RGB":
            raise BadImage(f"{path}: {_NOT_RGB.get(image.mode) or f'{image.mode} pixels; save it as 8-bit RGB'}")
        return np.array(image)


def read_mask(path: Path) -> Pixels:
    """Read a mask of class indices; of a palette image the index is the class, whatever its colour.

    Returns:
        uint8 ``[H, W]``, 0..255.

    Raises:
        BadImage: as :func:`read_rgb`, and for masks in colours, in JPEG or with fewer than 8 grey bits.
    """
    with _opened(path) as image:
        if image.format == "JPEG":
            raise BadImage(f"{path}: a JPEG mask, whose values are not exact; save the class indices as PNG")
        if image.mode not in ("L", "P"):
            what = "colours" if image.mode in ("RGB", "CMYK") else f"{image.mode} pixels"
            raise BadImage(f"{path}: a mask of {what}; save one 8-bit class index per pixel (grey or palette PNG)")
        return np.array(image)


def read_grey(path: Path) -> Pixels:
    """Read the brightness of a picture, where a mask is handed out as one (JPEG), for the caller to cut at a level.

    Returns:
        uint8 ``[H, W]``, 0..255.

    Raises:
        BadImage: as :func:`read_rgb`, but for grey pictures.
    """
    with _opened(path) as image:
        if image.mode not in ("L", "RGB"):
            raise BadImage(f"{path}: {image.mode} pixels; save it as a grey picture")
        return np.array(image.convert("L"))


def read_palette(path: Path) -> Pixels | None:
    """The colours of a palette image, uint8 ``[N, 3]`` RGB by index, from the header alone; None if it has none.

    Raises:
        BadImage: for a missing, empty or unreadable file.
    """
    with _opened(path, pixels=False) as image:
        colours = image.getpalette("RGB") if image.mode == "P" else None
        return None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, from the header alone.

    Raises:
        BadImage: for a missing, empty or unreadable file.
    """
    with _opened(path, pixels=False) as image:
        return image.height, image.width


def png_bytes(pixels: Pixels, classes: Classes | None = None) -> bytes:
    """Encode pixels as PNG.

    Args:
        pixels: uint8 ``[H, W, 3]`` for RGB or ``[H, W]`` for class indices.
        classes: gives a mask its palette; indices without a class are black, the ignore index is white.

    Raises:
        ValueError: if the pixels have another shape or type.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"pixels must be uint8 [H, W] or [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if classes is not None:
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(classes)] = classes.colours
        palette[classes.ignore] = 255
        image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)  # on H&E twice as fast as 6 and 9 % larger
    return buffer.getvalue()


def write_mask(path: Path, mask: Pixels, classes: Classes | None = None) -> None:
    """Write class indices as PNG, whole or not at all; with ``classes`` in their colours (the index stays the class).

    Args:
        path: the file to write.
        mask: uint8 ``[H, W]``.
        classes: see :func:`png_bytes`.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(png_bytes(mask, classes))


@contextmanager
def _opened(path: Path, pixels: bool = True) -> Iterator[Image.Image]:
    """Open an image and, if ``pixels`` are wanted, decode it after the checks that both kinds of file share."""
    try:
        if path.stat().st_size == 0:
            raise BadImage(f"{path}: the file has 0 bytes; copy it again from its source")
        with Image.open(path) as image:
            if pixels:
                _refuse_traps(path, image)
                image.load()
            yield image
    except FileNotFoundError:
        raise BadImage(f"{path}: no such file; correct the path or restore the file") from None
    except IsADirectoryError:
        raise BadImage(f"{path}: is a folder; name an image file") from None
    except PermissionError:
        raise BadImage(f"{path}: may not be read; change its permissions") from None
    except UnidentifiedImageError:
        raise BadImage(f"{path}: not an image of a known format; save it as PNG, JPEG, TIFF or BMP") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise BadImage(f"{path}: more than {most:,} pixels; cut it into tiles or save it as a slide") from None
    except _DAMAGED as error:
        raise BadImage(f"{path}: damaged or cut short ({_one_line(error)}); copy it again from its source") from None


def _refuse_traps(path: Path, image: Image.Image) -> None:
    """Refuse what decoding would hide; it must run before the pixels are loaded."""
    raw = [str(part) for tile in getattr(image, "tile", []) for part in _flat(tile[3])]
    if image.mode in ("I", "F") or image.mode.startswith("I;16") or any(";16" in part for part in raw):
        raise BadImage(f"{path}: more than 8 bits per channel; save it with 8 bits")
    if image.mode == "L" and any(part in ("L;2", "L;4") for part in raw):
        raise BadImage(f"{path}: fewer than 8 grey bits, whose values readers stretch; save it with 8 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (image.mode == "RGB" and "transparency" in image.info):
        raise BadImage(f"{path}: has an alpha channel; save it without transparency")
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation in range(2, 9):
        raise BadImage(f"{path}: turned by EXIF (orientation {orientation}); turn the pixels and clear the tag")


def _flat(part: object) -> tuple[object, ...]:
    return part if isinstance(part, tuple) else (part,)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
