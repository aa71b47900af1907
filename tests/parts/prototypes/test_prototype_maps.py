"""Maps of prototypes merged, stretched, halved and located; heads, fusion; the numbers of the specification."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from eosin.parts.backbones.encoder import Encoder
from eosin.parts.prototypes.head import PrototypeHead
from eosin.parts.prototypes.maps import averaged, located, stretched, upper, weighted
from eosin.parts.prototypes.seen import Fusion, Stage
from oracles import prototypes as slow


def of_class(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[None, None]


class TestMerging:
    def test_by_hand(self) -> None:
        assert weighted(of_class(1, 2, 3)).item() == pytest.approx(2.575210, abs=1e-6)
        assert averaged(of_class(1, 2, 3)).item() == 2
        assert weighted(of_class(1, 3)).item() == pytest.approx(2.761594, abs=1e-6)

    def test_each_pixel_is_weighed_by_itself_as_the_loop_has_it(self) -> None:
        maps = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = weighted(maps)
        for b, c, i, j in torch.cartesian_prod(*map(torch.arange, (2, 3, 2, 2))).tolist():
            assert found[b, c, i, j].item() == pytest.approx(slow.weighted(maps[b, c, :, i, j].tolist()))


class TestScaling:
    def test_each_map_is_halved_by_its_own_maximum(self) -> None:
        """By one threshold for all maps of an image, 2, the second would be all 0."""
        maps = torch.tensor([[[1.0, 4], [2, 3]], [[0.5, 1], [0.2, 0.8]]])
        assert upper(maps).int().tolist() == [[[0, 1], [1, 1]], [[1, 1], [0, 1]]]

    def test_each_map_is_stretched_by_itself(self) -> None:
        maps = torch.tensor([[[-14.0, 14.0]], [[1.0, 2.0]], [[3.0, 3.0]]])
        assert stretched(maps).tolist() == [[[0, 1]], [[0, 1]], [[0, 0]]]


class TestLocated:
    MAPS = torch.tensor([[[[0.9, 0.3, 0.1]], [[0.5, 0.6, 0.2]], [[1.0, 1.0, 1.0]]]])

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            ([1.0, 1, 0], [0, 1, 255]),  # the third class is absent, and 0.2 is not above the floor
            ([1.0, 0, 0], [0, 0, 255]),
            ([1.0, 1, 1], [2, 2, 2]),
            ([1.0, float("nan"), float("nan")], [0, 0, 255]),
            ([float("nan")] * 3, [255, 255, 255]),
            ([0.0] * 3, [255, 255, 255]),
        ],
    )
    def test_only_known_classes_above_the_floor_are_somewhere(self, tags: list[float], expected: list[int]) -> None:
        assert located(self.MAPS, torch.tensor([tags]), 0.2).flatten().tolist() == expected


class TestHead:
    @pytest.mark.parametrize(("channels", "parameters"), [(64, 147776), (128, 164224), (320, 213568), (512, 262912)])
    def test_it_has_the_printed_size_and_a_scale(self, channels: int, parameters: int) -> None:
        head = PrototypeHead(512, channels)
        assert sum(p.numel() for p in head.project.parameters()) == parameters
        assert head.scale.item() == pytest.approx(1 / 0.07)

    def test_it_begins_with_small_weights_and_no_bias(self) -> None:
        torch.manual_seed(0)
        for projection in ("mlp", "linear"):
            head = PrototypeHead(256, 128, projection)
            for name, value in head.project.named_parameters():
                if name.endswith("bias"):
                    assert not value.any()
                else:
                    assert value.std().item() == pytest.approx(0.02, rel=0.05)

    def test_it_gives_the_cosine_of_each_pixel_to_each_projected_prototype(self) -> None:
        torch.manual_seed(0)
        head, features, prototypes = PrototypeHead(24, 5), torch.randn(2, 5, 2, 3), torch.randn(3, 2, 24)
        cosines, here = head(features, prototypes)
        assert cosines.shape == (2, 3, 2, 2, 3) and torch.equal(here, head.project(prototypes))
        for b, c, u, i, j in torch.cartesian_prod(*map(torch.arange, cosines.shape)).tolist():
            expected = slow.cosine(features[b, :, i, j].tolist(), here[c, u].tolist())
            assert cosines[b, c, u, i, j].item() == pytest.approx(expected, abs=1e-6)

    def test_a_product_keeps_the_length_of_prototypes_alone(self) -> None:
        torch.manual_seed(0)
        head, features = PrototypeHead(24, 5, likeness="product"), torch.randn(2, 5, 2, 3)
        found, here = head(features, torch.randn(3, 2, 24))
        cosines = torch.stack([F.cosine_similarity(features, v[:, None, None]) for v in here.flatten(0, 1)], 1)
        lengths = here.flatten(0, 1).norm(dim=1)[:, None, None]
        torch.testing.assert_close(found.flatten(1, 2), cosines * lengths)

    def test_it_is_float32_under_autocast(self) -> None:
        head, features, prototypes = PrototypeHead(24, 5), torch.randn(2, 5, 2, 3), torch.randn(3, 2, 24)
        plain, _ = head(features, prototypes)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(head(features, prototypes)[0], plain)


def stages(*sizes: int) -> list[Stage]:
    generator = torch.Generator().manual_seed(0)
    drawn = [3 * torch.randn(2, 3, 2, size, size, generator=generator) for size in sizes]
    return [Stage(n, m[:, :, 0], m, m / 14, m[0, :, :, 0]) for n, m in enumerate(drawn)]


class TestFusion:
    def test_stages_are_added_up_by_their_weights(self) -> None:
        seen = stages(4, 4, 4)
        found = Fusion((0, 0.3, 0.7), "mean").signed(seen, (4, 4))
        torch.testing.assert_close(found, 0.3 * seen[1].maps.mean(2) + 0.7 * seen[2].maps.mean(2))

    def test_a_stage_is_known_by_its_number_if_others_were_not_asked(self) -> None:
        seen = stages(4, 4, 4)
        fusion = Fusion((0, 0.3, 0.7))
        assert torch.equal(fusion.signed(seen[1:], (4, 4)), fusion.signed(seen, (4, 4)))

    def test_prototypes_are_merged_before_maps_are_resized(self) -> None:
        seen = stages(2)
        large = torch.nn.functional.interpolate(weighted(seen[0].maps), size=(8, 8), mode="bilinear")
        torch.testing.assert_close(Fusion((1,)).signed(seen, (8, 8)), large)

    def test_without_a_gate_the_answer_is_a_softmax_of_signed_maps(self) -> None:
        seen, fusion = stages(2, 4), Fusion((0.5, 0.5))
        answer = fusion.probabilities(seen, torch.full((2, 3), -9.0), (8, 8))
        torch.testing.assert_close(answer, fusion.signed(seen, (8, 8)).softmax(1))

    def test_by_its_own_tags_a_class_that_is_not_found_has_no_pixel(self) -> None:
        seen, fusion = stages(4), Fusion((1,), gate="predicted")
        answer = fusion.probabilities(seen, torch.tensor([[1.0, -1, 2], [-3, -1, -2]]), (4, 4))
        torch.testing.assert_close(answer.sum(1), torch.ones(2, 4, 4))
        assert not answer[0, 1].any() and answer[0, 0].all() and answer[0, 2].all()
        assert torch.equal(answer[1, 1], torch.ones(4, 4)), "where none is found the most likely one is there"
        shown = stretched(weighted(seen[0].maps).relu())
        torch.testing.assert_close(answer[0, [0, 2]], shown[0, [0, 2]].softmax(0))

    def test_a_view_holds_one_prototype_of_each_class(self) -> None:
        seen = stages(4)
        assert torch.equal(Fusion((1,)).each(seen, 1), seen[0].maps[:, :, 1])

    def test_what_locates_classes_is_in_0_to_1_at_the_last_size(self) -> None:
        found = Fusion((0.4, 0.6)).located(stages(8, 4))
        assert found.shape == (2, 3, 4, 4) and found.min() >= 0 and found.max() <= 1


def test_the_late_stride_gives_the_shapes_of_the_specification() -> None:
    encoder = Encoder("mit_b1", (0, 1, 2, 3), 16)
    assert encoder.channels == [64, 128, 320, 512] and encoder.strides == [4, 8, 16, 16]
    assert sum(p.numel() for p in encoder.parameters()) == 13_151_424
