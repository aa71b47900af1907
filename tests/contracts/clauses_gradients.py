"""What the gradients of a method's learners show: no ingredient is inert, and an unknown tag teaches nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from contracts.clauses_run import images
from contracts.runs import Replay, Run, in_common
from eosin.core.lab import MaskRule
from eosin.core.learner import Learner
from eosin.core.values import Batch, Clock
from eosin.engine.device import open_device
from eosin.engine.label import draw_masks
from eosin.engine.optim import optimizer
from eosin.methods.method import Ingredient
from eosin.recipe import family
from methods.fake_lab import Call

LEAST_SHARE, LEAST_MOVE, LEAST_EFFECT = 1e-3, 1e-4, 1e-3
STEPS = 10
FEW = 4  # images whose tags are looked at
Vector = np.ndarray


# -- no ingredient is inert ----------------------------------------------------------------------------------------


def the_ingredient_is_at_work(run: Run, ingredient: Ingredient) -> None:
    """It has its share of the gradient, its weights move, and it is missed when it is switched off."""
    what = f"{run.subject.name}, {ingredient.name!r}"
    options = run.resolved[1].model_dump()
    for option, off in ingredient.off.items():
        assert option in options, f"{what}: there is no option {option!r} to switch it off by"
        assert {**options, **ingredient.on}[option] != off, (
            f"{what}: {option} = {off!r} in {run.subject.recipe} already; switch it on there"
        )
    assert ingredient.off, f"{what}: names no option that switches it off"
    on, without = run.replay(**ingredient.on), run.replay(**{**ingredient.on, **ingredient.off})
    for lab, state in ((on, "on"), (without, "off")):
        made = [*lab.names("fit"), *lab.names("label")]
        assert ingredient.step in made, f"{what}: switched {state} there is no step {ingredient.step!r}, only {made}"
    if ingredient.step in on.names("label"):
        _missed_in_masks(run, what, on, without.call(ingredient.step))
    else:
        _missed_in_training(run, what, ingredient, on, without)


def _missed_in_masks(run: Run, what: str, on: Replay, without: Call) -> None:
    """The same learner draws other masks by the other rule."""
    call = on.call(without.name)
    learner = run.trained(on.call(call.sources[0].name))
    drawn = [_masks(run, learner, rule) for rule in (call.build, without.build)]
    changed = float(np.mean([(drawn[0][item] != drawn[1][item]).mean() for item in drawn[0]]))
    assert changed >= LEAST_EFFECT, f"{what}: switched off, only {changed:.2g} of the drawn pixels change"


def _masks(run: Run, learner: Learner, rule: Callable[[], MaskRule]) -> dict[str, Vector]:
    found: dict[str, Vector] = {}
    items, device = run.dataset.items("train"), open_device("fp32")
    draw_masks(device.place(learner), rule(), items, device, found.__setitem__, lambda item: False)
    return found


def _missed_in_training(run: Run, what: str, ingredient: Ingredient, on: Replay, without: Replay) -> None:
    call = on.call(ingredient.step)
    clock, batches = run.last(call.name, whole=True), run.batches(call, STEPS)
    learner, share, moved = _ten_steps(run, call, batches, clock, ingredient.parameters)
    for prefix in ingredient.parameters:
        known = [name for name, _ in learner.named_parameters()]
        assert any(name.startswith(prefix) for name in known), f"{what}: no parameter begins with {prefix!r}"
    torch.manual_seed(0)
    weights = learner.state_dict()
    other = in_common(run.built(without.call(ingredient.step), without), weights)
    fits = {key for key, value in other.state_dict().items() if key in weights and weights[key].shape == value.shape}

    tissue = torch.stack(images(run.dataset, "val")[:4])
    with torch.inference_mode():
        answers = [net.eval().predict(tissue).numpy().ravel() for net in (learner, other)]
    shared = [name for name, value in learner.named_parameters() if name in fits and value.requires_grad]
    told = [_loss_and_gradient(net, batches[0], clock, shared) for net in (learner, other)]
    in_answer, in_gradient = _apart(*answers), _apart(told[0][1], told[1][1])
    in_loss = abs(told[0][0] - told[1][0]) / max(abs(told[0][0]), 1e-12)
    assert max(in_answer, in_loss) >= LEAST_EFFECT, (
        f"{what}: switched off, prediction changes by {in_answer:.2g} and loss by {in_loss:.2g} only"
    )
    if ingredient.parameters:
        assert share >= LEAST_SHARE, f"{what}: its weights have {share:.2g} of the gradient only"
        assert moved >= LEAST_MOVE, f"{what}: its weights move by {moved:.2g} in {STEPS} steps only"
    else:
        assert max(in_gradient, in_answer) >= LEAST_SHARE, (
            f"{what}: switched off, the loss is another, but the gradient changes by {in_gradient:.2g} only"
        )


def _ten_steps(
    run: Run, call: Call, batches: list[Batch], clock: Clock, own: tuple[str, ...]
) -> tuple[Learner, float, float]:
    """A fit's first steps, all with the clock at its end: the learner, its own weights' share and their movement.

    Weights do not decay here, so that only what has a gradient moves.
    """
    learner = run.first(call).train()
    optim = optimizer(learner, run.spec(call.name).model_copy(update={"weight_decay": 0.0}))
    before = _own(learner, own)
    squares = {True: 0.0, False: 0.0}
    for number, batch in enumerate(batches):
        torch.manual_seed(number)
        optim.zero_grad(set_to_none=True)
        torch.stack(list(learner(batch, clock).values())).sum().backward()
        for name, value in learner.named_parameters():
            if value.grad is not None:
                squares[name.startswith(own)] += float(value.grad.double().square().sum())
        optim.step()
        learner.after_step(clock)
    total = squares[True] + squares[False]
    return learner, (squares[True] / total) ** 0.5 if total else 0.0, _apart(before, _own(learner, own))


def _own(learner: Learner, prefixes: tuple[str, ...]) -> Vector:
    return _flat(value for name, value in learner.named_parameters() if name.startswith(prefixes))


def _loss_and_gradient(learner: Learner, batch: Batch, clock: Clock, shared: list[str]) -> tuple[float, Vector]:
    learner = copy.deepcopy(learner).train()
    torch.manual_seed(0)
    total = torch.stack(list(learner(batch, clock).values())).sum()
    parameters = dict(learner.named_parameters())
    return float(total.detach()), _gradient(total, [parameters[name] for name in shared])


def _gradient(total: Tensor, parameters: list[nn.Parameter]) -> Vector:
    if not total.requires_grad:
        return np.zeros(sum(p.numel() for p in parameters))
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return _flat(torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True))


def _flat(tensors: Iterable[Tensor]) -> Vector:
    return np.concatenate([np.zeros(0), *(t.detach().double().numpy().ravel() for t in tensors)])


def _apart(before: Vector, after: Vector) -> float:
    """The difference of two vectors relative to the first."""
    return float(np.linalg.norm(after - before) / max(float(np.linalg.norm(before)), 1e-12))


# -- an unknown tag teaches nothing --------------------------------------------------------------------------------


def unknown_tags_teach_nothing(run: Run) -> None:
    """In every term that depends on tags; a method that learns from tags has at least one such term.

    Of steps that are trained in rounds the last one is looked at, where everything is at work.
    """
    lab, found = run.replay(), False
    last = {family(name): name for name in lab.names("fit")}
    for call in map(lab.call, last.values()):
        probe = _Probe(run, call)
        if probe.terms:
            found = True
            _an_unknown_tag_is_neither_value(probe)
            _an_image_without_tags_has_no_say(probe)
            _each_tag_is_removed_exactly(probe)
    assert found or run.subject.kind.supervision == "truth", f"{run.subject.name}: no loss term depends on the tags"


class _Probe:
    """The gradient of a fit's tag terms, by the tags and pixels of one batch.

    Batch norms do not learn here: in training they let each image have a say in what all others become.
    """

    def __init__(self, run: Run, call: Call) -> None:
        self.what = f"{run.subject.name}, {call.name}"
        self.learner, self.clock = run.trained(call), run.last(call.name, whole=True)
        (batch,) = run.batches(call, 1)
        few = {key: mask[:FEW] for key, mask in batch.masks.items()}
        self.batch = Batch(batch.image[:FEW], batch.tags[:FEW].nan_to_num(0.0), few, batch.ids[:FEW])
        self.terms = self._tag_terms()

    def _tag_terms(self) -> list[str]:
        """The terms whose value changes when all tags, or those of one image, are turned over."""
        plain = self.losses(self.batch.tags)
        first = torch.zeros_like(self.batch.tags)
        first[0] = 1
        turned = [self.losses((self.batch.tags - flip).abs()) for flip in (torch.ones_like(first), first)]
        return [term for term in plain if any(plain[term].item() != other[term].item() for other in turned)]

    def losses(self, tags: Tensor, image: Tensor | None = None) -> dict[str, Tensor]:
        """The terms of a fresh copy of the learner, so that no call knows of another."""
        self.copy = copy.deepcopy(self.learner).train()
        for module in self.copy.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        torch.manual_seed(0)
        batch = replace(self.batch, tags=tags, image=self.batch.image if image is None else image)
        losses: dict[str, Tensor] = self.copy(batch, self.clock)
        return losses

    def gradient(self, tags: Tensor, image: Tensor | None = None, terms: Sequence[str] = ()) -> Vector:
        """Of these terms together, or of all tag terms; it must be finite."""
        losses = self.losses(tags, image)
        total = torch.stack([losses[term] for term in terms or self.terms if term in losses]).sum()
        found = _gradient(total, [p for p in self.copy.parameters() if p.requires_grad])
        assert np.isfinite(found).all(), f"{self.what}: the gradient is not finite with tags {tags.tolist()}"
        return found

    def tags(self, **first: float) -> Tensor:
        """The batch's tags with those of the first image changed: ``k0 = 1.0`` for class 0."""
        changed = self.batch.tags.clone()
        for key, value in first.items():
            changed[0, int(key[1:])] = value
        return changed


NAN = float("nan")


def _an_unknown_tag_is_neither_value(probe: _Probe) -> None:
    """Wherever it matters whether a tag is 1 or 0, an unknown one is not taken for 0."""
    for k in range(probe.batch.tags.shape[1]):
        absent, present, unknown = (probe.gradient(probe.tags(**{f"k{k}": value})) for value in (0.0, 1.0, NAN))
        matters = float(np.linalg.norm(present - absent))
        if matters:
            taken = float(np.linalg.norm(unknown - absent)) / matters
            assert taken >= 1e-3, f"{probe.what}: an unknown tag of class {k} counts as an absent one"


def _an_image_without_tags_has_no_say(probe: _Probe) -> None:
    """Whatever its pixels are, the gradient of the tag terms is the same; without any tag it is zero."""
    known = float(np.linalg.norm(probe.gradient(probe.batch.tags)))
    unknown = probe.batch.tags.clone()
    unknown[0] = NAN
    negative = probe.batch.image.clone()
    negative[0] = 1 - negative[0]
    plain, other = probe.gradient(unknown), probe.gradient(unknown, negative)
    difference = float(np.linalg.norm(plain - other)) / known
    assert difference <= 1e-6, (
        f"{probe.what}: an image whose tags are all unknown has {difference:.2g} of the gradient of the tag terms"
    )
    nothing = float(np.linalg.norm(probe.gradient(torch.full_like(unknown, NAN)))) / known
    assert nothing == 0, f"{probe.what}: the tag terms have {nothing:.2g} of their gradient with all tags unknown"


def _each_tag_is_removed_exactly(probe: _Probe) -> None:
    """Of one term at least, if of no sum of all: a term in which tags multiply, as in a contrast, hides the others."""
    if not _removed_exactly(probe, probe.terms):
        for term in probe.terms:
            if _removed_exactly(probe, [term]):
                return
        raise AssertionError(f"{probe.what}: in none of {', '.join(probe.terms)} are the tags' terms added up")


def _removed_exactly(probe: _Probe, terms: Sequence[str]) -> bool:
    """Where the terms of two tags are added up, leaving one out leaves just the other, up to what a mean divides by.

    With all other tags unknown, the gradient is then A(a) + B(b), A alone with b unknown, and B alone with a unknown.
    Returns whether there were two such tags.
    """
    seen = False
    alone = torch.full_like(probe.batch.tags, NAN)
    classes = alone.shape[1]

    def gradient(a: int, b: int, of_a: float, of_b: float) -> Vector:
        tags = alone.clone()
        tags[0, a], tags[0, b] = of_a, of_b
        return probe.gradient(tags, terms=terms)

    for a, b in ((k, (k + 1) % classes) for k in range(classes)):
        both, only_a, only_b, none = (gradient(a, b, *tags) for tags in ((1, 1), (1, 0), (0, 1), (0, 0)))
        size = max(map(float, map(np.linalg.norm, (both, only_a, only_b, none))))
        added_up = float(np.linalg.norm(both - only_a - only_b + none)) <= 1e-3 * size
        effect = both - only_a  # of tag b
        if not added_up or not effect.any():
            continue
        seen = True
        without = gradient(a, b, NAN, 1), gradient(a, b, NAN, 0)
        divisor = float((without[0] - without[1]) @ effect / (effect @ effect))
        rest = gradient(a, b, 1, NAN) + without[0] - divisor * both
        left = float(np.linalg.norm(rest)) / size
        assert divisor > 0 and left <= 1e-3, (
            f"{probe.what}: an unknown tag of class {a} or {b} leaves {left:.2g} of the gradient behind"
        )
    return seen
