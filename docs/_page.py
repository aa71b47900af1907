"""Put what a script has made into the named block of a page."""

from __future__ import annotations

import sys
from pathlib import Path

from eosin.core.artifact import write_text


def write(page: Path, block: str, made: str) -> None:
    """Replace what stands between ``<!-- block -->`` and ``<!-- /block -->``; without them the script ends."""
    head, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {block} -->\n")
    _, end, tail = rest.partition(f"<!-- /{block} -->")
    if not end:
        sys.exit(f"{page}: has no block {block}")
    write_text(page, f"{head}{begin}{made.strip()}\n{end}{tail}")
