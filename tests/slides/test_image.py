"""What is read is what is stored, and what would be changed on the way is refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.core.classes import Classes, Tissue
from eosin.slides.image import BadImage, image_size, png_bytes, read_mask, read_palette, read_rgb, write_mask

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)
CLASSES = Classes(tissues=(Tissue(name="a", colour=(200, 10, 20)), Tissue(name="b", colour=(1, 2, 3))))


def png(path: Path, bits: int, kind: int, rows: bytes, size: tuple[int, int], extra: bytes = b"") -> None:
    """Write a PNG by hand, for what Pillow cannot write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_formats_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PIXELS).save(path)
    read = read_rgb(path)
    assert read.dtype == np.uint8 and read.flags.writeable
    np.testing.assert_array_equal(read, PIXELS)
    assert image_size(path) == (12, 17)


def test_jpeg_is_rgb(tmp_path: Path) -> None:
    Image.new("RGB", (16, 8), (200, 100, 180)).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - (200, 100, 180)).max() <= 2


def sixteen_bit_rgb_png(path: Path) -> None:
    row = b"\0" + struct.pack(">6H", *range(0, 60000, 10000))
    png(path, 16, 2, row * 2, (2, 2))


def sixteen_bit_rgb_tiff(path: Path) -> None:
    import tifffile

    tifffile.imwrite(path.with_suffix(".tif"), PIXELS.astype(np.uint16) * 257, photometric="rgb")
    path.with_suffix(".tif").rename(path)


def transparent_colour(path: Path) -> None:
    Image.fromarray(PIXELS).save(path, format="PNG", transparency=(1, 2, 3))


def turned_tiff(path: Path) -> None:
    Image.fromarray(PIXELS).save(path, format="TIFF", tiffinfo={0x0112: 8})


def turned_jpeg(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(PIXELS).save(path, format="JPEG", exif=exif)


def cut_jpeg(path: Path) -> None:
    Image.fromarray(np.tile(PIXELS, (9, 9, 1))).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:-400])


def broken_checksum(path: Path) -> None:
    Image.fromarray(PIXELS).save(path, format="PNG")
    blob = bytearray(path.read_bytes())
    blob[60] ^= 255
    path.write_bytes(bytes(blob))


def bomb(path: Path) -> None:
    png(path, 8, 2, b"", (40000, 40000))


REFUSED: list[tuple[Callable[[Path], None], str]] = [
    (sixteen_bit_rgb_png, "more than 8 bits per channel"),
    (sixteen_bit_rgb_tiff, "more than 8 bits per channel"),
    (lambda path: Image.fromarray(PIXELS[..., 0].astype(np.float32)).save(path, format="TIFF"), "more than 8 bits"),
    (transparent_colour, "has an alpha channel"),
    (lambda path: Image.fromarray(PIXELS[..., :2], "LA").save(path, format="PNG"), "has an alpha channel"),
    (lambda path: Image.fromarray(PIXELS).quantize(8).save(path, format="PNG"), "a palette image; save it as RGB"),
    (lambda path: Image.fromarray(PIXELS[..., 0] > 99).save(path, format="PNG"), "a black-and-white image"),
    (lambda path: Image.fromarray(PIXELS).convert("LAB").save(path, format="TIFF"), "LAB pixels; save it as 8-bit RGB"),
    (turned_tiff, "turned by EXIF (orientation 8)"),
    (turned_jpeg, "turned by EXIF (orientation 3)"),
    (cut_jpeg, "damaged or cut short"),
    (broken_checksum, "damaged or cut short"),
    (bomb, "more than 178,956,970 pixels; cut it into tiles"),
    (lambda path: path.mkdir(), "is a folder"),
    (lambda path: None, "no such file"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED, ids=[says[:28] for _, says in REFUSED])
def test_traps_are_refused_in_one_line(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    path = tmp_path / "image.png"
    make(path)
    with pytest.raises(BadImage) as caught:
        read_rgb(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and says in line and "\n" not in line and caught.value.exit_code == 1


def test_a_palette_mask_is_its_indices(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)
    write_mask(tmp_path / "m.png", mask, CLASSES)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), mask)
    palette = read_palette(tmp_path / "m.png")
    assert palette is not None
    assert palette[[0, 1, 2, 255]].tolist() == [[200, 10, 20], [1, 2, 3], [0, 0, 0], [255, 255, 255]]
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_a_grey_mask_is_its_values(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", PIXELS[..., 0])
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), PIXELS[..., 0])
    assert read_palette(tmp_path / "m.png") is None


def test_a_grey_bmp_is_its_values(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[..., 0] // 40).save(tmp_path / "m.bmp")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.bmp"), PIXELS[..., 0] // 40)


def test_two_bit_masks_keep_palette_indices_but_grey_ones_are_refused(tmp_path: Path) -> None:
    plte = struct.pack(">I", 12) + b"PLTE" + bytes(12) + struct.pack(">I", zlib.crc32(b"PLTE" + bytes(12)))
    png(tmp_path / "p.png", 2, 3, b"\0\x1b", (4, 1), plte)
    assert read_mask(tmp_path / "p.png").tolist() == [[0, 1, 2, 3]]
    png(tmp_path / "g.png", 2, 0, b"\0\x1b", (4, 1))
    with pytest.raises(BadImage, match="fewer than 8 grey bits"):
        read_mask(tmp_path / "g.png")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: Image.fromarray(PIXELS).save(path, format="PNG"), "a mask of colours"),
        (lambda path: Image.fromarray(PIXELS[..., 0]).save(path, format="JPEG"), "a JPEG mask"),
        (lambda path: Image.fromarray(PIXELS[..., 0] > 9).save(path, format="PNG"), "a mask of 1 pixels"),
        (lambda path: Image.fromarray(PIXELS[..., 0].astype(np.uint16)).save(path, format="PNG"), "more than 8 bits"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
    ],
)
def test_masks_that_are_no_indices_are_refused(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    make(tmp_path / "m.png")
    with pytest.raises(BadImage, match=says):
        read_mask(tmp_path / "m.png")


def test_encoding_takes_bytes_only() -> None:
    with pytest.raises(ValueError, match=r"uint8 .* not int64 \[2, 2\]"):
        png_bytes(np.zeros((2, 2), np.int64))
    with pytest.raises(ValueError, match=r"not uint8 \[2, 2, 4\]"):
        png_bytes(np.zeros((2, 2, 4), np.uint8))


def test_a_large_image_below_the_limit_warns_of_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    png(tmp_path / "a.png", 8, 2, b"", (10000, 10000))
    assert image_size(tmp_path / "a.png") == (10000, 10000)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@pytest.mark.filterwarnings("ignore")  # Pillow remarks on some of the damage before it stumbles
def test_damage_of_any_kind_is_a_bad_image_or_other_pixels(tmp_path: Path, form: str) -> None:
    path, rng = tmp_path / "x", np.random.default_rng(7)
    Image.fromarray(PIXELS).save(path, format=form)
    whole = path.read_bytes()
    refused = 0
    for turn in range(120):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if turn % 3 == 0 else whole)
        for place in rng.integers(0, min(len(damaged), 120), 5):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        for read in (read_rgb, read_mask, image_size, read_palette):
            try:
                read(path)
            except BadImage as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 120
