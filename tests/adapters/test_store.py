"""Writing adapters."""

from dataclasses import replace

import mlx.core as mx
import pytest
from helpers.adapter_files import change, read
from mlx.utils import tree_flatten

from mlx_aimv2 import LoadOptions, load
from mlx_aimv2.adapters.attach import AdapterConfig, adapted, attach
from mlx_aimv2.adapters.store import save_adapter
from mlx_aimv2.adapters.stored_adapter import read_stored
from mlx_aimv2.errors import (
    InputError,
    OutputError,
)
from mlx_aimv2.models.classifier import Classifier
from mlx_aimv2.models.classifier_heads import make_head

Q0 = "base_model.model.encoder.layers.0.attention.q_proj"


@pytest.mark.parametrize(
    ("variant", "kind"),
    [("fixed", "lora"), ("head", "dora"), ("biases", "lora"), ("biases", "dora"), ("native", "dora")],
)
def test_what_is_saved_comes_back(with_adapter, checkpoint, tmp_path, pixels, kind, variant):
    base = checkpoint(variant)
    config = AdapterConfig(type=kind, rank=3, alpha=5.0, dropout=0.1, num_layers=1, rslora=True)
    model = with_adapter(base, tmp_path / "adapter", config)
    again, _ = load(base, dtype="float32", adapter_path=tmp_path / "adapter")
    assert mx.array_equal(again(pixels).last_hidden_state, model(pixels).last_hidden_state)
    stored = read_stored(tmp_path / "adapter").config
    assert (stored.dora, stored.rank, stored.alpha, stored.dropout) == (kind == "dora", 3, 5.0, 0.1)
    names = dict(tree_flatten(again.trainable_parameters()))
    assert names.keys() == dict(tree_flatten(model.trainable_parameters())).keys()


@pytest.mark.parametrize("towers", [("vision",), ("text",), ("vision", "text")], ids="-".join)
def test_a_pairs_adapter_comes_back(with_adapter, tiny_pair, tmp_path, pixels, towers):
    model = with_adapter(tiny_pair, tmp_path / "adapter", towers=towers)
    again, _ = load(tiny_pair, dtype="float32", adapter_path=tmp_path / "adapter")
    assert list(adapted(again)) == list(adapted(model))
    ids = mx.array([[512, 40, 513]])
    assert mx.array_equal(again(ids, pixels).logits_per_image, model(ids, pixels).logits_per_image)


def test_the_files_are_pefts(adapter, tiny_vision):
    data = read(adapter / "adapter_config.json")
    assert data["peft_type"] == "LORA" and data["task_type"] is None and data["inference_mode"] is True
    assert (data["r"], data["lora_alpha"], data["use_dora"], data["bias"]) == (4, 16.0, False, "none")
    assert data["target_modules"] == ["attention.q_proj", "attention.v_proj"]
    assert data["layers_to_transform"] is None
    assert data["base_model_name_or_path"] == str(tiny_vision)
    assert data["auto_mapping"]["base_model_class"] == "Aimv2VisionModel"
    tensors, metadata = mx.load(str(adapter / "adapter_model.safetensors"), return_metadata=True)
    assert tensors[f"{Q0}.lora_A.weight"].shape == (4, 64)
    assert tensors[f"{Q0}.lora_B.weight"].shape == (64, 4)
    assert len(tensors) == 2 * 2 * 2 and {x.dtype for x in tensors.values()} == {mx.float32}
    assert metadata["format"] == "pt" and metadata["base"] == load(tiny_vision)[0].origin.checkpoint


def test_the_last_layers_are_named_by_number(with_adapter, checkpoint, tmp_path):
    with_adapter(checkpoint("fixed"), tmp_path / "a", AdapterConfig(type="dora", num_layers=1))
    data = read(tmp_path / "a" / "adapter_config.json")
    assert (data["layers_to_transform"], data["layers_pattern"]) == ([1], "layers")
    assert data["use_dora"] is True


def test_a_pairs_other_tower_is_left_out(with_adapter, tiny_pair, tmp_path):
    with_adapter(tiny_pair, tmp_path / "a")
    assert read(tmp_path / "a" / "adapter_config.json")["exclude_modules"] == r"text_model\..*"


def test_what_no_rule_says_is_named_in_full(tiny_vision, tmp_path, trained, pixels):
    model, _ = load(tiny_vision, dtype="float32")
    config = AdapterConfig(rank=2, target_modules=("q", "v"))
    attach(model, config)
    layer = adapted(model)["encoder.layers.0.attention.v_proj"]
    model.encoder.layers[0].attention.v_proj = layer.linear
    save_adapter(tmp_path / "a", trained(model), config, model.origin)
    assert len(read(tmp_path / "a" / "adapter_config.json")["target_modules"]) == 3
    again, _ = load(tiny_vision, dtype="float32", adapter_path=tmp_path / "a")
    assert mx.array_equal(again(pixels).last_hidden_state, model(pixels).last_hidden_state)


def test_an_adapter_inside_a_classifier_is_the_encoders(tiny_vision, tmp_path, trained, pixels):
    trunk, _ = load(tiny_vision, dtype="float32")
    config = AdapterConfig(rank=2)
    attach(trunk, config)
    classifier = Classifier(trained(trunk), make_head({"kind": "linear"}, 64, 3), "mean")
    save_adapter(tmp_path / "a", classifier, config, trunk.origin)
    again, _ = load(tiny_vision, dtype="float32", adapter_path=tmp_path / "a")
    assert mx.array_equal(again(pixels).last_hidden_state, trunk(pixels).last_hidden_state)


def test_an_image_encoders_adapter_fits_a_pair_and_back(
    with_adapter, tiny_pair, checkpoint, tmp_path, pixels
):
    pair = with_adapter(tiny_pair, tmp_path / "of-pair")
    alone = load(tiny_pair, dtype="float32")[0].vision_model
    read_stored(tmp_path / "of-pair").put_on(alone)
    expected = pair.vision_model(pixels).last_hidden_state
    assert mx.array_equal(alone(pixels).last_hidden_state, expected)
    save_adapter(tmp_path / "of-encoder", alone, AdapterConfig(rank=4), None)
    again, _ = load(tiny_pair, dtype="float32", adapter_path=tmp_path / "of-encoder")
    assert mx.array_equal(again.vision_model(pixels).last_hidden_state, expected)


def test_saving_again_replaces_what_was_there(adapter, tiny_vision, trained):
    model, _ = load(tiny_vision, dtype="float32", adapter_path=adapter)
    before = (adapter / "adapter_model.safetensors").read_bytes()
    save_adapter(adapter, trained(model, seed=8), AdapterConfig(rank=4), model.origin)
    assert (adapter / "adapter_model.safetensors").read_bytes() != before
    assert sorted(path.name for path in adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_the_identity_of_a_model_names_its_adapter(adapter, tiny_vision):
    plain, one = load(tiny_vision)[0].origin, load(tiny_vision, adapter_path=adapter)[0].origin
    assert plain.adapter is None and one == replace(plain, adapter=one.adapter)
    change(adapter, lora_alpha=17)
    assert load(tiny_vision, adapter_path=adapter)[0].origin.adapter != one.adapter


def test_saving_nothing_is_refused(tiny_vision, tmp_path):
    with pytest.raises(InputError, match="the model has no adapters to save: attach some first"):
        save_adapter(tmp_path / "a", load(tiny_vision)[0], AdapterConfig(), None)


def test_saving_with_another_config_is_refused(adapter, tiny_vision, tmp_path):
    model, _ = load(tiny_vision, adapter_path=adapter)
    with pytest.raises(InputError, match=r"has rank 4, alpha 16.0, which is not what config says"):
        save_adapter(tmp_path / "a", model, AdapterConfig(rank=8), None)


def test_a_place_that_cannot_be_written_is_named(adapter, tiny_vision, tmp_path):
    model, _ = load(tiny_vision, adapter_path=adapter)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file cannot be written"):
        save_adapter(tmp_path / "file", model, AdapterConfig(rank=4), None)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_is_trained_on_packed_weights(checkpoint, with_adapter, tmp_path, pixels, kind):
    from mlx_aimv2 import convert
    from mlx_aimv2.conversion.options import ConvertOptions
    from mlx_aimv2.quantization.scheme import Scheme

    base = convert(checkpoint("fixed"), tmp_path / "q", options=ConvertOptions(scheme=Scheme(32, 8)))
    packed = LoadOptions(keep_quantized=True)
    model = with_adapter(base, tmp_path / "a", AdapterConfig(type=kind, rank=2), options=packed)
    again, _ = load(base, dtype="float32", adapter_path=tmp_path / "a", options=packed)
    assert mx.array_equal(again(pixels).last_hidden_state, model(pixels).last_hidden_state)
    with pytest.warns(UserWarning, match="were unpacked"):
        plain, _ = load(base, dtype="float32", adapter_path=tmp_path / "a")
    assert mx.allclose(plain(pixels).last_hidden_state, model(pixels).last_hidden_state, atol=1e-3)


@pytest.mark.parametrize("lasting", [False, True], ids=["failed", "killed"])
def test_an_adapter_on_disk_is_the_old_or_the_new_one_whatever_fails(tiny_vision, tmp_path, faults, lasting):
    made = {}
    for rank in (2, 4):
        model, _ = load(tiny_vision, dtype="float32")
        config = AdapterConfig(rank=rank, target_modules=("q",))
        attach(model, config)
        mx.eval(model.parameters())
        made[rank] = model, config

    def begin(folder):
        save_adapter(folder, *made[2], None)

    def check(folder, step):
        stored = read_stored(folder)
        assert {x.shape[0] for name, x in stored.tensors.items() if "lora_A" in name} == {stored.config.rank}
        assert stored.config.rank in (2, 4)
        save_adapter(folder, *made[4], None)
        assert read_stored(folder).config.rank == 4
        assert not [path for path in folder.iterdir() if path.name == ".adapter"]

    def write(folder):
        save_adapter(folder, *made[4], None)

    assert faults.everywhere(tmp_path, write, check, begin, lasting) >= 15
