"""Adapters on disk."""

import json
from dataclasses import replace

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import LoadOptions, load
from mlx_aimv2.adapters.adapter_folder import AdapterFolder
from mlx_aimv2.adapters.attach import AdapterConfig, adapted, attach
from mlx_aimv2.adapters.peft_config import PeftConfig
from mlx_aimv2.adapters.store import save_adapter
from mlx_aimv2.adapters.stored_adapter import read_stored
from mlx_aimv2.errors import (
    ConfigError,
    DamagedFileError,
    InputError,
    MismatchError,
    NotACheckpointError,
    OutputError,
    PickleRefusedError,
)
from mlx_aimv2.loading import make_model
from mlx_aimv2.models.classifier import Classifier, make_head

Q0 = "base_model.model.encoder.layers.0.attention.q_proj"


def read(path):
    return json.loads(path.read_text())


def change(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**read(path), **values}))


def change_tensors(folder, function):
    path = str(folder / "adapter_model.safetensors")
    tensors, metadata = mx.load(path, return_metadata=True)
    mx.eval(tensors)
    mx.save_safetensors(path, function(dict(tensors)), metadata=metadata)


@pytest.fixture
def adapter(with_adapter, tiny_vision, tmp_path):
    """The folder of an adapter of q and v in both layers."""
    with_adapter(tiny_vision, tmp_path / "adapter", AdapterConfig(rank=4, target_modules=("q", "v")))
    return tmp_path / "adapter"


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("variant", ["fixed", "head", "biases", "native"])
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


def test_names_of_modules_mean_what_they_mean_in_peft():
    plain = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    in_layer, in_head = "encoder.layers.1.attention.k_proj", "head.k_proj"

    def names(**values):
        config = PeftConfig.from_dict({**plain, **values}, "it")
        return config.names(in_layer), config.names(in_head)

    assert names(target_modules=["k_proj"]) == (True, True)
    assert names(target_modules=["attention.k_proj"]) == (True, False)
    assert names(target_modules=["_proj"]) == (False, False)
    assert names(target_modules=["head.k_proj"]) == (False, True)
    assert names(target_modules="all-linear") == (True, True)
    assert names(target_modules=r".*attention\.k_proj") == (True, False)
    assert names(target_modules="k_proj") == (False, False)  # a pattern is for the whole name
    assert names(target_modules=["k_proj"], layers_to_transform=[1]) == (True, False)
    assert names(target_modules=["k_proj"], layers_to_transform=0) == (False, False)
    assert names(target_modules=["k_proj"], layers_to_transform=1, layers_pattern="blocks") == (False, False)
    assert names(target_modules=["k_proj"], exclude_modules=["head.k_proj"]) == (True, False)
    assert names(target_modules=["k_proj"], exclude_modules=r"encoder\..*") == (False, True)
    assert names() == (False, False)
    config = PeftConfig.from_dict(
        {**plain, "rank_pattern": {"head.k_proj": 2}, "alpha_pattern": {"k_proj": 3}}, "it"
    )
    assert (config.rank_of(in_head), config.rank_of(in_layer), config.alpha_of(in_layer)) == (2, 4, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', and only LORA"),
        ({"peft_type": None}, "peft_type is None, and only LORA"),
        ({"bias": "all"}, "bias is 'all': biases of the base, trained too, cannot be read here"),
        (
            {"modules_to_save": ["head"]},
            r"modules_to_save is \['head'\]: whole modules trained beside the adapter",
        ),
        ({"lora_bias": True}, "lora_bias is True: a bias in B cannot be read here"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True: transposed weights"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is .*: layers that are used several times"),
        ({"target_parameters": ["weight"]}, "target_parameters is .*: parameters adapted by name"),
        ({"use_qalora": True}, "use_qalora is True: QALoRA cannot be read here"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "init_lora_weights is 'pissa_niter_4', which changes the base too",
        ),
        ({"init_lora_weights": "olora"}, "path_initial_model_for_weight_conversion"),
        ({"r": 0}, "r is 0, but has to be a whole number from 1 to 16384"),
        ({"r": 10**9}, "but has to be a whole number from 1 to 16384"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', but has to be a finite number above 0"),
        ({"lora_alpha": -1}, "lora_alpha is -1, but has to be"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0, but has to be a number from 0 to below 1"),
        ({"use_dora": "yes"}, "use_dora is 'yes', but has to be true or false"),
        ({"target_modules": {"q": 1}}, "target_modules is .*, but has to be a list of names, or a pattern"),
        ({"target_modules": ["q", 1]}, "target_modules is .*, but has to be a list of names, or a pattern"),
        ({"target_modules": "(q"}, r"target_modules is '\(q', but has to be a regular expression \(missing"),
        ({"target_modules": "(a+)+b"}, "has to be simpler: no repeated groups"),
        ({"target_modules": ".*" * 9}, "no more than 4 repetitions"),
        ({"target_modules": "q" * 1001}, "has to be simpler"),
        ({"exclude_modules": "(a|a)*"}, "exclude_modules is .*, but has to be simpler"),
        ({"rank_pattern": {"(a+)+": 3}}, "rank_pattern is .*, but has to be simpler"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern of 'q_proj' is 0, but has to be a whole number"),
        ({"rank_pattern": [3]}, r"rank_pattern is \[3\], but has to be an object"),
        (
            {"alpha_pattern": {"q_proj": None}},
            "alpha_pattern of 'q_proj' is None, but has to be a finite number",
        ),
        ({"layers_to_transform": "last"}, "layers_to_transform is 'last', but has to be a number or a list"),
        ({"layers_to_transform": [1.5]}, "has to be a number or a list of numbers of layers"),
        ({"layers_pattern": "(.*)*"}, "layers_pattern is .*, but has to be one name or a list of names"),
    ],
)
def test_what_cannot_be_read_is_one_line(adapter, tiny_vision, values, message):
    change(adapter, **values)
    with pytest.raises(ConfigError, match=message) as caught:
        load(tiny_vision, adapter_path=adapter)
    assert "adapter_config.json" in str(caught.value) and "\n" not in str(caught.value)


def test_all_that_does_not_fit_is_named_at_once(adapter, tiny_vision):
    def damage(tensors):
        tensors[f"{Q0}.lora_A.weight"] = mx.zeros((4, 32))
        del tensors[f"{Q0}.lora_B.weight"]
        tensors["base_model.model.encoder.layers.0.attention.k_proj.lora_A.weight"] = mx.zeros((4, 64))
        tensors["base_model.model.encoder.layers.1.attention.k_proj.lora_A.weight"] = mx.zeros((4, 64))
        tensors["base_model.model.rms_norm.weight"] = mx.zeros((3, 64))
        return tensors

    change_tensors(adapter, damage)
    with pytest.raises(MismatchError) as caught:
        load(tiny_vision, adapter_path=adapter)
    message = str(caught.value)
    assert "adapter does not fit the model: " in message
    assert "1 missing: encoder.layers.0.attention.q_proj.lora_B.weight" in message
    assert "3 unexpected: encoder.layers.{0-1}.attention.k_proj.lora_A.weight, rms_norm.weight" in message
    assert (
        "1 of the wrong shape: encoder.layers.0.attention.q_proj.lora_A.weight is [4, 32], not [4, 64]"
        in message
    )


def test_an_adapter_of_another_size_is_refused(adapter, checkpoint):
    with pytest.raises(MismatchError, match="8 of the wrong shape"):
        load(checkpoint("odd-heads"), adapter_path=adapter, options=LoadOptions(any_base=True))


def test_numbers_that_are_no_floats_are_refused(adapter, tiny_vision):
    change_tensors(adapter, lambda tensors: {name: x.astype(mx.int32) for name, x in tensors.items()})
    with pytest.raises(MismatchError, match=r"8 of the wrong type: .* is int32"):
        load(tiny_vision, adapter_path=adapter)


def test_the_text_towers_adapter_needs_a_text_tower(with_adapter, tiny_pair, variants, tmp_path):
    with_adapter(tiny_pair, tmp_path / "a", towers=("text",))
    with pytest.raises(MismatchError, match=r"28 unexpected: text_model.encoder.layers"):
        read_stored(tmp_path / "a").put_on(make_model(variants["head"]))


def test_another_base_is_refused_by_name(adapter, checkpoint, tiny_vision):
    other = checkpoint("head", "transformers")
    with pytest.raises(InputError) as caught:
        load(other, adapter_path=adapter)
    message = str(caught.value)
    assert f"was trained on {tiny_vision} (checkpoint {load(tiny_vision)[0].origin.checkpoint})" in message
    assert f"and this is {other} (checkpoint {load(other)[0].origin.checkpoint})" in message
    assert "with any_base=True" in message
    model, _ = load(other, adapter_path=adapter, options=LoadOptions(any_base=True))
    assert len(adapted(model)) == 4


def test_what_peft_wrote_is_held_against_the_repositorys_name(adapter, tiny_vision):
    change_tensors(adapter, lambda tensors: tensors)
    path = str(adapter / "adapter_model.safetensors")
    mx.save_safetensors(path, dict(mx.load(path)), metadata={"format": "pt"})
    change(adapter, base_model_name_or_path="apple/aimv2-large-patch14-336")
    model, _ = load(tiny_vision, adapter_path=adapter)  # a folder: nobody knows
    other = replace(model.origin, name="apple/aimv2-large-patch14-224", revision="0" * 40)
    message = (
        "was trained on apple/aimv2-large-patch14-336, and this is apple/aimv2-large-patch14-224: load that"
    )
    with pytest.raises(InputError, match=message):
        AdapterFolder.read(adapter).check(other)
    AdapterFolder.read(adapter).check(other, any_base=True)


def test_a_second_adapter_is_refused(adapter, tiny_vision):
    model, _ = load(tiny_vision, adapter_path=adapter)
    with pytest.raises(InputError, match="the model has adapters already"):
        read_stored(adapter).put_on(model)


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


def test_pickled_tensors_are_refused(adapter, tiny_vision):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(
        PickleRefusedError, match=r"holds pickled tensors \(adapter_model.bin\).*safe_serialization"
    ):
        load(tiny_vision, adapter_path=adapter)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(adapter, tiny_vision, name):
    (adapter / name).unlink()
    with pytest.raises(NotACheckpointError, match=f"adapter is no adapter: it lacks {name}"):
        load(tiny_vision, adapter_path=adapter)


def test_folders_without_an_adapter_are_refused(tiny_vision, tmp_path):
    with pytest.raises(
        NotACheckpointError, match="nowhere: there is no such folder: name the one that holds"
    ):
        load(tiny_vision, adapter_path=tmp_path / "nowhere")
    with pytest.raises(NotACheckpointError, match=r"holds neither an adapter .* nor a trained head"):
        load(tiny_vision, adapter_path=tmp_path)


def test_damaged_files_are_refused(adapter, tiny_vision):
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DamagedFileError, match="is cut off"):
        load(tiny_vision, adapter_path=adapter)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"adapter_config.json is not valid JSON"):
        load(tiny_vision, adapter_path=adapter)


def test_a_link_out_of_the_folder_is_refused(adapter, tmp_path, tiny_vision):
    (adapter / "adapter_config.json").rename(tmp_path / "elsewhere.json")
    (adapter / "adapter_config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(DamagedFileError, match="is a link out of its folder"):
        load(tiny_vision, adapter_path=adapter)


def test_an_adapter_of_no_layer_is_refused(adapter, tiny_vision):
    change_tensors(adapter, lambda tensors: {"base_model.model.head.k_proj.lora_A.weight": mx.zeros((4, 64))})
    with pytest.raises(MismatchError, match="does not fit the model"):
        load(tiny_vision, adapter_path=adapter)
    assert read_stored(adapter).modules() == {"head.k_proj"}


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


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_an_adapter_in_16_bits_is_brought_to_float32(adapter, tiny_vision, dtype):
    """PEFT saves what it trained in; a merge in 16 bits would round the sums."""
    change_tensors(adapter, lambda tensors: {name: x.astype(dtype) for name, x in tensors.items()})
    stored = mx.load(str(adapter / "adapter_model.safetensors"))
    model, _ = load(tiny_vision, dtype="float32", adapter_path=adapter)
    for path, layer in adapted(model).items():
        for kind, x in (("lora_A", layer.lora_a), ("lora_B", layer.lora_b)):
            expected = stored[f"base_model.model.{path}.{kind}.weight"]
            assert x.dtype == mx.float32 and expected.dtype == dtype
            assert mx.array_equal(x, expected.astype(mx.float32)), (path, kind)


def test_a_missing_alpha_is_8_as_in_peft(adapter, tiny_vision, pixels):
    """PEFT's LoraConfig has lora_alpha 8; its adapters of rank 4 count twice then."""
    path = adapter / "adapter_config.json"
    outputs = {}
    for alpha in (None, 8, 16):
        data = {name: value for name, value in read(path).items() if name != "lora_alpha"}
        path.write_text(json.dumps(data if alpha is None else data | {"lora_alpha": alpha}))
        model, _ = load(tiny_vision, dtype="float32", adapter_path=adapter)
        outputs[alpha] = model(pixels).last_hidden_state
        if alpha is None:
            assert {layer.scale for layer in adapted(model).values()} == {2.0}
    assert mx.array_equal(outputs[None], outputs[8])
    assert not mx.allclose(outputs[None], outputs[16])
