"""Warps move digits as far as they say, and no farther."""

import numpy as np
import pytest

from kit.core.config import MAX_VIEWS
from kit.training.augment import N_NUMBERS, VIEWS, Augment, affine, views, warp

SHAPE = (28, 28)


def warped(image, transforms):
    images = np.repeat(image[None, :, :, None], len(transforms), 0).astype("float32")
    return np.asarray(warp(images, transforms))[..., 0]


def blob(x, y):
    rows, columns = np.mgrid[:28, :28]
    return 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)


def centre(image):
    rows, columns = np.mgrid[:28, :28]
    return (image * columns).sum() / image.sum(), (image * rows).sum() / image.sum()


def test_no_augmentation_changes_nothing():
    image = blob(10, 17)
    transforms = Augment().draw(np.random.default_rng(0), 3, SHAPE)
    images = np.repeat(image[None, :, :, None], 3, 0).astype("float32")
    np.testing.assert_allclose(np.asarray(Augment().apply(images, transforms)), images, atol=1e-3)


def test_a_shift_moves_by_so_many_pixels():
    moved = warped(blob(13.5, 13.5), affine(1, 0, 0, 1, 3, -2, SHAPE))[0]
    assert centre(moved) == pytest.approx((10.5, 15.5), abs=0.05)


def test_rotation_and_zoom_keep_the_centre():
    angle = np.deg2rad(30)
    cos, sin = np.cos(angle), np.sin(angle)
    turned = warped(blob(13.5, 13.5), affine(cos, -sin, sin, cos, 0, 0, SHAPE))[0]
    assert centre(turned) == pytest.approx((13.5, 13.5), abs=0.05)
    larger = warped(blob(13.5, 13.5), affine(0.8, 0, 0, 0.8, 0, 0, SHAPE))[0]
    assert larger.sum() == pytest.approx(blob(13.5, 13.5).sum() / 0.64, rel=0.01)


def test_shifts_stay_within_their_share_of_the_side():
    transforms = Augment(shift=0.25).draw(np.random.default_rng(0), 2000, SHAPE)
    assert 6.5 < np.abs(transforms[:, [2, 5]]).max() <= 7.0
    np.testing.assert_allclose(transforms[:, [0, 1, 3, 4]], [[1, 0, 0, 1]] * 2000, atol=1e-6)


def test_the_same_generator_draws_the_same():
    everything = Augment(10, 10, 0.2, 0.2)
    draw = [everything.draw(np.random.default_rng(seed), 5, SHAPE) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert draw[0].dtype == np.float32 and draw[0].shape == (5, N_NUMBERS)
    assert not np.array_equal(draw[0], draw[2])


def test_the_first_view_is_the_image_itself_and_the_others_stay_near():
    image = blob(14, 12)
    assert len(VIEWS) == MAX_VIEWS
    seen = warped(image, views(MAX_VIEWS, SHAPE))
    np.testing.assert_allclose(seen[0], image, atol=1e-3)
    assert all(np.hypot(*np.subtract(centre(view), centre(image))) < 1.1 for view in seen)
    assert len({view.tobytes() for view in seen}) == MAX_VIEWS
