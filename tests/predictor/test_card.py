"""The card is strict, and says what is wrong in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from eosin.core.errors import EosinError
from eosin.predictor.domain import Domain, Spread
from eosin.predictor.spec import Card
from small_model import card


def written(folder: Path, **changes: Any) -> Path:
    card().write(folder)
    value = json.loads((folder / "card.json").read_text())
    value.update(changes)
    (folder / "card.json").write_text(json.dumps(value))
    return folder


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    card().write(tmp_path)
    assert Card.read(tmp_path) == card()
    assert Card.read(tmp_path).digest == card().digest
    value = json.loads((tmp_path / "card.json").read_text())
    assert value["schema"] == 1
    assert value["use"] == "research use only"


def test_the_digest_depends_on_every_value_but_on_further_forms() -> None:
    assert len({card().digest, card(margin=5).digest, card(files={"program.pt2": "a"}).digest}) == 3
    parity = {"max_difference": 0, "argmax_agreement": 1}
    more = card(exports={"onnx": {"files": {"model.onnx": "a"}, "parity": parity}})
    assert more != card() and more.digest == card().digest


def test_a_card_from_before_domains_were_measured_keeps_its_text_and_its_digest(tmp_path: Path) -> None:
    card().write(tmp_path)
    value = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert "domain" not in value and Card.read(tmp_path).domain is None
    del value["exports"]
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    assert hashlib.sha256(text.encode()).hexdigest() == card().digest


def test_the_domain_comes_back_and_is_part_of_the_digest(tmp_path: Path) -> None:
    spread = Spread(mean=0.25, sd=0.125)
    domain = Domain(red=spread, green=spread, blue=spread, blur=spread, mpp=0.5, tiles=7)
    card(domain=domain).write(tmp_path)
    assert Card.read(tmp_path).domain == domain
    assert Card.read(tmp_path).digest != card().digest


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schema": 2}, "schema 2 is not known"),
        ({"tile": -3}, "tile: "),
        ({"margin": 16}, "leaves nothing"),
        ({"mpp": 0}, "mpp: "),
        ({"use": "diagnosis"}, "use: "),
        ({"selection": "test"}, "selection: "),
        ({"surprise": 1}, "surprise: "),
        ({"domain": {"tiles": 1}}, "domain."),
        ({"classes": {"tissues": []}}, "classes.tissues: "),
        ({"exports": {"tensorrt": {}}}, "exports.tensorrt"),
        ({"exports": {"onnx": {"files": {}, "parity": {}}}}, "exports.onnx.files: "),
    ],
)
def test_a_wrong_card_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(EosinError) as told:
        Card.read(written(tmp_path, **changes))
    assert named in str(told.value) and "\n" not in str(told.value)
    assert str(tmp_path / "card.json") in str(told.value)


@pytest.mark.parametrize("text", ["[]", "{}", "1", "not json"])
def test_other_json_is_no_card(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(EosinError, match=r"card\.json"):
        Card.read(tmp_path)


def test_a_folder_without_a_card_is_told(tmp_path: Path) -> None:
    with pytest.raises(EosinError, match="not a model folder"):
        Card.read(tmp_path)
