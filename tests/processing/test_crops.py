"""Crops: their pixels, the shared decoding of their image, and reduced JPEGs."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.encoded_images import encoded, noise, smooth
from PIL import Image

from mlx_aimv2.errors import BrokenImageError, ImageError, InputError
from mlx_aimv2.processing import crops as module
from mlx_aimv2.processing.crops import (
    checked_box,
    count_clipped,
    crops,
    crops_of,
    expect,
    tile_boxes,
)
from mlx_aimv2.processing.decode import DecodeOptions, decode_image, decode_reduced
from mlx_aimv2.processing.source_image import SourceImage

FAST = DecodeOptions(decode="fast")


@pytest.fixture
def decodes(monkeypatch):
    """The number of decodings by name of the image."""
    counts, lock = Counter(), threading.Lock()

    def counting(source, options, short_edge):
        with lock:
            counts[str(source)] += 1
        return decode_reduced(source, options, short_edge)

    monkeypatch.setattr(module, "decode_reduced", counting)
    return counts


def test_a_crop_has_the_pixels_of_pillows_crop(tmp_path):
    image = Image.fromarray(noise(40, 60))
    image.save(tmp_path / "a.png")
    boxes = [(0, 0, 60, 40), (10, 5, 31, 17), (59, 39, 60, 40)]
    made = crops(tmp_path / "a.png", boxes)
    assert [str(crop) for crop in made] == [
        f"{tmp_path}/a.png[0,0,60,40]",
        f"{tmp_path}/a.png[10,5,31,17]",
        f"{tmp_path}/a.png[59,39,60,40]",
    ]
    for crop, box in zip(made, boxes, strict=True):
        assert decode_image(crop) == image.crop(box)
        assert crop.file == f"{tmp_path}/a.png"


@pytest.mark.parametrize("source", [noise(8, 8), Image.fromarray(noise(8, 8)), encoded(smooth(8, 8), "png")])
def test_crops_of_images_without_a_path(source):
    (crop,) = crops(source, [(1, 2, 3, 5)])
    assert (crop.id, crop.file) == ("image[1,2,3,5]", None)
    assert decode_image(crop) == decode_image(source).crop((1, 2, 3, 5))


def test_boxes_count_from_the_upright_image():
    exif = Image.Exif()
    exif[0x112] = 6
    data = encoded(Image.fromarray(noise(20, 40)), "png", exif=exif)
    (crop,) = crops(data, [(0, 30, 20, 40)])
    assert decode_image(crop) == decode_image(data).crop((0, 30, 20, 40))


def test_a_crop_of_a_crop():
    image = Image.fromarray(noise(20, 20))
    (inner,) = crops(crops(image, [(5, 5, 15, 15)])[0], [(2, 2, 4, 6)])
    assert decode_image(inner) == image.crop((7, 7, 9, 11))


def test_crops_in_many_threads_decode_each_image_once_and_release_it(tmp_path, decodes):
    made = []
    for number in range(5):
        Image.fromarray(noise(30, 30)).save(tmp_path / f"{number}.png")
        made += crops(str(tmp_path / f"{number}.png"), [(k, 0, k + 5, 9) for k in range(20)])
    with ThreadPoolExecutor(4) as pool:
        sizes = {image.size for image in pool.map(decode_image, made)}
    assert sizes == {(5, 9)}
    assert decodes == {str(tmp_path / f"{number}.png"): 1 for number in range(5)}
    assert all(crop.whole._decoded is None for crop in made)


def test_only_a_few_images_are_in_memory_at_once(monkeypatch):
    made = [crop for _ in range(40) for crop in crops(noise(9, 9), [(x, 0, x + 4, 4) for x in range(3)])]
    wholes, most = {crop.whole for crop in made}, 0

    def decode(source, options, short_edge):
        nonlocal most
        most = max(most, sum(whole._decoded is not None for whole in wholes))
        return decode_reduced(source, options, short_edge)

    monkeypatch.setattr(module, "decode_reduced", decode)
    expect(made)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode_image, made))
    assert most <= 4 + module.AHEAD
    assert not any(whole._decoded for whole in wholes)


def test_of_some_crops_the_last_one_releases_the_image(tmp_path, decodes):
    smooth().save(tmp_path / "a.png")
    made = crops(tmp_path / "a.png", [(0, 0, 9, 9), (1, 0, 9, 9), (2, 0, 9, 9)])
    expect(made[1:])
    decode_image(made[1])
    assert made[1].whole._decoded is not None
    decode_image(made[2])
    assert made[1].whole._decoded is None
    assert decodes.total() == 1


def test_threads_that_would_wait_for_an_image_decode_the_next(monkeypatch):
    together = threading.Barrier(2, timeout=20)

    def decode(source, options, short_edge):
        together.wait()  # fails unless another image is decoded at the same time
        return decode_reduced(source, options, short_edge)

    monkeypatch.setattr(module, "decode_reduced", decode)
    made = [crop for k in range(4) for crop in crops(noise(9, 9 + k), [(x, 0, x + 4, 4) for x in range(5)])]
    expect(made)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(decode_image, made))
    assert all(crop.whole._decoded is None for crop in made)


def test_the_images_of_a_second_pass_are_decoded_again(decodes):
    made = crops(noise(9, 9), [(0, 0, 4, 4), (1, 1, 5, 5)])
    first = [decode_image(crop) for crop in made]
    assert [decode_image(crop) for crop in made] == first
    assert decodes.total() == 2


def test_crops_for_two_models_are_not_mixed_up():
    data = encoded(smooth(512, 512), "jpeg")
    made = crops(data, [(0, 0, 512, 512), (0, 0, 512, 512)])
    assert decode_reduced(made[0], FAST, 32).image.size == (64, 64)
    assert decode_reduced(made[1], FAST, 64).image.size == (128, 128)


def test_a_broken_image_is_read_once_and_every_crop_has_its_own_name(tmp_path, decodes):
    (tmp_path / "a.jpg").write_bytes(encoded(smooth(), "jpeg")[:300])
    made = crops(str(tmp_path / "a.jpg"), [(0, 0, 4, 4), (1, 1, 5, 5)])
    for crop in made:
        with pytest.raises(BrokenImageError) as error:
            decode_image(crop)
        assert str(error.value).startswith(f"{crop}: cut off or damaged")
    assert decodes.total() == 1


def test_an_image_that_cannot_be_opened_names_the_crop():
    def fail():
        raise FileNotFoundError(2, "No such file or directory")

    made = crops(SourceImage("s.tar/a.jpg", fail, "s.tar"), [(0, 0, 4, 4)])
    assert (made[0].id, made[0].file) == ("s.tar/a.jpg[0,0,4,4]", "s.tar")
    with pytest.raises(
        ImageError, match=r"^s.tar/a.jpg\[0,0,4,4\]: cannot be read: No such file or directory$"
    ):
        decode_image(made[0])


def test_what_lies_beyond_the_image_is_left_out_and_counted():
    image = Image.fromarray(noise(20, 30))
    made = crops(image, [(25, 10, 100, 100), (0, 0, 30, 20), (0, 0, 31, 20)])
    assert decode_image(made[0]) == image.crop((25, 10, 30, 20))
    assert decode_image(made[1]) == decode_image(made[2]) == image
    assert count_clipped(made) == 2


@pytest.mark.parametrize("box", [(30, 0, 40, 20), (5, 5, 5, 9), (0.1, 0, 0.4, 9)])
def test_a_box_without_pixels_fails(box):
    (crop,) = crops(noise(20, 30), [box])
    with pytest.raises(ImageError, match="the box has no pixels in the image of 30x20 pixels"):
        decode_image(crop)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 2, 3), "the box [1, 2, 3] has to be four numbers: left, top, right, bottom in pixels"),
        ("abcd", "the box 'abcd' has to be four numbers: left, top, right, bottom in pixels"),
        ((1, 2, 3, "x"), "the box [1, 2, 3, x] has to be four numbers: left, top, right, bottom in pixels"),
        ((1, 2, 3, float("nan")), "the box [1, 2, 3, nan] holds NaN or infinity"),
        ((1, 2, float("inf"), 4), "the box [1, 2, inf, 4] holds NaN or infinity"),
        ((-1, 2, 3, 4), "the box [-1, 2, 3, 4] has a negative edge: pixels count from 0 at the left and top"),
        ((3, 2, 1, 4), "the box [3, 2, 1, 4] ends before it begins: the order is left, top, right, bottom"),
        ((1, 4, 3, 2), "the box [1, 4, 3, 2] ends before it begins: the order is left, top, right, bottom"),
    ],
)
def test_boxes_that_are_none_are_refused(box, message):
    with pytest.raises(InputError) as error:
        crops("a.jpg", [box])
    assert str(error.value) == message


def test_fractions_are_rounded_as_pillow_rounds_them():
    assert checked_box(["1.5", 2.4, 7.6, 9]) == (2, 2, 8, 9)


def test_tiles_cover_the_image():
    assert tile_boxes((10, 7), 2, 3) == [
        (0, 0, 3, 4), (3, 0, 7, 4), (7, 0, 10, 4), (0, 4, 3, 7), (3, 4, 7, 7), (7, 4, 10, 7)
    ]  # fmt: skip


def test_an_image_that_has_changed_since_its_tiles_were_listed():
    (crop, *_) = crops_of(noise(8, 8), tile_boxes((6, 8), 1, 2), size=(6, 8))
    with pytest.raises(
        ImageError, match="it has 8x8 pixels, and had 6x8 when its tiles were listed: run this"
    ):
        decode_image(crop)


@pytest.mark.parametrize(
    ("boxes", "reduction"),
    [
        ([(0, 0, 640, 480)], 4),
        ([(0, 0, 640, 480), (100, 100, 300, 260)], 2),
        ([(0, 0, 640, 480), (100, 100, 160, 200)], 1),
        ([(0, 0, 9000, 9000)], 4),  # only what lies within the image counts
        ([(600, 0, 9000, 9000), (9000, 0, 9001, 1)], 1),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_smallest_crop_decides_how_far_a_jpeg_is_reduced(tmp_path, boxes, reduction, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = smooth(480, 640) if orientation == 1 else smooth(480, 640).rotate(90, expand=True)
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    for crop in crops(tmp_path / "a.jpg", boxes)[:1]:
        decoded = decode_reduced(crop, FAST, 40)
        assert round(decoded.size[0] / decoded.image.size[0]) == reduction


def test_a_reduced_crop_shows_the_same_place_as_the_exact_one():
    data = encoded(smooth(483, 645), "jpeg", quality=95)
    for box in [(0, 0, 645, 483), (101, 57, 333, 299), (413, 251, 645, 483)]:
        (crop,) = crops(data, [box])
        decoded = decode_reduced(crop, FAST, 40)
        assert decoded.image.size != decoded.size == (box[2] - box[0], box[3] - box[1])
        small = decoded.image.resize((40, 40), Image.Resampling.BICUBIC, decoded.box)
        exact = decode_image(data).crop(box).resize((40, 40), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(small, float) - np.asarray(exact, float)).mean() < 1.5


def test_a_thumbnail_of_heic_serves_only_crops_that_it_is_large_enough_for(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", minversion="1.8")
    pillow_heif.from_pillow(smooth(300, 400)).save(tmp_path / "a.heic", thumbnails=[200], quality=90)
    whole, part = [(0, 0, 400, 300)], [(0, 0, 400, 300), (10, 10, 70, 70)]
    for boxes, width in ((whole, 200), (part, 400)):
        assert decode_reduced(crops(tmp_path / "a.heic", boxes)[0], FAST, 20).image.width == width


def test_crops_left_from_an_earlier_run_have_the_same_pixels(tmp_path):
    smooth(480, 640).save(tmp_path / "a.jpg")
    boxes = [(100, 100, 300, 260), (0, 0, 640, 480)]
    first, again = crops(tmp_path / "a.jpg", boxes), crops(tmp_path / "a.jpg", boxes)
    expect(again[1:])
    assert decode_reduced(first[1], FAST, 40) == decode_reduced(again[1], FAST, 40)
