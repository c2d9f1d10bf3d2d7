"""Architectures by name, and models of random weights."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import load
from mlx_aimv2.benchmarking.architecture import Architecture, find_architecture, preset_config
from mlx_aimv2.checkpoints.bundled import bundled_sizes
from mlx_aimv2.errors import InputError, NotACheckpointError, OfflineError
from mlx_aimv2.presets import DEFAULT_MODEL, PRESETS
from mlx_aimv2.processing.image_config import ImageProcessorConfig


@pytest.fixture
def small(checkpoint):
    return find_architecture(str(checkpoint("lit")))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_published_checkpoint_needs_no_download(preset):
    architecture = find_architecture(preset.repo)
    assert architecture.name == preset.name
    assert architecture.config == preset_config(preset)
    assert architecture.parameters == preset.parameters
    assert architecture.settings.do_resize is not architecture.config.vision.is_native


def test_a_folder_with_a_known_name_comes_first(checkpoint, tmp_path, monkeypatch):
    (tmp_path / DEFAULT_MODEL).symlink_to(checkpoint("lit"))
    monkeypatch.chdir(tmp_path)
    notices = []
    architecture = find_architecture(DEFAULT_MODEL, notices.append)
    assert architecture.config.vision.hidden_size == 64
    assert "the folder lit is used" in notices[0].message


def test_demo_is_the_checkpoint_inside_the_package():
    architecture = find_architecture("demo")
    assert (architecture.name, architecture.parameters) == ("demo", bundled_sizes().parameters)


def test_other_names_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="neither a folder nor a known model"):
        find_architecture("large_224")
    with pytest.raises(NotACheckpointError):
        find_architecture(str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError):
        find_architecture("someone/else")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_random_model_has_the_dtypes_of_a_loaded_one(checkpoint, small, dtype):
    loaded, _ = load(checkpoint("lit"), dtype=dtype)
    random = small.random_model(getattr(mx, dtype))
    kinds = [
        {name: (x.shape, x.dtype) for name, x in dict(tree_flatten(model.parameters())).items()}
        for model in (loaded, random)
    ]
    assert kinds[0] == kinds[1]
    assert random.training is False


def test_weights_are_small_and_different(small):
    weight = np.array(small.random_model(mx.float32).vision.encoder.layers[0].ffn.gate_proj.weight)
    assert 0.01 < weight.std() < 0.03
    assert len(np.unique(weight)) > weight.size // 2


def test_the_matrices_that_convert_quantizes_are_packed(small):
    tensors = dict(tree_flatten(small.random_model(mx.float32, bits=4).parameters()))
    packed = {name.removesuffix(".scales") for name in tensors if name.endswith(".scales")}
    assert "vision_model.encoder.layers.1.attention.q_proj" in packed
    assert "vision_model.embeddings.patch_embed" not in packed
    assert tensors["vision_model.encoder.layers.1.attention.q_proj.weight"].dtype == mx.uint32


def test_the_caller_keeps_its_random_state(small):
    mx.random.seed(5)
    expected = np.array(mx.random.normal((4,)))
    mx.random.seed(5)
    assert small.shapes["visual_projection.weight"] == (32, 64)
    small.random_model(mx.float32)
    assert np.array_equal(np.array(mx.random.normal((4,))), expected)


def test_shapes_need_no_memory():
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    preset = next(preset for preset in PRESETS if preset.name == "3B-448")
    settings = ImageProcessorConfig.default(448)
    assert Architecture("3B-448", preset_config(preset), settings).parameters == preset.parameters
    assert mx.get_peak_memory() - before < 1e6
