import json
import shutil

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import convert, load
from mlx_aimv2.checkpoints.files import read_header
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.errors import (
    ConfigError,
    InputError,
    MismatchError,
    NotACheckpointError,
    OutputError,
)
from mlx_aimv2.events import Progress


def outputs(folder, **options):
    model, processor = load(folder, **options)
    vision = model.vision
    size = vision.config.image_size
    pixels = mx.random.normal((2, size, size, 3), key=mx.random.key(4))
    if processor.tokenizer is None:
        out = model(pixels)
        return [out.last_hidden_state, *([] if out.pooler_output is None else [out.pooler_output])]
    out = model(**processor(text=["a cat", "two dogs"]), pixel_values=pixels)
    return [out.logits_per_image, out.image_embeds, out.text_embeds]


def test_a_converted_checkpoint_gives_the_same_outputs(stored, tmp_path):
    assert convert(stored.folder, tmp_path / "out") == tmp_path / "out"
    for before, after in zip(outputs(stored.folder), outputs(tmp_path / "out"), strict=True):
        np.testing.assert_array_equal(np.array(before), np.array(after))


def test_a_converted_checkpoint_has_this_packages_format(stored, tmp_path):
    folder = convert(stored.folder, tmp_path / "out")
    header = read_header((folder / "model.safetensors",))
    assert header.metadata["format"] == "mlx"
    assert load(folder)[0].origin.layout == "mlx"
    prefix = "vision_model." if stored.variant == "lit" else ""
    kernel = header.shapes[f"{prefix}embeddings.patch_embed.weight"]
    vision = getattr(stored.config, "vision_config", stored.config)
    assert kernel == (vision.hidden_size, vision.patch_size, vision.patch_size, 3)


def test_its_config_has_transformers_keys(tiny_pair, tmp_path):
    data = json.loads((convert(tiny_pair, tmp_path / "out") / "config.json").read_text())
    assert (data["model_type"], data["architectures"], data["dtype"]) == ("aimv2", ["Aimv2Model"], "float32")
    assert data["text_config"]["max_position_embeddings"] == 77
    assert data["vision_config"]["use_head"] is True and data["vision_config"]["is_native"] is False
    assert data["logit_scale_init_value"] == pytest.approx(2.6592, abs=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_tables_and_the_scale_in_float32(tiny_pair, tmp_path, dtype):
    folder = convert(tiny_pair, tmp_path / "out", dtype=dtype)
    stored = {name: info.dtype for name, info in read_header((folder / "model.safetensors",)).tensors.items()}
    kept = {name for name, kind in stored.items() if kind == "F32"}
    assert kept == {
        "logit_scale",
        "text_model.embeddings.position_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
    }
    assert {stored[name] for name in stored.keys() - kept} == {{"float16": "F16", "bfloat16": "BF16"}[dtype]}
    for before, after in zip(outputs(tiny_pair, dtype=dtype), outputs(folder, dtype=dtype), strict=True):
        np.testing.assert_array_equal(np.array(before), np.array(after))


def test_progress_comes_to_its_end(tiny_vision, tmp_path):
    events = []
    convert(tiny_vision, tmp_path / "out", on_event=events.append)
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.stage, last.done) == ("converting", last.total)


def test_converting_again_changes_nothing(tiny_vision, tmp_path):
    first = convert(tiny_vision, tmp_path / "first")
    second = convert(first, tmp_path / "second")
    for name in ("config.json", "preprocessor_config.json"):
        a, b = (json.loads((folder / name).read_text()) for folder in (first, second))
        assert a == b
    a, b = (mx.load(str(folder / "model.safetensors")) for folder in (first, second))
    assert a.keys() == b.keys() and all(mx.array_equal(a[name], b[name]) for name in a)


@pytest.fixture
def packed_source(checkpoint, tmp_path):
    """A checkpoint of 8 bits that another program has written."""
    source = shutil.copytree(checkpoint("head", "mlx"), tmp_path / "source")
    model, _ = load(source)
    nn.quantize(model, group_size=64, bits=8)
    mx.save_safetensors(str(source / "model.safetensors"), dict(tree_flatten(model.parameters())))
    data, entry = json.loads((source / "config.json").read_text()), {"group_size": 64, "bits": 8}
    data |= {"quantization": entry, "quantization_config": entry}
    (source / "config.json").write_text(json.dumps(data))
    return source


QUIET = {"on_event": lambda event: None}


def test_quantized_weights_stay_packed(packed_source, tmp_path):
    folder = convert(packed_source, tmp_path / "out", options=ConvertOptions(format="npz"))
    written = json.loads((folder / "config.json").read_text())
    assert written["quantization"] == {"group_size": 64, "bits": 8, "mode": "affine"}
    before, after = (
        mx.load(str(path)) for path in (packed_source / "model.safetensors", folder / "model.npz")
    )
    assert before.keys() == after.keys() and all(mx.array_equal(x, after[name]) for name, x in before.items())
    half = convert(packed_source, tmp_path / "half", dtype="float16")
    dtypes = {name: x.dtype for name, x in mx.load(str(half / "model.safetensors")).items()}
    assert dtypes["encoder.layers.0.ffn.up_proj.scales"] == mx.float16
    assert dtypes["encoder.layers.0.ffn.up_proj.weight"] == mx.uint32
    for one, other in zip(outputs(packed_source, **QUIET), outputs(folder, **QUIET), strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))


@pytest.mark.parametrize("on_cpu", [True, False], ids=["cpu", "gpu"])
def test_quantized_weights_are_unpacked_when_asked(packed_source, tmp_path, monkeypatch, on_cpu):
    folder, events = tmp_path / "out", []
    with monkeypatch.context() as patch:
        patch.setattr("mlx_aimv2.loading.on_cpu", lambda: on_cpu)
        convert(packed_source, folder, dequantize=True, on_event=events.append)
    monkeypatch.setattr("mlx_aimv2.loading.on_cpu", lambda: True)
    written = json.loads((folder / "config.json").read_text())
    assert "quantization" not in written and "quantization_config" not in written
    assert "8-bit affine, groups of 64, and were unpacked" in (folder / "README.md").read_text()
    assert any("what they have lost stays lost" in getattr(event, "message", "") for event in events)
    for before, after in zip(outputs(packed_source, **QUIET), outputs(folder), strict=True):
        np.testing.assert_array_equal(np.array(before), np.array(after))


def test_a_pair_without_a_tokenizer_is_converted_and_said_to_lack_it(tiny_pair, tmp_path):
    source, events = shutil.copytree(tiny_pair, tmp_path / "source"), []
    (source / "vocab.json").unlink()
    convert(source, tmp_path / "out", on_event=events.append)
    assert any(
        "the result will lack what its source lacks" in event.message
        for event in events
        if hasattr(event, "message")
    )


def test_a_name_that_could_not_be_loaded_is_refused(tiny_pair, tmp_path):
    with pytest.raises(InputError, match="is not valid UTF-8, and could not be loaded: choose another name"):
        convert(tiny_pair, tmp_path / "out\udcff")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OutputError, match="link exists already"):
        convert(tiny_pair, tmp_path / "link")


@pytest.mark.parametrize("dtype", ["float64", "auto", ""])
def test_an_unknown_dtype_is_refused(tiny_vision, tmp_path, dtype):
    with pytest.raises(InputError, match=f"dtype {dtype!r} is not one of float32, float16, bfloat16"):
        convert(tiny_vision, tmp_path / "out", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


FORCE = ConvertOptions(force=True)


def test_a_checkpoint_stays_when_its_replacement_fails(tiny_vision, tmp_path, monkeypatch):
    convert(tiny_vision, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr("mlx_aimv2.conversion.convert.model_card", lambda facts: pytest.fail("no card"))
    with pytest.raises(pytest.fail.Exception):
        convert(tiny_vision, tmp_path / "out", options=FORCE)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda source: (source / "model.safetensors").unlink(), NotACheckpointError, "is no checkpoint"),
        (lambda source: (source / "config.json").write_text("{"), ConfigError, "is not valid JSON"),
        (
            lambda source: (source / "config.json").write_text(
                '{"num_attention_heads": 2, "hidden_size": 8}'
            ),
            MismatchError,
            "does not fit its configuration",
        ),
    ],
    ids=["weights", "config", "mismatch"],
)
def test_nothing_is_left_of_a_failure(tiny_vision, tmp_path, damage, error, message):
    source = shutil.copytree(tiny_vision, tmp_path / "source")
    damage(source)
    with pytest.raises(error, match=message):
        convert(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_nothing_is_left_of_an_interruption(tiny_vision, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlx_aimv2.conversion.convert.copy_files", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(tiny_vision, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
