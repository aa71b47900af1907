"""Views in the report: coloured around 0 or from it, item by item, from nothing but named arrays."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.data.dataset import Dataset
from eosin.report.html import write_report
from eosin.report.views import _BLUE, _RED, shaded
from eosin.slides.image import read_mask
from report.fake_run import CLASSES, FakeRun, make_run
from report.page import Page


def test_a_signed_map_is_white_at_zero_blue_below_and_red_above() -> None:
    values = np.array([[-2, -1, 0, 1, 2, 9]], np.float32)
    drawn = shaded(values, 2.0, (0, 0, 0), True)[0].astype(int)
    assert drawn[0].tolist() == list(_BLUE) and drawn[4].tolist() == drawn[5].tolist() == list(_RED)
    assert drawn[2].tolist() == [255] * 3
    np.testing.assert_allclose(drawn[1], (np.array(_BLUE) + 255) / 2, atol=0.5)
    np.testing.assert_allclose(drawn[3], (np.array(_RED) + 255) / 2, atol=0.5)


def test_other_maps_grow_from_white_to_the_colour_of_their_class() -> None:
    drawn = shaded(np.array([[0, 0.25, 0.5]], np.float32), 0.5, (10, 110, 210), False)[0].astype(int)
    assert drawn[0].tolist() == [255] * 3 and drawn[2].tolist() == [10, 110, 210]
    np.testing.assert_allclose(drawn[1], [132.5, 182.5, 232.5], atol=0.5)
    assert (shaded(np.zeros((2, 2), np.float32), 0.0, (1, 2, 3), False) == 255).all()


def put(run: FakeRun, step: str, **maps: np.ndarray) -> list[str]:
    """Views of the first two test items."""
    names = ["test-000", "test-001"]
    folder = run.run / "views" / step / "test"
    folder.mkdir(parents=True)
    for name in names:
        np.savez(folder / f"{name}.npz", **maps)  # type: ignore[arg-type]
    return names


def pictures(page: Page) -> dict[str, np.ndarray]:
    """The pictures of the page by what they say."""
    found = {}
    for image in page.all("img"):
        data = base64.b64decode(image["src"].partition(",")[2])
        found[image["alt"]] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    return found


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return make_run(tmp_path)


def test_a_page_without_views_does_not_speak_of_them(run: FakeRun) -> None:
    assert 'id="views' not in Page(write_report(run.run)).source


def test_each_step_with_views_has_a_section_with_its_maps(run: FakeRun) -> None:
    ramp = np.linspace(-3, 1, 24 * 24, dtype=np.float16).reshape(1, 24, 24)
    scales = np.concatenate([ramp, ramp / 2, 0 * ramp])
    items = put(run, "zoning", P2=scales, P4=np.abs(scales), sure=np.abs(ramp), guess=np.full((24, 24), 1, np.uint8))
    put(run, "segmenter", peers=np.full((24, 24), 2, np.uint8))
    page = Page(write_report(run.run))
    assert "Views: zoning" in page.text and "Views: segmenter" in page.text
    found = pictures(page)
    for name in items:
        own = {alt: pixels for alt, pixels in found.items() if f" of {name}" in alt and alt.startswith("View")}
        assert len(own) == 2 * len(CLASSES) + 1 + 1 + 1
        signed = own[f"View P2: background of {name}: from -3.000 to 1.000"].astype(int)
        assert signed[3, 3, 2] > signed[3, 3, 0] + 80  # blue where it is lowest
        assert signed[-3, -3, 0] > signed[-3, -3, 2]
        plain = next(own[alt] for alt in own if alt.startswith("View P4: tumour of")).astype(int)
        assert plain[3, 3, 0] > plain[3, 3, 1]  # tumour's colour is red
        alike = own[f"View P2: stroma of {name}: from 0.000 to 0.000"]
        assert (alike > 250).all()
    section = page.source.partition('id="views-0"')[2].partition("</section>")[0]
    assert "\N{PLUS-MINUS SIGN}3" in section
    assert re.search(r"P4: tumour <small>3</small>", section)  # the scale is that of all classes


def test_prototypes_have_a_table_of_what_they_look_at(run: FakeRun) -> None:
    left = np.zeros((len(CLASSES), 24, 24), np.float16)
    left[:, :, :12] = 1
    names = put(run, "segmenter", **{"prototype 1": left, "prototype 2": 1 - left})
    page = Page(write_report(run.run))
    dataset = Dataset.open(run.data)
    truth = dataset.truth("test")
    assert truth is not None
    at = {str(dataset.items("test").ids[i]): k for k, i in enumerate(truth.index)}
    present = {
        CLASSES.names[k] for name in names for k in np.unique(read_mask(truth.path(at[name]))) if k < len(CLASSES)
    }
    assert 'aria-label="Prototypes"' in page.source
    rows = page.source.partition('aria-label="Prototypes"')[2].partition("</table>")[0]
    found = re.findall(r'<th scope="row"[^>]*>([^<]+)</th>(.*?)</tr>', rows)
    assert {name for name, _ in found} == present
    for _, cells in found:
        assert re.findall(r">([\d.]+)</td>", cells)[1:] == ["1.000", "0.500", "0.000"]
    put(run, "zoning", P2=left)
    assert Page(write_report(run.run)).source.count('aria-label="Prototypes"') == 1


def test_views_of_items_that_are_gone_are_left_out(run: FakeRun) -> None:
    items = put(run, "zoning", sure=np.ones((1, 8, 8), np.float16))
    (run.data / "images" / f"{items[0]}.png").unlink()
    source = Page(write_report(run.run)).source.partition('id="views-0"')[2].partition("</section>")[0]
    assert items[0] not in source and f"View sure of {items[1]}" in source
    (run.data / "images" / f"{items[1]}.png").unlink()
    assert "None of the items in views/zoning/test is still there." in Page(write_report(run.run)).text
