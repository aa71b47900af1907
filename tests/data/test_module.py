"""The weak view, the labelled view and the order of a fit."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from eosin.core.classes import Classes, Tissue
from eosin.core.errors import EosinError
from eosin.core.values import Augment, Batch
from eosin.data.dataset import Dataset, Row, Truth, write_dataset
from eosin.data.module import InOrder, LabelledView, Plan, WeakView, _plainly, collate, item_side, loader
from patches import noise, write_items

TWO = Classes(tissues=(Tissue(name="rest", colour=(0, 0, 200)), Tissue(name="gland", colour=(200, 0, 0))))
STRONG = Augment(scale=0.4, crop=12, stain=0.3, brightness=0.2, contrast=0.2, blur=1.0)


def mask(side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (side, side), np.uint8)


class TestWeakView:
    def test_without_augmentation_it_gives_what_is_there(self, tmp_path: Path) -> None:
        images = [noise(seed=i) for i in range(3)]
        items = write_items(tmp_path, images, [[1, 0], [0, np.nan], [1, 1]], masks=[mask(seed=i) for i in range(3)])
        view = WeakView(items, None, 0, {"pseudo": lambda item: tmp_path / "masks" / f"{item}.png"})
        assert len(view) == 3
        sample = view[5, 1]
        assert sample.id == "p1"
        assert torch.equal(sample.image, torch.from_numpy(images[1]).permute(2, 0, 1) / 255)
        assert sample.image.dtype == torch.float32 and sample.masks["pseudo"].dtype == torch.int64
        assert sample.masks["pseudo"].tolist() == mask(seed=1).tolist()
        assert sample.tags[0] == 0 and sample.tags[1].isnan()

    def test_seed_epoch_and_item_decide_an_item(self, tmp_path: Path) -> None:
        items = write_items(tmp_path, [noise()] * 3)
        seen = {
            key: WeakView(items, STRONG, key[0])[key[1:]].image.numpy().tobytes()
            for key in [(s, e, i) for s in (0, 1) for e in (0, 1) for i in range(3)]
        }
        assert len(set(seen.values())) == len(seen)
        np.random.seed(7)
        torch.manual_seed(7)
        assert WeakView(items, STRONG, 1)[1, 2].image.numpy().tobytes() == seen[1, 1, 2]

    def test_the_number_of_workers_changes_nothing(self, tmp_path: Path) -> None:
        items = write_items(tmp_path, [noise(seed=i) for i in range(9)], masks=[mask(seed=i) for i in range(9)])
        view = WeakView(items, STRONG, 3, {"pseudo": MaskFolder(tmp_path / "masks")})
        state = torch.get_rng_state()
        alone, beside = ([*loader(view, Plan(items.tags, 4, 2, 3), workers)] for workers in (0, 2))
        assert torch.equal(torch.get_rng_state(), state), "loading must not draw from the global generator"
        assert len(alone) == len(beside) == 4
        for one, other in zip(alone, beside, strict=True):
            assert isinstance(one, Batch) and one.ids == other.ids
            assert torch.equal(one.image, other.image) and torch.equal(one.masks["pseudo"], other.masks["pseudo"])

    def test_what_lies_outside_of_an_item_is_not_trained(self, tmp_path: Path) -> None:
        items = write_items(tmp_path, [noise()], masks=[mask()])
        view = WeakView(items, Augment(scale=1.0), 0, {"a": MaskFolder(tmp_path / "masks")})
        values = [view[epoch, 0].masks["a"].unique().tolist() for epoch in range(8)]
        assert all(set(found) <= {0, 1, 255} for found in values) and any(255 in found for found in values)

    def test_the_ignore_index_of_the_data_becomes_255(self, tmp_path: Path) -> None:
        odd = mask()
        odd[:4] = 9
        items = write_items(tmp_path, [noise()], masks=[odd])
        folder = MaskFolder(tmp_path / "masks")
        expected = np.where(odd == 9, 255, odd).tolist()
        assert WeakView(items, None, 0, {"a": folder}, ignore=9)[0, 0].masks["a"].tolist() == expected
        with pytest.raises(EosinError, match=r"p0\.png: value 9 is neither one of 2 classes nor ignored"):
            WeakView(items, None, 0, {"a": folder})[0, 0]

    def test_a_mask_of_another_size_is_named(self, tmp_path: Path) -> None:
        items = write_items(tmp_path, [noise()], masks=[mask(8)])
        with pytest.raises(EosinError, match=r"masks/p0.png: \(8, 8\) px, but its image has \(16, 16\)"):
            WeakView(items, None, 0, {"a": MaskFolder(tmp_path / "masks")})[0, 0]

    def test_an_item_too_small_for_its_crop_is_named(self, tmp_path: Path) -> None:
        items = write_items(tmp_path, [noise(8, 20)])
        with pytest.raises(EosinError, match=r"images/p0.png: augment.crop 12 is larger than the item of 8 x 20 px"):
            WeakView(items, STRONG, 0)[0, 0]

    def test_it_holds_no_path_to_truth(self, tmp_path: Path) -> None:
        for kind, content in (("image", noise()), ("hidden_truth", mask())):
            (tmp_path / kind).mkdir()
            for i in range(4):
                Image.fromarray(content).save(tmp_path / kind / f"{kind}_{i}.png")
        rows = [
            Row(str(i), "train", f"image/image_{i}.png", f"hidden_truth/hidden_truth_{i}.png", tags=(1, 0))
            for i in range(4)
        ]
        write_dataset(tmp_path, name="d", classes=TWO, rows=rows, mpp=None, licence="CC0", citation="")
        data = Dataset.open(tmp_path)
        view = WeakView(data.items("train"), STRONG, 0, {"pseudo": MaskFolder(tmp_path / "steps" / "pseudo")})

        def mentions(thing: object, word: str) -> bool:
            stored = pickle.dumps(thing)
            return any(word.encode(code) in stored for code in ("utf-8", "utf-16-le", "utf-32-le"))

        assert mentions(view, "image_3.png") and mentions(data.truth("train"), "hidden_truth_3.png")
        assert not mentions(view, "hidden_truth")


class MaskFolder:
    """Where masks lie, as workers can be sent it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: str) -> Path:
        return self.folder / f"{item}.png"


def tags(*counts: int) -> np.ndarray:
    """Items of distinct tag combinations, so many of each; the last combination has an unknown tag."""
    kinds = [[1, 0], [0, 1], [1, 1], [0, 0], [1, np.nan]]
    chosen = kinds[: len(counts) - 1] + kinds[-1:]
    return np.array([kind for kind, n in zip(chosen, counts, strict=True) for _ in range(n)], np.float32)


class TestPlan:
    @pytest.mark.parametrize(
        ("count", "size", "batches"),
        [(8, 4, [4, 4]), (10, 4, [4, 4, 2]), (9, 4, [4, 5]), (3, 4, [3]), (1, 4, [1]), (5, 4, [5]), (3, 1, [1, 1, 1])],
    )
    def test_every_item_comes_once_an_epoch(self, count: int, size: int, batches: list[int]) -> None:
        plan = Plan(tags(count, 0), size, 3, seed=1)
        found = [*plan]
        assert [len(b) for b in found] == batches * 3 and len(plan) == len(found) == 3 * plan.per_epoch
        for epoch in range(3):
            places = [p for b in found[epoch * len(batches) : (epoch + 1) * len(batches)] for p in b]
            assert {e for e, _ in places} == {epoch} and sorted(i for _, i in places) == list(range(count))

    @pytest.mark.parametrize("sampler", ["uniform", "balanced", "even"])
    @pytest.mark.parametrize("limit", [0, 9])
    def test_it_may_begin_anywhere(self, sampler: str, limit: int) -> None:
        whole = [*Plan(tags(20, 3), 4, 3, 5, limit, sampler)]
        for step in range(len(whole) + 1):
            rest = Plan(tags(20, 3), 4, 3, 5, limit, sampler, step)
            assert [*rest] == whole[step:] and len(rest) == len(whole) - step

    def test_the_seed_alone_decides(self) -> None:
        def order(seed: int) -> list[list[tuple[int, int]]]:
            return [*Plan(tags(20, 0), 4, 2, seed)]

        np.random.seed(0)
        first = order(3)
        np.random.seed(1)
        assert order(3) == first and order(4) != first
        plan = Plan(tags(20, 0), 4, 2, 3)
        assert [*plan] == [*plan] == first
        assert [i for b in first[:5] for _, i in b] != [i for b in first[5:] for _, i in b]

    def test_a_limit_takes_another_subset_each_epoch(self) -> None:
        plan = Plan(tags(50, 0), 4, 20, 0, limit=10)
        assert plan.per_epoch == 3
        epochs = [plan.order(epoch).tolist() for epoch in range(20)]
        assert all(len(set(order)) == 10 for order in epochs)
        assert len({i for order in epochs for i in order}) > 45
        assert Plan(tags(5, 0), 4, 1, 0, limit=10).items == 5

    def test_balancing_draws_rare_combinations_by_the_root_of_their_share(self) -> None:
        counts = (64, 16, 4, 1)
        items = tags(*counts, 0)
        plan = Plan(items, 5, 200, 0, sampler="balanced")
        drawn = Counter(repr(items[i].tolist()) for epoch in range(200) for i in plan.order(epoch))
        total = 200 * sum(counts)
        for kind, count in zip([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], counts, strict=True):
            share = count**0.5 / sum(n**0.5 for n in counts)
            spread = (share * (1 - share) / total) ** 0.5
            assert abs(drawn[repr(kind)] / total - share) < 4 * spread

    def test_even_draws_the_last_class_as_often_as_its_absence(self) -> None:
        items = tags(60, 3, 5, 12)  # 8 of 80 hold the last class
        items[:4, 1] = np.nan
        plan = Plan(items, 5, 1, 0, sampler="even")
        assert plan.chances is not None and plan.chances.sum() == pytest.approx(1)
        by_tag = [plan.chances[items[:, 1] == tag].sum() for tag in (1, 0)]
        assert by_tag[0] == pytest.approx(by_tag[1]) and len({*plan.chances[items[:, 1] == 0].tolist()}) == 1
        assert plan.chances[:4].tolist() == pytest.approx([1 / 80] * 4), "unknown: as in an order of all items"

    @pytest.mark.parametrize("counts", [(10, 0, 0, 0), (0, 4, 6, 0)])
    def test_even_draws_all_alike_where_nothing_is_to_be_evened(self, counts: tuple[int, ...]) -> None:
        items = tags(*counts)
        chances = Plan(items, 5, 1, 0, sampler="even").chances
        assert chances is not None and chances.tolist() == pytest.approx([0.1] * 10)


class TestInOrder:
    def test_a_batch_holds_one_size_only(self, tmp_path: Path) -> None:
        sides = [16, 16, 16, 8, 8, 16, 20, 20, 20, 20, 20]
        order = InOrder(write_items(tmp_path, [noise(side, 12) for side in sides]), 3)
        batches = [*order]
        assert [[i for _, i in b] for b in batches] == [[0, 1, 2], [3, 4], [5], [6, 7, 8], [9, 10]]
        assert len(order) == 5 and {e for b in batches for e, _ in b} == {0}

    def test_nothing_is_nothing(self, tmp_path: Path) -> None:
        items = write_items(tmp_path, [noise()])
        empty = items.subset(np.zeros(1, bool))
        assert [*loader(WeakView(empty, None, 0), InOrder(empty, 4), 0)] == []


class TestCollate:
    def test_samples_are_stacked(self, tmp_path: Path) -> None:
        items = write_items(tmp_path, [noise(seed=i) for i in range(3)], masks=[mask(seed=i) for i in range(3)])
        view = WeakView(items, None, 0, {"a": MaskFolder(tmp_path / "masks")})
        batch = collate([view[0, i] for i in (2, 0)])
        assert batch.image.shape == (2, 3, 16, 16) and batch.tags.shape == (2, 2) and batch.ids == ("p2", "p0")
        assert torch.equal(batch.masks["a"][0], view[0, 2].masks["a"])

    def test_sizes_that_differ_name_two_items_and_the_mend(self, tmp_path: Path) -> None:
        view = WeakView(write_items(tmp_path, [noise(), noise(), noise(8, 10)]), None, 0)
        with pytest.raises(EosinError) as caught:
            collate([view[0, i] for i in range(3)])
        assert str(caught.value) == ("training items differ in size (p0 (16, 16) and p2 (8, 10)): set fit.augment.crop")


class TestLabelledView:
    def truth(self, folder: Path, *index: int) -> Truth:
        return Truth(folder, np.array(index), np.array([f"masks/p{i}.png".encode() for i in index]))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_it_gives_the_items_that_have_truth(self, tmp_path: Path, workers: int) -> None:
        images = [noise(seed=i) for i in range(4)]
        items = write_items(tmp_path, images, masks=[mask(seed=i) for i in range(4)])
        view = LabelledView(items, self.truth(tmp_path, 1, 3))
        found: list[tuple[int, Tensor, Tensor | None]] = [*view.stream(workers)]
        assert len(view) == 2 and [index for index, _, _ in found] == [1, 3]
        for index, image, truth in found:
            assert truth is not None and image.dtype == truth.dtype == torch.uint8
            assert image.permute(1, 2, 0).tolist() == images[index].tolist()
            assert truth.tolist() == mask(seed=index).tolist()

    def test_without_truth_it_gives_every_item(self, tmp_path: Path) -> None:
        found = [*LabelledView(write_items(tmp_path, [noise(), noise(8, 20)]), None).stream(0)]
        assert [(i, tuple(image.shape), truth) for i, image, truth in found] == [
            (0, (3, 16, 16), None),
            (1, (3, 8, 20), None),
        ]

    def test_truth_of_another_size_is_named(self, tmp_path: Path) -> None:
        items = write_items(tmp_path, [noise()], masks=[mask(8)])
        with pytest.raises(EosinError, match=r"masks/p0.png: .*8, 8.* but its image has \(16, 16\)"):
            LabelledView(items, self.truth(tmp_path, 0))[0]


def test_the_side_of_an_item_is_its_shorter_one(tmp_path: Path) -> None:
    assert item_side(write_items(tmp_path, [noise(20, 12), noise(8, 8)])) == 12


def test_a_killed_loading_process_is_one_line() -> None:
    def killed() -> Iterator[int]:
        yield 1
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    with pytest.raises(EosinError, match=r"a process that loads images was killed.*smaller fit\.batch"):
        list(_plainly(killed()))
    with pytest.raises(RuntimeError, match="something else"):
        list(_plainly(fail("something else") for _ in range(1)))


def fail(why: str) -> None:
    raise RuntimeError(why)
