"""LPD and PBIP: what their plans build, the printed size, and where the prototypes come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from eosin.core.artifact import Vectors
from eosin.core.classes import Classes, Tissue
from eosin.core.fingerprint import digest
from eosin.core.values import Batch, Clock
from eosin.engine.optim import factor
from eosin.engine.weights import without_weights
from eosin.methods.lpd import Lpd
from eosin.methods.pbip import Pbip
from eosin.parts.backbones.guide import FrozenGuide
from eosin.parts.classifiers import CamClassifier
from eosin.parts.losses.diversity import Diversity
from eosin.parts.pooling.gap import GAP
from eosin.parts.pooling.highest import HighestMean
from eosin.parts.prototypes.bank import Described, Pooled, cluster
from eosin.parts.prototypes.maps import averaged, weighted
from eosin.parts.prototypes.network import PrototypeNet
from eosin.parts.prototypes.refiner import MaskRefiner
from eosin.parts.prototypes.terms import Apart
from eosin.recipe import load
from eosin.verbs.train import resolve
from methods.fake_lab import FakeLab

FOUR = Classes(tissues=tuple(Tissue(name=n, colour=(i, i, i)) for i, n in enumerate(("TUM", "STR", "LYM", "NEC"))))
SMALL: dict[str, Any] = {"encoder": "mit_b0", "per_class": 2, "width": 16}
TAGS = torch.tensor([[1.0, 0, 1], [0, 1, float("nan")]])
GUIDED: dict[str, Any] = {"guide": "encoder", "guide_encoder": "resnet10t"}


class Placed(FakeLab):
    """A lab whose steps have folders."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def place(self, kind: str, name: str) -> Path:
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name


def planned(method: Any, lab: FakeLab | None = None) -> FakeLab:
    lab = lab or FakeLab()
    assert method.plan(lab).name == "segmenter"
    return lab


def built(lab: FakeLab) -> PrototypeNet:
    torch.manual_seed(0)
    learner = lab.call("segmenter").build()
    assert isinstance(learner, PrototypeNet)
    return learner


def losses(learner: PrototypeNet) -> dict[str, torch.Tensor]:
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return learner.train()(Batch(image, TAGS), Clock(9, 0, 10, 1))


class TestLpd:
    def test_it_has_the_printed_size_and_shapes(self) -> None:
        learner = built(planned(Lpd(), FakeLab(classes=FOUR)))
        assert sum(p.numel() for p in learner.parameters()) == 13_960_388
        learner.stage_weights = (1, 1, 1, 1)
        with torch.no_grad():
            stages = learner.eval().stages(torch.rand(2, 3, 224, 224))
        shapes = [tuple(stage.maps.flatten(1, 2).shape) for stage in stages]
        assert shapes == [(2, 40, 56, 56), (2, 40, 28, 28), (2, 40, 14, 14), (2, 40, 14, 14)]
        assert [tuple(learner.pool(stage.maps.flatten(1, 2)).shape) for stage in stages] == [(2, 40)] * 4
        assert stages[-1].features.shape == (2, 512, 14, 14)

    @pytest.mark.parametrize("recipe", ["lpd-bcss", "lpd-luad"])
    def test_so_have_the_recipes_of_known_data_beside_a_guide_of_28_million(self, recipe: str) -> None:
        options = {**load(recipe).options, "pretrained": "none", "guide_pretrained": "none"}
        learner = built(planned(Lpd(**options), FakeLab(classes=FOUR)))
        assert sum(p.numel() for p in learner.parameters()) == 13_960_388
        (guide,) = (module for module in learner.modules() if isinstance(module, FrozenGuide))
        assert sum(p.numel() for p in guide.frozen.net.parameters()) == 27_519_354  # of a Swin-T

    def test_with_three_prototypes_it_has_the_size_of_the_released_settings(self) -> None:
        learner = built(planned(Lpd(per_class=3), FakeLab(classes=FOUR)))
        assert sum(p.numel() for p in learner.parameters()) == 13_946_052

    def test_it_is_one_fit(self) -> None:
        lab = planned(Lpd())
        assert [(call.kind, call.name) for call in lab.calls] == [("fit", "segmenter")]
        assert lab.call("segmenter").masks == {}

    def test_the_options_reach_the_parts(self) -> None:
        learner = built(planned(Lpd(**SMALL, pool="highest", share=0.3, merge="mean", gate="predicted", warmup=0.3)))
        assert learner.known.shape == (3, 2, 16) and learner.learnt
        assert isinstance(learner.pool, HighestMean) and learner.pool.share == 0.3
        assert learner.fusion.merge is averaged and learner.fusion.gate == "predicted" and learner.warmup == 0.3
        assert learner.stage_weights == (0, 0.1, 1, 1) and learner.fusion.weights == (0, 0.3, 0.3, 0.4)
        assert learner.weights == {"contrast": 0.1, "diversity": 0.5, "area": 5e-5}
        refiner, apart = learner.terms["contrast"], learner.terms["diversity"]
        assert isinstance(refiner, MaskRefiner) and (refiner.pairs, refiner.negatives) == (16, "others")
        assert (refiner.contrast.temperature, refiner.contrast.joined, refiner.guide) == (0.07, False, None)
        assert isinstance(apart, Apart) and isinstance(apart.loss, Diversity)
        assert (apart.floor, apart.loss.temperature) == (0.2, 0.07)
        plain = built(planned(Lpd(**SMALL)))
        assert isinstance(plain.pool, GAP) and plain.fusion.merge is weighted and plain.fusion.gate == "none"

    def test_a_term_without_weight_is_not_there(self) -> None:
        off = {"contrast_weight": 0, "diversity_weight": 0, "area_weight": 0}
        assert set(losses(built(planned(Lpd(**SMALL, **off))))) == {"tags"}

    def test_its_warm_up_is_that_of_3000_of_18744_steps(self) -> None:
        learner = built(planned(Lpd(**SMALL)))
        image = torch.rand(2, 3, 64, 64)
        found = [set(learner(Batch(image, TAGS), Clock(step, 1, 18744, 8))) for step in (2990, 3000)]
        assert found == [{"tags"}, {"tags", "contrast", "diversity", "area"}]

    def test_the_rates_of_the_papers_recipe_fall_linearly(self) -> None:
        spec = resolve("lpd-bcss")[0].fit_spec("segmenter")
        rates = [spec.lr * factor(spec, step, 18744) for step in (0, 9372, 18744)]
        assert rates == pytest.approx([5e-5, 2.5e-5, 0])

    @pytest.mark.parametrize("options", [{}, GUIDED, {"gate": "predicted", "merge": "mean"}, {"per_class": 1}])
    def test_it_can_be_trained_and_asked(self, options: dict[str, Any]) -> None:
        learner = built(planned(Lpd(**{**SMALL, **options})))
        found = losses(learner)
        assert all(term.shape == () and term.isfinite() for term in found.values())
        sum(found.values()).backward()
        assert learner.prototypes.grad.any()
        maps = learner.eval().predict(torch.rand(2, 3, 64, 64))
        torch.testing.assert_close(maps.sum(1), torch.ones(2, 64, 64))

    def test_a_guide_is_no_part_of_what_is_trained(self) -> None:
        guided, plain = (built(planned(Lpd(**SMALL, **more))) for more in (GUIDED, {}))
        assert isinstance(guided.terms["contrast"].guide, FrozenGuide)
        assert guided.state_dict().keys() == plain.state_dict().keys()

    def test_a_trained_one_is_built_without_the_weights_of_its_guide(self) -> None:
        """They are not to be had where it is only used."""
        build = planned(Lpd(**SMALL, **GUIDED, guide_pretrained="imagenet")).call("segmenter").build
        learner = without_weights(build)()
        assert isinstance(learner.terms["contrast"].guide, FrozenGuide)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"stage_weights": (1, 1)}, "give each stage a weight in both"),
            ({"taps": (1, 2, 3)}, "give each stage a weight in both"),
            ({"stage_weights": (0, 1, 1, 0)}, "the last of stage_weights"),
            ({"fusion": (0, 0, 0, 0)}, "one of fusion must be above 0"),
            ({"per_class": 0}, "per_class"),
            ({"diversity_temperature": 0}, "diversity_temperature"),
            ({"warmup": 1}, "warmup"),
            ({"pairs": -1}, "pairs"),
            ({"gate": "truth"}, "gate"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            Lpd(**options)


class TestPbip:
    def test_without_an_encoder_a_classifier_describes_the_images(self) -> None:
        lab = planned(Pbip(**SMALL))
        steps = [("fit", "classifier"), ("describe", "vectors"), ("prototypes", "prototypes"), ("fit", "segmenter")]
        assert [(call.kind, call.name) for call in lab.calls] == steps
        assert [source.name for source in lab.call("vectors").sources] == ["classifier"]
        assert [source.name for source in lab.call("prototypes").sources] == ["vectors"]
        assert lab.call("vectors").build.func is Pooled and lab.call("prototypes").build.func is cluster
        assert isinstance(lab.call("classifier").build(), CamClassifier)

    def test_an_encoder_describes_them_by_itself(self) -> None:
        lab = planned(Pbip(**SMALL, **GUIDED))
        assert lab.names("fit") == ["segmenter"]
        described = lab.call("vectors").build()
        assert isinstance(described, Described) and described(torch.rand(2, 3, 32, 32)).shape == (2, 16)

    def test_its_prototypes_are_centres_and_do_not_learn(self, tmp_path: Path) -> None:
        lab = planned(Pbip(**SMALL), Placed(tmp_path))
        tags = torch.eye(3).repeat(4, 1)
        vectors = tags @ torch.randn(3, 24) + 0.01 * torch.randn(12, 24)
        save_file({"vectors": vectors, "tags": tags}, tmp_path / "vectors" / Vectors.FILE)
        lab.call("prototypes").build(tmp_path / "prototypes")
        learner = built(lab)
        assert not learner.learnt and learner.known.shape == (3, 2, 24) and learner.given == ("bank",)
        near = torch.cosine_similarity(learner.known[:, :, None], vectors[:3], dim=3)
        assert (near.argmax(2) == torch.arange(3)[:, None]).all()
        assert learner.terms["contrast"].contrast.joined and learner.warmup == 0
        found = losses(learner)
        assert set(found) == {"tags", "contrast", "area"}
        sum(found.values()).backward()
        assert all(p.grad.any() for p in learner.heads[3].parameters())

    def test_what_it_is_trained_with_depends_on_the_vectors(self) -> None:
        plain, other = (planned(Pbip(**SMALL, scale=scale)) for scale in (1.0, 0.5))
        prototypes = [digest(lab.call("segmenter").build.keywords["prototypes"]) for lab in (plain, other)]
        assert prototypes[0] != prototypes[1], "another classifier, other vectors, other prototypes"

    def test_learnt_prototypes_need_no_clusters(self) -> None:
        lab = planned(Pbip(**SMALL, prototypes="learnt", contrast="each"))
        assert [call.name for call in lab.calls] == ["segmenter"]
        learner = built(lab)
        assert learner.learnt and not learner.given and not learner.terms["contrast"].contrast.joined

    @pytest.mark.parametrize("options", [{}, GUIDED, {"prototypes": "learnt"}, {**GUIDED, "prototypes": "learnt"}])
    def test_it_says_what_it_trains(self, options: dict[str, Any]) -> None:
        method = Pbip(**SMALL, **options)
        assert method.rounds_of() == dict.fromkeys(planned(method).names("fit"), 1)

    def test_a_resolved_recipe_has_settings_of_what_is_trained_alone(self) -> None:
        own, _ = resolve("pbip-phantom")
        guided, _ = resolve("pbip-bcss")
        assert set(own.fit) == {"classifier", "segmenter"} and set(guided.fit) == {"segmenter"}

    @pytest.mark.parametrize("options", [{"per_class": 0}, {"prototypes": "drawn"}, {"contrast": "none"}])
    def test_options_out_of_range_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Pbip(**options)
