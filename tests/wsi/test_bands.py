"""Bands come back as they were written, cover every row once, and are refused when they are not whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eosin.core.errors import EosinError
from eosin.wsi.bands import OUTSIDE, Bands, Piece, read_band, rows_done, write_band

SIZE = (10, 30)


def piece(left: int, rows: int, columns: int, seed: int = 0) -> Piece:
    drawn = np.random.default_rng(seed).integers(0, 256, (2, rows, columns), dtype=np.uint8)
    return Piece(left, drawn[0], drawn[1])


def written(folder: Path) -> list[Path]:
    return [
        write_band(folder, 0, 4, SIZE, [piece(2, 4, 5), piece(20, 4, 10, 1)]),
        write_band(folder, 4, 4, SIZE, []),
        write_band(folder, 8, 2, SIZE, [piece(0, 2, 30, 2)]),
    ]


def test_bands_come_back_and_are_blank_between_the_runs(tmp_path: Path) -> None:
    written(tmp_path)
    bands = Bands.open(tmp_path)
    assert (bands.height, bands.width) == SIZE
    first, second, third = bands
    assert [band.top for band in (first, second, third)] == [0, 4, 8]
    np.testing.assert_array_equal(first.classes[:, 2:7], piece(2, 4, 5).classes)
    np.testing.assert_array_equal(first.confidence[:, 20:], piece(20, 4, 10, 1).confidence)
    blank = np.ones(30, bool)
    blank[2:7] = blank[20:] = False
    assert (first.classes[:, blank] == OUTSIDE).all() and (first.confidence[:, blank] == 0).all()
    assert second.classes.shape == (4, 30) and (second.classes == OUTSIDE).all() and not second.confidence.any()
    np.testing.assert_array_equal(third.classes, piece(0, 2, 30, 2).classes)
    assert len(list(bands)) == 3  # may be read again


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


@pytest.mark.parametrize(("missing", "message"), [(0, "row 0"), (1, "row 4"), (2, "from 8 on"), (None, "from 0 on")])
def test_missing_rows_are_told(tmp_path: Path, missing: int | None, message: str) -> None:
    files = written(tmp_path)
    for path in files if missing is None else [files[missing]]:
        path.unlink()
    with pytest.raises(EosinError, match=message):
        Bands.open(tmp_path)
    assert rows_done(tmp_path) == (0 if missing is None else (0, 4, 8)[missing])


def test_a_cut_band_is_told(tmp_path: Path) -> None:
    first, *_ = written(tmp_path)
    first.write_bytes(first.read_bytes()[:-3])
    with pytest.raises(EosinError, match="not a whole band"):
        read_band(first)
    first.write_bytes(b"something else\n")
    for look in (Bands.open, rows_done):
        with pytest.raises(EosinError, match="not a whole band"):
            look(tmp_path)


@pytest.mark.parametrize(
    "pieces", [[piece(0, 3, 5)], [piece(0, 4, 5), piece(4, 4, 5)], [piece(26, 4, 5)], [piece(10, 4, 5), piece(0, 4, 5)]]
)
def test_runs_that_do_not_fit_are_refused(tmp_path: Path, pieces: list[Piece]) -> None:
    with pytest.raises(ValueError, match="a piece of"):
        write_band(tmp_path, 0, 4, SIZE, pieces)
