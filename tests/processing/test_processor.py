"""The processor that `load` returns: images and texts to a model's inputs."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mlx_aimv2 import load
from mlx_aimv2.errors import BrokenImageError, InputError
from mlx_aimv2.processing.processor import Processor, as_items

NOISE = np.random.default_rng(0).integers(0, 256, (170, 230, 3), dtype=np.uint8)
IMAGE = Image.fromarray(NOISE)


@pytest.fixture
def pair(tiny_pair):
    return load(tiny_pair)


@pytest.fixture
def processor(pair) -> Processor:
    return pair[1]


@pytest.fixture
def native(tiny_native) -> Processor:
    return load(tiny_native)[1]


def described(inputs: dict[str, mx.array]) -> dict[str, tuple[tuple[int, ...], mx.Dtype]]:
    return {name: (x.shape, x.dtype) for name, x in inputs.items()}


PIXELS = ((2, 56, 56, 3), mx.float32)


def test_images_and_texts_together(processor):
    inputs = processor(images=[IMAGE, NOISE], text=["a dog", "a", "many cats"])
    longest = len("manycats") + 2  # one token for every byte but spaces, and the two special ones
    ids = ((3, longest), mx.int32)
    assert described(inputs) == {"pixel_values": PIXELS, "input_ids": ids, "attention_mask": ids}


def test_images_alone(processor):
    assert described(processor(images=[IMAGE, NOISE])) == {"pixel_values": PIXELS}


def test_texts_alone(processor):
    ids = ((1, 6), mx.int32)
    assert described(processor(text="a dog")) == {"input_ids": ids, "attention_mask": ids}


def test_one_image_is_a_batch_of_one(processor):
    assert processor(images=NOISE)["pixel_values"].shape == (1, 56, 56, 3)


def test_row_k_is_image_k(processor):
    other = NOISE[::-1]
    pixels = np.array(processor(images=[NOISE, other])["pixel_values"])
    np.testing.assert_array_equal(pixels[0], processor.image_processor(NOISE))
    np.testing.assert_array_equal(pixels[1], processor.image_processor(other))
    assert not np.array_equal(pixels[0], pixels[1])


def test_the_mask_covers_what_is_no_padding(processor):
    inputs = processor(text=["a dog", "a", ""])
    assert np.array(inputs["attention_mask"]).sum(axis=1).tolist() == [6, 3, 2]
    ids, tokenizer = np.array(inputs["input_ids"]), processor.tokenizer
    assert (ids[:, 0] == tokenizer.bos_token_id).all()
    assert ids[2].tolist() == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * 5


def test_a_long_text_is_cut_to_the_models_length_and_keeps_its_end_token(processor):
    row = np.array(processor(text="word " * 500)["input_ids"])[0]
    assert len(row) == 77 and row[-1] == processor.tokenizer.eos_token_id


def test_the_model_may_take_less_than_the_tokenizer(processor):
    short = Processor(processor.image_processor, processor.tokenizer, max_text_length=9)
    row = np.array(short(text="word " * 500)["input_ids"])[0]
    assert len(row) == 9 and row[-1] == processor.tokenizer.eos_token_id


def test_the_model_takes_what_comes_out(pair):
    model, processor = pair
    output = model(**processor(images=[IMAGE, NOISE], text=["a", "b", "c"]))
    assert output.logits_per_image.shape == (2, 3)


def test_native_images_of_one_size_share_a_batch(native):
    assert native(images=[NOISE, IMAGE])["pixel_values"].shape == (2, 168, 224, 3)


@pytest.mark.parametrize(
    ("images", "count"), [([1, 2], 2), ((1, 2), 2), ([], 0), ("photo.jpg", 1), (b"bytes", 1), (NOISE, 1)]
)
def test_what_counts_as_several_images(images, count):
    assert len(list(as_items(images))) == count


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, InputError, "give images, text, or both"),
        ({"images": []}, InputError, "images is empty: give at least one"),
        ({"text": []}, InputError, "texts is empty; give at least one text"),
        ({"text": ["a", 7]}, InputError, r"texts\[1\] must be a str, not int"),
        ({"images": [NOISE, b"no image"]}, BrokenImageError, "image of 8 bytes: not an image"),
        ({"images": 7}, InputError, "got int, but an image has to be a path, bytes"),
        ({"images": NOISE[None]}, InputError, "pass the images of a batch one by one"),
    ],
    ids=["nothing", "no images", "no texts", "no text", "broken", "a number", "a batch"],
)
def test_what_makes_no_input_is_refused(processor, arguments, error, message):
    with pytest.raises(error, match=message):
        processor(**arguments)


def test_text_is_refused_without_a_text_encoder(native):
    with pytest.raises(InputError, match="this checkpoint has no text encoder: use the image-text pair"):
        native(images=NOISE, text="a dog")


def test_native_images_of_different_sizes_do_not_share_a_batch(native):
    message = r"images of different sizes \(168 x 224, 224 x 154\) cannot share a batch: use Embedder"
    with pytest.raises(InputError, match=message):
        native(images=[NOISE, NOISE.transpose(1, 0, 2)[:, :160]])
