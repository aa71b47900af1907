"""Reads a run folder for the report. Any file may be absent; one that is there and broken is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eosin.core.artifact import read_json
from eosin.core.classes import Colour
from eosin.core.errors import EosinError
from eosin.data.dataset import Dataset
from eosin.predictor.spec import CARD, Card

Entry = Mapping[str, Any]

# For class names whose colours are lost together with the data set and the model card; any two of them can be told
# apart by normal and by colour-blind eyes.
COLOURS: tuple[Colour, ...] = (
    (0, 115, 200),
    (225, 155, 35),
    (30, 150, 110),
    (195, 85, 0),
    (45, 180, 255),
    (210, 130, 170),
    (120, 5, 10),
    (90, 15, 90),
    (150, 235, 165),
    (250, 245, 15),
    (60, 60, 60),
    (0, 5, 200),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        name: of the step.
        folder: where its files lie.
        kind: ``fit``, ``label``, ...; empty where ``step.json`` is absent.
        notes: what its work noted in ``step.json``, e.g. ``wall_s``.
        epochs: its lines of the journal.
    """

    name: str
    folder: Path
    kind: str
    notes: Entry
    epochs: Sequence[Entry]

    @property
    def masks(self) -> list[Path]:
        """The masks of a label step, sorted by name; empty for other steps."""
        return sorted((self.folder / "masks").glob("*.png"))


@dataclass(frozen=True, slots=True)
class Record:
    """All that a run folder says.

    Attributes:
        folder: the run.
        recipe: text of ``recipe.yaml``, empty where absent.
        settings: the same as a mapping.
        steps: in the order they were made.
        scores: entries of ``scores.json``, empty where absent.
        provenance: of ``provenance.json``, empty where absent.
        suspects: of ``suspects/suspects.json``, empty where absent.
        card: of the model folder, if there is one.
        dataset: the data set, if its folder can still be opened.
        dataset_note: why it cannot, or how it differs from what the run saw; empty if all is well.
        tissues: class names and colours in mask order.
    """

    folder: Path
    recipe: str
    settings: Entry
    steps: Sequence[Step]
    scores: Sequence[Entry]
    provenance: Entry
    suspects: Entry
    card: Card | None
    dataset: Dataset | None
    dataset_note: str
    tissues: Sequence[tuple[str, Colour]]

    @property
    def method(self) -> str:
        """The method's name, from provenance or recipe."""
        return str(self.provenance.get("method") or self.settings.get("method") or "unknown method")

    @property
    def data(self) -> Entry:
        """What provenance says of the data set."""
        return mapping(self.provenance.get("dataset"))

    @property
    def data_name(self) -> str:
        """The data set's name, as the run saw it."""
        first = self.scores[0].get("dataset") if self.scores else None
        return str(self.data.get("name") or first or (self.dataset.name if self.dataset else "unknown data"))

    def colour(self, name: str) -> Colour:
        """The colour of a class."""
        return dict(self.tissues)[name]

    @property
    def headline(self) -> Entry | None:
        """The entry that the run is judged by.

        Masks before tags, no truth at test time before truth, the deployed step before others, the test split before
        others; of equals the last written, since plans score their final step last.
        """
        deployed = self.provenance.get("final")
        ranked = [
            (
                is_segmentation(e),
                not e.get("uses_truth"),
                e.get("step") == deployed,
                e.get("split") == "test",
                e.get("protocol") == "strict",
                i,
            )
            for i, e in enumerate(self.scores)
        ]
        return self.scores[max(ranked)[-1]] if ranked else None

    @property
    def final(self) -> str | None:
        """The step that is deployed, as provenance says, or else the one of the headline."""
        said = self.provenance.get("final") or (self.headline or {}).get("step")
        return None if said is None else str(said)

    @property
    def fold(self) -> str | None:
        """Which fold of a cross-validation the data are, in words, or None."""
        said = mapping(self.data.get("fold"))
        return f"fold {said.get('number')} of {said.get('of')}" if said else None


def is_segmentation(entry: Entry) -> bool:
    """Whether an entry of ``scores.json`` was counted against masks."""
    return "confusion" in entry


def chosen(entry: Entry) -> str:
    """How the scored epoch came to be kept, in words."""
    rule = entry.get("selection", "an unknown rule")
    return "last epoch" if rule == "last" else f"selected by {rule}"


def interval(entry: Entry, name: str | None = None) -> tuple[float, float] | None:
    """The 95 % interval of the mean IoU, or of the IoU of one class; None where there is none."""
    said = mapping(entry.get("ci95"))
    ends = said.get("miou") if name is None else mapping(said.get("iou")).get(name)
    return (float(ends[0]), float(ends[1])) if ends and None not in ends else None


def mapping(value: object) -> Entry:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def read_run(run: Path) -> Record:
    """Read what is there.

    Raises:
        EosinError: if the folder holds no run, or a file of it is broken.
    """
    if not any((run / name).exists() for name in ("recipe.yaml", "journal.jsonl", "scores.json")):
        raise EosinError(
            f"{run}: not a run (no recipe.yaml, journal.jsonl or scores.json); give the folder `eosin run` made"
        )
    recipe = _text(run / "recipe.yaml")
    try:
        settings = mapping(yaml.safe_load(recipe))
    except yaml.YAMLError as error:
        raise EosinError(f"{run / 'recipe.yaml'}: not valid YAML ({' '.join(str(error).split())})") from None
    provenance = mapping(_json(run / "provenance.json"))
    scores = _json(run / "scores.json") or []
    dataset, remark = _dataset(mapping(provenance.get("dataset")))
    card = Card.read(run / "model") if (run / "model" / CARD).exists() else None
    return Record(
        folder=run,
        recipe=recipe,
        settings=settings,
        steps=_steps(run),
        scores=scores,
        provenance=provenance,
        suspects=mapping(_json(run / "suspects" / "suspects.json")),
        card=card,
        dataset=dataset,
        dataset_note=remark,
        tissues=_tissues(card, dataset, scores),
    )


def read_journal(path: Path) -> dict[str, list[Entry]]:
    """The epochs of each step, in order; an epoch that was done again replaces its first telling and what followed.

    Raises:
        EosinError: naming the file and the line that is not a JSON object with ``step`` and ``epoch``.
    """
    steps: dict[str, list[Entry]] = {}
    whole = _text(path).split("\n")[:-1]  # what follows the last line end was cut by a kill
    for at, line in enumerate(whole, start=1):
        try:
            told = json.loads(line)
            name, epoch = str(told["step"]), int(told["epoch"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            raise EosinError(f"{path}: line {at} is not a JSON object with step and epoch; delete that line") from None
        steps[name] = [e for e in steps.get(name, []) if e["epoch"] < epoch] + [told]
    return steps


def _steps(run: Path) -> list[Step]:
    journal = read_journal(run / "journal.jsonl")
    records = {p.parent.name: mapping(read_json(p)) for p in sorted((run / "steps").glob("*/step.json"))}
    names = _in_order({name: set(record.get("inputs", ())) for name, record in records.items()})
    steps = []
    for name in [*names, *(n for n in journal if n not in records)]:
        record = mapping(records.get(name))
        kind = str(mapping(record.get("form")).get("kind", ""))
        steps.append(Step(name, run / "steps" / name, kind, mapping(record.get("notes")), journal.get(name, [])))
    return steps


def _in_order(inputs: Mapping[str, set[str]]) -> list[str]:
    """The steps, each after those it was made from; inputs that are no steps (the truth) do not count."""
    order: list[str] = []
    while waiting := [name for name in inputs if name not in order]:
        ready = [name for name in waiting if not inputs[name] & set(waiting)]
        order += ready or waiting  # waiting: a circle, which no engine writes; show it rather than hang
    return order


def _dataset(said: Entry) -> tuple[Dataset | None, str]:
    if not said.get("folder"):
        return None, "provenance.json does not say where the data set is."
    folder = Path(str(said["folder"]))
    if not (folder / "dataset.yaml").exists():
        return None, f"The data set is no longer at {folder}; what follows is what the run wrote down."
    try:
        dataset = Dataset.open(folder)
    except EosinError as error:
        return None, f"The data set cannot be opened any more: {error}"
    if said.get("digest") not in (None, dataset.digest):
        return dataset, "The data set has changed since this run; counts and pictures show it as it is now."
    return dataset, ""


def _tissues(card: Card | None, dataset: Dataset | None, scores: Sequence[Entry]) -> list[tuple[str, Colour]]:
    """The classes that were scored, coloured as the model card or else the data set says."""
    known: dict[str, Colour] = {}
    if dataset is not None:
        known |= zip(dataset.classes.names, dataset.classes.colours, strict=True)
    if card is not None:
        known |= zip(card.classes.names, card.classes.colours, strict=True)
    names = map(str, scores[0]["classes"]) if scores else list(known)
    return [(name, known.get(name, COLOURS[k % len(COLOURS)])) for k, name in enumerate(names)]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _json(path: Path) -> Any:
    return read_json(path) if path.exists() else None
