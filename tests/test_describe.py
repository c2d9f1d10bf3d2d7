"""What `info` knows of a checkpoint."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import mlx.core as mx
import pytest
from drawn_world.untrained import write_checkpoint
from mlx.utils import tree_flatten

from mlx_aimv2 import load
from mlx_aimv2.describe import describe_checkpoint
from mlx_aimv2.events import ignore
from mlx_aimv2.loading import inspect
from mlx_aimv2.quantization.scheme import Quantization, Scheme

KEYS = {
    "source", "folder", "revision", "files", "layout", "kind", "tensors", "dtypes", "parameters", "bytes",
    "memory", "quantization", "images", "missing_files", "problem", "config",
}  # fmt: skip


def describe(folder) -> dict:
    return describe_checkpoint(inspect(folder))


@pytest.fixture
def changed(tmp_path):
    """A function that copies a checkpoint and applies a change to its tensors."""

    def copy(folder, change):
        target = tmp_path / "changed"
        shutil.copytree(folder, target)
        tensors = mx.load(str(target / "model.safetensors"))
        change(tensors)
        mx.eval(tensors)
        mx.save_safetensors(str(target / "model.safetensors"), tensors, metadata={"format": "mlx"})
        return target

    return copy


@pytest.mark.parametrize(
    ("variant", "layout", "kind"),
    [
        ("lit", "apple", "image-text pair"),
        ("lit", "mlx", "image-text pair"),
        ("fixed", "transformers", "vision encoder"),
        ("native", "apple-mlx", "vision encoder"),
        ("fixed", "timm", "vision encoder"),
    ],
)
def test_a_sound_checkpoint_is_described(checkpoint, variant, layout, kind):
    folder = checkpoint(variant, layout)
    told = describe(folder)
    assert told.keys() == KEYS
    assert (told["layout"], told["kind"]) == (layout, kind)
    assert told["source"] == told["folder"] == str(folder)
    assert told["files"] == ["model.safetensors"]
    assert told["revision"] is told["quantization"] is told["problem"] is None
    assert told["missing_files"] == []
    assert told["dtypes"] == {"F32": told["tensors"]}


@pytest.mark.parametrize("variant", ["lit", "fixed", "native"])
def test_parameters_bytes_and_memory_are_those_of_the_loaded_model(checkpoint, variant):
    folder = checkpoint(variant, "mlx")
    count = sum(x.size for _, x in tree_flatten(load(folder)[0].parameters()))
    told = describe(folder)
    assert told["parameters"] == count
    assert told["bytes"] == told["memory"]["float32"] == 4 * count
    assert told["memory"]["float16"] == 2 * count


def test_stored_dtypes_are_counted(checkpoint):
    told = describe(checkpoint("lit", "mlx", "bfloat16"))
    assert told["dtypes"] == {"BF16": told["tensors"]}
    assert told["bytes"] == 2 * told["parameters"]


def test_the_config_has_what_the_tensors_tell(checkpoint):
    assert describe(checkpoint("native", "apple"))["config"]["is_native"] is True
    assert describe(checkpoint("lit", "apple"))["config"]["vision_config"]["use_head"] is True


@pytest.mark.parametrize("variant", ["lit", "fixed", "native"])
def test_everything_fits_into_json(checkpoint, variant):
    told = describe(checkpoint(variant))
    assert json.loads(json.dumps(told)) == told


def test_a_quantized_checkpoint_says_how(checkpoint, changed):
    def quantize(tensors):
        name = "encoder.layers.0.attention.q_proj"
        packed = mx.quantize(tensors[f"{name}.weight"], group_size=64, bits=4)
        tensors.update(
            zip([f"{name}.{kind}" for kind in ("weight", "scales", "biases")], packed, strict=True)
        )

    folder = changed(checkpoint("fixed", "mlx"), quantize)
    config = json.loads((folder / "config.json").read_text())
    config["quantization"] = {"group_size": 64, "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    told = describe(folder)
    assert told["quantization"] == str(Quantization(Scheme(64, 4))) == "4-bit affine, groups of 64"
    assert told["dtypes"]["U32"] == 1
    assert told["parameters"] == describe(checkpoint("fixed", "mlx"))["parameters"]
    assert told["bytes"] < describe(checkpoint("fixed", "mlx"))["bytes"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda t: t.pop("encoder.layers.1.rms_norm2.weight"),
            "1 missing: encoder.layers.1.rms_norm2.weight",
        ),
        (lambda t: t.update({"encoder.extra": mx.zeros(1)}), "1 unexpected: encoder.extra"),
        (
            lambda t: t.update({"embeddings.rms_norm.weight": mx.ones(5)}),
            "1 of the wrong shape: embeddings.rms_norm.weight is [5], not [64]",
        ),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_what_load_would_refuse_is_said_before(checkpoint, changed, change, problem):
    folder = changed(checkpoint("fixed", "mlx"), change)
    assert describe(folder)["problem"] == f"the checkpoint does not fit its configuration: {problem}"


@pytest.mark.parametrize(
    ("variant", "removed", "missing"),
    [
        ("lit", "preprocessor_config.json", "preprocessor_config.json"),
        ("lit", "vocab.json", "tokenizer.json (or vocab.json and merges.txt)"),
    ],
)
def test_files_that_are_not_there_are_named(checkpoint, changed, variant, removed, missing):
    folder = changed(checkpoint(variant, "mlx"), lambda tensors: None)
    (folder / removed).unlink()
    assert describe(folder)["missing_files"] == [missing]


def test_a_checkpoint_without_a_config_is_described_from_its_tensors(tmp_path, variants):
    config = replace(variants["fixed"], hidden_size=128, num_attention_heads=1)  # heads as wide as published
    folder = write_checkpoint(tmp_path / "bare", config)
    (folder / "config.json").unlink()
    told = describe_checkpoint(inspect(folder, on_event=ignore))
    assert told["missing_files"] == ["config.json"] and told["problem"] is None
    assert told["config"]["num_attention_heads"] == 1
