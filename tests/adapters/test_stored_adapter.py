"""Adapters that were trained inside another module, by the names that their files have then."""

from __future__ import annotations

import json
import shutil

import mlx.core as mx
import pytest

from mlx_aimv2 import load
from mlx_aimv2.adapters.attach import AdapterConfig, adapted
from mlx_aimv2.adapters.peft_config import PeftConfig
from mlx_aimv2.adapters.stored_adapter import PREFIX, read_stored, wrapper_of
from mlx_aimv2.conversion.fuse import fuse
from mlx_aimv2.errors import ConfigError, MismatchError
from mlx_aimv2.events import Notice

Q0 = f"{PREFIX}encoder.layers.0.attention.q_proj"
WRAPPERS = (
    f"{PREFIX}vision.", f"{PREFIX}model.", f"{PREFIX}model.vision.", f"{PREFIX}module.", f"{PREFIX}_orig_mod.",
    f"{PREFIX}encoder.", f"module.{PREFIX}", f"_orig_mod.module.{PREFIX}", f"_orig_mod.{PREFIX}backbone.trunk.",
    f"{PREFIX}vision_model.", f"{PREFIX}model.vision_model.",
)  # fmt: skip


def rename(folder, function, **config):
    path = str(folder / "adapter_model.safetensors")
    tensors, metadata = mx.load(path, return_metadata=True)
    mx.eval(tensors)
    mx.save_safetensors(path, function(dict(tensors)), metadata=metadata)
    if config:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **config}))


def inside(wrapper):
    return lambda tensors: {name.replace(PREFIX, wrapper, 1): x for name, x in tensors.items()}


def loaded(base, folder):
    events = []
    model, _ = load(base, dtype="float32", adapter_path=folder, on_event=events.append)
    told = [e.message for e in events if isinstance(e, Notice) and str(folder) in e.message]
    return model, told


@pytest.fixture
def adapter(with_adapter, tiny_vision, tmp_path):
    """The folder of an adapter of q and v."""
    with_adapter(tiny_vision, tmp_path / "plain", AdapterConfig(rank=4, target_modules=("q", "v")))
    return tmp_path / "plain"


@pytest.fixture
def wrapped(adapter, tmp_path):
    """A copy of it that a test changes."""
    return shutil.copytree(adapter, tmp_path / "wrapped")


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_an_adapter_of_a_wrapper_gives_what_the_encoders_own_gives(
    adapter, wrapped, tiny_vision, pixels, wrapper
):
    rename(wrapped, inside(wrapper))
    (plain, _), (model, told) = loaded(tiny_vision, adapter), loaded(tiny_vision, wrapped)
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
def test_what_is_no_part_of_the_encoder_is_left_out_and_named(adapter, wrapped, tiny_vision, pixels, saved):
    def extended(tensors):
        extra = {"classifier.weight": mx.zeros((3, 64)), "classifier.bias": mx.zeros(3)}
        return {
            **{name.replace(PREFIX, f"{PREFIX}vision.", 1): x for name, x in tensors.items()},
            **{f"{PREFIX}{name}": x for name, x in extra.items()},
        }

    rename(wrapped, extended, **({"modules_to_save": saved} if saved else {}))
    (plain, _), (model, told) = loaded(tiny_vision, adapter), loaded(tiny_vision, wrapped)
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


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("kind", ["lora", "dora"])
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
