"""What ``check`` says beyond the defects of ``tests/broken``: warnings, declared findings, and the summary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from broken.builders import COLOURS, Draft, mask, pixels, sound
from eosin.data.check import check, summary
from eosin.data.dataset import Dataset


def lines(draft: Draft) -> list[tuple[str, str]]:
    return [(finding.level, str(finding)) for finding in check(draft.save())]


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    check(sound(tmp_path / "d").save(), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (64, 64) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_missing_folder_is_a_finding(tmp_path: Path) -> None:
    found = check(tmp_path / "nowhere")
    assert [finding.kind for finding in found] == ["missing", "missing"]


def test_a_data_set_without_any_mask_is_sound(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    for row in draft.rows:
        row["mask"] = ""
    assert lines(draft) == []


def test_a_data_set_for_testing_alone_is_sound_if_it_says_so(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    draft.rows = [row for row in draft.rows if row["split"] == "test"]
    draft.head["splits"] = ["test"]
    assert lines(draft) == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("licence", "Unknown", "licence 'Unknown'; find out"), ("mpp", None, "no mpp (um per pixel)")],
)
def test_what_should_be_known_is_a_warning(tmp_path: Path, key: str, value: str | None, says: str) -> None:
    draft = sound(tmp_path / "d")
    draft.head[key] = value
    [(level, line)] = lines(draft)
    assert level == "warning" and says in line


def test_unknown_patients_are_a_warning(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    for row in draft.rows:
        row["patient"] = ""
    [(level, line)] = lines(draft)
    assert level == "warning" and "no item names its patient" in line


def test_patients_known_in_one_split_alone_are_a_warning(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    for row in draft.rows:
        row["patient"] = row["patient"] if row["split"] == "train" else ""
    [(level, line)] = lines(draft)
    assert level == "warning" and "no item of val or test names its patient" in line


def test_a_class_on_every_training_item_is_a_warning(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    for row in draft.rows:
        row["tumour"] = "1"
    [(level, line)] = lines(draft)
    assert level == "warning" and "class 'tumour' is never absent" in line


def test_parents_in_two_splits(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    draft.header.append("parent")
    draft.row("train-3")["parent"] = draft.row("val-3")["parent"] = "scan 9"
    [(level, line)] = lines(draft)
    assert level == "error" and "parent image in two splits (train and val): 'scan 9' (lines 5, 45)" in line


def test_a_declared_finding_is_one_warning_with_its_reason(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    draft.head["known"] = {"tags_contradict": "noise is wanted"}
    draft.row("val-1")["fat"] = draft.row("val-2")["fat"] = "0"
    [(level, line)] = lines(draft)
    assert level == "warning" and line.endswith("(and 1 more) [known: noise is wanted]")


def test_a_declaration_without_its_finding_is_told(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    draft.head["known"] = {"patient_overlap": "official split"}
    [(level, line)] = lines(draft)
    assert level == "warning" and "known.patient_overlap is declared but not found" in line


def test_long_lists_are_cut(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    for index in range(13):
        draft.row(f"val-{index}")["patient"] = f"train-p{index}"
    [(_, line)] = lines(draft)
    assert "'train-p9'" in line and "'train-p10'" not in line and "and 3 more" in line


@pytest.mark.parametrize(("fraction", "errors"), [(None, 1), (0.001, 1), (0.2, 0), (0.34, 0)])
def test_tags_may_differ_from_masks_as_far_as_the_rule_allows(tmp_path: Path, fraction: float, errors: int) -> None:
    draft = sound(tmp_path / "d")
    draft.head["tag_rule"] = None if fraction is None else {"min_fraction": fraction}
    values = mask()
    values[values == 2] = 0
    values[5, :6] = 2
    Image.fromarray(values).save(draft.mask("val-1"))
    draft.row("val-1")["fat"] = "0"
    assert [level for level, _ in lines(draft)] == ["error"] * errors


def test_unknown_tags_contradict_nothing(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    for name in draft.header[-3:]:
        draft.row("val-1")[name] = ""
    assert lines(draft) == []


def test_classes_together_needs_tags_that_are_known(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    for row in draft.rows:
        if row["split"] == "train" and row["tumour"] != row["stroma"]:
            row["stroma"] = ""
    assert "classes 'tumour' and 'stroma' occur together" in " ".join(line for _, line in lines(draft))


@pytest.mark.parametrize(("order", "levels"), [((0, 1, 2), []), ((1, 0, 2), ["warning"])])
def test_a_palette_that_swaps_classes_is_a_warning(tmp_path: Path, order: tuple[int, ...], levels: list[str]) -> None:
    draft = sound(tmp_path / "d")
    image = Image.fromarray(mask())
    palette = np.full((256, 3), 9, np.uint8)
    palette[:3] = np.array(COLOURS)[list(order)]
    image.putpalette(palette.tobytes())
    image.save(draft.mask("val-1"))
    found = lines(draft)
    assert [level for level, _ in found] == levels
    assert all("palette index 0 ('tumour') has the colour of class 'stroma' (1)" in line for _, line in found)


def test_images_shared_by_path_are_duplicates_too(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    draft.row("train-1")["image"] = draft.row("train-0")["image"]
    [(level, line)] = lines(draft)
    assert level == "error" and "the same pixels in 2 items" in line


def test_images_of_other_shape_with_the_same_bytes_differ(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    Image.fromarray(pixels(0).reshape(48, 12, 3)).save(draft.image("train-1"))
    assert lines(draft) == []


def test_the_summary_counts(tmp_path: Path) -> None:
    draft = sound(tmp_path / "d")
    draft.row("train-0")["fat"] = ""
    found = summary(Dataset.open(draft.save()))
    train, val = found["splits"]["train"], found["splits"]["val"]
    assert (train["images"], train["masks"], train["patients"], train["slides"]) == (40, 0, 40, 40)
    assert (val["images"], val["masks"]) == (20, 20)
    assert train["tags"]["fat"] == {"present": 16, "absent": 23, "unknown": 1}
    assert train["cooccurrence"] == [[24, 8, 8], [8, 16, 0], [8, 0, 16]]
    assert json.loads(json.dumps(found)) == found
