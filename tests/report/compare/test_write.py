"""All files of a comparison, the page as a person would judge it, and the pictures against slow oracles."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.core.errors import EosinError
from eosin.report.compare.form import Comparison
from eosin.report.compare.grid import draw_grid
from eosin.report.compare.write import write_comparison
from eosin.report.figures import fitted, tinted
from report.compare.fake_comparison import arm, by_folds, by_seeds, comparison, with_gaps
from report.fake_run import CLASSES, make_run
from report.test_html import Page

NAMES = ["arms.csv", "compare.html", "compare.json", "compare.md", "compare.png", "compare.tex", "runs.csv"]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, Page]:
    made = by_seeds(tmp_path_factory.mktemp("seeds"))
    folder = tmp_path_factory.mktemp("out") / "compare"
    written = write_comparison(made, folder)
    assert sorted(path.name for path in written) == sorted(path.name for path in folder.iterdir()) == NAMES
    return made, folder, Page(folder / "compare.html")


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, Page]:
    made = by_folds(tmp_path_factory.mktemp("folds"))
    folder = tmp_path_factory.mktemp("out")
    write_comparison(made, folder)
    return made, folder, Page(folder / "compare.html")


def own_score(prediction: np.ndarray, truth: np.ndarray) -> float:
    """IoU of each class weighted by its share of the truth, pixel by pixel."""
    total = 0.0
    for k in range(len(CLASSES)):
        pairs = list(zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True))
        both = sum(p == k and t == k for p, t in pairs)
        either = sum(p == k or t == k for p, t in pairs)
        share = sum(t == k for _, t in pairs) / len(pairs)
        total += share * both / either if either else 0.0
    return total


def ranked(run: Path) -> list[tuple[float, str]]:
    """Scores and names of a run's test images, worst first."""
    data = Path(json.loads((run / "provenance.json").read_text())["dataset"]["folder"])
    found = []
    for file in (run / "predictions" / "segmenter" / "test").glob("*.png"):
        truth = np.asarray(Image.open(data / "masks" / file.name))
        found.append((own_score(np.asarray(Image.open(file)), truth), file.stem))
    return sorted(found)


def holds(pixels: np.ndarray, part: np.ndarray, column: int) -> bool:
    """Whether a picture stands somewhere in a column of the grid."""
    wide = part.shape[1]
    x = 12 + column * (wide + 12)
    strip = pixels[:, x : x + wide]
    return any(
        np.array_equal(strip[y : y + len(part)], part)
        for y in range(len(strip) - len(part) + 1)
        if np.array_equal(strip[y], part[0])
    )


def test_the_grid_shows_worst_median_and_best_of_the_baseline(seeds: tuple[Comparison, Path, Page]) -> None:
    made, folder, _ = seeds
    order = ranked(made.arms[0].runs[0])
    chosen = [order[0][1], order[len(order) // 2][1], order[-1][1]]
    grid = draw_grid(made)
    places = ("worst, 1", "median, 8", "best, 15")
    for place, name in zip(places, chosen, strict=True):
        assert f"{place} of 15 by cam: {name}" in grid.said
    assert "FwIoU" in grid.said and "lowest seed" in grid.said
    assert np.array_equal(np.asarray(Image.open(folder / "compare.png")), grid.pixels)
    data = made.arms[0].runs[0].parent / "data"
    arms = [made.arms[0], made.arms[1], made.arms[3], made.arms[2]]  # the upper bound last
    for name in chosen:
        rgb = np.asarray(Image.open(data / "images" / f"{name}.png"))
        assert holds(grid.pixels, fitted(rgb), 0)
        masks = [data / "masks" / f"{name}.png"]
        masks += [one.runs[0] / "predictions" / "segmenter" / "test" / f"{name}.png" for one in arms]
        for column, mask in enumerate(masks, start=1):
            assert holds(grid.pixels, tinted(rgb, np.asarray(Image.open(mask)), CLASSES), column), (name, column)


def test_the_lowest_seed_is_shown_whatever_the_order(seeds: tuple[Comparison, Path, Page]) -> None:
    made = seeds[0]
    turned = [replace(one, runs=one.runs[::-1], labels=one.labels[::-1]) for one in made.arms]
    assert np.array_equal(draw_grid(made).pixels, draw_grid(replace(made, arms=tuple(turned))).pixels)


def test_with_folds_each_image_is_shown_by_the_fold_that_tested_it(folds: tuple[Comparison, Path, Page]) -> None:
    made, _, page = folds
    order = sorted((score, name, k + 1) for k, run in enumerate(made.arms[0].runs) for score, name in ranked(run))
    worst, best = order[0], order[-1]
    grid = draw_grid(made)
    assert f"worst, 1 of 45 by cam: {worst[1]} (fold {worst[2]})" in grid.said
    assert f"best, 45 of 45 by cam: {best[1]} (fold {best[2]})" in grid.said and best[2] == 3
    run = made.arms[0].runs[2]
    rgb = np.asarray(Image.open(run.parent / "data" / "images" / f"{best[1]}.png"))
    mask = np.asarray(Image.open(run / "predictions" / "segmenter" / "test" / f"{best[1]}.png"))
    assert holds(grid.pixels, tinted(rgb, mask, CLASSES), 2)
    blank = np.full((150, 320, 3), (240, 239, 243), np.uint8)  # fold 3 of the other arm was not made
    assert holds(grid.pixels, blank, 3) and not holds(grid.pixels, blank, 2)
    assert page.all("img")[0]["alt"] == grid.said


def test_fewer_images_than_rows_and_more_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    made = comparison([arm("cam", (0.5,), [run.run])])
    assert draw_grid(made, rows=5).said.count(" of 15 by cam") == 5
    for image in sorted((run.data / "images").glob("test-*.png"))[1:]:
        image.unlink()
    assert "only, 1 of 1 by cam: test-000" in draw_grid(made).said


def test_gone_pictures_are_a_sentence_and_an_old_picture_goes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    made, out = comparison([arm("cam", (0.5,), [run.run])]), tmp_path / "out"
    assert (out / "compare.png") in write_comparison(made, out)
    shutil.rmtree(run.run / "predictions")
    assert (out / "compare.png") not in write_comparison(made, out)
    assert not (out / "compare.png").exists()
    page = Page(out / "compare.html")
    assert "No pictures could be drawn: " in page.text and "no predicted mask" in page.text and not page.all("img")
    shutil.rmtree(run.data)
    write_comparison(made, out)
    assert "No pictures could be drawn: " in Page(out / "compare.html").text
    assert write_comparison(with_gaps(), out) and "provenance.json: no such file" in Page(out / "compare.html").text


def test_pictures_that_no_longer_fit_are_errors_that_name_the_file(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    made = comparison([arm("cam", (0.5,), [run.run])])
    with pytest.raises(EosinError, match="its classes are no longer those"):
        draw_grid(replace(made, classes=("a", "b", "c")))
    Image.new("L", (9, 7)).save(run.run / "predictions" / "segmenter" / "test" / "test-003.png")
    with pytest.raises(EosinError, match=r"test-003\.png: another size than its truth"):
        draw_grid(made)


def test_the_page_loads_nothing_and_runs_nothing(seeds: tuple[Comparison, Path, Page]) -> None:
    _, folder, page = seeds
    loading = {"script", "iframe", "object", "embed", "video", "audio", "source", "base", "form"}
    assert not loading & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:80])
    style = re.findall(r"<style>(.*?)</style>", page.source, re.S)
    assert len(style) == 1 and "url(" not in style[0] and "--accent" in style[0] and ".forest" in style[0]
    assert "$" not in page.text and (folder / "compare.html").stat().st_size < 10_000_000
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids) and {a["href"][1:] for a in page.all("a")} <= set(ids)
    packed = page.all("img")[0]["src"].split(",", 1)[1]
    assert Image.open(io.BytesIO(base64.b64decode(packed))).size == Image.open(folder / "compare.png").size


def test_the_page_says_what_the_tables_say(seeds: tuple[Comparison, Path, Page]) -> None:
    made, _, page = seeds
    for said in ("beats cam: +0.042", "no clear difference to cam", "upper bound, trained on truth", "p = .026 *"):
        assert said in page.text
    for said in ("mIoU %", "61.50", "CAM & friends †1,2", "The class IoUs printed average to 45.17", made.command):
        assert said in page.text
    legend = page.source.index('class="legend"')
    assert [page.source.index(f"</i>{name}", legend) for name in CLASSES.names] == sorted(
        page.source.index(f"</i>{name}", legend) for name in CLASSES.names
    )
    assert page.text.count("For research use only") >= 2


def test_the_forest_places_scores_on_its_axis(seeds: tuple[Comparison, Path, Page]) -> None:
    made, _, page = seeds
    charts = [attributes["aria-label"] for attributes in page.all("svg") if "aria-label" in attributes]
    assert charts[0] == "cam: 0.520, 95 % interval 0.490 to 0.550" and len(charts) == len(made.arms)
    texts = re.findall(r'<text x="([\d.]+)%"[^>]*>([\d.]+)</text>', page.source)
    (x0, t0), (x1, t1) = [(float(x), float(t)) for x, t in (texts[0], texts[-1])]
    points = [float(x) for x in re.findall(r'<circle cx="([\d.]+)%" cy="50%" r="5.5"', page.source)]
    shown = [t0 + (x - x0) / (x1 - x0) * (t1 - t0) for x in points]
    assert np.allclose(shown, [0.52, 0.5617, 0.5233, 0.71], atol=2e-4)
    assert t0 <= 0.49 and t1 >= 0.74 and len(texts) <= 7


def test_failures_stand_above_everything(folds: tuple[Comparison, Path, Page]) -> None:
    _, _, page = folds
    assert "supervised, fold 3: steps/segmenter: out of memory; lower fit.batch <8>" in page.text
    assert page.text.index("Not made: 1 run") < page.text.index("0.612")


def test_gaps_are_dashes_and_truth_is_marked(tmp_path: Path) -> None:
    write_comparison(with_gaps(), tmp_path)
    page = Page(tmp_path / "compare.html")
    assert "† The protocol tissue-drop uses truth at test time; not comparable" in page.text and "mIoU †" in page.text
    assert not re.search(r"\b(nan|None)\b", page.text)


def test_nothing_scored_at_all_is_still_a_page(tmp_path: Path) -> None:
    write_comparison(comparison([arm("cam", (None,))]), tmp_path)
    assert "No arm has a mean IoU." in Page(tmp_path / "compare.html").text


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script> & ${style} $title'
    made = comparison([arm(evil, (0.5,)), arm("b", (0.6,))], dataset=evil, failures=(evil,), footnotes=(evil,))
    write_comparison(made, tmp_path)
    page = Page(tmp_path / "compare.html")
    assert page.text.count(evil) >= 4 and not page.all("script")


def test_a_long_name_is_broken_not_cut(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    name = "a-very-long-name-without-any-blank-" * 4
    short, long = (draw_grid(comparison([arm(n, (0.5,), [run.run])])) for n in ("cam", name))
    assert long.pixels.shape[1] == short.pixels.shape[1] and len(long.pixels) > len(short.pixels) + 40
