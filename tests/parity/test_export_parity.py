"""What is exported, as transformers opens it; and files that torch wrote, there and back."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from drawn_world.untrained import VOCABULARY, write_checkpoint
from drawn_world.vocabulary import Vocabulary, write_vocabulary

from mlx_aimv2 import Aimv2VisionConfig, convert, load
from mlx_aimv2.conversion.export import export
from mlx_aimv2.conversion.options import ConvertOptions, ExportOptions
from mlx_aimv2.loading import LoadOptions
from mlx_aimv2.processing.image import NativeOptions
from mlx_aimv2.quantization.scheme import Scheme

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from parity.test_models_parity import (  # noqa: E402
    TEXT,
    apple_pair,
    apple_pair_config,
    apple_vision,
    apple_vision_config,
    assert_close,
    assert_same_encoder,
    images,
    loaded,
    pair_model,
    run_vision,
    timm_vision,
    vision_model,
    write,
)
from safetensors.torch import load_file  # noqa: E402

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # the notices of `warn`
]

PUBLISHED = Aimv2VisionConfig(  # timm knows no other widths
    hidden_size=1024,
    num_attention_heads=8,
    intermediate_size=64,
    num_hidden_layers=1,
    image_size=28,
    use_head=False,
)


def opened(folder, kind):
    """The model as transformers opens it, with nothing missing, nothing left over, nothing of another shape."""
    model, report = kind.from_pretrained(folder, attn_implementation="eager", output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def kind_of(variant):
    return transformers.Aimv2Model if variant == "lit" else transformers.Aimv2VisionModel


def padded_texts():
    """Token ids and mask of three texts; the oracle's text encoder is causal with a mask only."""
    bos, eos = VOCABULARY - 2, VOCABULARY - 1
    ids = np.array([[bos, 40, 41, 42, eos], [bos, 50, eos, eos, eos], [bos, 60, 61, eos, eos]])
    return ids, np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])


@pytest.mark.parametrize("written", ["in its layout", "exported", "exported from 8 bits"])
@pytest.mark.parametrize("variant", ["fixed", "native", "head", "biases", "lit"])
def test_what_is_written_here_opens_there(variant, written, variants, tmp_path):
    folder = write_checkpoint(tmp_path / "x", variants[variant], "transformers")
    if written != "in its layout":
        scheme = Scheme(32, 8) if "8 bits" in written else None
        convert(folder, tmp_path / "mlx", options=ConvertOptions(scheme=scheme))
        folder = export(tmp_path / "mlx", tmp_path / "exported")
    ours, theirs = loaded(folder), opened(folder, kind_of(variant))
    if variant != "lit":
        pixels, x = images(theirs.config)
        assert_same_encoder(ours(x, True, True), run_vision(theirs, pixels))
        return
    for part in (theirs, theirs.vision_model, theirs.text_model):
        assert part.config._attn_implementation == "eager"
    (pixels, x), (ids, mask) = images(theirs.config.vision_config, 2), padded_texts()
    assert_same_encoder(ours.vision_model(x, True, True), run_vision(theirs.vision_model, pixels))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), pixels, torch.tensor(mask))
    out = ours(mx.array(ids), x, mx.array(mask))
    assert expected.logits_per_image.std() > 1e-3  # they tell images and texts apart
    assert_close(out.logits_per_image, expected.logits_per_image)
    assert_close(out.logits_per_text, expected.logits_per_text)
    assert_close(out.image_embeds, expected.image_embeds)
    assert_close(out.text_embeds, expected.text_embeds)


@pytest.mark.parametrize(
    ("stored", "dtype"), [("float16", "float32"), ("float32", "float16"), ("float16", None)]
)
@pytest.mark.parametrize("variant", ["head", "lit"])
def test_it_opens_in_the_dtype_of_the_export(variant, stored, dtype, variants, tmp_path):
    folder = write_checkpoint(tmp_path / "x", variants[variant], "mlx", getattr(mx, stored))
    folder = convert(folder, tmp_path / "mlx")  # which writes the source's dtype
    folder = export(folder, tmp_path / "out", options=ExportOptions(dtype=dtype))
    theirs, expected = opened(folder, kind_of(variant)), getattr(torch, dtype or stored)
    assert theirs.dtype == expected
    assert {x.dtype for x in theirs.state_dict().values()} == {expected}
    configs = [theirs.config, *(getattr(theirs.config, name) for name in theirs.config.sub_configs)]
    assert {config.dtype for config in configs} == {expected}


# --- images ---


def assert_same_pixels(folder, backend="pil"):
    """The pixels of an image that needs resizing and cropping, or none of it at native resolution."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend=backend)
    options = LoadOptions(dtype="float32", native=NativeOptions(min_patches=1))
    ours = load(folder, options=options)[1].image_processor
    size = (14 * 9, 14 * 7) if ours.is_native else (131, 97)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = np.moveaxis(np.asarray(processor(image)["pixel_values"][0]), 0, -1)
    assert np.array_equal(ours(image), expected)


@pytest.mark.parametrize("source_has", ["its file", "an older file", "none"])
@pytest.mark.parametrize("variant", ["fixed", "native", "lit"])
def test_its_image_processor_opens_and_gives_the_same_pixels(variant, source_has, variants, tmp_path):
    folder = write_checkpoint(tmp_path / "x", variants[variant], "mlx")
    path = folder / "preprocessor_config.json"
    if source_has == "none":
        path.unlink()
    if source_has == "an older file":
        data = json.loads(path.read_text())
        del data["image_processor_type"]
        path.write_text(json.dumps(data | {"image_mean": [0.5, 0.4, 0.3]}))
    assert_same_pixels(export(folder, tmp_path / "out"))


def test_timms_files_become_a_folder_that_transformers_opens(tmp_path):
    """timm has no preprocessor_config.json, and its config.json must not go on calling the folder timm's."""
    timm = export(write_checkpoint(tmp_path / "x", PUBLISHED, "mlx"), tmp_path / "timm", "timm")
    (timm / "preprocessor_config.json").unlink()
    folder = export(timm, tmp_path / "out")
    assert_same_pixels(folder)
    theirs = opened(folder, transformers.AutoModel)
    assert type(theirs) is transformers.Aimv2VisionModel
    pixels, x = images(theirs.config)
    assert_close(loaded(folder)(x).last_hidden_state, run_vision(theirs, pixels).last_hidden_state)


# --- there and back ---


def published_model():
    fields = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers", "image_size")
    config = {name: getattr(PUBLISHED, name) for name in fields}
    return transformers.Aimv2VisionModel(transformers.Aimv2VisionConfig(**config, use_head=False)).eval()


def write_as(folder, layout, variant):
    """A checkpoint of torch's making: by transformers itself, or with the names written by hand."""
    folder.mkdir()
    theirs = (
        pair_model() if variant == "lit" else published_model() if layout == "timm" else vision_model(variant)
    )
    state = theirs.state_dict()
    if layout == "transformers":
        theirs.save_pretrained(folder)
    elif layout == "timm":
        write(folder, timm_vision(state), {"architecture": "aimv2_large_patch14_224", "num_features": 1024})
    elif variant == "lit":
        write(folder, apple_pair(state, layout == "apple-mlx"), apple_pair_config(theirs.config))
    else:
        tensors = apple_vision(state, channels_last=layout == "apple-mlx")
        write(folder, tensors, apple_vision_config(theirs.config))
    if variant == "lit":
        write_vocabulary(folder, Vocabulary(), TEXT["max_position_embeddings"])
    return folder


@pytest.mark.parametrize(
    ("variant", "layout"),
    [
        *(
            (x, y)
            for x in ("fixed", "native", "head", "biases", "lit")
            for y in ("transformers", "apple", "apple-mlx")
        ),
        ("fixed", "timm"),
    ],
)
def test_files_of_torchs_making_come_back_bit_for_bit(variant, layout, tmp_path):
    source = write_as(tmp_path / "source", layout, variant)
    folder = export(convert(source, tmp_path / "mlx"), tmp_path / "out", layout)
    before, after = (load_file(x / "model.safetensors") for x in (source, folder))
    assert before.keys() == after.keys()
    for name, x in before.items():
        assert (x.dtype, x.shape) == (after[name].dtype, after[name].shape), name
        assert x.numpy().tobytes() == after[name].numpy().tobytes(), name
