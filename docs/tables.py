"""Fill a table of a results page from finished runs, so that no number is typed by hand.

    python docs/tables.py docs/results/glas.md seeds runs/cam-glas-0 runs/cam-glas-1 runs/cam-glas-2

replaces what stands between ``<!-- seeds -->`` and ``<!-- /seeds -->`` in the page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from eosin.core.artifact import write_text
from eosin.report.table import results_table


def fill(page: Path, block: str, runs: list[Path]) -> None:
    """Put the table of ``runs`` into the named block of ``page``."""
    begin, end = f"<!-- {block} -->", f"<!-- /{block} -->"
    text = page.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        sys.exit(f"{page}: has no block {begin} ... {end}")
    table = results_table(runs).strip()
    write_text(page, re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python docs/tables.py PAGE BLOCK RUN...")
    fill(Path(sys.argv[1]), sys.argv[2], [Path(run) for run in sys.argv[3:]])
