"""Adapters that were trained inside another module, by the names that their files have then."""

from __future__ import annotations

import json
import shutil

import mlx.core as mx
import pytest
from helpers.adapter_files import change, change_tensors

from mlx_aimv2 import LoadOptions, load
from mlx_aimv2.adapters.attach import AdapterConfig, adapted
from mlx_aimv2.adapters.peft_config import PeftConfig
from mlx_aimv2.adapters.stored_adapter import PREFIX, read_stored, wrapper_of
from mlx_aimv2.conversion.fuse import fuse
from mlx_aimv2.errors import (
    ConfigError,
    DamagedFileError,
    InputError,
    MismatchError,
    NotACheckpointError,
    PickleRefusedError,
)
from mlx_aimv2.events import Notice
from mlx_aimv2.loading import make_model

Q0 = f"{PREFIX}encoder.layers.0.attention.q_proj"
WRAPPERS = (
    f"{PREFIX}vision.", f"{PREFIX}model.", f"{PREFIX}model.vision.", f"{PREFIX}module.", f"{PREFIX}_orig_mod.",
    f"{PREFIX}encoder.", f"module.{PREFIX}", f"_orig_mod.module.{PREFIX}", f"_orig_mod.{PREFIX}backbone.trunk.",
    f"{PREFIX}vision_model.", f"{PREFIX}model.vision_model.",
)  # fmt: skip


def rename(folder, function, **config):
    change_tensors(folder, function)
    change(folder, **config)


def inside(wrapper):
    return lambda tensors: {name.replace(PREFIX, wrapper, 1): x for name, x in tensors.items()}


def loaded(base, folder):
    events = []
    model, _ = load(base, dtype="float32", adapter_path=folder, on_event=events.append)
    told = [e.message for e in events if isinstance(e, Notice) and str(folder) in e.message]
    return model, told


@pytest.fixture
def wrapped(written_adapter, tmp_path):
    """A copy of the adapter that a test changes."""
    return shutil.copytree(written_adapter, tmp_path / "wrapped")


@pytest.fixture(scope="module")
def plain(written_adapter, tiny_vision):
    """The model with the adapter as it was written."""
    return loaded(tiny_vision, written_adapter)[0]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_an_adapter_of_a_wrapper_gives_what_the_encoders_own_gives(
    plain, wrapped, tiny_vision, pixels, wrapper
):
    rename(wrapped, inside(wrapper))
    model, told = loaded(tiny_vision, wrapped)
    assert mx.array_equal(model(pixels).last_hidden_state, plain(pixels).last_hidden_state)
    assert list(adapted(model)) == list(adapted(plain)) and len(adapted(model)) == 4
    outer, _, own = wrapper.partition(PREFIX)
    before = " and ".join(part for part in (outer, own.replace("vision_model.", "")) if part)
    assert told == ([f"{wrapped}: {before} before the name of every module is taken off"] if before else [])


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_pair_inside_another_module(with_adapter, tiny_pair, tmp_path, pixels, kind):
    with_adapter(tiny_pair, tmp_path / "a", AdapterConfig(type=kind, rank=2), towers=("vision", "text"))
    plain, _ = loaded(tiny_pair, tmp_path / "a")
    rename(tmp_path / "a", inside(f"{PREFIX}clip."))
    model, told = loaded(tiny_pair, tmp_path / "a")
    ids = mx.array([[512, 40, 513]])
    assert mx.array_equal(model(ids, pixels).logits_per_image, plain(ids, pixels).logits_per_image)
    assert told == [f"{tmp_path / 'a'}: clip. before the name of every module is taken off"]


@pytest.mark.parametrize(
    "targets",
    [
        r".*vision\.encoder\.layers\.\d+\.attention\.(q|v)_proj",
        [f"vision.encoder.layers.{n}.attention.{x}_proj" for n in (0, 1) for x in "qv"],
    ],
    ids=["pattern", "names"],
)
def test_targets_by_their_whole_names_are_those_of_training(adapter, wrapped, tiny_vision, pixels, targets):
    patterns = {"rank_pattern": {r"vision\.encoder\.layers\.1\.attention\.q_proj": 2}}

    def smaller(tensors):
        """The second layer's q with half the rank."""
        at = f"{PREFIX}vision.encoder.layers.1.attention.q_proj"
        a, b = (tensors[f"{at}.lora_{x}.weight"] for x in "AB")
        return {**tensors, f"{at}.lora_A.weight": a[:2], f"{at}.lora_B.weight": b[:, :2]}

    rename(wrapped, inside(f"{PREFIX}vision."))
    rename(wrapped, smaller, target_modules=targets, **patterns)
    model, _ = loaded(tiny_vision, wrapped)
    assert [layer.rank for layer in adapted(model).values()] == [4, 4, 2, 4]
    assert adapted(model)["encoder.layers.1.attention.q_proj"].scale == 16.0 / 2


@pytest.mark.parametrize("saved", [None, ["classifier"]])
def test_what_is_no_part_of_the_encoder_is_left_out_and_named(plain, wrapped, tiny_vision, pixels, saved):
    def extended(tensors):
        extra = {"classifier.weight": mx.zeros((3, 64)), "classifier.bias": mx.zeros(3)}
        return {
            **{name.replace(PREFIX, f"{PREFIX}vision.", 1): x for name, x in tensors.items()},
            **{f"{PREFIX}{name}": x for name, x in extra.items()},
        }

    rename(wrapped, extended, **({"modules_to_save": saved} if saved else {}))
    model, told = loaded(tiny_vision, wrapped)
    assert mx.array_equal(model(pixels).last_hidden_state, plain(pixels).last_hidden_state)
    assert told == [
        f"{wrapped}: vision. before the name of every module is taken off",
        f"{wrapped}: left out, for it is no part of the encoder: {PREFIX}classifier.bias, {PREFIX}classifier.weight",
    ]


def test_modules_of_the_encoder_that_were_saved_whole_are_refused(wrapped, tiny_vision):
    rename(
        wrapped,
        lambda tensors: {**tensors, f"{PREFIX}rms_norm.weight": mx.zeros(64)},
        modules_to_save=["rms_norm"],
    )
    with pytest.raises(ConfigError, match=r"modules_to_save is \['rms_norm'\]: whole modules trained beside"):
        load(tiny_vision, adapter_path=wrapped)


def test_two_prefixes_are_not_taken_off_and_every_name_is_told(wrapped, tiny_vision):
    def two(tensors):
        return {
            n.replace(PREFIX, f"{PREFIX}{'a' if 'q_proj' in n else 'b'}.", 1): x for n, x in tensors.items()
        }

    rename(wrapped, two)
    with pytest.raises(MismatchError) as caught:
        load(tiny_vision, adapter_path=wrapped)
    message = str(caught.value)
    assert "8 unexpected: a.encoder.layers.{0-1}.attention.q_proj.lora_A.weight, " in message
    assert "b.encoder.layers.{0-1}.attention.v_proj.lora_B.weight" in message


def test_a_name_that_is_not_pefts_is_no_wrapper(wrapped, tiny_vision):
    rename(wrapped, inside("vision."))
    with pytest.raises(MismatchError, match=r"8 unexpected: vision\.encoder"):
        load(tiny_vision, adapter_path=wrapped)


def test_it_is_told_by_fuse_too(wrapped, tiny_vision, tmp_path, pixels):
    rename(wrapped, inside(f"{PREFIX}vision."))
    events = []
    fuse(tiny_vision, wrapped, tmp_path / "fused", on_event=events.append)
    told = [event.message for event in events if isinstance(event, Notice)]
    assert f"{wrapped}: vision. before the name of every module is taken off" in told
    model, _ = loaded(tiny_vision, wrapped)
    fused, _ = load(tmp_path / "fused", dtype="float32")
    assert mx.allclose(fused(pixels).last_hidden_state, model(pixels).last_hidden_state, atol=1e-4)


def test_without_a_listener_it_is_a_warning(wrapped, tiny_vision):
    rename(wrapped, inside(f"{PREFIX}vision."))
    with pytest.warns(UserWarning, match=r"vision\. before the name of every module is taken off"):
        load(tiny_vision, adapter_path=wrapped)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"{Q0}.lora_A.weight"], PREFIX),
        ([f"{Q0}.lora_A.weight", f"{PREFIX}head.k_proj.lora_A.weight"], PREFIX),
        ([f"{PREFIX}classifier.head.lora_A.weight"], None),
        ([f"{PREFIX}visual_projection.lora_A.weight"], PREFIX),
        (["encoder.layers.0.attention.q_proj.lora_A.weight"], None),
        ([], None),
    ],
)
def test_what_stands_before_the_names(names, expected):
    assert wrapper_of(names) == expected


def test_the_hash_of_an_adapter_is_what_it_was(adapter):
    """It is part of the fingerprint of vectors, so only tensors and how they are used may change it."""
    first = read_stored(adapter).hash
    change(adapter, base_model_name_or_path="elsewhere/base", revision="1" * 40)
    assert read_stored(adapter).hash == first
    rename(adapter, dict, inference_mode=False, modules_to_save=None)
    assert read_stored(adapter).hash == first
    rename(adapter, dict, lora_alpha=3)
    assert read_stored(adapter).hash != first


def test_alpha_is_8_where_a_file_does_not_say_as_in_peft(wrapped, tiny_vision):
    file = wrapped / "adapter_config.json"
    data = json.loads(file.read_text())
    del data["lora_alpha"]
    file.write_text(json.dumps(data))
    assert read_stored(wrapped).alpha_of("encoder.layers.0.attention.q_proj") == 8.0
    assert {layer.scale for layer in adapted(loaded(tiny_vision, wrapped)[0]).values()} == {8.0 / 4}
    del data["r"]
    assert PeftConfig.from_dict(data, "it").rank == 8


@pytest.mark.parametrize(("kind", "dtype"), [("lora", mx.bfloat16), ("dora", mx.float16)])
def test_an_adapter_in_16_bits_is_brought_to_32(with_adapter, tiny_vision, tmp_path, pixels, kind, dtype):
    with_adapter(tiny_vision, tmp_path / "a", AdapterConfig(type=kind, rank=2))
    rename(tmp_path / "a", lambda tensors: {name: x.astype(dtype) for name, x in tensors.items()})
    half, _ = loaded(tiny_vision, tmp_path / "a")
    tensors = mx.load(str(tmp_path / "a" / "adapter_model.safetensors"))
    assert {x.dtype for x in tensors.values()} == {dtype}
    for path, layer in adapted(half).items():
        for key in ("lora_a", "lora_b", *(["magnitude"] if kind == "dora" else [])):
            assert layer[key].dtype == mx.float32
        assert mx.array_equal(layer.lora_a, tensors[f"{PREFIX}{path}.lora_A.weight"].astype(mx.float32))
    rename(tmp_path / "a", lambda tensors: {name: x.astype(mx.float32) for name, x in tensors.items()})
    full, _ = loaded(tiny_vision, tmp_path / "a")
    assert mx.array_equal(half(pixels).last_hidden_state, full(pixels).last_hidden_state)


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


def test_a_second_adapter_is_refused(adapter, tiny_vision):
    model, _ = load(tiny_vision, adapter_path=adapter)
    with pytest.raises(InputError, match="the model has adapters already"):
        read_stored(adapter).put_on(model)


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
