"""How large a pixel is: what the user says, else what a table says, else what the file says, and never a guess."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from eosin.core.errors import EosinError, WrongUse
from eosin.slides.slide import BadSlide, PixelSize, Slide

LARGEST = 50.0
"""Micrometres per pixel beyond which no slide is scanned: what is larger is a placeholder (72 dpi is 353)."""

ALIKE = 0.01
"""The share by which the pixel sizes along x and y may differ."""


def pixel_size(slide: Slide, mpp: float | None = None, table: Mapping[str, float] | None = None) -> PixelSize:
    """The pixel size of a slide at full resolution and where it comes from.

    Args:
        slide: the slide.
        mpp: what the user says of all slides (``--mpp``), in micrometres per pixel.
        table: what the user says of single slides (:func:`read_table`), by file name with or without ending.

    Raises:
        WrongUse: if ``mpp`` is not in 0..50.
        BadSlide: if nothing says it.
    """
    if mpp is not None:
        if not _sensible(mpp):
            raise WrongUse(f"--mpp {mpp:g}: micrometres per pixel must be above 0 and at most {LARGEST:g}")
        return PixelSize(mpp, "--mpp")
    for name in (slide.path.name, slide.path.stem):
        if table is not None and name in table:
            return PixelSize(table[name], "--mpp-csv")
    if slide.pixel_size is None:
        raise BadSlide(
            f"{slide.path}: how large its pixels are is not known ({slide.unsized}); say it with --mpp, or for each "
            "slide with --mpp-csv (columns wsi,mpp)"
        )
    return slide.pixel_size


def read_table(path: Path) -> dict[str, float]:
    """Read a table of pixel sizes, the file of ``--mpp-csv``.

    Returns:
        Micrometres per pixel by the file name in its column ``wsi``, with or without ending; folders are left out.

    Raises:
        EosinError: if the file is missing, has other columns, names a slide twice or says no sensible size, with the
            line.
    """
    sizes: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"wsi", "mpp"} <= set(rows.fieldnames or ()):
                raise EosinError(f"{path}: has columns {','.join(rows.fieldnames or ()) or 'none'}; needs wsi,mpp")
            for row in rows:
                name, told = Path((row["wsi"] or "").strip().replace("\\", "/")).name, (row["mpp"] or "").strip()
                where = f"{path}, line {rows.line_num}"
                if not name or not _sensible(_number(told)):
                    raise EosinError(
                        f"{where}: {name or 'no slide'} with mpp {told or 'empty'}; needs a file name and micrometres "
                        f"per pixel above 0 and at most {LARGEST:g}"
                    )
                if name in sizes:
                    raise EosinError(f"{where}: {name} stands there twice; leave one line")
                sizes[name] = _number(told)
    except FileNotFoundError:
        raise EosinError(f"{path}: no such file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise EosinError(f"{path}: not a CSV file ({error})") from None
    return sizes


def from_metadata(x: str | None, y: str | None, source: str) -> tuple[PixelSize | None, str]:
    """Judge what the metadata of a file say of its pixels.

    Args:
        x: micrometres per pixel along the rows, as text; None if absent.
        y: the same along the columns.
        source: where both stand.

    Returns:
        The pixel size, the mean of both sides, and "" — or None and why it is not to be relied on.
    """
    if x is None or y is None:
        return None, f"its metadata lack {source}"
    across, down = _number(x), _number(y)
    if not (_sensible(across) and _sensible(down)):
        return None, f"its metadata say {x} x {y} um, which no slide has"
    if abs(across - down) > ALIKE * min(across, down):
        return None, f"its pixels are not square: {x} x {y} um"
    return PixelSize((across + down) / 2, source), ""


def _sensible(mpp: float) -> bool:
    return 0 < mpp <= LARGEST  # False for NaN


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
