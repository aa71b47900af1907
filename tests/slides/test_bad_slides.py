"""Files that are no slides, or damaged ones, are told in one line that names the file and the mend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from eosin.slides.image import BadImage
from eosin.slides.open import open_slide
from eosin.slides.slide import BadSlide
from slides.written import JPEG, tissue, write_aperio, write_slide


def write_bad(folder: Path, name: str) -> Path:
    """A file with one thing wrong."""
    good = write_slide(folder / "good.tif", tissue(600, 600), **JPEG).read_bytes()
    path = folder / name
    if name == "empty.svs":
        path.write_bytes(b"")
    elif name == "image.svs":
        Image.fromarray(tissue(50, 50)).save(path, "PNG")
    elif name == "strips.svs":
        tifffile.imwrite(path, tissue(300, 300), photometric="rgb", metadata=None)
    elif name == "folder.svs":
        path.mkdir()
    elif name == "map.tif":
        tifffile.imwrite(path, tissue(300, 300)[..., 0], tile=(128, 128), metadata=None)
    elif name == "deep.tif":
        tifffile.imwrite(path, tissue(300, 300).astype(np.uint16), photometric="rgb", tile=(128, 128), metadata=None)
    elif name == "noise.svs":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif name == "cut.svs":
        path.write_bytes(good[: len(good) // 3])
    elif name == "mirax.mrxs":
        path.write_bytes(b"\xff\xd8\xff\xe0 not a folder beside it")
    return path


BAD = {
    "empty.svs": "the file has 0 bytes; copy it again",
    "image.svs": "holds a PNG image and no slide; give it the ending of one",
    "strips.svs": "a TIFF file without tiles; write it anew",
    "folder.svs": "is a folder; name a slide",
    "missing.svs": "no such file; correct the path",
    "map.tif": "holds no colours of 8 bits .*; is it a map and not a slide",
    "deep.tif": "holds no colours of 8 bits .*16",
    "noise.svs": "not a slide that OpenSlide knows",
    "cut.svs": "cut short",
    "mirax.mrxs": "not a slide that OpenSlide knows",
}


@pytest.mark.parametrize("reader", ["auto", "openslide", "tifffile"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_in_one_line(name: str, reader: Any, tmp_path: Path) -> None:
    path = write_bad(tmp_path, name)
    with pytest.raises(BadSlide, match=BAD[name]) as caught:
        open_slide(path, reader)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_a_slide_that_is_cut_short_does_not_open(share: float, tmp_path: Path) -> None:
    for name in ("a.tif", "a.svs"):
        make = write_slide if name == "a.tif" else write_aperio
        content = make(tmp_path / name, tissue(600, 600), **JPEG).read_bytes()
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        with pytest.raises((BadSlide, BadImage)) as caught, open_slide(tmp_path / name) as slide:
            slide.read(0, 0, 0, slide.levels[0].height, slide.levels[0].width)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_bad_file_is_told_by_nobody_else(tmp_path: Path) -> None:
    path = write_bad(tmp_path, "cut.svs")
    script = f"from pathlib import Path; from eosin.slides.open import is_slide; print(is_slide(Path({str(path)!r})))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (ended.stdout.strip(), ended.stderr) == ("True", "")


def test_a_slide_of_which_only_the_beginning_is_there_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(b"II*\0\x10\0\0\0" + bytes(8) + b"\x05")  # ends within the number of its first page's fields
    script = f"from pathlib import Path; from eosin.slides.open import open_slide; open_slide(Path({str(path)!r}))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "not a slide that OpenSlide knows, or cut short" in ended.stderr and "Warning" not in ended.stderr


def test_a_damaged_tile_is_told_with_its_place(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue(300, 300), levels=1, compression="deflate")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[4]  # type: ignore[union-attr]
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(bytes(content))
    for reader in ("tifffile", "openslide"):
        with open_slide(path, reader) as slide:  # type: ignore[arg-type]
            slide.read(0, 0, 0, 100, 100)
            with pytest.raises(BadSlide, match=r"a\.tif: .*level 0") as caught:
                slide.read(0, 0, 0, slide.levels[0].height, slide.levels[0].width)
            assert "\n" not in str(caught.value)
