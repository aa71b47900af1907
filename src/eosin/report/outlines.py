"""What the confusion matrix hardly notices: outlines, single objects, and whether a confidence can be believed."""

from __future__ import annotations

from collections.abc import Mapping

from eosin.report.markup import Safe, absent, count, el, number, pairs, percent, swatch, table
from eosin.report.reading import Entry, Record, is_segmentation, mapping
from eosin.report.reliability import diagram
from eosin.report.scoring import mark, marked, which

_CALIBRATED_ON = "val"  # the split whose masks the temperature is fitted to
_EXPLAINED = (
    ("boundary IoU", "IoU of the pixels of a class that lie within a few pixels of its contour, over all images."),
    ("HD", "Hausdorff distance of the outlines: how far the worst pixel is off. Mean over the images with the class."),
    ("HD95", "the same for the 95th percentile, which a few stray pixels cannot spoil."),
    (
        "nothing predicted",
        "images with the class but without a prediction of it; they count with their diagonal.",
    ),
)


def outlines(record: Record) -> Safe:
    """Boundary scores, the headline's open and the others folded, and the scores of objects."""
    judged = [e for e in record.scores if mapping(e.get("boundary"))]
    if not judged:
        return absent("No outlines were judged: scores.json says nothing of boundaries.")
    judged.sort(key=lambda entry: entry is not record.headline)
    parts: list[object] = []
    for entry in judged:
        drawn = _boundary(record, entry)
        parts.append(drawn if entry is record.headline else el("details", el("summary", which(entry)), drawn))
    if numbered := [e for e in record.scores if mapping(e.get("objects"))]:
        parts.append(_objects(record, numbered))
    terms = pairs(_EXPLAINED)
    return Safe("".join(map(str, parts)) + el("details", el("summary", "How to read this"), terms))


def _boundary(record: Record, entry: Entry) -> Safe:
    said = mapping(entry["boundary"])
    names = [str(name) for name in entry["classes"]]
    head = ["Class", "Boundary IoU", "HD", "HD95", "Images", "Nothing predicted"]
    rows: list[list[object]] = []
    for name in names:
        images = mapping(said.get("images")).get(name)
        empty = mapping(said.get("empty")).get(name)
        share = el("small", percent(empty / images)) if images and empty else None
        rows.append(
            [
                swatch(record.colour(name), name),
                number(mapping(said.get("iou")).get(name)),
                _distance(mapping(said.get("hd")).get(name), mapping(said.get("hd_um")).get(name)),
                _distance(mapping(said.get("hd95")).get(name), mapping(said.get("hd95_um")).get(name)),
                count(images),
                (count(empty), share),
            ]
        )
    rows.append(["mean", el("b", number(said.get("miou"))), "", "", "", ""])
    caption = f"{which(entry)}: outlines; boundary IoU within {said.get('width_px')} px of the contour"
    return table(caption, head, rows, class_="total")


def _distance(pixels: object, micrometres: object) -> tuple[object, object]:
    """A distance in pixels, and in micrometres where the data say how large a pixel is."""
    known = isinstance(micrometres, int | float)
    length = el("small", f"{number(micrometres, 1)} \N{MICRO SIGN}m") if known else None
    return f"{number(pixels, 1)} px" if isinstance(pixels, int | float) else number(pixels), length


def _objects(record: Record, entries: list[Entry]) -> Safe:
    head = ["Step", "Split", "F1", "Object Dice", "Object Hausdorff", "True", "Predicted", "Images"]
    rows: list[list[object]] = []
    for entry in entries:
        said: Mapping[str, object] = mapping(entry["objects"])
        step = (marked(record, entry), el("small", entry["protocol"], mark(entry)))
        row: list[object] = [step, entry["split"], *(number(said.get(key)) for key in ("f1", "dice"))]
        row.append(_distance(said.get("hausdorff"), said.get("hausdorff_um")))
        rows.append([*row, *(count(said.get(key)) for key in ("truth", "predicted", "images"))])
    objects = record.dataset.objects if record.dataset else None
    what = f"Single objects ({objects.tissue})" if objects else "Single objects"
    scored = table(f"{what} as the GlaS contest scores them, all images together", head, rows, text=2)
    return Safe(el("h3", "Objects") + scored)


def calibration(record: Record) -> Safe:
    """The reliability diagram of the deployed step, on the test split or else on the validation split."""
    entry = _calibrated(record)
    if entry is None:
        return absent("Nothing is known of the confidence: scores.json has no calibration of the deployed step.")
    said = mapping(entry["calibration"])
    temperature, after = said.get("temperature"), said.get("ece_tempered")
    rows: list[tuple[object, object]] = [("ECE, as the model says it", el("b", number(said.get("ece"))))]
    rows.append(("ECE, after the temperature", _after(entry, temperature, after)))
    rows.append(("temperature", _temperature(temperature)))
    explained = (
        "A model can be believed if, of all pixels it is 80 % sure of, 80 % are right. The expected calibration error "
        "(ECE) is the mean gap between how sure it is and how often it is right, weighted by pixels."
    )
    told = el("div", el("p", explained, class_="soft"), pairs(rows))
    bins = [mapping(one) for one in said.get("bins", ())]
    return el("div", diagram(f"Reliability, {which(entry)}", bins), told, class_="charts")


def _calibrated(record: Record) -> Entry | None:
    """The entry to show: of the deployed step, masks, no truth at test time, test before validation before others."""
    order = ("test", _CALIBRATED_ON)
    found = [
        e
        for e in record.scores
        if is_segmentation(e)
        and e.get("step") == record.final
        and not e.get("uses_truth")
        and mapping(e.get("calibration")).get("bins")
    ]
    found.sort(key=lambda e: order.index(e["split"]) if e["split"] in order else len(order))
    return found[0] if found else None


def _after(entry: Entry, temperature: object, after: object) -> object:
    if temperature is None:
        return "there is no temperature"
    if after is None and entry["split"] == _CALIBRATED_ON:
        return "not judged: the temperature was fitted to these very images"
    return number(after)


def _temperature(value: object) -> str:
    if not isinstance(value, int | float):
        return f"none, since the split {_CALIBRATED_ON} has no masks to fit one to"
    sure = "the model is too sure of itself" if value > 1 else "the model is less sure than it may be"
    fitted = f"fitted to the masks of {_CALIBRATED_ON} alone, and it changes no prediction"
    return f"{number(value, 2)}: {sure if value != 1 else 'nothing needs to be changed'}; {fitted}."
