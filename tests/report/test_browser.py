"""The report in a real browser: nothing to complain about, nothing cut off, on a desk and on a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from eosin.report.html import write_report
from report.fake_run import add_suspects, make_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files")
# Opens everything that is folded, and asks for the width that the page needs and for pictures that cannot be drawn.
LOOK = """<!doctype html><title>waiting</title>
<iframe id="page" src="{source}" style="border:0;width:{width}px;height:30000px"></iframe>
<script>
document.getElementById("page").onload = async (event) => {{
  const page = event.target.contentDocument;
  for (const folded of page.querySelectorAll("details")) folded.open = true;
  const beyond = (box) => {{
    const card = box.closest(".card").getBoundingClientRect(), own = box.getBoundingClientRect();
    return own.left < card.left || own.right > card.right + 0.5;
  }};
  const seen = {{
    needs: page.documentElement.scrollWidth,
    spilt: [...page.querySelectorAll(".scroll, .charts, .gallery, dl, .hero")].filter(beyond).length,
    drawn: 0,
    blank: 0,
  }};
  for (const image of page.images) {{
    const copy = new Image();  // the page's own one waits until it is scrolled to
    await new Promise((done) => {{ copy.onload = copy.onerror = done; copy.src = image.src; }});
    seen[copy.naturalWidth ? "drawn" : "blank"]++;
  }}
  document.title = JSON.stringify(seen);
}};
</script>
"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium or Chrome on this machine")
    return found


def look(browser: str, page: Path, width: int, folder: Path) -> tuple[dict[str, int], list[str]]:
    """What the browser measured, and what stands in its console."""
    wrapper = folder / "look.html"
    wrapper.write_text(LOOK.format(source=page.as_uri(), width=width))
    options = [*OPTIONS, f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--v=0"]
    command = [browser, *options, "--virtual-time-budget=10000", "--dump-dom", wrapper.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(\{.*?\})</title>", ran.stdout)
    assert title is not None, ran.stderr[-2000:]
    return json.loads(title[1]), [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("truth", [True, False])
def test_page_fits_and_is_silent(browser: str, tmp_path: Path, width: int, truth: bool) -> None:
    made = make_run(tmp_path, truth=truth, labels=truth)
    add_suspects(made)
    seen, console = look(browser, write_report(made.run), width, tmp_path)
    assert console == []
    assert seen["needs"] <= width and seen["spilt"] == 0
    assert seen["drawn"] == 12 * (5 if truth else 3) + 6 * 2 + 12 and seen["blank"] == 0


def test_this_check_can_fail(browser: str, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    broken = '<img src="data:image/png;base64,AAAA"><script>console.error("seen")</script>'
    page.write_text(f'<!doctype html><p style="width:900px">wide</p>{broken}')
    seen, console = look(browser, page, 400, tmp_path)
    assert seen["needs"] >= 900 and seen["blank"] == 1 and any("seen" in line for line in console)
