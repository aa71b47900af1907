"""Methods are found by their file, and their plans read like the papers' algorithms."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

import eosin.methods
from eosin.core.classes import Classes
from eosin.core.errors import WrongUse
from eosin.core.fingerprint import digest
from eosin.core.learner import Learner
from eosin.core.values import Batch, Clock
from eosin.methods.cam import Cam
from eosin.methods.discover import method, methods
from eosin.methods.method import Ingredient, Method
from eosin.methods.supervised import Supervised
from eosin.parts.backbones.encoder import WeightFile
from eosin.parts.backbones.held import Held
from eosin.parts.losses.soft_margin import SoftMargin
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.highest import HighestMean
from eosin.parts.pseudo import TagGatedArgmax
from methods.fake_lab import FakeLab


def plan(chosen: Method) -> FakeLab:
    lab = FakeLab(chosen.supervision)
    final = chosen.plan(lab)  # type: ignore[arg-type]
    assert final.name in [*lab.names("fit"), *lab.names("keep")], "what is deployed was trained or composed"
    return lab


def test_every_file_of_the_folder_is_a_method() -> None:
    files = {p.stem for p in Path(eosin.methods.__path__[0]).glob("*.py")} - {"__init__", "method", "discover"}
    assert set(methods()) == files >= {"cam", "supervised"} and list(methods()) == sorted(methods())
    assert method("cam") is Cam and method("supervised") is Supervised


@pytest.mark.parametrize(
    ("name", "hint"), [("cma", "did you mean 'cam'?"), ("none-like-it", f"known: {', '.join(methods())}")]
)
def test_an_unknown_method_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(WrongUse, match=re.escape(f"method {name!r} is not known ({hint}")):
        method(name)


@pytest.mark.parametrize("name", methods())
def test_a_method_says_what_it_is(name: str) -> None:
    kind = methods()[name]
    headings = re.findall(r"^    (\w+):$", kind.__doc__ or "", re.M)
    assert headings == ["Idea", "Follows", "Differs", "Shapes"]
    assert kind.paper and kind.steps and kind.supervision in ("tags", "truth")
    assert all(isinstance(ingredient, Ingredient) for ingredient in kind.ingredients), "none is (), and is said, too"
    assert len({ingredient.name for ingredient in kind.ingredients}) == len(kind.ingredients)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(kind(), next(iter(kind.model_fields)), 1)
    with pytest.raises(ValidationError, match="Extra inputs"):
        kind.model_validate({"no_such_option": 1})


SMALL = {"seg_depth": 3, "seg_width": 4}


@pytest.mark.parametrize(
    "chosen",
    [Cam(tap=1, **SMALL), Cam(tap=1, pool="gap", compete="none", positive="balanced", **SMALL), Supervised(**SMALL)],
)
def test_what_a_plan_trains_can_be_built_trained_and_asked(chosen: Method) -> None:
    lab = plan(chosen)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 32, 32, generator=generator)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, float("nan")]])
    for step in lab.names("fit"):
        call = lab.call(step)
        learner: Learner = call.build()
        masks = {key: torch.randint(0, 3, (2, 32, 32), generator=generator) for key in call.masks}
        losses = learner.train()(Batch(image, tags, masks), Clock(0, 0, 1, 1))
        assert losses and all(loss.shape == () and loss.isfinite() for loss in losses.values())
        maps = learner.eval().predict(image)
        assert maps.shape == (2, 3, 32, 32) and (learner.tag_scores(image) >= 0).all()
        torch.testing.assert_close(maps.sum(1), torch.ones(2, 32, 32))


class TestCam:
    def test_it_fits_labels_and_fits(self) -> None:
        lab = plan(Cam())
        assert [(c.kind, c.name) for c in lab.calls] == [
            ("fit", "classifier"),
            ("label", "pseudo"),
            ("fit", "segmenter"),
        ]
        assert lab.call("classifier").masks == {}, "the classifier learns from tags alone"
        assert [s.name for s in lab.call("pseudo").sources] == ["classifier"]
        segmenter = lab.call("segmenter")
        assert {key: mask.name for key, mask in segmenter.masks.items()} == {"pseudo": "pseudo"}
        assert segmenter.build.keywords["mask"] in segmenter.masks

    def test_the_options_reach_the_parts(self) -> None:
        lab = plan(
            Cam(pool="gap", compete="none", scale=0.5, band=0.1, merge=False, map_scales=(1.0, 0.5), map_views=4)
        )
        classifier = lab.call("classifier").build()
        assert isinstance(classifier.pool, GAP) and classifier.head.bias is None and classifier.scale == 0.5
        rule = lab.call("pseudo").build()
        assert isinstance(rule, TagGatedArgmax) and rule.band == 0.1 and not rule.merge
        assert rule.maker.scales == (1.0, 0.5) and len(rule.maker.views) == 4
        highest = plan(Cam(pool="highest", share=0.25)).call("classifier").build().pool
        assert isinstance(highest, HighestMean) and highest.share == 0.25

    def test_positive_weights_come_from_the_tags_that_are_known(self) -> None:
        lab = FakeLab()
        assert lab.tag_counts == ((30, 10), (20, 20), (1, 39))
        found = {kind: plan(Cam(positive=kind)).call("classifier").build for kind in ("none", "balanced")}
        assert found["none"]().loss.positive is None
        assert found["balanced"]().loss.positive.tolist() == pytest.approx([1 / 3, 1, 10])
        assert digest(found["none"]) == digest(plan(Cam()).call("classifier").build) != digest(found["balanced"])
        build = found["none"].keywords["loss"]
        assert digest(build) == digest(partial(SoftMargin)), "switched off, it is as if it were not there"

    def test_a_weight_file_counts_by_its_content(self, tmp_path: Path) -> None:
        digests = []
        for content in (b"1", b"2"):
            (tmp_path / "w.pth").write_bytes(content)
            build = plan(Cam(pretrained=str(tmp_path / "w.pth"))).call("classifier").build
            assert any(isinstance(a, WeightFile) for a in build.keywords["encoder"].args)
            digests.append(digest(build))
        assert digests[0] != digests[1]
        with pytest.raises(WrongUse, match="no such weight file"):
            plan(Cam(pretrained="nowhere.pth"))

    @pytest.mark.parametrize(
        "options",
        [
            {"map_scales": ()},
            {"map_scales": (1.0, 0)},
            {"map_views": 3},
            {"share": 0},
            {"scale": 0},
            {"output_stride": 4},
            {"seg_depth": 6},
            {"pool": "max"},
            {"positive": "sometimes"},
        ],
    )
    def test_options_out_of_range_are_refused(self, options: dict) -> None:
        with pytest.raises(ValidationError):
            Cam(**options)


@pytest.mark.parametrize("name", ["cam", "oeem", "gland", "arml", "hamil", "mlps", "tpro", "supervised"])
def test_an_unknown_encoder_of_the_segmenter_is_refused_before_anything_is_trained(name: str) -> None:
    with pytest.raises(WrongUse, match="'resnet10' is not known to SMP"):
        method(name)(seg_encoder="resnet10")


def test_supervised_learns_from_the_truth_alone() -> None:
    lab = plan(Supervised())
    assert [(c.kind, c.name) for c in lab.calls] == [("truth", "truth"), ("fit", "segmenter")]
    assert list(lab.call("segmenter").masks) == ["truth"] and isinstance(lab.classes, Classes)


def test_both_train_the_same_network_in_the_same_way() -> None:
    """Only so does the upper bound measure what the masks cost."""
    weak, full = (plan(kind()).call("segmenter").build for kind in (Cam, Supervised))
    assert digest(weak.keywords["net"]) == digest(full.keywords["net"])
    assert digest(weak.keywords["loss"]) == digest(full.keywords["loss"])
    assert weak.keywords["scale"] == full.keywords["scale"]


@pytest.mark.parametrize("name", ["cam", "arml", "gland", "mlps", "hamil", "oeem"])
def test_a_loaded_resnet38_is_held_where_it_is_cut_and_one_from_scratch_learns_whole(name: str, tmp_path: Path) -> None:
    (weights := tmp_path / "weights.pth").touch()
    levels = {"taps": (4, 5, 6)} if name == "oeem" else {"tap": 6}
    if name == "mlps":
        levels["map_taps"] = (4, 5, 6)
    for pretrained, held in ((str(weights), True), ("none", False)):
        built = plan(method(name)(encoder="resnet38", pretrained=pretrained, **levels)).call("classifier").build
        made = built.keywords["encoder"]
        made = made.args[0] if name == "oeem" else made
        assert (made.func is Held) is held
        assert not held or made.args[1] == ("conv1a", "b2")


@pytest.mark.parametrize(
    ("name", "step", "options", "begins"),
    [
        ("arml", "classifier", {"ars_begin": 3}, {"activation relocalization (ARS)": 3}),
        ("arml", "classifier", {"attention": "none", "reactivation": False}, {}),
        ("mlps", "classifier", {"pda_begin": 4}, {"erasing": 4}),
        ("gland", "segmenter", {"filter_begin": 2, "seg_width": 8}, {"filtered labels (PLF)": 2}),
        ("pdseg", "segmenter", {"distil_begin": 2}, {"distillation": 2}),
        ("pdseg", "segmenter", {"token": "none"}, {}),
    ],
)
def test_a_learner_tells_what_begins_later(name: str, step: str, options: dict, begins: dict[str, int]) -> None:
    build = plan(method(name)(**options)).call(step).build
    with torch.device("meta"):
        assert build().begins() == begins
