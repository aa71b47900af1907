"""Side decoders, their fusion, and a student that is taught by a trained network."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from eosin.core.values import Batch, Clock
from eosin.parts.attention.criss_cross import CrissCrossTwice
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.losses.dice import BagDice
from eosin.parts.losses.mining import Mining
from eosin.parts.mil import Fusing, Mil, Sides, Student
from eosin.parts.pooling.generalised import GeneralisedMean
from oracles import bags as slow

CLOCK = Clock(0, 0, 1, 1)
NAN = float("nan")


class Given(nn.Module):
    """An encoder whose features are what it is told, whatever the image."""

    def __init__(self, *maps: Tensor) -> None:
        super().__init__()
        self.maps, self.channels = maps, [m.shape[1] for m in maps]

    def forward(self, image: Tensor) -> list[Tensor]:
        return [m.expand(len(image), -1, -1, -1) for m in self.maps]


def plain(sides: Sides) -> Sides:
    """Heads that give the features themselves."""
    for head in sides.heads.values():
        nn.init.ones_(head.weight), nn.init.zeros_(head.bias)
    return sides


def net(maps: int = 1, **settings) -> Sides:
    encoder = partial(Encoder, "vgg16_blocks", (0, 1, 2))
    return Sides(maps, encoder, (0, 1, 2), (0.3, 0.3, 0.4), **settings)


def learner(kind=Mil, classes: int = 2, **settings) -> Mil:
    torch.manual_seed(0)
    return kind(classes, net, partial(BagDice), partial(GeneralisedMean), **settings)


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 24, generator=torch.Generator().manual_seed(1))


class TestSides:
    @torch.no_grad()
    def test_maps_are_resized_before_the_sigmoid(self):
        logits = torch.tensor([[-4.0, 4.0], [4.0, -4.0]])[None, None]
        sides = plain(Sides(1, partial(Given, logits), (0,), (1.0,)))
        maps = sides(torch.zeros(1, 3, 4, 4))
        assert maps[0, 0, 0, 1, 1].item() == pytest.approx(0.39068, abs=1e-5)  # else 0.44645

    @torch.no_grad()
    def test_maps_and_their_fusion_are_those_of_the_loop(self):
        generator = torch.Generator().manual_seed(0)
        logits = [3 * torch.randn(1, 1, *size, generator=generator) for size in ((6, 5), (3, 4), (1, 2))]
        weights = (0.2, 0.35, 0.45)
        maps = plain(Sides(1, partial(Given, *logits), (0, 1, 2), weights))(torch.zeros(1, 3, 7, 9))
        expected = slow.sides([m[0, 0].tolist() for m in logits], weights, 7, 9)
        torch.testing.assert_close(maps[0, :, 0], torch.tensor(expected))

    @torch.no_grad()
    def test_four_maps_of_an_image(self):
        maps = net().eval()(images(1))
        assert maps.shape == (1, 4, 1, 16, 24) and maps.dtype == torch.float32
        assert maps.min() > 0 and maps.max() < 1
        torch.testing.assert_close(maps[:, 3], 0.3 * maps[:, 0] + 0.3 * maps[:, 1] + 0.4 * maps[:, 2])

    def test_it_has_as_many_parameters_as_the_papers(self):
        def trained(sides: nn.Module) -> int:
            return sum(p.numel() for p in sides.parameters() if p.requires_grad)

        attended = partial(Encoder, "vgg16_blocks", (0, 1, 2), attention=CrissCrossTwice, slots=(0, 1, 2))
        assert trained(net()) == 1_738_243
        assert trained(Sides(1, attended, (0, 1, 2), (0.2, 0.35, 0.45))) == 1_846_326

    def test_weights_are_divided_by_their_sum(self):
        sides = Sides(1, partial(Given, torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)), (0, 1), (1.0, 3.0))
        torch.testing.assert_close(sides.fusion, torch.tensor([0.25, 0.75]))

    @torch.no_grad()
    def test_a_norm_is_over_the_channels(self):
        features = torch.randn(1, 5, 3, 3, generator=torch.Generator().manual_seed(0))
        sides = plain(Sides(1, partial(Given, features), (0,), (1.0,), norm=True))
        assert sides(torch.zeros(1, 3, 3, 3))[0, 0, 0] == pytest.approx(0.5, abs=1e-5), "normed channels add up to 0"

    def test_losses_see_float32_under_autocast(self):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert net()(images()).dtype == torch.float32


class TestMil:
    @torch.no_grad()
    def test_of_two_classes_the_second_has_the_map(self):
        one = learner().eval()
        fused = one.net(one.normalise(images()))[:, -1]
        torch.testing.assert_close(one.predict(images()), torch.cat([1 - fused, fused], 1))
        pool = GeneralisedMean()
        torch.testing.assert_close(one.tag_scores(images()), torch.cat([pool(1 - fused), pool(fused)], 1))

    @torch.no_grad()
    def test_of_more_classes_each_has_a_map(self):
        many = learner(classes=3).eval()
        maps, found = many.net(many.normalise(images()))[:, -1], many.predict(images())
        torch.testing.assert_close(found, maps / maps.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.sum(1), torch.ones(2, 16, 24))
        assert many.tag_scores(images()).shape == (2, 3)

    @torch.no_grad()
    def test_the_loss_of_two_classes_is_of_the_second_tag(self):
        one = learner()
        tags = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        maps = one.net(one.normalise(images()))
        found = one(Batch(images(), tags), CLOCK)
        assert set(found) == {"bags"}
        assert found["bags"].item() == pytest.approx(slow.bag_dice(maps.tolist(), tags[:, 1:].tolist()), rel=1e-4)

    @torch.no_grad()
    def test_images_are_resized_and_maps_come_back(self):
        half = learner(scale=0.5).eval()
        seen: list[Tensor] = []
        half.net.register_forward_hook(lambda module, given, found: seen.append(given[0]))
        assert half.predict(images()).shape == (2, 2, 16, 24) and seen[0].shape == (2, 3, 8, 12)

    def test_decoders_and_gates_have_rates_of_their_own(self):
        one = learner(head_rate=0.01)
        assert (one.rate("net.heads.0.weight"), one.rate("net.encoder.net.blocks.0.0.conv.weight")) == (0.01, 1.0)
        assert one.rate("net.encoder.net.attention0.gate") == 10

    @torch.no_grad()
    def test_its_views_are_its_maps(self):
        one = learner().eval()
        views = one.views(images())
        assert list(views) == ["f1", "f2", "f3", "f_w"] and views["f_w"].shape == (2, 1, 16, 24)


class TestCollapse:
    tags = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, NAN]])

    @torch.no_grad()
    def test_the_fused_maps_of_positives_are_noticed(self):
        one = learner(classes=3)
        tags = torch.tensor([[1.0, 0.0, NAN], [1.0, 1.0, 0.0]])
        maps = one.net(one.normalise(images()))[:, -1].mean((2, 3))
        one(Batch(images(), tags), CLOCK)
        total, count = one.noticed()["f_w on positives"]
        assert count == 3
        assert total.item() == pytest.approx((maps[0, 0] + maps[1, 0] + maps[1, 1]).item(), rel=1e-5)

    @pytest.mark.parametrize("kind", [Mil, Fusing, Student])
    def test_all_of_them_notice(self, kind):
        one = pair()[0] if kind is Student else learner(kind)
        one(Batch(images(3), self.tags), CLOCK)
        assert one.noticed()["f_w on positives"][1] == 1

    @pytest.mark.parametrize(("mean", "told"), [(0.04, True), (0.05, False), (0.5, False), (0.95, False), (0.96, True)])
    def test_maps_that_repeat_the_tag_are_warned_of(self, mean, told):
        line = learner().warning({"f_w on positives": mean})
        assert (line is not None) == told and (line is None or f"{mean:.3f}" in line)

    def test_without_a_positive_there_is_nothing_to_warn_of(self):
        assert learner().warning({}) is None


class TestFusing:
    def test_only_the_weights_of_the_fusion_learn(self):
        fusing = learner(Fusing).train()
        before = copy.deepcopy(fusing.state_dict())
        optimizer = torch.optim.Adam([p for g in fusing.groups(1e-2) for p in g["params"]], lr=1e-2)
        tags = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        for _ in range(3):
            optimizer.zero_grad()
            fusing(Batch(images(), tags), CLOCK)["bags"].backward()
            optimizer.step()
        moved = {key for key, value in fusing.state_dict().items() if not torch.equal(value, before[key])}
        assert moved == {"net.theta"}
        assert fusing.net.fusion.sum().item() == pytest.approx(1)

    @torch.no_grad()
    def test_its_loss_is_that_of_the_fused_map(self):
        fusing = learner(Fusing)
        fused = fusing.net(fusing.normalise(images()))[:, -1:]
        tags = torch.tensor([[0.0, 1.0], [1.0, NAN]])
        found = fusing(Batch(images(), tags), CLOCK)["bags"].item()
        assert found == pytest.approx(slow.bag_dice(fused.tolist(), tags[:, 1:].tolist()), rel=1e-4)


def pair(**settings) -> tuple[Student, Mil]:
    """A student and its teacher, of different weights."""
    student = learner(Student, **settings)
    torch.manual_seed(1)
    teacher = Mil(2, net, partial(BagDice), partial(GeneralisedMean))
    for head in teacher.net.heads.values():
        nn.init.normal_(head.weight, std=0.3)
    student.taught_by(teacher)
    return student.train(), teacher.eval()


class TestStudent:
    tags = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, NAN]])

    @torch.no_grad()
    def terms(self, **settings) -> tuple[dict[str, Tensor], list, list]:
        student, teacher = pair(**settings)
        student.net.eval()  # so that maps can be looked at from outside
        image = student.normalise(images(3))
        return student(Batch(images(3), self.tags), CLOCK), student.net(image).tolist(), teacher.net(image).tolist()

    def test_fusion_all_maps_learn_the_fused_one(self):
        found, maps, taught = self.terms()
        expected = slow.bag_dice(maps, self.tags[:, 1:].tolist(), [t[-1:] for t in taught])
        assert found["distillation"].item() == pytest.approx(expected, rel=1e-4)

    def test_layers_each_map_learns_its_own(self):
        found, maps, taught = self.terms(structure="layers")
        expected = slow.bag_dice(maps, self.tags[:, 1:].tolist(), taught)
        assert found["distillation"].item() == pytest.approx(expected, rel=1e-4)

    def test_output_only_the_fused_map_learns(self):
        found, maps, taught = self.terms(structure="output")
        expected = slow.bag_dice([m[-1:] for m in maps], self.tags[:, 1:].tolist(), [t[-1:] for t in taught])
        assert found["distillation"].item() == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("structure", ["fusion", "layers", "output"])
    def test_mining_is_of_the_fused_maps_and_has_its_weight(self, structure):
        found, maps, taught = self.terms(structure=structure, mining=partial(Mining), alpha=0.5)
        last = [[m[-1] for m in each] for each in (maps, taught)]
        expected = slow.mining(*last, self.tags[:, 1:].tolist(), "hard")
        assert set(found) == {"distillation", "mining"}
        assert found["mining"].item() == pytest.approx(0.5 * expected, rel=1e-4)

    def test_the_teacher_stays_as_it_is_and_is_no_part_of_the_student(self):
        student, teacher = pair(mining=partial(Mining))
        before = copy.deepcopy(teacher.state_dict())
        terms = student(Batch(images(3), self.tags), CLOCK)
        torch.stack(list(terms.values())).sum().backward()
        assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items()), "norms, too"
        assert all(p.grad is None for p in teacher.parameters())
        assert student.state_dict().keys() == learner(Student).state_dict().keys() == learner().state_dict().keys()
        own = {id(p) for p in student.parameters()}
        assert not own & {id(p) for p in teacher.net.parameters()}

    def test_the_teacher_is_asked_without_dropout_of_its_norms(self):
        student, _ = pair()
        assert student.training and not student.teacher.net.training

    def test_it_fuses_as_its_teacher_does(self):
        student, teacher = learner(Student), learner()
        teacher.net.theta.data = torch.tensor([0.1, 0.2, 0.7]).log()
        student.taught_by(teacher)
        torch.testing.assert_close(student.net.fusion, torch.tensor([0.1, 0.2, 0.7]))

    @torch.no_grad()
    def test_it_predicts_without_its_teacher(self):
        assert learner(Student).eval().predict(images()).shape == (2, 2, 16, 24)

    def test_who_has_no_teacher_says_so(self):
        with pytest.raises(TypeError, match="learns of no teacher"):
            learner().taught_by(learner())
