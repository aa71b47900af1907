"""The tags that are most doubtful, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eosin.report.figures import fitted
from eosin.report.markup import Safe, absent, count, el, number, picture, swatch
from eosin.report.reading import Entry, Record
from eosin.slides.image import read_rgb

_SHOWN = 12
_TRAIN = "train"


def doubtful_tags(record: Record) -> Safe:
    """The training images whose tags agree least with models that never saw them, the most doubtful first."""
    said = record.suspects
    items: Sequence[Entry] = said.get("items", ())
    if not items:
        return absent("suspects/suspects.json lists no tag, so none is in doubt.")
    folds = f"{said['folds']} parts" if said.get("folds") else "parts"
    explained = (
        f"The training images were split into {folds}, and each tag was judged by a model ({said.get('step')}) trained "
        "without the part it lies in. Below are the tags that agree least with that judgement, most doubtful first. "
        "A doubtful tag is not a wrong one: rare looks of a tissue stand here, too. Please let a person look at each "
        "image before a tag is changed; nothing was changed here."
    )
    shown = items[:_SHOWN]
    images = _images(record, {str(item["id"]) for item in shown})
    cards = [_card(record, item, images.get(str(item["id"]))) for item in shown]
    amount = f"{len(shown)} of {count(len(items))} judged images; every tag of theirs is in suspects/suspects.csv."
    return Safe(el("p", explained) + el("p", amount, class_="soft") + el("div", cards, class_="gallery small"))


def _images(record: Record, wanted: set[str]) -> dict[str, Path]:
    """Those of the wanted training images that are still there."""
    if record.dataset is None or _TRAIN not in record.dataset.splits:
        return {}
    items = record.dataset.items(_TRAIN)
    paths = {str(name): items.path(i) for i, name in enumerate(items.ids) if str(name) in wanted}
    return {name: path for name, path in paths.items() if path.exists()}


def _card(record: Record, item: Entry, image: Path | None) -> Safe:
    name, tissue = str(item["id"]), str(item["class"])
    given = "present" if item["tag"] else "absent"
    if image is None:
        seen = absent(el("code", name), ": the image is out of reach.")
    else:
        seen = picture(fitted(read_rgb(image)), f"Training patch {name}, tagged {tissue} {given}", el("code", name))
    colour = dict(record.tissues).get(tissue)
    text = [
        el("b", swatch(colour, tissue) if colour else tissue),
        el("span", f"tagged {given}"),
        el("span", "out-of-fold score ", el("b", number(item["score"], 2))),
    ]
    return el("article", seen, el("p", text), class_="item")
