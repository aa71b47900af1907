"""How slides are predicted, as one value that can be sent to another machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eosin.core.errors import EosinError, WrongUse
from eosin.predictor.predictor import Predictor
from eosin.predictor.spec import Precision, Runtime
from eosin.slides.open import Reader
from eosin.wsi.options import OutcomeOptions

_TISSUE = (".geojson", ".json", ".png", ".tif", ".tiff")  # endings of what says where tissue is


@dataclass(frozen=True, slots=True)
class Settings:
    """Choices for all slides of a call.

    Attributes:
        batch: tiles in a call of the model.
        reader: what reads slides; see ``eosin.slides.open``.
        mpp: micrometres per pixel at full resolution, of all slides; None asks ``table`` and then the files.
        table: the same for single slides; see ``eosin.slides.pixel_size``.
        tissue: a file that says where tissue is, or a folder with one for each slide, called as it; None finds it.
        outcome: what is written of the prediction.
    """

    batch: int = 16
    reader: Reader = "auto"
    mpp: float | None = None
    table: Mapping[str, float] | None = None
    tissue: Path | None = None
    outcome: OutcomeOptions = field(default_factory=OutcomeOptions)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise WrongUse(f"a batch of {self.batch} tiles is none; choose at least 1")

    def tissue_of(self, source: Path) -> Path | None:
        """The file that says where the tissue of a slide is, if the user gave any.

        Raises:
            EosinError: if the user gave a folder that has none for this slide.
        """
        if self.tissue is None or not self.tissue.is_dir():
            return self.tissue
        for ending in _TISSUE:
            if (path := self.tissue / f"{source.stem}{ending}").is_file():
                return path
        raise EosinError(f"{self.tissue}: says nothing of {source.name}; add {source.stem}.geojson or .png, or find it")


@dataclass(frozen=True, slots=True)
class Model:
    """A model folder and what runs it, as :meth:`Predictor.load` takes them."""

    folder: Path
    precision: Precision
    runtime: Runtime

    def load(self) -> Predictor:
        """Load it."""
        return Predictor.load(self.folder, self.precision, self.runtime)
