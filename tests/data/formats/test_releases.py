"""BCSS-WSSS, LUAD-HistoSeg and the challenge's WSSS4LUAD folders: the same layout, indexed where it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.formats.drawing import draw, draw_colours, draw_mask, errors, kinds, stripes
from eosin.core.errors import EosinError, WrongUse
from eosin.data.dataset import Dataset
from eosin.data.formats import bcss, import_dataset, luad, wsss4luad
from eosin.data.formats._masks import Coding
from eosin.slides.image import read_mask


@dataclass(frozen=True)
class Form:
    """A release: three training names (as printed in its readme, or like it), and names of val and test."""

    coding: Coding
    train: tuple[str, str, str, str]
    val: str
    test: str
    tags: tuple[tuple[int, ...], ...]


FORMS = {
    "bcss": Form(
        bcss.CODING,
        (
            "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+0[1101].png",
            "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+1[0110].png",
            "TCGA-A2-A04P-DX1_xmin9_ymin8_MPP-0.2500+0[1000].png",
            "TCGA-A2-A04P-DX1_xmin9_ymin8_MPP-0.2500+12[0011].png",
        ),
        "TCGA-EW-A1PB-DX1_xmin57214_ymin25940_MPP-0.2500+0.png",
        "TCGA-D8-A27F-DX1_xmin98787_ymin6725_MPP-0.2500+0.png",
        ((1, 1, 0, 1), (0, 1, 1, 0), (1, 0, 0, 0), (0, 0, 1, 1)),
    ),
    "luad": Form(
        luad.CODING,
        (
            "1031280-2300-27920-[1 0 0 1].png",
            "1031280-2300-27921-[0 1 1 0].png",
            "387709-9108-71176-[1 0 0 0].png",
            "387709-9108-71177-[0 0 1 1].png",
        ),
        "385277-44539-46781.png",
        "387708-10004-55944.png",
        ((1, 0, 0, 1), (0, 1, 1, 0), (1, 0, 0, 0), (0, 0, 1, 1)),
    ),
    "wsss4luad": Form(
        wsss4luad.CODING,
        (
            "436219-7159-48057-[1, 0, 0].png",
            "436219-9328-56427-[1, 1, 0].png",
            "449636-23526-9666-[0, 0, 1].png",
            "1003370-5631-18822-[0, 1, 0].png",
        ),
        "00.png",
        "01.png",
        ((1, 0, 0), (1, 1, 0), (0, 0, 1), (0, 1, 0)),
    ),
}
FORM_NAMES = pytest.mark.parametrize("name", FORMS)


def lay_out(
    root: Path,
    form: Form,
    parts: tuple[str, str, str] = ("train", "val", "test"),
    folders: tuple[str, str] = ("img", "mask"),
    inner: str = "",
) -> None:
    """Draw a release; validation holds class 0 and the ignore value, test all classes."""
    classes = form.coding.classes
    for file in form.train:
        draw(root / parts[0] / inner / file)
    for part, file, values in (
        (parts[1], form.val, [0, classes.ignore]),
        (parts[2], form.test, [*range(len(classes)), classes.ignore]),
    ):
        draw(root / part / folders[0] / file)
        draw_mask(root / part / folders[1] / file, stripes(values), form.coding.palettes[0])


def imported(name: str, tmp_path: Path, **options: Any) -> Dataset:
    return import_dataset(name, tmp_path / "src", tmp_path / "out", options)


@FORM_NAMES
@pytest.mark.parametrize(
    ("parts", "folders", "inner"),
    [
        (("train", "val", "test"), ("img", "mask"), ""),
        (("training", "valid", "testing"), ("images", "masks"), "img"),
        (("1.training", "2.validation", "3.testing"), ("image", "label"), ""),
        (("TRAIN", "Validation", "Test"), ("IMG", "Mask"), "images"),
    ],
)
def test_every_spelling(
    tmp_path: Path, name: str, parts: tuple[str, str, str], folders: tuple[str, str], inner: str
) -> None:
    form = FORMS[name]
    lay_out(tmp_path / "src", form, parts, folders, inner)
    data = imported(name, tmp_path)
    classes = form.coding.classes
    assert (data.name, data.classes, data.splits) == (name, classes, ("train", "val", "test"))
    train, truth = data.items("train"), data.truth("test")
    assert data.truth("train") is None and truth is not None
    tags = {Path(train.path(index)).name: tuple(train.tags[index].astype(int).tolist()) for index in range(4)}
    assert tags == dict(zip(form.train, form.tags, strict=True))
    assert data.items("val").tags.tolist() == [[1] + [0] * (len(classes) - 1)]
    assert data.items("test").tags.tolist() == [[1] * len(classes)]
    np.testing.assert_array_equal(read_mask(truth.path(0)), stripes([*range(len(classes)), classes.ignore]))
    assert truth.path(0).is_relative_to(tmp_path / "src"), "indexed where it is"
    assert sorted(path.name for path in data.folder.iterdir()) == ["dataset.yaml", "items.csv"]
    assert errors(data) == [] and "palette" not in kinds(data) and not data.known


@FORM_NAMES
def test_the_folder_above_will_do(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path / "src" / "unpacked", FORMS[name])
    assert len(imported(name, tmp_path)) == 6


def test_where_a_bcss_patch_is_from(tmp_path: Path) -> None:
    lay_out(tmp_path / "src", FORMS["bcss"])
    data = imported("bcss", tmp_path)
    items = data.items("train")
    assert items.ids[0] == "train_TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500_0"
    assert items.patients[:3].tolist() == ["TCGA-A1-A0SK"] * 2 + ["TCGA-A2-A04P"]
    assert items.slides[0] == "TCGA-A1-A0SK-DX1"
    assert items.parents[0] == "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500"
    assert (items.xy == -1).all(), "xmin and ymin are the region's, not the patch's"
    assert data.mpp == 0.25 and data.tag_rule is None and data.classes.names == ("TUM", "STR", "LYM", "NEC")


def test_a_shared_patient_slide_or_region_is_declared(tmp_path: Path) -> None:
    form = FORMS["bcss"]
    lay_out(tmp_path / "src", form)
    for name, values in (
        ("TCGA-A1-A0SK-DX2_xmin1_ymin2_MPP-0.2500+0.png", [0]),
        ("TCGA-A2-A04P-DX1_xmin9_ymin8_MPP-0.2500+7.png", [1]),
    ):
        draw(tmp_path / "src" / "test" / "img" / name)
        draw_mask(tmp_path / "src" / "test" / "mask" / name, stripes(values))
    data = imported("bcss", tmp_path)
    assert set(data.known) == {"patient_overlap", "slide_overlap", "parent_overlap"}
    assert errors(data) == [] and "known" not in kinds(data)


@pytest.mark.parametrize("name", ["luad", "wsss4luad"])
def test_the_first_field_is_the_patient(tmp_path: Path, name: str) -> None:
    form = FORMS[name]
    lay_out(tmp_path / "src", form)
    draw(
        tmp_path
        / "src"
        / "train"
        / form.train[0].replace("1031280", "TCGA-05-4244-01Z").replace("436219", "TCGA-05-4244")
    )
    data = imported(name, tmp_path)
    patients = data.items("train").patients.tolist()
    assert set(patients) == {"TCGA-05-4244", *(file.split("-")[0] for file in form.train)} and data.mpp is None
    assert (data.items("train").parents == "").all() and (data.items("train").xy == -1).all()


def test_a_luad_patient_in_two_parts_is_declared(tmp_path: Path) -> None:
    lay_out(tmp_path / "src", FORMS["luad"])
    for kind in ("img", "mask"):
        folder = tmp_path / "src" / "test" / kind
        (folder / FORMS["luad"].test).rename(folder / "387709-10004-55944.png")
    data = imported("luad", tmp_path)
    assert set(data.known) == {"patient_overlap"} and errors(data) == []


@FORM_NAMES
def test_masks_in_colours_are_written_as_numbers(tmp_path: Path, name: str) -> None:
    form = FORMS[name]
    lay_out(tmp_path / "src", form)
    classes = form.coding.classes
    values = [*range(len(classes)), classes.ignore]
    for palette in form.coding.palettes:
        mask = draw_colours(tmp_path / "src" / "test" / "mask" / form.test, stripes(range(len(values))), palette)
        data = import_dataset(name, tmp_path / "src", tmp_path / f"out{palette[0][0]}", {})
        truth = data.truth("test")
        assert truth is not None and truth.path(0) != mask and truth.path(0).is_relative_to(data.folder)
        np.testing.assert_array_equal(read_mask(truth.path(0)), stripes(values))
        assert data.items("test").tags.tolist() == [[1] * len(classes)] and errors(data) == []


def test_the_background_mask_overrules(tmp_path: Path) -> None:
    form = FORMS["wsss4luad"]
    parts = ("1.training", "2.validation", "3.testing")
    lay_out(tmp_path / "src", form, parts)
    white = stripes([0, 0, 1, 1])
    draw_mask(tmp_path / "src" / parts[2] / "background-mask" / form.test, white * 255)
    draw_mask(tmp_path / "src" / parts[1] / "background_mask" / form.val, white)
    data = imported("wsss4luad", tmp_path)
    val, test = data.truth("val"), data.truth("test")
    assert val is not None and test is not None
    np.testing.assert_array_equal(read_mask(val.path(0)), stripes([0, 0, 3, 3]))
    np.testing.assert_array_equal(read_mask(test.path(0)), np.where(white > 0, 3, stripes([0, 1, 2, 3])))
    assert data.items("test").tags.tolist() == [[1, 1, 0]], "class 2 was all white" and errors(data) == []
    draw_mask(tmp_path / "src" / parts[1] / "background_mask" / form.val, white * 7)
    with pytest.raises(EosinError, match=r"background_mask/00\.png: not the background mask of its image"):
        import_dataset("wsss4luad", tmp_path / "src", tmp_path / "again", {})


def test_options_of_the_public_part_do_not_fit_the_challenge(tmp_path: Path) -> None:
    lay_out(tmp_path / "src", FORMS["wsss4luad"])
    with pytest.raises(WrongUse, match=r"^cut: the challenge's folders are taken as they are"):
        imported("wsss4luad", tmp_path, cut="all")
    with pytest.raises(WrongUse, match="bcss: no option 'cut'"):
        imported("bcss", tmp_path, cut="all")


@FORM_NAMES
def test_mistakes_name_the_file_and_the_mend(tmp_path: Path, name: str) -> None:
    form = FORMS[name]
    source, classes = tmp_path / "src", form.coding.classes
    lay_out(source, form)
    mask, image = source / "test" / "mask" / form.test, source / "test" / "img" / form.test

    def refused(says: str) -> None:
        with pytest.raises(EosinError, match=says) as caught:
            imported(name, tmp_path)
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out*"))

    draw_mask(mask, stripes([0, 5]))
    refused(rf"{form.test.replace('+', '.')}: value 5 is none of 0 {classes.names[0]}, ")
    draw_colours(mask, stripes([0, 1]), ((1, 2, 3), (4, 5, 6)))
    refused(r"colour \(1, 2, 3\) is none of this format's masks")
    first, second, *rest = form.coding.palettes[0]
    draw_mask(mask, stripes([0, 1]), (second, first, *rest))
    refused(rf"palette index 0 \({classes.names[0]}\) has the colour of {classes.names[1]}")
    mask.unlink()
    refused(r"no mask of this name in .*mask; add it or remove the image")
    image.unlink()
    refused(r"test: needs subfolders img and mask with images in them")
    draw(image)
    draw_mask(mask, stripes([0, 1]))
    extra = draw(source / "train" / "x[11].png")
    refused(rf"x\[11\]\.png: 2 digits in the label for {len(classes)} classes")
    extra.rename(source / "train" / "x.png")
    refused(r"x\.png: no label such as \[111")
    (source / "train").rename(source / "tran")
    refused("no folder train or training in it")


@FORM_NAMES
def test_missing_and_doubled_parts(tmp_path: Path, name: str) -> None:
    form = FORMS[name]
    (tmp_path / "src" / "other").mkdir(parents=True)
    with pytest.raises(EosinError, match="no folder train, val or test in it"):
        imported(name, tmp_path)
    lay_out(tmp_path / "src", form)
    (tmp_path / "src" / "training").mkdir()
    with pytest.raises(EosinError, match="training: is 'train' and so is 'train'; remove one"):
        imported(name, tmp_path)
    (tmp_path / "src" / "training").rmdir()
    for part in ("val", "test"):
        (tmp_path / "src" / part).rename(tmp_path / part)
    data = imported(name, tmp_path)
    assert data.splits == ("train",) and errors(data) == [], "a data set without masks runs to the end too"


def test_two_releases_side_by_side_are_not_guessed_at(tmp_path: Path) -> None:
    lay_out(tmp_path / "src" / "BCSS-WSSS", FORMS["bcss"])
    lay_out(tmp_path / "src" / "LUAD-HistoSeg", FORMS["luad"])
    draw(tmp_path / "src" / "__MACOSX" / "train" / "x.png")
    for name in ("bcss", "luad"):
        with pytest.raises(EosinError, match="in each of BCSS-WSSS, LUAD-HistoSeg; give one of these folders"):
            imported(name, tmp_path)


@pytest.mark.parametrize(("name", "other"), [("bcss", "luad"), ("luad", "bcss")])
def test_a_release_of_as_many_classes_is_not_taken_for_this_one(tmp_path: Path, name: str, other: str) -> None:
    lay_out(tmp_path / "src", FORMS[other])
    with pytest.raises(EosinError, match=f"is named as those of {other}, not of {name}; import it as {other}"):
        imported(name, tmp_path)


@FORM_NAMES
def test_a_mask_of_another_size_is_named(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path / "src", FORMS[name])
    draw_mask(tmp_path / "src" / "val" / "mask" / FORMS[name].val, stripes([0, 1], 12, 8))
    with pytest.raises(EosinError, match=r"val/mask/.*: 8 x 12 px where its image has 16 x 16; take both from"):
        imported(name, tmp_path)


@pytest.mark.parametrize("name", [*FORMS, "prog", "ebhi"])
def test_a_file_is_no_release(tmp_path: Path, name: str) -> None:
    (tmp_path / "src").write_text("an archive")
    with pytest.raises(EosinError, match="src: is no folder; give the folder that holds"):
        imported(name, tmp_path)


def test_thousands_of_files_take_seconds(tmp_path: Path) -> None:
    """BCSS has 31,826 files; training images are not read at all."""
    form = FORMS["bcss"]
    lay_out(tmp_path / "src", form)
    for index in range(2000):
        (tmp_path / "src" / "train" / f"TCGA-A1-A0SK-DX1_xmin1_ymin1_MPP-0.2500+{index}[1010].png").touch()
    start = time.process_time()
    assert len(imported("bcss", tmp_path)) == 2006
    assert time.process_time() - start < 6
