"""LUAD-HistoSeg: lung adenocarcinoma patches of 224 px with four tissues; indexed where they are.

Reads the release as it is unpacked: ``train/*.png`` (or ``training``), ``val/{img,mask}`` and ``test/{img,mask}``. The
release's own readme calls the first field of a name as ``1031280-2300-27920-[1 0 0 1].png`` the patient and the next
two the patch's place in its slide. Which slide that is and at what scale is not told, so the place is not taken over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from eosin.core.classes import Classes, Tissue
from eosin.data.formats._masks import Coding
from eosin.data.formats._release import Release, placed_source, write_release

DESCRIPTION = "LUAD-HistoSeg lung adenocarcinoma patches (TE, NEC, LYM, TAS), indexed where they are"

# Our colours: the release's green and orange are one colour to a green-blind eye.
CLASSES = Classes(
    tissues=(
        Tissue(name="TE", colour=(205, 51, 51)),
        Tissue(name="NEC", colour=(240, 228, 66)),
        Tissue(name="LYM", colour=(0, 0, 160)),
        Tissue(name="TAS", colour=(86, 180, 233)),
    ),
    ignore=4,
)
# The release's own, and that of a public conversion to colours.
CODING = Coding(
    CLASSES,
    palettes=[
        ((205, 51, 51), (0, 255, 0), (65, 105, 225), (255, 165, 0), (255, 255, 255)),
        ((164, 0, 0), (0, 0, 0), (16, 9, 100), (0, 86, 31), (160, 160, 160)),
    ],
)
CITATION = (
    "C. Han et al., Multi-layer pseudo-supervision for histopathology tissue semantic segmentation using patch-level "
    "classification labels, Medical Image Analysis 80 (2022) 102487"
)
RELEASE = Release(
    name="luad",
    coding=CODING,
    mpp=None,  # 10x, about 1 um/px: nobody prints the number
    licence="no licence text known (slides of TCGA and of a hospital): research only",
    citation=CITATION,
    source_of=placed_source,
    not_ours=(re.compile(r"_xmin\d+_ymin\d+"), "bcss"),
)


class Options(BaseModel):
    """The release says everything itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def run(source: Path, dest: Path, options: Options, progress: Callable[[int, int], None]) -> None:
    """Make the data set ``dest``; raises as :func:`write_release`."""
    write_release(source, dest, RELEASE, progress)
