"""Put what a script has made into the named block of a page, and say of which runs it was made."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from eosin.core.artifact import read_json, write_text


def write(page: Path, block: str, made: str) -> None:
    """Replace what stands between ``<!-- block -->`` and ``<!-- /block -->``; without them the script ends."""
    head, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {block} -->\n")
    _, end, tail = rest.partition(f"<!-- /{block} -->")
    if not end:
        sys.exit(f"{page}: has no block {block}")
    write_text(page, f"{head}{begin}{made.strip()}\n{end}{tail}")


def origin(runs: Sequence[Path]) -> str:
    """The data, the seeds, the devices and the sources of finished runs."""
    told = [read_json(run / "provenance.json") for run in runs]
    data = (f"{one['dataset']['name']}, digest {one['dataset']['digest'][:12]}" for one in told)
    seeds, devices, sources = (
        ", ".join(dict.fromkeys(f"{one[key]}"[:10] for one in told)) for key in ("seed", "device", "commit")
    )
    return f"Made of {'; '.join(dict.fromkeys(data))}; seed {seeds}; {devices}; source {sources}."
