"""The report as a person would judge it: whole, inert, readable, and plain about what is absent."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from eosin.core.artifact import write_json
from eosin.core.errors import EosinError
from eosin.report.html import write_report
from report.fake_run import CLASSES, FakeRun, make_run
from report.page import Page


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeRun, Page]:
    run = make_run(tmp_path_factory.mktemp("full"))
    return run, Page(write_report(run.run))


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeRun, Page]:
    run = make_run(tmp_path_factory.mktemp("tags"), truth=False)
    return run, Page(write_report(run.run))


def test_says_the_result_in_one_sentence(full: tuple[FakeRun, Page]) -> None:
    run, page = full
    entry = run.scores()[-1]
    assert f"cam on fake tissue: {entry['miou']:.2f} mIoU (test, strict, selected by masks)." in page.text
    assert page.text.count("For research use only") >= 2
    assert page.all("html")[0]["lang"] == "en"


def test_loads_nothing_and_runs_nothing(full: tuple[FakeRun, Page]) -> None:
    _, page = full
    loading = {"script", "iframe", "object", "embed", "video", "audio", "source", "base", "form"}
    assert not loading & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:80])
    styles = "".join(re.findall(r"<style>(.*?)</style>", page.source, re.S)) + "".join(
        attributes.get("style", "") for _, attributes in page.elements
    )
    assert "url(" not in styles and "@import" not in styles
    assert any("default-src 'none'" in meta.get("content", "") for meta in page.all("meta"))


def test_images_are_inline_pictures_with_words(full: tuple[FakeRun, Page]) -> None:
    _, page = full
    images = page.all("img")
    assert len(images) == 12 * 4 + 6 * 2
    for image in images:
        kind, packed = image["src"].split(",", 1)
        assert kind == "data:image/jpeg;base64"
        picture = Image.open(io.BytesIO(base64.b64decode(packed)))
        assert picture.size == (int(image["width"]), int(image["height"]))
        assert image["alt"]
    assert any(re.match(r"Prediction of test-\d+: .*tumour \d", image["alt"]) for image in images)
    for svg in page.all("svg"):
        assert svg["role"] == "img" and re.search("ends at|sure", svg["aria-label"])


def test_gallery_goes_from_worst_to_best(full: tuple[FakeRun, Page]) -> None:
    _, page = full
    scores = [float(value) for value in re.findall(r"FwIoU ([\d.]+)<", page.source)]
    assert len(scores) == 12 and scores == sorted(scores) and scores[0] < scores[-1]
    ranks = re.findall(r">(\d+) of 15<", page.source)
    assert ranks[0] == "1" and ranks[-1] == "15"


def test_scores_and_confusion_are_those_of_the_file(full: tuple[FakeRun, Page]) -> None:
    run, page = full
    for entry in run.scores():
        low, high = entry["ci95"]["miou"]
        assert f"{entry['miou']:.3f}" in page.text and f"{low:.3f} to {high:.3f}" in page.text
        for name in CLASSES.names:
            assert f"{entry['iou'][name]:.3f}" in page.text and f"{entry['dice'][name]:.3f}" in page.text
        for row in entry["confusion"]:
            for pixels in row:
                assert f"{pixels:,}" in page.text
    first = run.scores()[-1]["confusion"][0]
    assert f"{100 * first[0] / sum(first):.0f} %" in page.text


def test_data_card_curves_time_and_recipe(full: tuple[FakeRun, Page]) -> None:
    _, page = full
    for said in ("CC0 & free <for all>", "https://example.org/paper", "official split", "patient overlap", "3 unknown"):
        assert said in page.text
    assert "epoch 3 was kept (the epoch was chosen by validation masks)" in page.text
    for said in ("Loss terms", "Validation scores", "mIoU", "tag mAP", "ce", "dice"):
        assert said in page.text
    for said in ("31.5 s", "1 min 1 s", "10 min 0 s", "19 min 10 s", "encoder: resnet18", "2.13.0+cpu"):
        assert said in page.text
    order = [
        page.text.index(f"{step}{kind}")
        for step, kind in (("zoning", "fit"), ("pseudo", "label"), ("segmenter", "fit"))
    ]
    assert order == sorted(order), "steps stand in the order of their making, not of their names"


def test_links_lead_to_sections(full: tuple[FakeRun, Page]) -> None:
    _, page = full
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)


def test_run_without_truth(tags: tuple[FakeRun, Page]) -> None:
    run, page = tags
    entry = run.scores()[-1]
    found = f"{entry['tags']['map']:.2f} mean average precision of tags (test, selected by tags); there are no masks"
    assert found in page.text
    assert "Without masks there is no confusion matrix." in page.text
    assert "There is no truth to judge them by." in page.text
    assert len(page.all("img")) == 12 * 3 + 6 * 2
    assert not any(image["alt"].startswith("Truth") for image in page.all("img"))
    assert "mIoU" not in page.text.replace("FwIoU", "")


def gone(name: str) -> Callable[[FakeRun], None]:
    def remove(made: FakeRun) -> None:
        path = made.data if name == "DATA" else made.run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("scores.json", "this run was not scored"),
        ("journal.jsonl", "no step was trained"),
        ("provenance.json", "provenance.json is absent"),
        ("recipe.yaml", "recipe.yaml is absent"),
        ("predictions", "The run holds no predicted masks"),
        ("steps", "10 min 0 s"),
        ("DATA", "The data set is no longer at"),
    ],
)
def test_says_what_is_absent(tmp_path: Path, truth: bool, name: str, said: str) -> None:
    made = make_run(tmp_path, truth=truth)
    gone(name)(made)
    page = Page(write_report(made.run))
    assert said in page.text
    assert "For research use only" in page.text


def test_gone_data_leave_what_provenance_says(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    gone("DATA")(made)
    page = Page(write_report(made.run))
    assert "CC0 & free <for all>" in page.text and "15 predicted masks lie in predictions/segmenter/test" in page.text
    assert not page.all("img")


def test_changed_data_are_called_changed(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    yaml = made.data / "dataset.yaml"
    yaml.write_text(yaml.read_text().replace("mpp: 0.5", "mpp: 0.25"))
    assert "The data set has changed since this run" in Page(write_report(made.run)).text
    yaml.write_text(yaml.read_text().replace("name: stroma", "name: other"))
    items = made.data / "items.csv"
    items.write_text(items.read_text().replace("stroma", "other"))
    page = Page(write_report(made.run))
    assert "are no longer those of this run" in page.text


def test_broken_data_are_told_not_hidden(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    (made.data / "dataset.yaml").write_text("schema: 9\n")
    assert "cannot be opened any more: " in Page(write_report(made.run)).text


def test_removed_pictures_leave_the_gallery(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    for image in sorted((made.data / "images").glob("test-*.png"))[3:]:
        image.unlink()
    page = Page(write_report(made.run))
    assert "3 of 3 items of test" in page.text


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    gone("DATA")(made)
    evil = '<script>alert("x")</script> & $title ${hero} \N{SNOWMAN}'
    text = (made.run / "scores.json").read_text()
    (made.run / "scores.json").write_text(text.replace('"stroma"', json.dumps(evil)).replace("fake tissue", "a<b>'c"))
    (made.run / "recipe.yaml").write_text("method: cam\n# </code><img src=http://example.org/x.png>\n")
    (made.run / "steps" / "pseudo").rename(made.run / "steps" / "a<i>&")
    page = Page(write_report(made.run))
    assert evil in page.text and not page.all("script") and not page.all("img")
    assert "</code><img src=http://example.org/x.png>" in page.text


def test_protocols_that_use_truth_are_marked_and_never_lead(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    scores = made.scores()
    write_json(
        made.run / "scores.json", [*scores, {**scores[-1], "protocol": "tissue-drop", "uses_truth": True, "miou": 0.99}]
    )
    page = Page(write_report(made.run))
    assert "This protocol uses truth at test time" in page.text
    assert f"{scores[-1]['miou']:.2f} mIoU (test, strict" in page.text


def test_undefined_scores_are_dashes(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    scores = made.scores()
    scores[-1]["iou"]["stroma"] = scores[-1]["dice"]["stroma"] = None
    scores[-1]["ci95"]["miou"] = [None, None]
    scores[-1]["confusion"][2] = [0, 0, 0]
    write_json(made.run / "scores.json", scores)
    page = Page(write_report(made.run))
    assert "no interval could be computed" in page.text
    assert not re.search(r"\b(nan|None)\b", page.text)


def test_an_epoch_that_was_not_chosen_is_called_the_last(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    write_json(made.run / "scores.json", [{**entry, "selection": "last"} for entry in made.scores()])
    assert "(test, strict, last epoch)" in Page(write_report(made.run)).text


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(EosinError, match="not a run"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("journal.jsonl", '{"step": "a", "epoch": 0}\nnonsense\n', "line 2"),
        ("scores.json", "[", "not valid JSON"),
        ("recipe.yaml", "method: [", "not valid YAML"),
    ],
)
def test_broken_files_are_errors_in_one_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    made = make_run(tmp_path)
    (made.run / name).write_text(content)
    with pytest.raises(EosinError, match=said) as caught:
        write_report(made.run)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_mask_of_another_size_is_an_error_that_names_it(tmp_path: Path) -> None:
    made = make_run(tmp_path, truth=False)
    Image.new("RGB", (9, 7)).save(made.data / "images" / "test-000.png")
    with pytest.raises(EosinError, match=r"test-000\.png: 24 x 24 px, but its image 9 x 7 px"):
        write_report(made.run)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(full: tuple[FakeRun, Page], scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for text, 3 to 1 for lines."""
    blocks = re.findall(r":root \{(.*?)\}", full[1].source, re.S)
    colours = dict(re.findall(r"--([\w-]+): #([0-9a-f]{6})", blocks[0]))
    if scheme == "dark":
        colours |= dict(re.findall(r"--([\w-]+): #([0-9a-f]{6})", blocks[1]))
    texts = [("ink", "page"), ("ink", "card"), ("ink", "tint"), ("soft", "page"), ("soft", "card"), ("soft", "tint")]
    texts += [("accent", "card"), ("warn", "warn-back")]
    lines = [(f"c{k}", "card") for k in range(8)]
    for pairs, least in ((texts, 4.5), (lines, 3.0)):
        for front, back in pairs:
            assert _contrast(_rgb(colours[front]), _rgb(colours[back])) >= least, (front, back)
    for heat in ("hit", "miss", "pair"):
        mixed = [0.55 * a + 0.45 * b for a, b in zip(_rgb(colours[heat]), _rgb(colours["tint"]), strict=True)]
        small = [0.86 * a + 0.14 * b for a, b in zip(_rgb(colours["ink"]), mixed, strict=True)]
        assert _contrast(small, mixed) >= 4.5, heat


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]


def _contrast(a: list[float], b: list[float]) -> float:
    def luminance(rgb: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
