"""Augmentation: sizes, operations, where its randomness comes from, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import noise, smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlx_aimv2.errors import InputError
from mlx_aimv2.training.augment import JITTERS, OPERATIONS, Augmentation

EVERYTHING = Augmentation((0.2, 1.0), (0.5, 2.0), 0.5, 3, 15.0, 0.4, 0.4, 0.4, 0.1)


def applied(
    augmentation: Augmentation, image: Image.Image, seed: int = 0, size: Any = (28, 42)
) -> np.ndarray:
    result = augmentation.apply(image, np.random.default_rng(seed), size)
    assert result.mode == "RGB"
    return np.asarray(result)


def test_nothing_is_the_default() -> None:
    image = smooth(28, 42)
    np.testing.assert_array_equal(applied(Augmentation(), image), np.asarray(image))


def test_without_a_random_crop_the_middle_is_taken() -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    assert applied(Augmentation(), Image.fromarray(wide), size=(20, 20))[:, 1:-1].min() == 255


def test_the_filter_is_chosen() -> None:
    image = smooth(64, 64)
    exact, faster = (applied(Augmentation(resize=name), image) for name in ("bicubic", "bilinear"))
    np.testing.assert_array_equal(
        faster,
        np.asarray(image.resize((42, 28), Image.Resampling.BILINEAR, (0, 32 - 64 / 3, 64, 32 + 64 / 3))),
    )
    assert (exact != faster).any()


@settings(max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32))
def test_any_image_gets_exactly_the_size(height: int, width: int, h: int, w: int, seed: int) -> None:
    assert applied(EVERYTHING, smooth(height, width), seed, (h, w)).shape == (h, w, 3)


def test_the_image_is_left_as_it_is() -> None:
    image = smooth()
    before = np.asarray(image).copy()
    for seed in range(20):
        applied(EVERYTHING, image, seed, (48, 64))
    np.testing.assert_array_equal(np.asarray(image), before)


def test_the_same_seed_gives_the_same_image_and_another_one_another() -> None:
    first, again, other = (applied(EVERYTHING, smooth(), seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_flips_are_as_frequent_as_they_should_be() -> None:
    image = smooth(28, 42)
    plain, flipped = np.asarray(image), np.asarray(image)[:, ::-1]
    assert (applied(Augmentation(flip=1.0), image) == flipped).all()
    results = [applied(Augmentation(flip=0.3), image, seed) for seed in range(200)]
    assert all((x == plain).all() or (x == flipped).all() for x in results)
    assert 40 <= sum((x == flipped).all() for x in results) <= 80


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(0, 2**32))
def test_crops_lie_inside_and_keep_their_bounds(width: int, height: int, seed: int) -> None:
    augmentation = Augmentation((0.25, 0.5), (0.8, 1.25))
    left, top, right, bottom = augmentation._crop_box((width, height), np.random.default_rng(seed), 1.0)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    if min(width, height) > 200 and max(width, height) < 1.5 * min(width, height):
        area = (right - left) * (bottom - top) / (width * height)
        assert 0.24 < area < 0.51 and 0.78 < (right - left) / (bottom - top) < 1.28


def test_a_crop_that_fits_nowhere_is_the_middle_in_the_nearest_shape() -> None:
    box = Augmentation((1.0, 1.0), (0.5, 2.0))._crop_box((100, 10), np.random.default_rng(0), 1.0)
    assert box == (40, 0, 60, 10)


@pytest.mark.parametrize(
    ("crop", "size", "edge"),
    [(None, (224, 224), 224), ((0.5, 1.0), (224, 448), 448), ((0.04, 1.0), (100, 100), 250)],
)
def test_enough_is_decoded_for_the_smallest_crop(crop: Any, size: tuple[int, int], edge: int) -> None:
    assert Augmentation(crop).short_edge(size) == edge


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_jitter_changes_what_it_is_called_after(name: str) -> None:
    image = Image.fromarray(np.full((28, 42, 3), (150, 100, 50), np.uint8))
    image.paste((60, 90, 120), (0, 0, 20, 28))
    results = {applied(Augmentation(**{name: 0.4}), image, seed).tobytes() for seed in range(8)}
    assert len(results) == 8
    for seed in range(8):
        result = applied(Augmentation(**{name: 0.4}), image, seed).astype(float)
        if name == "hue":
            np.testing.assert_allclose(result.max(-1), np.asarray(image).max(-1), atol=1)
        if name == "brightness":
            factor = result[0, -1] / (150, 100, 50)
            np.testing.assert_allclose(factor, factor[0], atol=0.02)
            assert 0.59 < factor[0] < 1.41


def test_the_four_changes_of_colour_come_in_an_order_of_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    for seed in range(200):
        order: list[int] = []

        def noted(number: int, order: list[int] = order) -> Any:
            return lambda image, _: (order.append(number), image)[1]

        monkeypatch.setattr("mlx_aimv2.training.augment.JITTERS", [noted(number) for number in range(4)])
        applied(
            Augmentation(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
            Image.new("RGB", (42, 28)),
            seed,
        )
        orders.append(tuple(order))
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2, 3)}
    assert len(set(orders)) == 24  # with 200 seeds, which are always the same


def test_half_a_turn_of_hue_exchanges_red_and_cyan() -> None:
    turned = JITTERS[3](Image.new("RGB", (1, 1), (255, 0, 0)), 0.5).getpixel((0, 0))
    np.testing.assert_allclose(turned, (0, 255, 255), atol=3)  # Pillow has 255 hues


@pytest.mark.parametrize("number", range(len(OPERATIONS)))
def test_operations_of_randaugment_keep_the_size_and_do_more_the_stronger_they_are(number: int) -> None:
    image = Image.blend(smooth(56, 56), Image.fromarray(noise(56, 56)), 0.3)
    before = np.asarray(image).astype(float)
    change = []
    for strength in (0.1, 0.4, 1.0):
        result = OPERATIONS[number](image, strength)
        assert (result.size, result.mode) == ((56, 56), "RGB")
        change.append(np.abs(np.asarray(result) - before).mean())
    if number > 2:  # those before have no strength
        assert change[0] <= change[1] <= change[2] and change[2] > 1


def test_there_are_fourteen_operations_and_all_of_them_are_used() -> None:
    assert len(OPERATIONS) == 14
    image = Image.fromarray(noise(28, 42))
    results = {
        applied(Augmentation(randaugment=1, magnitude=20.0), image, seed).tobytes() for seed in range(200)
    }
    assert 20 <= len(results) <= 28  # most have two directions


def test_other_modes_are_refused() -> None:
    with pytest.raises(
        InputError, match="only images in mode RGB are augmented, not L: use decode_image first"
    ):
        Augmentation().apply(Image.new("L", (9, 9)), np.random.default_rng(0), (9, 9))
