"""What a conversion did: against the same numbers worked out by hand, and everything that is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from drawn_world.untrained import write_checkpoint

from mlx_aimv2 import LoadOptions, ZeroShotClassifier, convert, load
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.errors import CheckpointError, InputError, NonFiniteError
from mlx_aimv2.events import Notice, Progress, Skipped
from mlx_aimv2.fidelity.compare import _nearest, compare, recall, row_cosines
from mlx_aimv2.fidelity.outputs import LABELS
from mlx_aimv2.quantization.scheme import Scheme

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


@pytest.fixture
def changed(tmp_path):
    """Gives a copy of a checkpoint with a change made to its tensors or to one of its JSON files."""

    def copy(folder, tensors=None, file=None, change=None):
        target = tmp_path / "changed"
        shutil.copytree(folder, target)
        if tensors is not None:
            held = mx.load(str(target / "model.safetensors"))
            tensors(held)
            mx.eval(held)
            mx.save_safetensors(str(target / "model.safetensors"), held, metadata={"format": "mlx"})
        if file is not None:
            data = json.loads((target / file).read_text())
            change(data)
            (target / file).write_text(json.dumps(data))
        return target

    return copy


# --- what is found


@pytest.mark.parametrize("variant", ["lit", "fixed", "native"])
def test_a_checkpoint_is_its_own_faithful_copy(checkpoint, variant):
    found = compare(checkpoint(variant), checkpoint(variant))
    assert found.cosine_min == pytest.approx(1, abs=1e-6)
    assert found.cosine_mean == pytest.approx(1, abs=1e-6)
    assert max(error for _, error in found.layers) < 1e-6  # a BLAS may sum in another order the next time
    assert found.neighbour_recall == pytest.approx(1, abs=0.01) and found.neighbours == 10
    assert (found.images, found.drawn, found.layer_images) == (64, True, 16)
    assert (found.zero_shot is not None) == (variant == "lit")
    if found.zero_shot is not None:
        assert found.zero_shot.agreement == 1
        assert found.zero_shot.probability_difference < 1e-5
        assert found.zero_shot.text_cosine_min == pytest.approx(1, abs=1e-6)


def test_another_layout_changes_nothing(checkpoint):
    found = compare(checkpoint("lit", "apple"), checkpoint("lit", "transformers"))
    assert found.cosine_min == pytest.approx(1, abs=1e-6)
    assert max(error for _, error in found.layers) < 1e-6
    assert (found.original.layout, found.converted.layout) == ("apple", "transformers")


def test_fewer_bits_do_more_harm(tiny_pair, quantized):
    eight, two = (compare(tiny_pair, quantized(bits)) for bits in (8, 2))
    assert 1 > eight.cosine_min > 0.999 > two.cosine_min
    assert eight.cosine_mean > two.cosine_mean
    assert eight.neighbour_recall > two.neighbour_recall
    assert eight.zero_shot.agreement >= two.zero_shot.agreement
    assert eight.zero_shot.probability_difference < two.zero_shot.probability_difference
    assert eight.zero_shot.text_cosine_min > two.zero_shot.text_cosine_min
    for (name, less), (same, more) in zip(eight.layers, two.layers, strict=True):
        assert name == same
        assert less < more or (name == "vision_model.embeddings" and more < 1e-6)
    assert two.worst_layers[0][1] == max(error for _, error in two.layers)


def test_every_number_is_what_numpy_makes_of_the_models(tiny_pair, quantized, images):
    found = compare(tiny_pair, quantized(4), images)
    (one, processor), (two, _) = load(tiny_pair), load(quantized(4), on_event=lambda event: None)
    pixels = processor(images=images)["pixel_values"]
    a, b = (np.array(model.get_image_features(pixels)) for model in (one, two))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    cosines = (a * b).sum(axis=1)
    assert found.cosine_min == pytest.approx(cosines.min(), abs=1e-5)
    assert found.cosine_mean == pytest.approx(cosines.mean(), abs=1e-5)

    assert found.neighbours == 3  # of seven others
    near = [np.argsort(-(x @ x.T) + 9 * np.eye(8), axis=1)[:, :3] for x in (a, b)]
    shared = [len({*first} & {*second}) / 3 for first, second in zip(*near, strict=True)]
    assert found.neighbour_recall == pytest.approx(np.mean(shared))

    states = [model.vision_model(pixels, output_hidden_states=True).hidden_states for model in (one, two)]
    errors = [worst_error(np.array(h), np.array(g)) for h, g in zip(*states, strict=True)]
    assert [name for name, _ in found.layers[:3]] == [
        "vision_model.embeddings",
        "vision_model.encoder.layers.0",
        "vision_model.encoder.layers.1",
    ]
    assert [error for _, error in found.layers[:3]] == pytest.approx(errors, rel=1e-4, abs=1e-7)

    texts = [
        [
            model.text_model(processor(text=f"a photo of {label}.")["input_ids"], output_hidden_states=True)
            for label in LABELS
        ]
        for model in (one, two)
    ]
    for layer, (name, error) in enumerate(found.layers[3:]):
        assert name == f"text_model.{'embeddings' if layer == 0 else f'encoder.layers.{layer - 1}'}"
        h, g = ([np.array(output.hidden_states[layer])[0] for output in outputs] for outputs in texts)
        assert error == pytest.approx(
            max(worst_error(x[None], y[None]) for x, y in zip(h, g, strict=True)), rel=1e-4
        )

    scores = [ZeroShotClassifier(model, processor, LABELS).scores(x) for model, x in ((one, a), (two, b))]
    assert found.zero_shot.labels == LABELS
    assert found.zero_shot.agreement == np.mean(scores[0].argmax(axis=1) == scores[1].argmax(axis=1))
    assert found.zero_shot.probability_difference == pytest.approx(
        np.abs(scores[0] - scores[1]).max(), abs=1e-5
    )


def worst_error(expected, found):
    """Of states (B, N, D): the largest relative error of one image."""
    norms = np.sqrt((expected.astype(np.float64) ** 2).sum(axis=(1, 2)))
    return (np.sqrt(((found - expected).astype(np.float64) ** 2).sum(axis=(1, 2))) / norms).max()


def test_both_sides_are_described(tiny_pair, quantized, images):
    found = compare(tiny_pair, quantized(4), images)
    one, two = found.original, found.converted
    assert (one.name, two.name) == (str(tiny_pair), str(quantized(4)))
    assert (one.layout, two.layout) == ("apple", "mlx")
    assert (one.quantization, two.quantization) == (None, "4-bit affine, groups of 32")
    assert (one.stored, one.dtype, two.dtype) == ("float32", "float32", "float32")
    assert (one.unpacked, two.unpacked) == (False, True)
    assert one.nbytes > two.nbytes > 0
    assert one.images_per_second > 0 and two.images_per_second > 0


def test_packed_weights_give_the_same_numbers(tiny_pair, quantized, images):
    packed = compare(tiny_pair, quantized(4), images, options=LoadOptions(keep_quantized=True))
    unpacked = compare(tiny_pair, quantized(4), images)
    assert packed.converted.unpacked is False
    assert packed.cosine_min == pytest.approx(unpacked.cosine_min, abs=1e-4)


def test_native_images_keep_their_sizes(tiny_native, tmp_path, images):
    quantized = convert(tiny_native, tmp_path / "q", options=ConvertOptions(scheme=Scheme(32, 4)))
    found = compare(tiny_native, quantized, images)
    assert 0.5 < found.cosine_min < 1
    assert [name for name, _ in found.layers] == ["embeddings", "encoder.layers.0", "encoder.layers.1"]
    assert found.zero_shot is None


def test_half_precision_is_compared_in_what_was_asked_for(checkpoint, images):
    options = LoadOptions(dtype="bfloat16")
    found = compare(checkpoint("fixed"), checkpoint("fixed", dtype="bfloat16"), images, options=options)
    assert (found.original.dtype, found.converted.stored) == ("bfloat16", "bfloat16")
    assert found.cosine_min == pytest.approx(1, abs=1e-4)  # the stored position table is rounded too


def test_neighbours_are_the_others_nearest_first_over_blocks_of_rows(monkeypatch):
    monkeypatch.setattr("mlx_aimv2.fidelity.compare.ROWS", 2)
    angles = np.radians([0, 10, 25, 90, 100])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    near = np.array(list(_nearest(vectors, 2)))
    assert near.tolist() == [[1, 2], [0, 2], [1, 0], [4, 2], [3, 2]]
    assert recall(vectors, vectors, 2) == 1
    assert recall(vectors, vectors[::-1], 1) == pytest.approx(0.8)  # 1 0 1 4 3 and 1 0 3 4 3


def test_cosines_of_rows():
    one, two = np.array([[3, 0], [1, 1], [0, 0]]), np.array([[2, 0], [1, -1], [1, 0]])
    assert row_cosines(one, two).tolist() == [1, 0, 0]


# --- how it reads


def test_two_images_have_no_choice_of_neighbours(tiny_vision, images):
    assert compare(tiny_vision, tiny_vision, images[:2]).neighbour_recall is None
    assert compare(tiny_vision, tiny_vision, images[:3]).neighbours == 1


# --- what happens on the way


def test_broken_images_are_named_once_and_left_out(tiny_pair, quantized, images, tmp_path):
    broken, events = tmp_path / "broken.png", []
    broken.write_bytes(b"no image")
    found = compare(tiny_pair, quantized(4), [images[0], broken, *images[1:]], on_event=events.append)
    assert found.images == 8
    (skipped,) = (event for event in events if isinstance(event, Skipped))
    assert skipped.source == str(broken)
    assert found.cosine_mean == pytest.approx(compare(tiny_pair, quantized(4), images).cosine_mean)
    stages = {(event.stage, event.total) for event in events if isinstance(event, Progress)}
    assert stages == {("original", 9), ("converted", 8)}
    assert any("weights were unpacked" in event.message for event in events if isinstance(event, Notice))


def test_other_preprocessing_is_told_and_the_originals_is_used(tiny_pair, changed, images):
    other = changed(
        tiny_pair,
        file="preprocessor_config.json",
        change=lambda data: data.update(image_mean=[0.1, 0.2, 0.3]),
    )
    events = []
    found = compare(tiny_pair, other, images, on_event=events.append)
    assert found.differing == ("image_mean",)
    assert found.cosine_min == pytest.approx(1, abs=1e-6)
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert "they prepare inputs differently (image_mean): both get the original's" in notices


def test_another_tokenizer_is_told(tiny_pair, changed, images):
    def swap(vocabulary):
        vocabulary["a</w>"], vocabulary["b</w>"] = vocabulary["b</w>"], vocabulary["a</w>"]

    assert compare(tiny_pair, changed(tiny_pair, file="vocab.json", change=swap), images).differing == (
        "tokenizer",
    )


# --- what is refused


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (
            "lit",
            "fixed",
            r"apple-float32 \(an image-text pair\) and .*fixed-.* \(a vision encoder\) are diff",
        ),
        ("fixed", "native", r"\(resolution 56 pixels\) and .* \(resolution native\) are different models"),
        ("fixed", "head", r"\(use_head False\) and .* \(use_head True\) are different models"),
        (
            "fixed",
            "odd-heads",
            r"\(hidden_size 64, intermediate_size 128, num_attention_heads 2\) and .* \(hidden_size 48,"
            r" intermediate_size 80, num_attention_heads 3\) are different models: compare a checkpoint with",
        ),
    ],
)
def test_different_models_are_refused_naming_both(checkpoint, one, two, message):
    with pytest.raises(InputError, match=message):
        compare(checkpoint(one), checkpoint(two))


def test_another_depth_of_the_text_tower_is_refused(tiny_pair, tmp_path, variants):
    config = variants["lit"]
    deeper = replace(config, text_config=replace(config.text_config, num_hidden_layers=3))
    with pytest.raises(InputError, match=r"\(text num_hidden_layers 2\) and .* \(text num_hidden_layers 3\)"):
        compare(tiny_pair, write_checkpoint(tmp_path / "deeper", deeper))


def test_a_image_that_goes_away_in_between_is_noticed(tiny_vision, images, tmp_path):
    fleeting = shutil.copy(images[0], tmp_path / "fleeting.png")

    def remove(event):
        if isinstance(event, Progress) and (event.stage, event.done) == ("converted", 0):
            (tmp_path / "fleeting.png").unlink(missing_ok=True)

    with pytest.raises(InputError, match="could be read at first cannot be any more"):
        compare(tiny_vision, tiny_vision, [fleeting, *images[1:]], on_event=remove)


@pytest.mark.parametrize("broken", ["original", "converted"])
def test_nothing_finite_is_an_error_that_says_whose(tiny_vision, changed, images, broken):
    def poison(tensors):
        tensors["encoder.layers.1.rms_norm2.weight"] = mx.full((64,), mx.nan)

    other = changed(tiny_vision, tensors=poison)
    pair = (other, tiny_vision) if broken == "original" else (tiny_vision, other)
    with pytest.raises(NonFiniteError, match=r"changed: .*\.png: the model's output holds NaN or infinity"):
        compare(*pair, images)


def test_what_is_no_checkpoint_or_no_dtype_is_refused_before_anything_runs(tiny_vision, tmp_path):
    events = []
    with pytest.raises(CheckpointError, match="nothing"):
        (tmp_path / "nothing").mkdir()
        compare(tiny_vision, tmp_path / "nothing", on_event=events.append)
    with pytest.raises(InputError, match="dtype 'int8' is not one of"):
        compare(tiny_vision, tiny_vision, options=LoadOptions(dtype="int8"), on_event=events.append)
    assert not any(isinstance(event, Progress) for event in events)
