"""Drawn tissue: reproducible, exactly labelled, tunable, and hard for colour alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from eosin.core.errors import EosinError
from eosin.data import phantom
from eosin.data.check import check
from eosin.data.dataset import Dataset
from eosin.data.phantom import CLASSES, PhantomSpec, draw_dataset, draw_image, tags_of
from eosin.data.phantom_draw import regions
from eosin.slides.image import read_mask, read_rgb

SPEC = PhantomSpec(patches=90, val=12, test=36, large=1, large_size=256, patients=30)


def sha(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def files(folder: Path) -> dict[str, str]:
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("phantom") / "data"
    seen: list[tuple[int, int]] = []
    draw_dataset(folder, SPEC, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (139, 139)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    return Dataset.open(folder)


def test_same_seed_same_pixels() -> None:
    first, again, other = (draw_image(SPEC, seed, 200, 150) for seed in (3, 3, 4))
    assert first[0].shape == (200, 150, 3)
    assert first[1].shape == (200, 150)
    assert first[0].dtype == first[1].dtype == np.uint8
    assert sha(*first) == sha(*again)
    assert sha(first[0]) != sha(other[0])
    assert sha(first[0]) != sha(draw_image(SPEC.model_copy(update={"seed": 1}), 3, 200, 150)[0])


def test_slides_of_a_patient_differ() -> None:
    assert len({sha(draw_image(SPEC, seed, 64, 64)[0]) for seed in (5, (5, 1), (5, 2), (6, 1))}) == 4


def test_processes_do_not_change_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = PhantomSpec(patches=12, val=3, test=3, large=1, size=32, large_size=64, patients=6)
    draw_dataset(tmp_path / "here", spec)
    monkeypatch.setattr(phantom, "_WORTH_PROCESSES", 0)
    draw_dataset(tmp_path / "pool", spec)
    assert files(tmp_path / "here") == files(tmp_path / "pool")


def test_training_patches_do_not_depend_on_other_splits(tmp_path: Path) -> None:
    for name, val, patients in (("a", 3, 9), ("b", 0, 6)):
        spec = PhantomSpec(patches=6, val=val, test=0, large=0, size=32, patients=patients)
        draw_dataset(tmp_path / name, spec)
    some, all_ = files(tmp_path / "b"), files(tmp_path / "a")
    images = [name for name in some if name.startswith("images")]
    assert len(images) == 6
    assert all(all_[name] == some[name] for name in images)


def test_masks_hold_classes_and_glass_only(drawn: Dataset) -> None:
    for split, side in (("train", 128), ("val", 128), ("test", 128), ("large", 256)):
        items, truth = drawn.items(split), drawn.truth(split)
        assert truth is not None
        assert truth.index.tolist() == list(range(len(items)))
        for i in range(len(items)):
            mask = read_mask(truth.path(i))
            assert mask.shape == read_rgb(items.path(i)).shape[:2] == (side, side)
            assert set(np.unique(mask)) <= {0, 1, 2, 3, 255}


def test_masks_agree_with_the_pixels() -> None:
    """Glass is empty and everything else is not, right up to the border; lymphocytes are darker than stroma."""
    glass, tissue, edge = [], [], []
    dark: dict[int, list[float]] = {1: [], 2: []}
    for seed in range(12):
        rgb, mask = draw_image(SPEC, seed, 256, 256)
        grey = rgb.mean(2)
        empty = (mask == 255).astype(np.uint8)
        inner = cv2.erode(empty, np.ones((5, 5))) > 0
        outer = cv2.dilate(empty, np.ones((5, 5))) == 0
        rim = (cv2.dilate(empty, np.ones((13, 13))) > 0) & outer
        glass += grey[inner].tolist()
        tissue += grey[outer].tolist()
        edge += grey[rim].tolist()
        for k, found in dark.items():
            if (mask == k).sum() > 500:
                found.append(float(grey[mask == k].mean()))
    assert len(glass) > 1000
    assert np.percentile(glass, 1) > 225
    assert np.median(tissue) < 190
    assert np.median(edge) < 205
    assert np.mean(dark[2]) < np.mean(dark[1]) - 20


def test_patches_are_cut_from_their_slide(drawn: Dataset) -> None:
    items, truth = drawn.items("val"), drawn.truth("val")
    assert truth is not None
    chosen = [i for i in range(len(items)) if items.slides[i] == items.slides[0]]
    side = SPEC.size * int(np.ceil(np.sqrt(len(chosen))))
    rgb, mask = draw_image(SPEC, (2_000_000, 1), side if len(chosen) > 2 else SPEC.size, side)
    for i in chosen:
        x, y = items.xy[i]
        square = np.s_[y : y + SPEC.size, x : x + SPEC.size]
        assert np.array_equal(read_rgb(items.path(i)), rgb[square])
        assert np.array_equal(read_mask(truth.path(i)), mask[square])


def test_tags_follow_masks(drawn: Dataset) -> None:
    for split in ("train", "test"):
        items, truth = drawn.items(split), drawn.truth(split)
        assert truth is not None
        for i in range(len(items)):
            mask = read_mask(truth.path(i))
            assert items.tags[i].tolist() == [float((mask == k).mean() > 0.05) for k in range(4)]
            assert items.tags[i].any()
    assert tags_of(np.full((20, 20), 255, np.uint8)).tolist() == [0, 0, 0, 0]


def test_every_class_and_both_kinds_of_patches_occur(drawn: Dataset) -> None:
    tags = drawn.items("train").tags
    assert (tags.mean(0) > 0.1).all()
    assert 0.5 <= (tags.sum(1) > 1).mean() <= 0.9


def test_patients_stay_in_one_split(drawn: Dataset) -> None:
    owners = [set(drawn.items(split).patients) for split in drawn.splits]
    assert sum(map(len, owners)) == len(set.union(*owners))
    assert abs(len(set.union(*owners)) - (SPEC.patients + SPEC.large)) <= 1


def test_check_finds_nothing(drawn: Dataset) -> None:
    assert [str(finding) for finding in check(drawn.folder) if finding.level == "error"] == []


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_tag_noise_flips_that_share(tmp_path: Path, share: float) -> None:
    spec = PhantomSpec(patches=40, val=8, test=8, large=0, size=64, patients=8, tag_noise=share)
    draw_dataset(tmp_path / "noisy", spec)
    data = Dataset.open(tmp_path / "noisy")
    for split, wrong in (("train", share), ("val", 0.0), ("test", 0.0)):
        items, truth = data.items(split), data.truth(split)
        assert truth is not None
        clean = np.stack([tags_of(read_mask(truth.path(i))) for i in range(len(truth))])
        flips = (items.tags != clean).sum(1)
        assert flips.max() <= 1
        assert flips.sum() == round(wrong * len(items))
        assert items.tags.any(1).all()
    assert [str(finding) for finding in check(data.folder) if finding.level == "error"] == []


def masks_of(**knobs: float) -> np.ndarray:
    spec = PhantomSpec(**knobs)
    rng = np.random.default_rng(0)
    return np.stack([regions(rng, (512, 512), spec.cell / spec.mpp, spec.shares)[1] for _ in range(20)])


def several(masks: np.ndarray) -> float:
    cut = masks.reshape(len(masks), 4, 128, 4, 128).transpose(0, 1, 3, 2, 4).reshape(-1, 128, 128)
    counts = np.array([tags_of(mask).sum() for mask in cut])
    return float((counts[counts > 0] > 1).mean())


def test_cooccurrence_brings_classes_together() -> None:
    low, usual, high = (several(masks_of(cooccurrence=c)) for c in (0.3, 0.65, 0.95))
    assert low < 0.5
    assert usual == pytest.approx(0.65, abs=0.12)
    assert high > 0.85


def test_rarity_is_the_share_of_necrosis() -> None:
    shares = {}
    for rarity in (0.0, 0.1, 0.5):
        masks = masks_of(rarity=rarity, cooccurrence=0.95)
        shares[rarity] = (masks == 3).sum() / (masks != 255).sum()
    assert shares[0.0] == 0
    assert shares[0.1] == pytest.approx(0.1, abs=0.05)
    assert shares[0.5] == pytest.approx(0.5, abs=0.12)


def test_stain_spreads_the_colours_of_patients() -> None:
    def spread(stain: float) -> float:
        spec = PhantomSpec(stain=stain, cooccurrence=0.95)
        return float(
            np.std([np.median(draw_image(spec, s, 256, 256)[0], axis=(0, 1)) for s in range(8)], axis=0).mean()
        )

    assert spread(3.0) > 1.6 * spread(0.0)


def test_a_laboratory_stains_the_same_tissue_in_colours_of_its_own() -> None:
    def colours(laboratory: int) -> np.ndarray:
        """The mean colour of each of six patients, on tissue."""
        spec = PhantomSpec(laboratory=laboratory, cooccurrence=0.95)
        images = [draw_image(spec, seed, 128, 128) for seed in range(6)]
        return np.array([rgb[mask < len(CLASSES)].mean(0) for rgb, mask in images])

    usual, other = colours(0), colours(1)
    shift = other - usual  # of each patient, whose tissue is the same
    assert np.linalg.norm(shift.mean(0)) > 5
    assert np.linalg.norm(shift.mean(0)) > 1.5 * np.linalg.norm(shift.std(0))  # alike for all of them
    masks = [draw_image(PhantomSpec(laboratory=k), 3, 128, 128)[1] for k in (0, 1, 2)]
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])
    np.testing.assert_array_equal(colours(1), other)


def test_data_that_differ_in_their_pixels_alone_have_another_digest(tmp_path: Path) -> None:
    looks: list[dict[str, float]] = [{}, {"laboratory": 1}, {"laboratory": 2}, {"stain": 2.0}]
    digests = set()
    for look in looks:
        folder = tmp_path / str(len(digests))
        draw_dataset(folder, PhantomSpec(patches=4, val=0, test=0, large=0, size=16, **look))  # type: ignore[arg-type]
        digests.add(Dataset.open(folder).digest)
    assert len(digests) == len(looks)


def test_mpp_resamples_the_same_tissue() -> None:
    fine, coarse = PhantomSpec(mpp=0.5), PhantomSpec(mpp=1.0)
    rgb, mask = draw_image(fine, 2, 256, 256)
    small, small_mask = draw_image(coarse, 2, 128, 128)
    shrunk = cv2.resize(rgb, (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - small).mean() < 3
    assert (small_mask == mask[::2, ::2]).mean() > 0.97
    assert draw_image(PhantomSpec(mpp=0.25), 2, 300, 301)[0].shape == (300, 301, 3)


def test_colour_alone_does_not_solve_it(drawn: Dataset) -> None:
    """Per-pixel logistic regression: at most 0.60 mIoU on RGB, 0.70 with two blurs, but above chance."""

    def pixels(split: str, blurs: tuple[float, ...], every: int) -> tuple[np.ndarray, np.ndarray]:
        items, truth = drawn.items(split), drawn.truth(split)
        assert truth is not None
        features, labels = [], []
        for i in range(len(items)):
            colour = read_rgb(items.path(i)).astype(np.float32) / 255
            layers = [colour, *(cv2.GaussianBlur(colour, (0, 0), blur) for blur in blurs)]
            features.append(np.concatenate(layers, -1).reshape(-1, 3 * len(layers))[::every])
            labels.append(read_mask(truth.path(i)).ravel()[::every])
        x, y = np.concatenate(features), np.concatenate(labels)
        return x[y != 255], y[y != 255]

    for blurs, low, high in (((), 0.1, 0.60), ((4.0, 12.0), 0.2, 0.70)):
        model = LogisticRegression(max_iter=1000, C=100).fit(*pixels("train", blurs, 67))
        x, y = pixels("test", blurs, 23)
        guess = model.predict(x)
        ious = [((guess == k) & (y == k)).sum() / ((guess == k) | (y == k)).sum() for k in range(len(CLASSES))]
        assert low < np.mean(ious) <= high


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    with pytest.raises(EosinError, match="already exists"):
        draw_dataset(tmp_path / "full", SPEC)
    for knob, value in (("cooccurrence", 2), ("rarity", -1), ("tag_noise", 1.5), ("mpp", 0), ("colour", 1)):
        with pytest.raises(ValidationError):
            PhantomSpec(**{knob: value})


def test_one_tissue_can_be_told_from_all_others(tmp_path: Path) -> None:
    """The same pixels, masks and tags of two classes."""
    spec = PhantomSpec(patches=24, val=4, test=4, large=1, size=64, large_size=96, patients=8, seed=5)
    positive = CLASSES.names.index("stroma")
    for name, told in (("all", spec), ("two", spec.model_copy(update={"positive": "stroma"}))):
        draw_dataset(tmp_path / name, told)
    four, two = Dataset.open(tmp_path / "all"), Dataset.open(tmp_path / "two")
    assert two.classes.names == ("rest", "stroma") and four.digest != two.digest
    for split in four.splits:
        assert four.items(split).ids.tolist() == two.items(split).ids.tolist()
        for item, tags in zip(two.items(split).ids, two.items(split).tags, strict=True):
            images, masks = (
                [tmp_path / n / kind / f"{item}.png" for n in ("all", "two")] for kind in ("images", "masks")
            )
            assert images[0].read_bytes() == images[1].read_bytes()
            whole, mask = map(read_mask, masks)
            np.testing.assert_array_equal(mask, np.where(whole == 255, 255, whole == positive))
            shares = [(mask == k).mean() for k in (0, 1)]
            assert tags.tolist() == [float(share > 0.05) for share in shares]
