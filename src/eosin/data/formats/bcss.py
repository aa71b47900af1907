"""BCSS-WSSS: breast cancer patches of 224 px with tumour, stroma, lymphocytes and necrosis; indexed where they are.

Reads the release as it is unpacked: ``train/*.png`` (or ``training``, with or without ``img``), ``val/{img,mask}``
(or ``valid``, ``validation``) and ``test/{img,mask}``. A name as
``TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+0[1101].png`` is that of the BCSS region, a running number of the
patch in it, and the label. ``xmin`` and ``ymin`` are therefore the region's place in its slide; where in the region a
patch lies is not told. Patient and slide are read from the TCGA barcode.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from eosin.core.classes import Classes, Tissue
from eosin.data.formats._common import tcga_patient
from eosin.data.formats._masks import Coding
from eosin.data.formats._release import Release, Source, write_release

DESCRIPTION = "BCSS-WSSS breast cancer patches (TUM, STR, LYM, NEC), indexed where they are"

# Our colours: the release's blue and violet are one colour to a red-blind eye.
CLASSES = Classes(
    tissues=(
        Tissue(name="TUM", colour=(205, 51, 51)),
        Tissue(name="STR", colour=(86, 180, 233)),
        Tissue(name="LYM", colour=(0, 0, 160)),
        Tissue(name="NEC", colour=(240, 228, 66)),
    ),
    ignore=4,
)
CODING = Coding(CLASSES, palettes=[((255, 0, 0), (0, 255, 0), (0, 0, 255), (153, 0, 255), (255, 255, 255))])
CITATION = (
    "C. Han et al., Multi-layer pseudo-supervision for histopathology tissue semantic segmentation using patch-level "
    "classification labels, Medical Image Analysis 80 (2022) 102487; M. Amgad et al., Structured crowdsourcing enables "
    "convolutional segmentation of histology images, Bioinformatics 35 (2019) 3461-3467"
)


def source_of(name: str) -> Source:
    """Patient, slide and region of a patch: the slide ends before ``_xmin``, the region before ``+``."""
    patient = tcga_patient(name)
    return Source(patient, name.partition("_xmin")[0], name.partition("+")[0]) if patient else Source()


RELEASE = Release(
    name="bcss",
    coding=CODING,
    mpp=0.25,
    licence="BCSS is CC0 1.0; the patch release states no terms of its own",
    citation=CITATION,
    source_of=source_of,
    not_ours=(re.compile(r"^[^_]+-\d+-\d+$"), "luad"),
)


class Options(BaseModel):
    """The release says everything itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def run(source: Path, dest: Path, options: Options, progress: Callable[[int, int], None]) -> None:
    """Make the data set ``dest``; raises as :func:`write_release`."""
    write_release(source, dest, RELEASE, progress)
