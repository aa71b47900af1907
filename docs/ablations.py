"""Set an ablation as its paper printed it beside what was measured, in a table of a results page.

    python docs/ablations.py docs/results/ablations.md gland-t2 runs/drawn/gland-t2.json runs/glas/gland-t2.json

replaces what stands between ``<!-- gland-t2 -->`` and ``<!-- /gland-t2 -->`` by a table of one or more comparisons of
that ablation's rows, each the ``compare.json`` of one data set. Gains are over the first row, in points.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from _page import write

from eosin.core.artifact import read_json

# what a claim may have beside mean IoU: what a comparison calls it, and its column
MORE = {"dice": ("mdice", "Dice"), "accuracy": ("accuracy", "Accuracy")}


def table(comparisons: list[dict[str, Any]]) -> str:
    """Markdown: one row an arm; what was printed, then mean, deviation and gain on each data set.

    Dice and accuracy are shown where the paper prints them.
    """
    arms = [{arm["name"]: arm for arm in one["arms"]} for one in comparisons]
    names = list(dict.fromkeys(name for one in arms for name in one))
    claims = {name: one[name]["claim"] for one in arms for name in one if one[name]["claim"]}
    more = [measure for measure in MORE if any(claim.get(measure) for claim in claims.values())]
    titles = ["Gain", *(MORE[measure][1] for measure in more)]
    head = ["Row", "Printed", *titles]
    head += [word for one in comparisons for word in (f"{one['dataset']}, mIoU %", *titles)]
    lines = [f"| {' | '.join(head)} |", f"| --- | {' | '.join(['---:'] * (len(head) - 1))} |"]
    for name in names:
        printed = [{row: [claim[key]] for row, claim in claims.items() if claim.get(key)} for key in ("miou", *more)]
        cells = [name, *told(printed[0], name, names[0], 2)]
        cells += [told(values, name, name, 2)[0] for values in printed[1:]]
        for one in arms:
            scores = [percent(one, key) for key in ("miou", *(MORE[measure][0] for measure in more))]
            cells += told(scores[0], name, names[0], 1)
            cells += [told(values, name, name, 1)[0] for values in scores[1:]]
        lines.append(f"| {' | '.join(cells)} |")
    sources = dict.fromkeys(f"{claim['source']}, protocol {claim['protocol']}" for claim in claims.values())
    lines += ["", f"- Printed: {'; '.join(sources) or 'nothing'}."]
    lines += [f"- {origin(one)}" for one in comparisons]
    return "\n".join(lines)


def percent(arms: dict[str, dict[str, Any]], score: str) -> dict[str, list[float]]:
    """A score of each arm, by run."""
    return {row: [100 * value for value in arm[score]["values"]] for row, arm in arms.items()}


def told(values: dict[str, list[float]], name: str, first: str, digits: int) -> list[str]:
    """Mean, with a deviation if there are several values, and gain over the first row; dashes for what is missing."""
    if name not in values:
        return ["–", "–"]
    mean = np.mean(values[name])
    spread = f" ± {np.std(values[name], ddof=1):.{digits}f}" if len(values[name]) > 1 else ""
    gain = f"{mean - np.mean(values[first]):+.{digits}f}".replace("-", "−")
    return [f"{mean:.{digits}f}{spread}", "–" if name == first or first not in values else gain]


def origin(one: dict[str, Any]) -> str:
    """What a comparison was made of."""
    runs = ", ".join(one["arms"][0]["labels"])
    seen = f"{one['images']} images of {one['split']}, protocol {one['protocol']}"
    made = f"{one['device']}, source {', '.join(one['commits'])}"
    return f"{one['dataset']}: digest {one['digest'][:12]}, {seen}, {runs}, {made}; `{one['command']}`."


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python docs/ablations.py PAGE BLOCK COMPARE_JSON...")
    write(Path(sys.argv[1]), sys.argv[2], table([read_json(Path(argument)) for argument in sys.argv[3:]]))
