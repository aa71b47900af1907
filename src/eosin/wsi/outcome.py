"""All that a person gets of a predicted slide, written from its bands: class map, regions, areas, picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin import __version__
from eosin.predictor.spec import Card
from eosin.slides.pyramid import write_pyramid
from eosin.wsi.areas import AREAS, areas, write_areas
from eosin.wsi.bands import Bands
from eosin.wsi.domain import beyond
from eosin.wsi.geojson import feature_file
from eosin.wsi.options import OutcomeOptions
from eosin.wsi.overview import Sample, fitting, write_overview
from eosin.wsi.regions import regions
from eosin.wsi.tissues import decided, palette_of, shown_classes
from eosin.wsi.view import View

Pixels = NDArray[np.uint8]

FILES = ("classes.tif", "regions.geojson.gz", AREAS, "overview.png")
"""What is written for a slide beside ``result.json``."""


def write_outcome(folder: Path, bands: Bands, view: View, card: Card, options: OutcomeOptions) -> dict[str, Any]:
    """Write the files of a slide, each whole or not at all; the bands pass by twice and are never held together.

    Args:
        folder: of the slide's results.
        bands: the finished prediction.
        view: the slide.
        card: of the model.
        options: what the person chose.

    Returns:
        For ``result.json``: ``tissue_mm2``, ``classes`` (by name: pixels, fraction of tissue, mm2, regions),
        ``left_out`` (regions below ``min_area``) and ``out_of_domain`` (lines).

    Raises:
        WrongUse: if the options do not fit the model.
    """
    shown = shown_classes(card.classes, options)
    place = {tissue.index: number for number, tissue in enumerate(shown)}
    pixels, counts, left_out = [0] * len(shown), [0] * len(shown), 0
    picture, picture_scale = fitting(view.thumbnail, view.thumbnail_scale)
    step = picture_scale / view.scale
    sample = Sample((picture.shape[0], picture.shape[1]), step, (bands.height, bands.width))

    def rows() -> Iterator[tuple[int, Pixels]]:
        for band in bands:
            classes = decided(band.classes, band.confidence, options.abstain)
            sample.take(band.top, classes)
            yield band.top, classes

    with feature_file(folder / "regions.geojson.gz", view.name, view.scale, view.mpp) as file:
        for region in regions(rows(), options.simplify / view.mpp):
            number = place[region.index]
            pixels[number] += region.pixels
            counts[number] += 1
            if region.pixels * view.mpp**2 >= options.min_area:
                file.add(region, shown[number])
            else:
                left_out += 1
    found = areas([tissue.name for tissue in shown], pixels, counts, view.mpp)
    model = f"{card.method}-{card.digest[:12]}"
    write_areas(folder / AREAS, view.name, found, view.mpp, model, __version__)
    maps = (decided(band.classes, band.confidence, options.abstain) for band in bands)
    write_pyramid(folder / "classes.tif", maps, bands.height, bands.width, view.mpp, palette_of(shown))
    strange = beyond(card.domain, view.measured, max(view.mpp, view.pixel_size.mpp))
    um = picture_scale * view.pixel_size.mpp
    notes = [*_said(view, model), *strange]
    write_overview(folder / "overview.png", picture, sample.classes, um, shown, found, view.name, notes)
    return {
        "tissue_mm2": sum(area.mm2 for area in found),
        "classes": {
            a.name: {"pixels": a.pixels, "fraction": a.fraction, "mm2": a.mm2, "regions": a.regions} for a in found
        },
        "left_out": left_out,
        "out_of_domain": strange,
    }


def _said(view: View, model: str) -> list[str]:
    (height, width), size = view.size, view.pixel_size
    return [
        f"Model {model}, at {view.mpp:.4g} um per pixel",
        f"Slide of {width} x {height} pixels of {size.mpp:.4g} um ({size.source})",
    ]
