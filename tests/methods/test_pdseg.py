"""PDSeg: its size, what its tokens learn and when, one pass of the teacher, and what a recipe may ask."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from eosin.core.errors import WrongUse
from eosin.core.values import Batch, Clock, FitSpec
from eosin.engine.optim import factor, optimizer
from eosin.methods.discover import methods
from eosin.methods.pdseg import Distilled, Lesson, Linear, PdSeg, Teacher
from eosin.parts.backbones.distilled import DistilledViT
from eosin.parts.losses.patch_distillation import PatchDistillation
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.mask_transformer import MaskTransformer
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.ngwp import NGWP
from eosin.recipe import load
from methods.fake_lab import FakeLab

NAN = float("nan")
TAGS = torch.tensor([[1.0, 0, 1], [0, 1, NAN]])
SMALL: dict[str, Any] = {
    "encoder": "vit_tiny_patch16_224",
    "side": 2,
    "depth": 1,
    "drop_path": 0.0,
    "decoder_depth": 1,
    "decoder_dropout": 0.0,
    "teacher_encoder": "resnet18",
    "teacher_width": 8,
}


def clock(epoch: int) -> Clock:
    return Clock(epoch, epoch, 10, 10)


def built(**options: Any) -> Distilled:
    lab = FakeLab()
    assert PdSeg(**{**SMALL, **options}).plan(lab).name == "segmenter"  # type: ignore[arg-type]
    torch.manual_seed(0)
    learner: Distilled = lab.call("segmenter").build()
    return learner


def still(learner: Distilled) -> Distilled:
    """Batch norms do not learn, so that training and evaluation see the same."""
    for module in learner.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return learner


def images(side: int = 32) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def terms(learner: Distilled, epoch: int, tags: Tensor = TAGS) -> dict[str, Tensor]:
    found: dict[str, Tensor] = learner(Batch(images(), tags), clock(epoch))
    return found


def count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(value.numel() for value in module.parameters())


@pytest.mark.parametrize("recipe", ["pdseg-bcss", "pdseg-luad"])
def test_it_has_the_size_of_the_paper(recipe: str) -> None:
    """74,392,352, of which the released code never calls 770,000: two classifiers of photographs."""
    options = {**load(recipe).options, "pretrained": "none", "teacher_pretrained": "none"}
    lab = FakeLab()
    PdSeg(**options).plan(lab)  # type: ignore[arg-type]
    build = lab.call("segmenter").build
    with torch.device("meta"):
        learner = build.func(**{**build.keywords, "classes": 4})
    idle = 2 * (384 * 1000 + 1000)
    assert count(learner) + idle == 74_392_352
    assert (count(learner.student) + idle, count(learner.decoder)) == (22_586_192, 3_993_992)
    assert (count(learner.teacher.encoder), count(learner.teacher.decoder)) == (42_500_160, 5_310_468)
    assert count(learner.head) == 1_540


def test_the_rates_of_the_papers_recipe_are_those_of_its_code() -> None:
    spec = load("pdseg-bcss", (), {"pdseg": methods()["pdseg"].steps}).fit_spec("segmenter")
    steps = 1463 * 40
    rates = [spec.lr * factor(spec, step, steps) for step in (0, steps // 2, steps - 1)]
    assert rates == pytest.approx([1e-2, 0.00536351, 1.0512e-5], rel=1e-4)
    assert (spec.optimizer, spec.momentum, spec.nesterov, spec.weight_decay) == ("sgd", 0.9, True, 0)
    assert (spec.batch, spec.epochs) == (16, 40)


@pytest.mark.parametrize("side", [32, 40])
@torch.no_grad()
def test_scores_tokens_and_teacher_have_the_same_grid(side: int) -> None:
    learner = built().eval()
    views = learner.views(images(side))
    cells = -(-side // 16)
    assert {name: tuple(view.shape) for name, view in views.items()} == {
        name: (2, 3, cells, cells) for name in ("scores", "tokens", "teacher")
    }
    maps = learner.predict(images(side))
    expected = F.interpolate(views["scores"], (16 * cells, 16 * cells), mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps, expected[..., :side, :side].softmax(1))
    torch.testing.assert_close(learner.tag_scores(images(side)), NGWP()(views["scores"]).sigmoid())
    assert built(token="none").eval().views(images()).keys() == {"scores"}


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("width", "edge"), [(96, 64), (100, 64), (100, 96), (97, 32), (321, 224), (321, 320)])
def test_an_edge_between_patches_is_drawn_where_it_is(width: int, edge: int, mirrored: bool, scale: float) -> None:
    """Whatever the width, though the last patches reach beyond the image, and in its mirror image as well."""
    learner = built(mirrored=mirrored, scale=scale).eval()
    image = torch.zeros(1, 3, 32, width)
    image[..., edge:] = 1

    def seen(prepared: Tensor) -> tuple[Tensor, None]:
        cells = F.avg_pool2d(prepared[:, :2], 16)
        return torch.cat((1 - cells[:, :1], cells[:, 1:]), 1), None

    learner.seen = seen  # type: ignore[method-assign, assignment]
    drawn = learner.predict(image)[0].argmax(0)
    assert drawn.shape == (32, width)
    found = int((drawn[0] == 0).sum())
    assert abs(found - edge) <= (1 if scale == 1 else 2), found


@torch.no_grad()
def test_the_mirror_image_may_have_a_say_in_what_is_predicted() -> None:
    image = images()
    plain, mirrored = built().eval(), built(mirrored=True).eval()
    scores = [plain.seen(one)[0] for one in (image, image.flip(3))]
    mean = F.interpolate((scores[0] + scores[1].flip(3)) / 2, size=image.shape[-2:], mode="bilinear")
    torch.testing.assert_close(mirrored.predict(image), mean.softmax(1))
    torch.testing.assert_close(mirrored.predict(image.flip(3)).flip(3), mirrored.predict(image))


@torch.no_grad()
def test_views_are_what_tokens_and_teacher_say() -> None:
    learner = built().eval()
    assert learner.teacher is not None
    views, (scores, logits) = learner.views(images()), learner.seen(images())
    assert logits is not None
    torch.testing.assert_close(views["scores"], scores)
    torch.testing.assert_close(views["tokens"], logits.sigmoid())
    torch.testing.assert_close(views["teacher"], learner.teacher(images()).softmax(1))


def test_all_three_terms_are_those_of_their_parts() -> None:
    learner = still(built(alpha=0.3, distil_weight=2.0))
    assert learner.teacher is not None and learner.head is not None
    found = terms(learner, 1)
    scores, logits = learner.seen(images())
    maps = learner.teacher(images())
    assert logits is not None and logits.shape == maps.shape == scores.shape == (2, 3, 2, 2)
    torch.testing.assert_close(found["tags"], SoftMargin()(NGWP()(scores), TAGS))
    torch.testing.assert_close(found["teacher"], SoftMargin()(NGWP()(maps), TAGS))
    soft = maps.softmax(1)
    target = 0.3 * F.one_hot(maps.argmax(1), 3).permute(0, 3, 1, 2) + 0.7 * soft
    torch.testing.assert_close(found["tokens"], 2 * F.binary_cross_entropy_with_logits(logits, target.detach()))
    _, seen = learner.student(images())
    assert seen is not None
    torch.testing.assert_close(logits[0, :, 1, 0], learner.head(seen[0, :, 1, 0]))


def test_tokens_learn_from_the_second_epoch_on_and_from_the_teacher_alone() -> None:
    learner = built()
    assert terms(learner, 0).keys() == {"tags", "teacher"} and terms(learner, 1).keys() == {"tags", "teacher", "tokens"}
    assert terms(built(distil_begin=0), 0).keys() == {"tags", "teacher", "tokens"}
    still(learner)
    a, b = (terms(learner, 1, tags)["tokens"] for tags in (TAGS, 1 - TAGS))
    assert torch.equal(a, b)
    a.backward()
    assert learner.teacher is not None and all(p.grad is None for p in learner.teacher.parameters())
    assert all(p.grad is None for p in learner.decoder.parameters()) and learner.student.tokens.grad.abs().max() > 0


def test_gated_the_tokens_learn_no_absent_class() -> None:
    a, b = (terms(still(built(gate=True)), 1, tags)["tokens"] for tags in (TAGS, 1 - TAGS))
    assert not torch.isclose(a, b)


def test_the_teacher_runs_once_a_step() -> None:
    learner, calls = built(), []
    assert learner.teacher is not None
    learner.teacher.register_forward_hook(lambda *_: calls.append(1))
    terms(learner, 5)
    assert len(calls) == 1
    learner.eval().predict(images())
    assert len(calls) == 1, "it has no say in what is predicted"


def test_a_single_token_learns_tags_or_the_teachers_scores() -> None:
    learner = still(built(token="global_label"))
    assert learner.teacher is None and terms(learner, 0).keys() == {"tags", "tokens"}
    logits = learner.seen(images())[1]
    assert logits is not None and logits.shape == (2, 3)
    torch.testing.assert_close(terms(learner, 1)["tokens"], SoftMargin()(logits, TAGS))
    learner = still(built(token="global_logits"))
    logits = learner.seen(images())[1]
    assert learner.teacher is not None and logits is not None
    taught = NGWP()(learner.teacher(images())).sigmoid().detach()
    found = terms(learner, 1)["tokens"]
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(logits, taught))
    found.backward()
    assert all(p.grad is None for p in learner.teacher.parameters())


def test_without_tokens_there_is_no_teacher() -> None:
    learner = built(token="none")
    assert learner.teacher is None and learner.head is None and not hasattr(learner.student, "tokens")
    assert terms(learner, 5).keys() == {"tags"}


def test_a_frozen_teacher_learns_in_the_first_epochs_and_never_again() -> None:
    learner = built(teacher="frozen", distil_begin=1)
    assert learner.teacher is not None
    optim = optimizer(learner, FitSpec(lr=1e-2, weight_decay=0.1))
    states = []
    for epoch in (0, 1, 2):
        learner.train()
        optim.zero_grad(set_to_none=True)
        found = terms(learner, epoch)
        assert ("teacher" in found) == (epoch == 0) and ("tokens" in found) == (epoch > 0)
        torch.stack(list(found.values())).sum().backward()
        optim.step()
        states.append({key: value.clone() for key, value in learner.teacher.state_dict().items()})
    assert all(torch.equal(states[0][key], states[2][key]) for key in states[0]), "weights and running means"
    first = built(teacher="frozen").teacher
    assert first is not None and not torch.equal(first.decoder[0].weight, learner.teacher.decoder[0].weight)


def test_the_student_sees_its_tokens() -> None:
    learner = built().eval()
    before = learner.predict(images())
    nn.init.normal_(learner.student.tokens)
    assert (learner.predict(images()) - before).abs().max() > 1e-4


@pytest.mark.parametrize(("pool", "kind"), [("gap", GAP), ("ngwp", NGWP), ("ngwp_focal", NGWP)])
def test_student_and_teacher_are_pooled_alike(pool: str, kind: type) -> None:
    learner = built(pool=pool)
    assert isinstance(learner.pool, kind)
    if isinstance(learner.pool, NGWP):
        assert (learner.pool.focal, learner.pool.background) == (pool == "ngwp_focal", False)
        assert built(pool=pool, background=True).pool.background


def test_the_defaults_are_those_of_the_paper() -> None:
    lab = FakeLab()
    PdSeg().plan(lab)  # type: ignore[arg-type]
    build = lab.call("segmenter").build
    with torch.device("meta"):
        learner = build()
    assert isinstance(learner.decoder, MaskTransformer) and len(learner.decoder.blocks) == 2
    assert isinstance(learner.teacher, Teacher) and learner.teacher.encoder.strides == [16]
    assert (learner.lesson.begin, learner.held, learner.lesson.weight) == (1, False, 1)
    assert (learner.lesson.patch_loss.alpha, learner.lesson.patch_loss.gate) == (0.5, False)
    assert isinstance(learner.normalise, nn.Identity)
    assert not isinstance(built(colours="imagenet").normalise, nn.Identity)


def test_the_stride_of_the_teacher_is_that_of_the_patches() -> None:
    student = partial(DistilledViT, "vit_tiny_patch16_224", "patch", 2, 1)
    lesson = partial(Lesson, "patch", PatchDistillation, 1.0, 1)
    teacher = partial(Teacher, "resnet18", 3, "none", width=8)
    learner = Distilled(3, student, partial(Linear), partial(GAP), partial(SoftMargin), lesson, teacher)
    assert learner.teacher is not None and learner.teacher.encoder.strides == [learner.student.stride] == [16]
    with pytest.raises(WrongUse, match="teacher_tap = 2: resnet18 has stride 8 there"):
        built(teacher_tap=2)
    with pytest.raises(WrongUse, match="patches of 14 px, a stride that no ResNet has"):
        Teacher("resnet18", 3, "none", 14, 3, 8)  # type: ignore[arg-type]


def test_images_are_resized_for_both_networks() -> None:
    views = built(scale=2.0).eval().views(images())
    assert {tuple(view.shape[2:]) for view in views.values()} == {(4, 4)}


@pytest.mark.parametrize(
    "options",
    [
        {"teacher": "frozen", "distil_begin": 0},
        {"teacher": "frozen", "token": "none"},
        {"teacher": "frozen", "token": "global_label"},
        {"gate": True, "token": "global_logits"},
        {"pool": "gap", "background": True},
        {"token": "class"},
        {"alpha": 1.1},
        {"alpha": 1.0, "token": "global_logits"},
        {"side": 0},
        {"distil_weight": 0},
        {"drop_path": 1.0},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PdSeg(**options)


def test_two_classes_need_scaled_scores() -> None:
    with pytest.raises(WrongUse, match=r"take norm .*'scale'"):
        MaskTransformer(192, 2)
    options = load("pdseg-glas").options
    assert options["decoder_norm"] == "scale"
