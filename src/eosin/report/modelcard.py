"""The model section: what is deployed, under whose terms, and how near its forms are to each other."""

from __future__ import annotations

from eosin.predictor.spec import Parity, restricted
from eosin.report.markup import Safe, absent, el, note, pairs
from eosin.report.reading import Record


def model_card(record: Record) -> Safe:
    """The card of the model folder, above all the terms of data and weights that the model stays bound by."""
    card = record.card
    if card is None:
        return absent("model/card.json is absent: no model was written, or its folder was moved.")
    bound = restricted(card.licences)
    rows: list[tuple[object, object]] = [
        ("terms", [el("div", line) for line in card.licences] or "not written down"),
        ("use", card.use),
        ("tile", f"{card.tile} px, of which {card.margin} px at each border are trusted less"),
        ("pixel size", "unknown" if card.mpp is None else f"{card.mpp:g} \N{MICRO SIGN}m"),
        ("digest", el("code", card.digest)),
    ]
    if card.parity is not None:
        rows.append(("program against network", _agreement(card.parity)))
    rows += [(f"{form} against program", _agreement(export.parity)) for form, export in card.exports.items()]
    remark = note(el("b", "Research only: "), "; ".join(bound), ".") if bound else Safe("")
    return Safe(remark + pairs(rows))


def _agreement(parity: Parity) -> str:
    return f"differs by {parity.max_difference:.2g} at most, agrees in {parity.argmax_agreement:.2%} of the classes"
