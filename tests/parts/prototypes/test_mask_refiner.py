"""Which pairs the refiner looks at, what it shows and hides of an image, and that few pairs stand for all."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from eosin.parts.losses.prototype_contrast import PrototypeContrast
from eosin.parts.prototypes.maps import stretched
from eosin.parts.prototypes.refiner import MaskRefiner, heeded, pooled, split
from eosin.parts.prototypes.seen import Fusion, Seen, Stage
from oracles import prototypes as slow

NAN = float("nan")
TAGS = torch.tensor([[1.0, 0, 1], [1, NAN, 0]])


def seen(tags: Tensor = TAGS, count: int = 3, seed: int = 0) -> Seen:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 5, 4, 4, generator=generator)
    maps = 3 * torch.randn(2, 3, count, 4, 4, generator=generator)
    here, prototypes = torch.randn(2, 3, count, 5, generator=generator)
    image = torch.rand(2, 3, 16, 16, generator=generator)
    stage = Stage(0, features, maps.requires_grad_(), maps / 14, here.requires_grad_())
    return Seen(image, tags, prototypes, [stage], Fusion((1,)))


def refiner(**settings) -> MaskRefiner:
    return MaskRefiner(partial(PrototypeContrast, 0.5), **settings)


def looped(given: Seen, pairs: list[tuple[int, int, int]], everyone: bool = False) -> float:
    """The loss of some pairs, each from its formula."""
    stage, count = given.last, given.last.maps.shape[2]
    bank = stage.here.flatten(0, 1).tolist()
    sides, own, negative = ([], []), [], []
    for b, c, u in pairs:
        weights = slow.split(slow.stretched(stage.maps[b, c, u].flatten().tolist()))
        for side, weight in zip(sides, weights, strict=True):
            columns = stage.features[b].flatten(1).tolist()
            side.append([sum(w * x for w, x in zip(weight, row, strict=True)) / sum(weight) for row in columns])
        own.append(c * count + u)
        negative.append([j for j in range(len(bank)) if (j != own[-1] if everyone else j // count != c)])
    return slow.contrast(*sides, bank, own, negative, 0.5)


class TestHeeded:
    def test_by_hand(self) -> None:
        assert heeded(torch.tensor([[[1.0, 2, 6]]]), torch.ones(1, 1)).tolist() == [[[False, False, True]]]

    def test_one_prototype_alone_and_equal_ones_all_have_a_say(self) -> None:
        assert heeded(torch.tensor([[[-2.0]]]), torch.ones(1, 1)).all()
        assert heeded(torch.full((1, 1, 3), 0.1), torch.ones(1, 1)).all()

    def test_only_known_present_classes_have_a_say_as_the_loop_has_it(self) -> None:
        scores = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
        found = [tuple(row) for row in heeded(scores, TAGS).nonzero().tolist()]
        assert found == slow.heeded(scores.tolist(), TAGS.tolist())
        assert {row[:2] for row in found} == {(0, 0), (0, 2), (1, 0)}


class TestSplit:
    def test_by_hand(self) -> None:
        shown, hidden = split(torch.tensor([[[0.5, 1.0], [0.2, 0.8]]]))
        assert shown.flatten().tolist() == pytest.approx([0.5, 1, 0, 0.8])
        assert hidden.flatten().tolist() == pytest.approx([0, 0, 0.8, 0])

    def test_a_weighted_mean_of_nothing_is_nothing(self) -> None:
        assert not pooled(torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2)).any()


class TestByOwnFeatures:
    @pytest.mark.parametrize("negatives", ["others", "all"])
    def test_the_loss_is_that_of_the_loop(self, negatives: str) -> None:
        given = seen()
        pairs = slow.heeded(given.last.maps.mean((3, 4)).tolist(), TAGS.tolist())
        found = refiner(pairs=0, negatives=negatives)(given)
        assert found.item() == pytest.approx(looped(given, pairs, negatives == "all"), rel=1e-5)

    def test_maps_and_prototypes_learn_and_features_do_not(self) -> None:
        given = seen()
        given.last.features.requires_grad_()
        refiner()(given).backward()
        assert given.last.features.grad is None
        assert given.last.here.grad.any() and given.last.maps.grad[0, 0].any()
        assert not given.last.maps.grad[0, 1].any() and not given.last.maps.grad[1, 1:].any(), "absent or unknown"

    @pytest.mark.parametrize("tags", [0.0, NAN])
    def test_without_a_present_tag_it_is_zero_with_a_gradient(self, tags: float) -> None:
        given = seen(torch.full((2, 3), tags))
        found = refiner()(given)
        found.backward()
        assert found.item() == 0 and not given.last.maps.grad.any()

    def test_a_map_that_is_the_same_everywhere_has_no_say_and_spoils_no_gradient(self) -> None:
        given = seen()
        with torch.no_grad():
            given.last.maps[0] = given.last.maps[0, :, :, :1, :1]
        pairs = slow.heeded(given.last.maps.mean((3, 4)).tolist(), TAGS.tolist())
        found = refiner(pairs=0)(given)
        assert found.item() == pytest.approx(looped(given, [pair for pair in pairs if pair[0] == 1]), rel=1e-5)
        found.backward()
        assert given.last.maps.grad.isfinite().all() and given.last.maps.grad[1, 0].any()
        assert not given.last.maps.grad[0].any()


class TestFewPairs:
    def test_all_are_drawn_with_the_same_chance_and_none_twice(self) -> None:
        """Of 27 pairs 4 at a time: after 3,000 draws each was there in 4/27 of them, within five deviations."""
        every, counts = torch.ones(3, 3, 3, dtype=torch.bool), torch.zeros(3, 3, 3)
        torch.manual_seed(0)
        few = refiner(pairs=4)
        for _ in range(3000):
            drawn = few._drawn(every)
            counts.index_put_(drawn, torch.ones(4), accumulate=True)
            assert len({*zip(*(part.tolist() for part in drawn), strict=True)}) == 4
        chance = 4 / 27
        assert ((counts / 3000 - chance).abs() < 5 * (chance * (1 - chance) / 3000) ** 0.5).all()

    def test_their_loss_is_on_average_that_of_all(self) -> None:
        given = seen(torch.ones(2, 3), count=4)
        torch.manual_seed(0)
        with torch.no_grad():
            whole, few = refiner(pairs=0)(given), refiner(pairs=3)
            found = torch.stack([few(given) for _ in range(1500)])
        error = (found.std() / len(found) ** 0.5).item()
        assert found.std() > 0.05 and abs(found.mean().item() - whole.item()) < 4 * error

    def test_fewer_than_asked_for_are_all_taken(self) -> None:
        given = seen()
        assert torch.equal(refiner(pairs=16)(given), refiner(pairs=0)(given))


class Watching(nn.Module):
    """A guide that remembers what it was shown, and says the mean colours of it."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[Tensor, Tensor]] = []

    def forward(self, image: Tensor, weights: Tensor) -> Tensor:
        self.given.append((image, weights))
        return torch.cat([(image * weights).mean((2, 3)), weights.mean((2, 3)), 1 - weights.mean((2, 3))], 1)


class TestByAGuide:
    def test_it_is_shown_the_image_and_the_map_at_its_size(self) -> None:
        given, look = seen(), refiner(guide=Watching, pairs=0)
        look(given)
        (image, shown), (_, hidden) = look.guide.given
        pairs = slow.heeded(given.last.maps.mean((3, 4)).tolist(), TAGS.tolist())
        assert torch.equal(image, torch.stack([given.image[b] for b, _, _ in pairs]))
        large = torch.nn.functional.interpolate(given.last.maps[0], size=(16, 16), mode="bilinear")
        for (b, c, u), front, back in zip(pairs, shown[:, 0], hidden[:, 0], strict=True):
            if b == 0:
                one = stretched(large[c, u])
                torch.testing.assert_close(front, torch.where(one >= 0.5, one, 0.0))
                torch.testing.assert_close(back, torch.where(one < 0.5, 1 - one, 0.0))

    def test_maps_learn_through_it_and_prototypes_are_compared_as_they_are(self) -> None:
        given = seen()
        given.prototypes.requires_grad_()
        refiner(guide=Watching)(given).backward()
        assert given.last.maps.grad.any() and given.prototypes.grad.any() and given.last.here.grad is None

    def test_without_a_present_tag_it_is_not_asked(self) -> None:
        given, look = seen(torch.full((2, 3), NAN)), refiner(guide=Watching)
        assert look(given).item() == 0 and look.guide.given == []


@pytest.mark.parametrize("enabled", [True, False])
def test_a_guide_runs_as_autocast_says_and_the_contrast_in_float32(enabled: bool) -> None:
    found: list[bool] = []

    class Watched(nn.Module):
        def forward(self, image: Tensor, weights: Tensor) -> Tensor:
            found.append(torch.is_autocast_enabled("cpu"))
            return (image * weights).mean((2, 3)) @ torch.ones(3, 5)

    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        loss = refiner(guide=Watched)(seen())
    assert found == [enabled, enabled] and loss.dtype == torch.float32
