"""Images and texts to vectors: row k is item k, whatever the batches and whatever breaks."""

from __future__ import annotations

import io

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mlx_aimv2 import Embedder, ZeroShotClassifier, load
from mlx_aimv2.errors import BrokenImageError, ImageError, InputError, NonFiniteError
from mlx_aimv2.inference.embedder import TEXTS
from mlx_aimv2.inference.pooling import pool
from mlx_aimv2.models.lit import Aimv2Model
from mlx_aimv2.sources.readahead import Failed

SIZES = [(168, 168), (210, 140), (168, 168), (140, 224), (210, 140), (168, 168), (224, 140)]


def one_by_one(model, processor, images, pooled) -> np.ndarray:
    """Vectors by plain calls of the model, a batch of one each."""
    rows = [np.array(pooled(model, processor(images=image)["pixel_values"]))[0] for image in images]
    return np.stack(rows)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


# --- rows


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 7, 9, 10, 100])
def test_any_batch_size_gives_the_same_rows(pair, draw, batch_size):
    model, processor = pair
    images = [draw(seed) for seed in range(9)]
    expected = unit(one_by_one(model, processor, images, Aimv2Model.get_image_features))
    found = Embedder(model, processor, batch_size=batch_size).images(images)
    assert found.shape == (9, 32) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 50])
def test_native_images_of_mixed_sizes_come_back_in_order(native, draw, batch_size):
    model, processor = native
    images = [draw(seed, *size) for seed, size in enumerate(SIZES)]
    expected = one_by_one(model, processor, images, lambda m, x: m(x).last_hidden_state.mean(axis=1))
    found = Embedder(model, processor, normalize=False, batch_size=batch_size).images(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 4])
@pytest.mark.parametrize("kind", ["pair", "native"])
def test_broken_images_leave_the_others_in_their_places(request, draw, tmp_path, kind, batch_size):
    embedder = Embedder(*request.getfixturevalue(kind), batch_size=batch_size)
    broken = {0: b"", 3: b"no image", 4: tmp_path / "missing.jpg", 8: b"\xff\xd8\xff"}
    images = [broken.get(k, draw(k, *SIZES[k % len(SIZES)])) for k in range(9)]
    whole = [k for k in range(9) if k not in broken]
    expected = embedder.images([images[k] for k in whole])

    results = list(embedder.stream(images))
    assert [result.index for result in results] == list(range(9))
    assert [k for k in range(9) if isinstance(results[k], Failed)] == sorted(broken)
    assert all(isinstance(results[k].error, ImageError) for k in broken)
    assert all(results[k].error is None for k in whole)
    np.testing.assert_allclose(np.stack([results[k].vector for k in whole]), expected, atol=1e-5)


def test_nothing_but_broken_images(pair):
    results = list(Embedder(*pair, batch_size=2).stream([b"x"] * 5))
    assert [(result.index, type(result)) for result in results] == [(k, Failed) for k in range(5)]


# --- poolings and scale


@pytest.mark.parametrize(
    ("pooling", "by_hand"),
    [
        ("auto", lambda m, x: m.get_image_features(x)),
        ("mean", lambda m, x: m.vision_model(x).last_hidden_state.mean(axis=1)),
        ("max", lambda m, x: m.vision_model(x).last_hidden_state.max(axis=1)),
        ("head", lambda m, x: m.vision_model(x).pooler_output),
        ("tokens", lambda m, x: m.vision_model(x).last_hidden_state.reshape(1, 4, 4, -1)),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_are_the_models_pooled_outputs(pair, draw, pooling, by_hand, normalize):
    model, processor = pair
    images = [draw(seed) for seed in range(3)]
    expected = one_by_one(model, processor, images, by_hand)
    embedder = Embedder(model, processor, pooling=pooling, normalize=normalize)
    found = embedder.images(images)
    np.testing.assert_allclose(found, unit(expected) if normalize else expected, atol=1e-5)
    assert found.shape[-1] == embedder.dimension


@pytest.mark.parametrize("pooling", ["auto", "tokens"])
def test_unit_length_is_the_default(pair, draw, pooling):
    norms = np.linalg.norm(Embedder(*pair, pooling=pooling).images([draw(0), draw(1)]), axis=-1)
    np.testing.assert_allclose(norms, 1.0, atol=1e-6)


def test_the_grid_of_a_native_image_has_its_shape(native, draw):
    grids = Embedder(*native, pooling="tokens").images([draw(0, 140, 224)])
    assert grids.shape == (1, 10, 16, 64)


@pytest.mark.parametrize("kind", ["pair", "vision", "native"])
def test_no_images_are_no_rows(request, kind):
    embedder = Embedder(*request.getfixturevalue(kind))
    assert embedder.images([]).shape == (0, 32 if kind == "pair" else 64)
    assert list(embedder.stream([])) == []


# --- what an image may be


def test_one_image_is_a_list_of_one(pair, draw):
    embedder = Embedder(*pair)
    np.testing.assert_array_equal(embedder.images(draw(0)), embedder.images([draw(0)]))


def test_every_kind_of_input_gives_the_same_vector(pair, draw, tmp_path):
    image, encoded = Image.fromarray(draw(0)), io.BytesIO()
    image.save(encoded, "PNG")
    (tmp_path / "image.png").write_bytes(encoded.getvalue())
    encoded.seek(0)
    kinds = {
        "path": tmp_path / "image.png",
        "str": str(tmp_path / "image.png"),
        "bytes": encoded.getvalue(),
        "file": encoded,
        "pil": image,
        "uint8": draw(0),
        "float32": draw(0).astype(np.float32) / 255,
        "float64": draw(0) / 255,
    }
    rows = Embedder(*pair).images(list(kinds.values()))
    for name, row in zip(kinds, rows, strict=True):
        np.testing.assert_allclose(row, rows[0], atol=1e-6, err_msg=name)


def test_a_tuple_is_several_images(pair, draw):
    assert Embedder(*pair).images((draw(0), draw(1))).shape == (2, 32)


# --- texts


@pytest.mark.parametrize("count", [1, 2, TEXTS, TEXTS + 1, 3 * TEXTS + 5])
def test_row_k_is_text_k(pair, count):
    model, processor = pair
    texts = [f"{'very ' * (k % 5)}small image {k}" for k in range(count)]
    found = Embedder(model, processor).texts(texts)
    assert found.shape == (count, 32) and found.dtype == np.float32
    for k in {0, count // 2, count - 1}:
        inputs = processor(text=texts[k])
        np.testing.assert_allclose(found[k], unit(np.array(model.get_text_features(**inputs)))[0], atol=1e-6)


def test_results_of_texts_have_the_numbers_of_the_input(pair, monkeypatch):
    count = 2 * TEXTS + 3
    embedder, texts = Embedder(*pair), [str(k) for k in range(count)]
    results = list(embedder.stream_texts(texts))
    assert [result.index for result in results] == list(range(count))
    whole = embedder.texts(texts)
    for k in (0, TEXTS - 1, TEXTS, 2 * TEXTS, count - 1):
        np.testing.assert_array_equal(results[k].vector, whole[k])
        np.testing.assert_allclose(whole[k], embedder.texts(texts[k])[0], atol=1e-6)


def test_a_text_without_a_finite_vector_is_numbered_beyond_the_first_batch(pair, monkeypatch):
    model, processor = pair
    encode = Aimv2Model.get_text_features

    def spoiled(self, ids):
        features = encode(self, ids)
        spoil = mx.array(
            [[float("nan") if k == 1 and len(features) < TEXTS else 1.0] for k in range(len(features))]
        )
        return features * spoil

    monkeypatch.setattr(Aimv2Model, "get_text_features", spoiled)
    results = list(Embedder(model, processor).stream_texts([str(k) for k in range(TEXTS + 3)]))
    assert [result.index for result in results if result.error is not None] == [TEXTS + 1]
    with pytest.raises(NonFiniteError, match=f"text {TEXTS + 1}: the model's output holds NaN"):
        Embedder(model, processor).texts([str(k) for k in range(TEXTS + 3)])


def test_one_text_is_a_list_of_one(pair):
    embedder = Embedder(*pair)
    np.testing.assert_array_equal(embedder.texts("a dog"), embedder.texts(["a dog"]))


def test_no_texts_are_no_rows(pair):
    assert Embedder(*pair).texts([]).shape == (0, 32)


def test_a_long_text_is_cut_and_not_refused(pair):
    texts = ["word " * 1000] + ["a dog"] * 79 + ["word " * 2000]
    with pytest.warns(UserWarning) as cut:
        rows = Embedder(*pair).texts(texts)[[0, 80, 1]]
    start = "word " * 11 + "word…"
    messages = [
        f"text {number} ({start!r}) is longer than the model takes: the end does not count"
        for number in (0, 80)
    ]
    assert [str(warning.message) for warning in cut] == messages
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    assert abs(rows[0] @ rows[2]) < 0.999


def test_the_numbers_of_cut_texts_go_on_from_batch_to_batch(pair):
    cut, texts = [], ["a dog"] * (2 * TEXTS + 3)
    long = [1, TEXTS - 1, TEXTS, 2 * TEXTS + 2]
    for number in long:
        texts[number] = "word " * 1000
    assert len(list(Embedder(*pair).stream_texts(texts, cut.append))) == len(texts)
    assert cut == long


def test_many_long_texts_are_counted(pair):
    with pytest.warns(UserWarning) as cut:
        Embedder(*pair).texts([f"{number} " + "word " * 1000 for number in range(70)])
    assert [str(warning.message).split(" (")[0] for warning in cut][:5] == [f"text {k}" for k in range(5)]
    assert str(cut[5].message) == "65 more texts are longer than the model takes: the end does not count"
    assert len(cut) == 6


def test_texts_are_not_scaled_when_nothing_is(pair):
    plain, scaled = (Embedder(*pair, normalize=scale).texts(["a dog", ""]) for scale in (False, True))
    np.testing.assert_allclose(unit(plain), scaled, atol=1e-6)
    assert not np.allclose(plain, scaled)


def test_a_text_meets_its_image_as_in_the_model(pair, draw):
    model, processor = pair
    output = model(**processor(images=[draw(0), draw(1)], text=["a dog", "a cat"]))
    embedder = Embedder(model, processor)
    cosines = embedder.images([draw(0), draw(1)]) @ embedder.texts(["a dog", "a cat"]).T
    np.testing.assert_allclose(
        float(model.logit_factor()) * cosines, np.array(output.logits_per_image), atol=1e-4
    )


# --- refusals


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_at_least_one(pair, batch_size):
    with pytest.raises(InputError, match=f"batch_size must be at least 1, not {batch_size}"):
        Embedder(*pair, batch_size=batch_size)


@pytest.mark.parametrize(
    ("kind", "pooling", "message"),
    [
        ("pair", "cls", "pooling 'cls' is not one of auto, mean, max, head, tokens"),
        ("pair", "projected", "pooling 'projected' is not one of"),
        ("native", "head", "this checkpoint has no pooling head"),
    ],
)
def test_a_pooling_that_cannot_be_is_refused_before_any_work(request, kind, pooling, message):
    with pytest.raises(InputError, match=message):
        Embedder(*request.getfixturevalue(kind), pooling=pooling)


def test_a_broken_image_is_named_by_its_number(pair, draw):
    with pytest.raises(BrokenImageError, match=r"^image 2: image of 8 bytes: not an image"):
        Embedder(*pair).images([draw(0), draw(1), b"no image", draw(3)])


def test_a_lone_broken_image_needs_no_number(pair):
    with pytest.raises(BrokenImageError, match=r"^image of 8 bytes: not an image"):
        Embedder(*pair).images(b"no image")


def test_what_is_no_image_at_all_is_refused(pair, draw):
    with pytest.raises(InputError, match="got int, but an image has to be a path, bytes"):
        Embedder(*pair).images([draw(0), 7])


def test_grids_of_different_sizes_do_not_stack(native, draw):
    embedder = Embedder(*native, pooling="tokens")
    images = [draw(0, 168, 168), draw(1, 140, 224)]
    with pytest.raises(InputError, match="different sizes have different token grids"):
        embedder.images(images)
    assert [result.vector.shape for result in embedder.stream(images)] == [(12, 12, 64), (10, 16, 64)]


@pytest.mark.parametrize("kind", ["vision", "native"])
def test_texts_need_a_text_encoder(request, kind):
    with pytest.raises(InputError, match="this model has no text encoder: use the image-text pair"):
        Embedder(*request.getfixturevalue(kind)).texts(["a dog"])


@pytest.mark.parametrize("at", [0, 1, TEXTS + 6])
def test_what_is_no_text_is_named_by_its_number(pair, at):
    texts = ["a dog"] * at + [None]
    with pytest.raises(InputError, match=rf"texts\[{at}\] must be a str, not NoneType"):
        Embedder(*pair).texts(texts)


ADVICE = {"float16": "compute in dtype='bfloat16'", "bfloat16": "may be damaged", "float32": "may be damaged"}


@pytest.mark.parametrize("dtype", ADVICE)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("normalize", [True, False])
def test_an_output_that_is_not_finite_is_refused(tiny_pair, draw, dtype, value, normalize):
    model, processor = load(tiny_pair, dtype=dtype)
    weight = model.visual_projection.weight
    model.visual_projection.weight = mx.concatenate([mx.full((1, 64), value, weight.dtype), weight[1:]])
    message = f"the model's output holds NaN or infinity: .*{ADVICE[dtype]}"
    with pytest.raises(NonFiniteError, match=message):
        Embedder(model, processor, normalize=normalize).images(draw(0))


def test_a_image_without_a_finite_vector_does_not_stop_the_others(pair, draw, monkeypatch):
    embedder = Embedder(*pair, batch_size=2)
    spoil = mx.array([1.0, float("nan")])[:, None]
    calls = iter(range(9))
    monkeypatch.setattr(
        "mlx_aimv2.inference.embedder.pool", lambda *given: pool(*given) * (spoil if next(calls) == 1 else 1)
    )
    results = list(embedder.stream([draw(k) for k in range(6)]))
    assert [result.index for result in results if result.error is None] == [0, 1, 2, 4, 5]
    assert isinstance(results[3].error, NonFiniteError)


def test_the_image_without_a_finite_vector_is_numbered(pair, draw, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.inference.embedder.pool", lambda *given: pool(*given) * float("inf"))
    with pytest.raises(NonFiniteError, match="image 0: the model's output holds NaN or infinity"):
        Embedder(*pair).images([draw(0), draw(1)])


def test_a_custom_sequence_will_do_for_images(pair, draw):
    class Lazy:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return draw(index)

    assert Embedder(*pair).images(Lazy()).shape == (3, 32)


def test_a_text_output_that_is_not_finite_is_refused(pair):
    model, processor = pair
    model.text_projection.weight = mx.full(model.text_projection.weight.shape, float("nan"))
    with pytest.raises(NonFiniteError, match="holds NaN or infinity"):
        Embedder(model, processor).texts("a dog")


def scaled_weights(pair, factor):
    """The pair with both projections times ``factor``."""
    model, processor = pair
    for projection in (model.visual_projection, model.text_projection):
        projection.weight = projection.weight * factor
    return model, processor


NO_DIRECTION = (
    "the model's output is all zeros, or too small or too large for a vector of unit length: .*damaged"
)


@pytest.mark.parametrize("factor", [0, 1e30, 1e-16, 1e-30])
@pytest.mark.parametrize("normalize", [True, False])
def test_an_output_without_direction_is_refused(pair, draw, factor, normalize):
    embedder = Embedder(*scaled_weights(pair, factor), normalize=normalize)
    with pytest.raises(NonFiniteError, match=NO_DIRECTION):
        embedder.images(draw(0))
    with pytest.raises(NonFiniteError, match=NO_DIRECTION):
        embedder.texts("a dog")


@pytest.mark.parametrize("normalize", [True, False])
def test_a_large_output_that_has_a_direction_is_none_the_worse(pair, draw, normalize):
    expected = Embedder(*pair).images(draw(0))
    embedder = Embedder(*scaled_weights(pair, 1e15), normalize=normalize)
    vector = embedder.images(draw(0)) / (1 if normalize else 1e15)
    np.testing.assert_allclose(vector / np.linalg.norm(vector), expected, atol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_grid_with_one_dead_token_is_refused_and_the_others_are_not(pair, draw, normalize, monkeypatch):
    alive = np.ones((2, 4, 4, 1), np.float32)
    alive[1, 2, 3] = 0
    monkeypatch.setattr("mlx_aimv2.inference.embedder.pool", lambda *given: pool(*given) * mx.array(alive))
    first, second = Embedder(*pair, pooling="tokens", normalize=normalize).stream([draw(0), draw(1)])
    assert first.vector is not None
    assert isinstance(second.error, NonFiniteError)


def test_zero_shot_labels_of_an_output_without_direction_are_refused(pair, draw):
    model, processor = pair
    classifier = ZeroShotClassifier(model, processor, ["a", "b"])
    model.visual_projection.weight = model.visual_projection.weight * 0
    (item,) = classifier.stream([draw(0)])
    assert isinstance(item, Failed) and isinstance(item.error, NonFiniteError)
    model.text_projection.weight = model.text_projection.weight * 0
    with pytest.raises(NonFiniteError, match=r"the prompt '.*': the model's output is all zeros"):
        ZeroShotClassifier(model, processor, ["a", "b"])


# --- the fingerprint


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_a_generator_gives_the_rows_of_a_list(pair, draw, batch_size):
    embedder, images = Embedder(*pair, batch_size=batch_size), [draw(seed) for seed in range(7)]
    words = [f"word {k}" for k in range(2 * TEXTS + 3)]
    np.testing.assert_array_equal(embedder.images(x for x in images), embedder.images(images))
    np.testing.assert_array_equal(embedder.images(iter(images)), embedder.images(images))
    np.testing.assert_array_equal(embedder.texts(x for x in words), embedder.texts(words))
    assert [x.index for x in embedder.stream_texts(x for x in words)] == list(range(len(words)))
    assert embedder.images(x for x in ()).shape == (0, 32)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_what_a_generator_raises_comes_behind_the_vectors_before_it(pair, draw, batch_size):
    def failing():
        yield from (draw(seed) for seed in range(3))
        raise ZeroDivisionError("of the generator")

    seen = []
    with pytest.raises(ZeroDivisionError, match="of the generator"):
        seen.extend(item.index for item in Embedder(*pair, batch_size=batch_size).stream(failing()))
    assert seen == [0, 1, 2]


def test_a_broken_image_of_a_generator_is_named(pair, draw):
    with pytest.raises(ImageError, match="image 1: "):
        Embedder(*pair).images(x for x in (draw(0), b"no image"))


@pytest.mark.parametrize("items", [{"a.jpg"}, frozenset({"a.jpg"}), {"a.jpg": 1}], ids=type)
def test_what_has_no_order_is_refused(pair, items):
    with pytest.raises(InputError, match="images must be in an order, not a"):
        Embedder(*pair).images(items)


def test_a_text_in_a_generator_that_is_none_is_named(pair):
    with pytest.raises(InputError, match=r"texts\[65\] must be a str, not int"):
        Embedder(*pair).texts(x for x in ["a"] * 65 + [1])


def test_one_path_is_one_image_not_its_letters(tiny_vision):
    embedder = Embedder(*load(tiny_vision))
    (result,) = embedder.stream("missing.jpg")
    assert "missing.jpg: cannot be read" in str(result.error)
