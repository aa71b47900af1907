"""Fill a table of a results page from finished runs or a comparison, so that no number is typed by hand.

    python docs/tables.py docs/results/glas.md seeds runs/cam-glas-0 runs/cam-glas-1 runs/cam-glas-2
    python docs/tables.py docs/results/comparisons.md glas runs/compared

replaces what stands between ``<!-- seeds -->`` and ``<!-- /seeds -->`` in the page by a table of the runs, or by the
``compare.md`` of the comparison (``adapt.md`` of an adaptation), its headings two levels lower. The box plot of an
adaptation becomes ``docs/pictures/<block>.svg``.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from _page import write

from eosin.report.adapt.write import PICTURE as PLOT
from eosin.report.table import results_table

PICTURES = Path(__file__).resolve().parent / "pictures"


def fill(page: Path, block: str, sources: list[Path]) -> None:
    """Put the table of runs, or a comparison, into the named block of ``page``."""
    told = next((path for name in ("compare.md", "adapt.md") if (path := sources[0] / name).is_file()), None)
    table = results_table(sources) if told is None else lowered(told.read_text(encoding="utf-8"))
    if f"]({PLOT})" in table:
        picture = PICTURES / f"{block}.svg"
        shutil.copyfile(sources[0] / PLOT, picture)
        table = table.replace(f"]({PLOT})", f"]({Path(os.path.relpath(picture, page.resolve().parent)).as_posix()})")
    write(page, block, table)


def lowered(text: str) -> str:
    """Markdown with its headings two levels lower."""
    return re.sub(r"^#", "###", text, flags=re.MULTILINE)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python docs/tables.py PAGE BLOCK RUN... | COMPARISON")
    fill(Path(sys.argv[1]), sys.argv[2], [Path(argument) for argument in sys.argv[3:]])
