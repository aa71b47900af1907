"""The workshop that a plan is handed: it turns each call into one finished, digested step on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from eosin import __version__
from eosin.core.artifact import Artifact, MaskSet, Trained, Vectors, read_json
from eosin.core.classes import Classes
from eosin.core.errors import EosinError
from eosin.core.lab import MaskRule
from eosin.core.learner import Learner
from eosin.core.tiling import stride
from eosin.core.values import FitSpec, Selection
from eosin.data.dataset import Items
from eosin.data.module import WeakView, item_side
from eosin.engine.describe import write_vectors
from eosin.engine.device import open_device, peak_memory_mb
from eosin.engine.evaluate import Tiling, of_learner, score_tags
from eosin.engine.export import Exported, tissue, training_domain
from eosin.engine.journal import Journal
from eosin.engine.judge import judge_of
from eosin.engine.label import draw_masks
from eosin.engine.loop import Fit
from eosin.engine.scoring import CALIBRATED_ON, SCORING, Scoring, deciding, worth_a_look
from eosin.engine.steps import Step, Steps
from eosin.engine.truth import true_masks
from eosin.engine.views import VIEWING, has_views, keep_views, worth_a_view
from eosin.engine.weights import begin, built, load, store
from eosin.engine.workplace import Workplace
from eosin.metrics.protocols import Subject, find_protocol
from eosin.predictor.spec import Card
from eosin.predictor.write import write_model
from eosin.slides.image import png_bytes, read_mask

L = TypeVar("L", bound=Learner)


class EngineLab:
    """The lab of one run. See ``eosin.core.lab.Lab`` for what each call means.

    Args:
        place: the run's folder, data, recipe and supervision.
    """

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self.recipe, self.progress = place.recipe, place.progress
        self.classes: Classes = place.dataset.classes
        self.steps = Steps(place.run, place.again, place.team, place.others, place.made, place.progress)
        self._dataset = place.dataset  # a plan has no business with it
        self._issued: list[MaskSet] = []
        self.journal = Journal(place.run / "journal.jsonl", place.listeners)
        self.protocol = find_protocol(place.recipe.protocol)
        self.items = self._dataset.items("train")
        if len(self.classes) < 2:
            raise EosinError(f"{self._dataset.folder}: one class cannot be told from anything; add one for the rest")
        if place.supervision == "tags" and np.isnan(self.items.tags).all():
            raise EosinError(f"{self._dataset.folder}: no training item has a known tag; fill the class columns")
        self.trained: dict[str, Trained] = {}
        self._builds: dict[str, partial[Any]] = {}
        self._rules: dict[str, tuple[Trained, Callable[[], MaskRule]]] = {}
        self._scores: dict[tuple[str, str], Step] = {}

    @property
    def tag_counts(self) -> tuple[tuple[int, int], ...]:
        """How many training items are known to hold each class, and how many are known not to."""
        tags = self.items.tags
        return tuple((int(p), int(a)) for p, a in zip((tags == 1).sum(0), (tags == 0).sum(0), strict=True))

    # -- the calls of a plan -------------------------------------------------------------------------------------

    def fit(
        self,
        name: str,
        build: partial[L],
        masks: Mapping[str, MaskSet] | None = None,
        start: Trained | None = None,
        teacher: Trained | None = None,
    ) -> Trained:
        """Train what ``build`` makes on the training split, from tags and the given masks."""
        masks = dict(masks or {})
        for mask in masks.values():
            if not any(mask is issued for issued in self._issued):
                raise EosinError(f"{name}: the masks {mask.name!r} at {mask.folder} were not made by this lab; refused")
        spec = self.recipe.fit_spec(name)
        inputs = {a.name: a.digest for a in [*masks.values(), *filter(None, (start, teacher))]}
        if start is None and self._place.start is not None:
            start = self._place.start.step(name)
            inputs["start"] = start.digest
        settings = {
            "kind": "fit",
            "build": build,
            "spec": spec,
            "seed": self.recipe.seed,
            "data": self._dataset.digest,
            "judge": [self.protocol.name, self.tiling.tile, self.tiling.margin],
            "masks": {key: mask.name for key, mask in masks.items()},
            **({"teacher": teacher.name} if teacher else {}),
        }
        work, adopt = partial(self._train, name, build, spec, masks, start, teacher), partial(self.journal.take, name)
        step = self.steps.do(f"steps/{name}", name, settings, inputs, work, resumes=True, together=True, adopt=adopt)
        return self._remember(name, build, step.folder, step.digest, step.notes["selection"])

    def label(self, name: str, source: Trained, rule: Callable[[], MaskRule]) -> MaskSet:
        """Draw a mask for every training item from the source's class maps and the item's tags."""

        def work(folder: Path) -> dict[str, Any]:
            shares = np.zeros(256, np.int64)
            masks = folder / "masks"
            masks.mkdir(exist_ok=True)
            drawn = {path.stem for path in masks.glob("*.png") if path.stat().st_size}  # 0 bytes: the power failed
            advance = self.progress.start(name, len(self.items))

            def count(mask: NDArray[np.uint8]) -> None:
                advance(1, "")
                shares[:] += np.bincount(mask.ravel(), minlength=256)

            for item in drawn:
                count(read_mask(masks / f"{item}.png"))
            self._draw(source, rule, self.items, masks, count, drawn)
            return {
                "pixels": {c: int(shares[i]) for i, c in enumerate(self.classes.names)},
                "ignored": int(shares[255]),
            }

        settings = {"kind": "label", "rule": rule, "data": self._dataset.digest}
        step = self.steps.do(f"steps/{name}", name, settings, {source.name: source.digest}, work, resumes=True)
        self._rules[name] = (source, rule)
        return self._issue(MaskSet(name, step.folder / "masks", step.digest))

    def describe(self, name: str, reader: partial[Any], source: Trained | None = None) -> Vectors:
        """Write down what a module that ``reader`` makes says of every training image: one vector."""

        def work(folder: Path) -> dict[str, Any]:
            net = reader() if source is None else reader(load(self._builds[source.name], source))
            return write_vectors(net, self.items, folder, self.progress.start(name, len(self.items)))

        settings = {"kind": "describe", "reader": reader, "data": self._dataset.digest}
        inputs = {} if source is None else {source.name: source.digest}
        step = self.steps.do(f"steps/{name}", name, settings, inputs, work)
        return Vectors(name, step.folder, step.digest)

    def truth(self) -> MaskSet:
        """The true masks of the training split; refused unless the method declares ``supervision = "truth"``."""
        if self._place.supervision != "truth":
            raise EosinError("a method with supervision 'tags' asked for true masks; that is refused")
        return self._issue(true_masks(self._dataset, self.items, self.recipe.method))

    def _issue(self, masks: MaskSet) -> MaskSet:
        self._issued.append(masks)
        return masks

    def keep(self, name: str, build: partial[L]) -> Trained:
        """Keep a learner without training it (composition)."""

        def work(folder: Path) -> dict[str, Any]:
            store(built(build, name, self.recipe.seed).state_dict(), folder)
            return {"selection": "last"}

        settings = {"kind": "keep", "build": build, "seed": self.recipe.seed}
        step = self.steps.do(f"steps/{name}", name, settings, {}, work)
        return self._remember(name, build, step.folder, step.digest, "last")

    def make(self, kind: str, name: str, work: Callable[[Path], None], *inputs: Artifact) -> Artifact:
        """Any other result: ``work`` fills an empty folder."""

        def noted(folder: Path) -> dict[str, Any]:
            work(folder)
            return {}

        made = {artifact.name: artifact.digest for artifact in inputs}
        step = self.steps.do(f"steps/{name}", name, {"kind": kind, "work": work}, made, noted)
        return Artifact(name, step.folder, step.digest)

    @property
    def has_val(self) -> bool:
        """Whether the data set has a split ``val``."""
        return CALIBRATED_ON in self._dataset.splits

    def val_score(self, source: Trained) -> float:
        """How good a trained step is on the split ``val``: its mean IoU, or without masks its mAP."""
        return deciding(self.score(source, CALIBRATED_ON).notes["entry"], self._dataset.folder)

    def score(self, source: Trained, split: str) -> Step:
        """Predict a split with a trained step, always in float32, and keep predictions, counts and the entry."""
        if split == "train" and self._place.supervision != "truth":
            raise EosinError("a method with supervision 'tags' asked to be scored on training masks; that is refused")
        if (known := (source.digest, split)) not in self._scores:  # what is to be redone is redone once
            self._scores[known] = self._score(source, split)
        return self._scores[known]

    def _score(self, source: Trained, split: str) -> Step:
        inputs = {source.name: source.digest}
        temperature = None
        if split != CALIBRATED_ON and CALIBRATED_ON in self._dataset.splits:
            before = self.score(source, CALIBRATED_ON)
            temperature = before.notes["entry"].get("calibration", {}).get("temperature")
            inputs[f"score-{source.name}-{CALIBRATED_ON}"] = before.digest
        task = Scoring(
            self._dataset,
            Subject(self._dataset.name, split, source.name, source.selection),
            self.protocol(self.classes),
            self.tiling,
            temperature,
        )

        def work(folder: Path) -> dict[str, Any]:
            device = open_device("fp32")
            learner = device.place(load(self._builds[source.name], source))
            advance = self.progress.start(f"score {source.name} on {split}", len(task))
            entry = task.write(of_learner(learner, device, autocast=False), folder, lambda: advance(1, ""))
            scores = score_tags(learner, WeakView(task.items, None, 0), self.tiling, device)
            return {"entry": task.with_tags(entry, scores)}

        settings = {
            "kind": "score",
            "revision": SCORING,
            "protocol": self.protocol.name,
            "tiling": [self.tiling.tile, self.tiling.margin],
            "data": self._dataset.digest,
            "split": split,
        }
        name, folder = f"score-{source.name}-{split}", f"predictions/{source.name}/{split}"
        return self.steps.do(folder, name, settings, inputs, work)

    def illustrate(self, final: Trained, split: str) -> None:
        """Draw the masks of every label step for the items of a scored split that a report shows.

        They are drawn by the items' tags, which stand for what a training mask would look like; nothing scores them.
        """
        scored = self.score(final, split)
        shown = worth_a_look(scored.folder, self._dataset.items(split), len(self.trained) + len(self._rules))
        for name, (source, rule) in self._rules.items():

            def work(folder: Path, source: Trained = source, rule: Callable[[], MaskRule] = rule) -> dict[str, Any]:
                self._draw(source, rule, shown, folder, lambda mask: None)
                return {}

            settings = {"kind": "illustrate", "rule": rule, "items": [str(item) for item in shown.ids]}
            inputs = {source.name: source.digest, f"score-{final.name}-{split}": scored.digest}
            self.steps.do(f"predictions/{name}/{split}", f"show-{name}-{split}", settings, inputs, work)

    def view(self, source: Trained, split: str) -> None:
        """Keep what a trained step shows of its inside, for a few items of a split; see ``Learner.views``."""
        if not has_views(self._builds[source.name]):
            return
        shown = worth_a_view(self._dataset.items(split))

        def work(folder: Path) -> dict[str, Any]:
            device = open_device("fp32")
            learner = device.place(load(self._builds[source.name], source))
            advance = self.progress.start(f"views of {source.name} on {split}", len(shown))
            return {"views": keep_views(learner, shown, self.tiling, device, folder, lambda: advance(1, ""))}

        tiling, items = [self.tiling.tile, self.tiling.margin], [str(item) for item in shown.ids]
        settings = {"kind": "view", "revision": VIEWING, "tiling": tiling, "split": split, "items": items}
        inputs = {source.name: source.digest}
        self.steps.do(f"views/{source.name}/{split}", f"view-{source.name}-{split}", settings, inputs, work)

    def export(self, name: str, source: Trained) -> None:
        """Write the model folder of the run, with the scores that were taken of its step."""
        scores = [record["notes"]["entry"] for record in self._scored(source.name)]
        card = Card(
            classes=self.classes,
            tile=self.tiling.tile,
            margin=self.tiling.margin,
            mpp=self._dataset.mpp,
            method=self.recipe.method,
            recipe=self.recipe.digest,
            selection=source.selection,
            scores=tuple(scores),
            temperature=next((t for e in scores if (t := e.get("calibration", {}).get("temperature"))), None),
            dataset=self._dataset.name,
            licences=self._place.licences,
            eosin=__version__,
        )

        def work(folder: Path) -> dict[str, Any]:
            exported = Exported(load(self._builds[source.name], source))
            seen = card.model_copy(update={"domain": training_domain(self.items, card.tile, card.mpp)})
            written = write_model(folder / "written", exported, seen, tissue(card.tile))
            for path in written.iterdir():
                path.rename(folder / path.name)
            written.rmdir()
            return {"model": Card.read(folder).digest}

        inputs = {source.name: source.digest, **{r["name"]: r["digest"] for r in self._scored(source.name)}}
        said = card.model_dump(mode="json", exclude={"eosin", "domain"})  # neither alone makes a model stale
        self.steps.do("model", name, {"kind": "export", "card": said}, inputs, work)

    def scores(self) -> list[dict[str, Any]]:
        """The entries of all scored steps, in the order of the plan."""
        return [record["notes"]["entry"] for step in self.trained for record in self._scored(step)]

    def step_notes(self) -> dict[str, dict[str, Any]]:
        """What each trained step noted: time, parameters, kept epoch."""
        return {name: read_json(step.folder / "step.json")["notes"] for name, step in self.trained.items()}

    def build_of(self, trained: Trained) -> partial[Any]:
        """What a trained step was built by."""
        return self._builds[trained.name]

    # -- what the calls share ------------------------------------------------------------------------------------

    def _draw(
        self,
        source: Trained,
        rule: Callable[[], MaskRule],
        items: Items,
        folder: Path,
        done: Callable[[NDArray[np.uint8]], None],
        drawn: Container[str] = (),
    ) -> None:
        """Write ``<id>.png`` for every item but those whose masks are drawn.

        A class that no training item is known to hold was never learnt: no unknown tag allows it.
        """
        learnt = np.array([present > 0 for present, _ in self.tag_counts])
        items = replace(items, tags=np.where(learnt | (items.tags == 1), items.tags, np.float32(0)))
        device = open_device(self.recipe.fit_spec(source.name).precision)

        def keep(item: str, mask: NDArray[np.uint8]) -> None:
            if item not in drawn:  # of a batch that a kill cut in two
                temporary = folder / f"{item}.png.tmp"
                temporary.write_bytes(png_bytes(mask, self.classes))
                os.replace(temporary, folder / f"{item}.png")
                done(mask)

        learner = device.place(load(self._builds[source.name], source))
        draw_masks(learner, rule(), items, device, keep, lambda item: item in drawn)

    def _scored(self, step: str) -> list[dict[str, Any]]:
        paths = sorted((self._place.run / "predictions" / step).glob("*/step.json"))
        return [read_json(path) for path in paths]

    @property
    def tiling(self) -> Tiling:
        """Tile and margin at which the model is judged and exported."""
        crops = [s.augment.crop for s in map(self.recipe.fit_spec, self._fit_names()) if s.augment.crop]
        tile = self.recipe.data.tile or (min(crops) if crops else item_side(self.items))
        margin = self.recipe.data.margin if self.recipe.data.margin is not None else tile // 8
        stride(tile, margin)
        return Tiling(tile, margin)

    def _fit_names(self) -> list[str]:
        return [k for k in self.recipe.fit if k not in FitSpec.model_fields] or ["all"]

    def _remember(self, name: str, build: partial[Any], folder: Path, digest: str, selection: Selection) -> Trained:
        trained = Trained(name, folder, digest, selection)
        self._builds[name] = build
        self.trained[name] = trained
        return trained

    def _train(
        self,
        name: str,
        build: partial[L],
        spec: FitSpec,
        masks: Mapping[str, MaskSet],
        start: Trained | None,
        teacher: Trained | None,
        folder: Path,
    ) -> dict[str, Any]:
        device = open_device(spec.precision)
        learner = built(build, name, self.recipe.seed)
        if start is not None:
            begin(learner, start)
        if teacher is not None:
            learner.taught_by(load(self._builds[teacher.name], teacher))
        selection, judge = judge_of(spec, self._dataset, self.protocol(self.classes), self.tiling, device)
        paths = {key: mask.path for key, mask in masks.items()}
        view = WeakView(self.items, spec.augment, self.recipe.seed, paths, self.classes.ignore)
        seed, journal, progress = self.recipe.seed, self.journal, self.progress
        device.place(learner)
        kept, earlier = Fit(name, learner, view, spec, seed, selection, judge, device, journal, progress, folder).run()
        if device.team.leads:
            store(kept.weights, folder)
        return {
            "selection": selection,
            "epoch": kept.epoch,
            "score": kept.score if selection != "last" else None,
            "parameters": sum(p.numel() for p in learner.parameters() if p.requires_grad),
            "precision": device.precision,
            "processes": device.team.world,
            "memory_mb": peak_memory_mb(),
            "earlier": earlier,
        }
