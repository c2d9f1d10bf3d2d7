"""Speed of decoding."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from mlx_aimv2.benchmarking import decoding
from mlx_aimv2.benchmarking.decoding import drawn_photo, find_photos, measure_decoding
from mlx_aimv2.errors import InputError
from mlx_aimv2.processing.image import ImageProcessor
from mlx_aimv2.processing.image_config import ImageProcessorConfig
from mlx_aimv2.processing.options import DecodeOptions


@pytest.fixture
def processor():
    return ImageProcessor(ImageProcessorConfig.default(56), decode=DecodeOptions("fast"))


@pytest.fixture
def photo(tmp_path):
    Image.effect_noise((90, 60), 50).convert("RGB").save(tmp_path / "photo.jpg")
    return str(tmp_path / "photo.jpg")


def test_the_drawn_photo_is_like_that_of_a_camera():
    photo = drawn_photo()
    assert 2e6 < len(photo) < 5e6
    with Image.open(io.BytesIO(photo)) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (4000, 3000), "RGB")


def test_photos_are_those_of_a_folder_or_the_drawn_one(photo, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "drawn_photo", lambda: b"drawn")
    assert find_photos(()) == [b"drawn"]
    assert find_photos((str(tmp_path),)) == [photo]
    with pytest.raises(InputError, match="no images"):
        find_photos((str(tmp_path / "*.png"),))


def test_photos_repeat_until_there_are_enough(photo, processor):
    result = measure_decoding([photo, photo, photo], processor, seconds=60)
    assert (result.mode, result.images) == ("fast", decoding.MOST)
    assert result.images_per_second > 0
    assert result.to_dict()["threads"] == result.threads >= 1


def test_one_photo_is_decoded_even_without_time(photo, processor):
    assert measure_decoding([photo], processor, seconds=1e-9).images == 1


def test_a_broken_photo_is_named_once_and_does_not_count(photo, processor, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    events = []
    result = measure_decoding([photo, str(broken)], processor, 60, events.append)
    assert result.images == decoding.MOST // 2
    assert [event.source for event in events] == [str(broken)]
    with pytest.raises(InputError, match="no image can be decoded"):
        measure_decoding([str(broken)], processor, 60, events.append)
