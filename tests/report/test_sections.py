"""What the report says beside mean IoU: intervals, outlines, objects, confidence, tags, and who is in two splits."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.core.artifact import read_json, write_json
from eosin.core.errors import EosinError
from eosin.data.dataset import Dataset, Row, write_dataset
from eosin.report.html import write_report
from eosin.slides.image import png_bytes
from report.fake_run import CLASSES, FakeRun, add_suspects, discs, make_run
from report.page import Page


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeRun, Page]:
    """A run with everything that may be written down."""
    made = make_run(tmp_path_factory.mktemp("whole"), labels=True)
    add_suspects(made)
    return made, Page(write_report(made.run))


def changed(made: FakeRun, name: str, change: Callable[[object], object]) -> Page:
    path = made.run / name
    write_json(path, change(read_json(path)))
    return Page(write_report(made.run))


def section(page: Page, name: str) -> str:
    return page.source.split(f'<section id="{name}"')[1].split('<section id="')[0]


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_every_class_has_its_interval(whole: tuple[FakeRun, Page]) -> None:
    made, page = whole
    entry = made.scores()[-1]
    for low, high in entry["ci95"]["iou"].values():
        assert words(section(page, "scores")).count(f"{low:.3f} to {high:.3f}") == 1
        assert f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%" in page.source, "the whisker in the headline"


def test_scores_without_class_intervals_have_none(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    page = changed(made, "scores.json", lambda scores: [{**e, "ci95": {"miou": e["ci95"]["miou"]}} for e in scores])
    assert "<em" not in page.source and "95 % interval" in page.text


def test_legends_have_the_order_of_the_classes(whole: tuple[FakeRun, Page]) -> None:
    legends = re.findall(r'<p class="legend">(.*?)</p>', whole[1].source)
    assert legends and all(re.findall(r"</i>([^<]+)<", legend) == list(CLASSES.names) for legend in legends)


def test_outlines_are_those_of_the_file(whole: tuple[FakeRun, Page]) -> None:
    made, page = whole
    told = words(section(page, "outlines"))
    for entry in made.scores():
        said = entry["boundary"]
        assert f"{said['miou']:.3f}" in told
        for name in CLASSES.names:
            line = f"{name} {said['iou'][name]:.3f} {said['hd'][name]:.1f} px {said['hd_um'][name]:.1f} µm "
            line += f"{said['hd95'][name]:.1f} px {said['hd95_um'][name]:.1f} µm {said['images'][name]}"
            assert line in told
    assert "stroma" in told and "2 15 %" in told, "two of 13 images without a prediction of it"


def test_objects_are_those_of_the_file(whole: tuple[FakeRun, Page]) -> None:
    told = words(section(whole[1], "outlines"))
    assert "Single objects (tumour) as the GlaS contest scores them" in told
    assert "0.812 0.772 31.2 px 15.6 µm 1,234 1,301 15" in told


def test_unknown_pixel_size_and_undefined_distances(tmp_path: Path) -> None:
    made = make_run(tmp_path)

    def forget(scores: list[dict]) -> list[dict]:
        for entry in scores:
            entry["boundary"] |= {"hd_um": None, "hd95_um": None, "miou": None}
            entry["boundary"]["hd"]["stroma"] = entry["boundary"]["iou"]["stroma"] = None
            entry["objects"] |= {"hausdorff": None, "hausdorff_um": None, "f1": None}
        return scores

    told = words(section(changed(made, "scores.json", forget), "outlines"))
    assert "µm" not in told and "stroma \N{EN DASH} \N{EN DASH}" in told and not re.search(r"\b(nan|None)\b", told)


def test_confidence_of_the_deployed_step(whole: tuple[FakeRun, Page]) -> None:
    told = words(section(whole[1], "confidence"))
    assert "Reliability, segmenter on test, strict" in told
    assert "ECE, as the model says it 0.083" in told and "ECE, after the temperature 0.021" in told
    assert "1.38: the model is too sure of itself; fitted to the masks of val alone" in told


def test_confidence_on_the_split_of_the_temperature_is_not_called_mended(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    told = words(section(changed(made, "scores.json", lambda s: [e for e in s if e["split"] == "val"]), "confidence"))
    assert "segmenter on val" in told and "the temperature was fitted to these very images" in told


@pytest.mark.parametrize(("temperature", "said"), [(None, "no masks to fit one to"), (0.8, "less sure than it may be")])
def test_other_temperatures(tmp_path: Path, temperature: float | None, said: str) -> None:
    made = make_run(tmp_path)

    def change(scores: list[dict]) -> list[dict]:
        for entry in scores:
            entry["calibration"]["temperature"] = temperature
        return scores

    assert said in words(section(changed(made, "scores.json", change), "confidence"))


def test_old_runs_say_that_more_was_not_judged(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    new = ("boundary", "objects", "calibration")
    page = changed(made, "scores.json", lambda s: [{k: v for k, v in e.items() if k not in new} for e in s])
    assert "No outlines were judged" in page.text and "Nothing is known of the confidence" in page.text


def test_background_has_a_row_and_a_column_where_a_protocol_keeps_it(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    matrix = [[5, 1, 0, 2], [0, 6, 1, 1], [0, 0, 7, 3], [4, 0, 0, 444_444]]

    def add(scores: list[dict]) -> list[dict]:
        return [*scores, {**scores[-1], "protocol": "tissue-fp", "confusion": matrix}]

    # a predicted pixel that is no class is drawn and judged, too
    file = made.run / "predictions" / "segmenter" / "test" / "test-000.png"
    mask = np.array(Image.open(file))
    mask[:4] = 255
    file.write_bytes(png_bytes(mask, CLASSES))
    told = section(changed(made, "scores.json", add), "confusion")
    kept = told.split("<summary>segmenter on test, tissue-fp")[1]
    assert words(kept).count("background") == 4, "the class, and what is no class, as row and as column"
    assert "444,444" in kept


def test_columns_of_the_gallery(whole: tuple[FakeRun, Page]) -> None:
    _, page = whole
    rows = section(page, "gallery").split("<article")[1:]
    assert len(rows) == 12
    for row in rows:
        captions = [words(caption) for caption in re.findall(r"<figcaption>(.*?)</figcaption>", row)]
        assert captions == [
            "image",
            "truth",
            "CAM (zoning)",
            "pseudo mask \N{DAGGER} (by the image&#x27;s tags)",
            "prediction",
        ]
        assert "--n:5" in row
    assert "drawn with the tags of these very images" in words(section(page, "gallery"))


def test_pseudo_masks_of_scored_splits_are_marked_and_never_lead(tmp_path: Path) -> None:
    made = make_run(tmp_path, labels=True)

    def better(scores: list[dict]) -> list[dict]:
        return sorted(
            ({**e, "miou": 0.99} if e["step"] == "pseudo" else e for e in scores), key=lambda e: e["step"] == "pseudo"
        )

    page = changed(made, "scores.json", better)
    segmenter = next(e for e in made.scores() if (e["step"], e["split"]) == ("segmenter", "test"))
    assert f"{segmenter['miou']:.2f} mIoU (test, strict" in page.text and "0.99 mIoU" not in page.text
    assert page.text.count("\N{DAGGER}") >= 2 * 3 and "cannot be compared with predictions" in page.text
    assert "This protocol uses truth" not in page.text


def test_a_run_whose_only_protocol_uses_truth_is_marked_wherever_it_shows(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    recipe = made.run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("protocol: strict", "protocol: tissue-fp-tags"))
    truth = {"protocol": "tissue-fp-tags", "uses_truth": True}
    page = changed(made, "scores.json", lambda scores: [{**e, **truth} for e in scores])
    hero = page.source.split('class="hero"')[1].split("<section")[0]
    assert "uses truth at test time" in words(hero)
    assert "Validation scores (by a protocol that uses truth at test time)" in page.text
    for row in section(page, "gallery").split("<article")[1:]:
        captions = [words(caption) for caption in re.findall(r"<figcaption>(.*?)</figcaption>", row)]
        assert [c for c in captions if "\N{DAGGER}" not in c] == ["image", "truth"]


def test_the_deployed_step_leads_even_if_another_is_scored_last(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    page = changed(made, "scores.json", lambda scores: scores[::-1])
    assert "step segmenter on 15 images of test" in page.text


def test_steps_without_predictions_have_no_column(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    for file in (made.run / "predictions" / "zoning" / "test").glob("*.png"):
        file.unlink()
    told = section(Page(write_report(made.run)), "gallery")
    assert "CAM" not in told and 'class="gallery"' in told


def test_a_prediction_that_no_longer_fits_the_truth_is_named(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    Image.new("L", (9, 7)).save(made.run / "predictions" / "segmenter" / "test" / "test-002.png")
    with pytest.raises(EosinError, match=r"test-002\.png: 9 x 7 px, but its truth 24 x 24 px"):
        write_report(made.run)


def test_tags_that_go_together(whole: tuple[FakeRun, Page]) -> None:
    made, page = whole
    tags = Dataset.open(made.data).items("train").tags
    cells = re.findall(r'<span class="pair[^"]*" style="--share:([\d.]+)">[^<]*<small>(\d+)</small>', page.source)
    assert len(cells) == 9
    for i in range(3):
        for j in range(3):
            known = [row for row in tags if not np.isnan(row[i]) and not np.isnan(row[j])]
            both = [row for row in known if row[i] == 1 and row[j] == 1]
            of = len(known) if i == j else len([row for row in known if row[i] == 1])
            share, number = cells[3 * i + j]
            assert int(number) == len(both) and abs(float(share) - len(both) / of) < 1e-3
    assert page.source.count('class="pair own"') == 3


def test_patients_in_two_splits_are_shown(whole: tuple[FakeRun, Page]) -> None:
    told = words(section(whole[1], "data"))
    assert "4 4 also in val 4 also in test" in told
    assert "The same patients in two splits: train and val share 4 (P0, P1, P2, P3)" in told
    assert "Declared as known: official split." in told


def test_overlap_that_nobody_declared(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    yaml = made.data / "dataset.yaml"
    yaml.write_text(yaml.read_text().replace("  patient_overlap: official split\n", "  absent_class: rare\n"))
    assert "not declared as known: scores may flatter" in words(section(Page(write_report(made.run)), "data"))


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda split, _: f"{split}-one", "No patient is in two splits."),
        (lambda *_: "", "Patients are not known"),
        (lambda split, _: "one" * (split == "train"), "Not every item of val and test names its patient, so it cannot"),
    ],
)
def test_no_overlap(tmp_path: Path, rename: Callable[[str, str], str], said: str) -> None:
    made = make_run(tmp_path)
    items = made.data / "items.csv"
    lines = [line.split(",") for line in items.read_text().splitlines()]
    at = lines[0].index("patient")
    for line in lines[1:]:
        line[at] = rename(line[1], line[at])
    items.write_text("".join(",".join(line) + "\n" for line in lines))
    told = words(section(Page(write_report(made.run)), "data"))
    assert said in told and "also in" not in told


def test_folds_are_named(whole: tuple[FakeRun, Page]) -> None:
    _, page = whole
    assert "15 images of test, fold 2 of 5" in page.text
    assert "cross-validation fold 2 of 5" in words(section(page, "data"))
    assert "dataset fold source" in page.text


def test_memory_and_energy_only_where_they_were_read(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    page = Page(write_report(made.run))
    assert "peak memory 1,834 MB" in words(section(page, "time")) and "kWh" not in page.text
    page = changed(made, "provenance.json", lambda p: {**p, "energy_j": 81_234.5})
    assert "energy 81,234 J (0.023 kWh), read from the processors" in words(section(page, "time"))


def test_every_term_and_score_of_a_step_is_drawn(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    journal = made.run / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line["losses"] = {f"term {k}": 10.0 ** (k % 5 - 4) for k in range(19)} | {"late": line["epoch"] or None}
        line["val"] = {"iou": {f"class {k}": k / 20 for k in range(12)}, "miou": None}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = section(Page(write_report(made.run)), "curves")
    names = [*(f"term {k}" for k in range(19)), "late", *(f"IoU class {k}" for k in range(12))]
    for name in names:
        assert told.count(f"</i>{name}<b>") == 2, f"{name}, once for each of the two steps"
    assert len(re.findall(r'<path d="M', told)) == 2 * len(names) and "mIoU" not in told


def test_doubtful_tags_are_shown_to_a_person(whole: tuple[FakeRun, Page]) -> None:
    _, page = whole
    told = section(page, "doubts")
    cards = told.split("<article")[1:]
    assert len(cards) == 12 and "split into 5 parts" in words(told) and "let a person look" in words(told)
    first = read_json(whole[0].run / "suspects" / "suspects.json")["items"][0]
    given = "present" if first["tag"] else "absent"
    assert first["id"] in cards[0] and f"tagged {given}" in cards[0] and f"<b>{first['score']:.2f}</b>" in cards[0]
    assert "12 of 15 judged images" in words(told)


def test_doubtful_tags_without_images_or_doubts(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    assert 'id="doubts"' not in Page(write_report(made.run)).source
    add_suspects(made)
    for image in (made.data / "images").glob("train-*.png"):
        image.unlink()
    assert "the image is out of reach" in words(section(Page(write_report(made.run)), "doubts"))
    page = changed(made, "suspects/suspects.json", lambda said: {**said, "items": []})
    assert "none is in doubt" in page.text


def test_scores_of_patches_are_never_shown_as_released_alone(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    released = {"f1": 0.911, "iou": 0.822, "hd": 33.3}
    honest = {"f1": 0.511, "iou": 0.422, "specificity": 0.933, "dataset_iou": 0.4, "hd": 90.1, "hd95": 70.2}
    patch = {"released": released, "honest": {**honest, "positives": 9, "negatives": 6, "empty": 2}}
    page = changed(made, "scores.json", lambda s: [*s, {**s[-1], "protocol": "mil-patch", "mil_patch": patch}])
    told = words(section(page, "scores"))
    assert "0.911 0.822 33.3 0.511 0.422 90.1 70.2 0.933 9 positive, 6 negative 2 positive without" in told
    assert "as released" in told


@pytest.mark.parametrize(("side", "amount"), [(320, 40), (800, 400)])
def test_a_large_run_stays_small(tmp_path: Path, side: int, amount: int) -> None:
    """Noise is the worst that a JPEG can get; 320 px are shown as they are, larger ones are averaged down."""
    made = make_run(tmp_path, labels=True)
    masks = noisy_data(made, side, amount)
    for step in ("zoning", "pseudo", "segmenter"):
        for i in range(amount):
            file = made.run / "predictions" / step / "test" / f"test-{i:03d}.png"
            file.write_bytes(masks[(i + len(step)) % 3])
    for file in (made.run / "steps" / "pseudo" / "masks").glob("*.png"):
        file.write_bytes(masks[0])
    add_suspects(made)
    page = Page(write_report(made.run))
    assert f"12 of {amount} items of test" in page.text and len(page.all("img")) == 12 * 5 + 6 * 2 + 12
    assert (made.run / "report.html").stat().st_size < 10_000_000


def noisy_data(made: FakeRun, side: int, amount: int) -> list[bytes]:
    """Put a data set of noise in the place of the drawn one; returns three masks as PNG."""
    shutil.rmtree(made.data)
    draw = np.random.default_rng(1)
    masks = [png_bytes(discs(draw, side), CLASSES) for _ in range(3)]
    for folder in ("images", "masks"):
        (made.data / folder).mkdir(parents=True)
    for k in range(3):  # Beer-Lambert, as far as noise goes
        stains = draw.standard_exponential((side, side, 2), np.float32) @ np.float32([[0.4, 0.4, 0.2], [0.1, 0.6, 0.1]])
        (made.data / "images" / f"{k}.png").write_bytes(png_bytes((255 * np.exp(-stains)).astype(np.uint8)))
        (made.data / "masks" / f"{k}.png").write_bytes(masks[k])
    rows = [
        Row(f"{split}-{i:03d}", split, f"images/{i % 3}.png", masked and f"masks/{i % 3}.png", f"P{i}", (1, 1, None))
        for split, masked, images in (("train", "", 15), ("val", "x", 15), ("test", "x", amount))
        for i in range(images)
    ]
    write_dataset(made.data, name="noise", classes=CLASSES, rows=rows, mpp=None, licence="CC0", citation="")
    return masks
