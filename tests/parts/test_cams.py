"""Averaging maps over scales and positions."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from eosin.parts.cams import Averaged


def texture(image: Tensor) -> Tensor:
    """Maps that know up from down and left from right, as a network's do."""
    kernel = torch.tensor([[1.0, 2.0, -1.0], [0.5, -3.0, 0.0], [4.0, 0.25, 1.5]]).expand(2, 3, 3, 3).clone()
    kernel[1] *= torch.tensor([1.0, -1.0, 0.5]).view(3, 1, 1)
    return F.conv2d(image, kernel, padding=1).tanh()


IMAGE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
WIDE = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))


def test_one_view_at_one_scale_is_the_map_itself() -> None:
    assert torch.equal(Averaged()(texture, WIDE), texture(WIDE))


@pytest.mark.parametrize("image", [IMAGE, WIDE], ids=["square", "wide"])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5), (1.0, 1.5)])
@pytest.mark.parametrize("views", [4, 8])
def test_mirrored_images_have_mirrored_maps(views, scales, image) -> None:
    average = partial(Averaged(scales, views), texture)
    maps = average(image)
    assert maps.shape == (2, 2, *image.shape[2:])
    for flip in ((-1,), (-2,), (-2, -1)):
        torch.testing.assert_close(average(image.flip(flip)), maps.flip(flip))
    assert (texture(image.flip(-1)) - texture(image).flip(-1)).abs().max() > 0.1, "one view alone does not have it"


@pytest.mark.parametrize("image", [IMAGE, WIDE], ids=["square", "wide"])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_images_have_turned_maps(turns, image) -> None:
    average = partial(Averaged((1.0, 0.5), views=8), texture)
    torch.testing.assert_close(average(image.rot90(turns, (2, 3))), average(image).rot90(turns, (2, 3)))


@pytest.mark.parametrize(("views", "count"), [(1, 1), (4, 4), (8, 8)])
def test_every_position_is_seen_once(views, count) -> None:
    seen = []

    def spy(image: Tensor) -> Tensor:
        seen.append(image.numpy().tobytes())
        return image

    torch.testing.assert_close(Averaged((1.0,), views)(spy, IMAGE), IMAGE)
    assert len(seen) == len(set(seen)) == count


def test_scales_are_averaged_at_the_size_of_the_image() -> None:
    sizes = []

    def brightness(image: Tensor) -> Tensor:
        sizes.append(tuple(image.shape[2:]))
        return torch.full_like(image[:, :1], len(sizes))

    maps = Averaged((1.0, 0.5, 1.25))(brightness, WIDE)
    assert sizes == [(8, 12), (4, 6), (10, 15)]
    torch.testing.assert_close(maps, torch.full((2, 1, 8, 12), 2.0))


def test_coarse_maps_are_resized_and_float() -> None:
    maps = Averaged(views=4)(lambda image: F.avg_pool2d(image, 4).bfloat16(), IMAGE)
    assert maps.shape == IMAGE.shape and maps.dtype == torch.float32
