import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from drawn_world.untrained import write_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from mlx_aimv2 import Aimv2Model, Aimv2VisionConfig, Aimv2VisionModel, LoadOptions, convert, load
from mlx_aimv2.checkpoints.foreign_configs import original_config
from mlx_aimv2.errors import (
    Aimv2Error,
    ConfigError,
    DamagedFileError,
    InputError,
    LayoutError,
    MismatchError,
    NotACheckpointError,
    PickleRefusedError,
    TokenizerError,
)
from mlx_aimv2.events import Notice, ignore
from mlx_aimv2.loading import build_model, inspect
from mlx_aimv2.processing.decode import DecodeOptions
from mlx_aimv2.processing.image import NativeOptions
from mlx_aimv2.quantization.scheme import Quantization, dequantize


@pytest.fixture
def copy(tmp_path, checkpoint):
    """A checkpoint that the test may change."""

    def make(variant="fixed", layout="transformers"):
        return shutil.copytree(checkpoint(variant, layout), tmp_path / "copy")

    return make


def edit_json(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changes}))


def edit_weights(folder, drop=(), **changes):
    tensors = mx.load(str(folder / "model.safetensors"))
    tensors = {name: mx.array(x) for name, x in tensors.items() if name not in drop} | changes
    mx.eval(tensors)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})


def parameters(model):
    return dict(tree_flatten(model.parameters()))


def pixels(config, batch=2):
    vision = getattr(config, "vision_config", config)
    return mx.random.normal((batch, vision.image_size, vision.image_size, 3), key=mx.random.key(9))


# --- every model, layout and dtype ---


def test_every_checkpoint_loads_and_runs(stored):
    model, processor = load(stored.folder)
    is_pair = stored.variant == "lit"
    assert isinstance(model, Aimv2Model if is_pair else Aimv2VisionModel)
    assert (processor.tokenizer is not None) == is_pair
    assert not model.training
    out = model.get_image_features(pixels(stored.config)) if is_pair else model(pixels(stored.config))
    assert mx.isfinite(out if is_pair else out.last_hidden_state).all()


@pytest.mark.parametrize("layout", ["apple", "apple-mlx", "transformers", "mlx", "timm"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_stored_dtype_is_read(checkpoint, canonical, variants, layout, dtype):
    model, _ = load(checkpoint("fixed", layout, dtype), dtype="float32")
    expected = canonical(variants["fixed"])
    for name, x in parameters(model).items():
        assert x.dtype == mx.float32
        assert mx.array_equal(x, expected[name].astype(getattr(mx, dtype)).astype(mx.float32)), name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_tables_and_the_scale_in_float32(tiny_pair, dtype):
    model, _ = load(tiny_pair, dtype=dtype)
    kept = {name for name, x in parameters(model).items() if x.dtype == mx.float32}
    assert kept == {
        "logit_scale",
        "text_model.embeddings.position_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
    }
    assert {x.dtype for name, x in parameters(model).items() if name not in kept} == {getattr(mx, dtype)}
    assert model.origin.dtype == dtype


def test_the_argument_goes_before_the_option(tiny_vision):
    model, _ = load(tiny_vision, dtype="float32", options=LoadOptions(dtype="float16"))
    assert model.origin.dtype == "float32"
    assert load(tiny_vision, options=LoadOptions(dtype="float16"))[0].origin.dtype == "float16"


def test_a_model_knows_where_it_came_from(tiny_pair):
    origin = load(tiny_pair)[0].origin
    assert (origin.name, origin.revision, origin.layout) == (str(tiny_pair), None, "apple")
    assert (origin.quantization, len(origin.checkpoint)) == (None, 16)


def test_shards_and_an_index_load_as_one_file_does(copy, canonical, variants):
    folder = copy("fixed")
    tensors = mx.load(str(folder / "model.safetensors"))
    names, places = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number + 1:05}-of-00002.safetensors"
        mx.save_safetensors(str(folder / file), {name: tensors[name] for name in part})
        places |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "model.safetensors").unlink()
    expected = canonical(variants["fixed"])
    assert all(mx.array_equal(x, expected[name]) for name, x in parameters(load(folder)[0]).items())


def test_one_weight_file_of_several_can_be_named(copy, checkpoint):
    folder = copy("fixed", "apple")
    shutil.copy(checkpoint("fixed", "apple-mlx") / "model.safetensors", folder / "mlx_model.safetensors")
    model, _ = load(folder, options=LoadOptions(weights="mlx_model.safetensors"))
    assert model.origin.layout == "apple-mlx"
    assert load(folder)[0].origin.layout == "apple"


# --- configurations that say little ---


@pytest.mark.parametrize("variant", ["fixed", "native", "head", "biases", "odd-heads", "patch-16"])
def test_the_tensors_tell_what_config_json_does_not(copy, variants, variant):
    folder, config = copy(variant), variants[variant]
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": config.num_attention_heads}))
    expected = replace(config, image_size=224) if config.is_native else config
    assert load(folder)[0].config == expected


def test_an_original_config_of_a_pair_is_completed(tiny_pair, variants):
    config = load(tiny_pair)[0].config
    original = json.loads((tiny_pair / "config.json").read_text())
    assert "use_head" not in original["vision_config"] and "is_native" not in original["vision_config"]
    assert config.vision_config.use_head and not config.vision_config.is_native
    assert config.text_config.eos_token_id == variants["lit"].text_config.eos_token_id


def test_the_class_defaults_are_not_believed(copy):
    folder = copy("native")
    edit_json(folder / "config.json", use_head=True, is_native=False)
    config = load(folder)[0].config
    assert (config.use_head, config.is_native) == (False, True)


def test_no_config_json_at_all(tmp_path, variants):
    config = replace(variants["fixed"], hidden_size=128, num_attention_heads=1, num_hidden_layers=1)
    folder = write_checkpoint(tmp_path / "x", config, "timm")
    (folder / "config.json").unlink()
    (folder / "preprocessor_config.json").unlink()
    notices = []
    model, processor = load(folder, on_event=notices.append)
    assert [notice.message for notice in notices] == [
        f"{folder} has no config.json: its tensors, and the published values, stand in for it",
        f"{folder} has no image settings: the published ones for 56 pixels are used"
        " (no preprocessor_config.json, no processor_config.json)",
    ]
    assert model.config == config
    assert processor.image_processor.output_size(300, 200) == (56, 56)


def test_no_config_json_where_the_heads_cannot_be_told(copy):
    folder = copy()
    (folder / "config.json").unlink()
    with pytest.raises(
        ConfigError, match="num_attention_heads is missing, and a width of 64 does not tell it"
    ):
        load(folder, on_event=ignore)


# --- refusals ---


def test_everything_that_does_not_fit_is_in_one_message(copy):
    folder = copy("head")
    layers = [f"encoder.layers.{i}.rms_norm1.weight" for i in range(2)]
    edit_weights(
        folder,
        drop=[*layers, "head.k_proj.weight"],
        **{
            "rms_norm.weight": mx.zeros((64, 1)),
            "encoder.layers.1.ffn.up_proj.weight": mx.zeros((128, 32)),
            "encoder.weight": mx.zeros((2,)),
        },
    )
    with pytest.raises(MismatchError) as caught:
        load(folder)
    assert str(caught.value) == (
        f"{folder} does not fit its configuration:"
        " 3 missing: encoder.layers.{0-1}.rms_norm1.weight, head.k_proj.weight;"
        " 1 unexpected: encoder.weight;"
        " 2 of the wrong shape: encoder.layers.1.ffn.up_proj.weight is [128, 32], not [128, 64],"
        " rms_norm.weight is [64, 1], not [64]"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 4}, r"missing: encoder\.layers\.\{2-3\}\.attention\.q_proj\.weight"),
        ({"num_hidden_layers": 1}, r"9 unexpected: encoder\.layers\.1\.attention\.k_proj\.weight, encoder"),
        (
            {"intermediate_size": 64},
            r"encoder\.layers\.\{0-1\}\.ffn|ffn\.gate_proj\.weight is \[128, 64\], not",
        ),
        (
            {"image_size": 70},
            r"position table is for 56 x 56 pixels, and its config\.json says image_size 70",
        ),
        ({"mlp_bias": True}, r"6 missing: encoder\.layers\.\{0-1\}\.ffn\.gate_proj\.bias"),
        ({"patch_size": 28}, r"patch_embed\.weight is \[64, 14, 14, 3\], not \[64, 28, 28, 3\]"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(copy, changes, message):
    folder = copy()
    edit_json(folder / "config.json", **changes)
    with pytest.raises(MismatchError, match=message):
        load(folder)


def test_a_tensor_that_the_layout_does_not_know_is_refused(copy):
    folder = copy("fixed", "apple")
    edit_weights(folder, **{"trunk.blocks.0.ls1.gamma": mx.zeros((64,))})
    with pytest.raises(MismatchError, match=r"1 unexpected: trunk\.blocks\.0\.ls1\.gamma"):
        load(folder)


def test_position_ids_are_tolerated(copy):
    folder = copy()
    edit_weights(folder, **{"embeddings.position_ids": mx.arange(16)[None]})
    load(folder)


@pytest.mark.parametrize("name", ["float64", "int8"])
def test_an_unknown_dtype_is_refused(tiny_vision, name):
    with pytest.raises(InputError, match=f"dtype '{name}' is not one of auto, float32, float16, bfloat16"):
        load(tiny_vision, dtype=name)


def test_a_folder_has_no_revision(tiny_vision):
    with pytest.raises(InputError, match="is a local folder, which has no revision 'main': leave it out"):
        load(tiny_vision, revision="main")


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("config.json", "{", ConfigError, "config.json is not valid JSON"),
        ("config.json", "[]", ConfigError, "config.json must hold a JSON object, not list"),
        (
            "config.json",
            '{"num_attention_heads": 5}',
            ConfigError,
            "64 is not a multiple of num_attention_heads 5",
        ),
        ("preprocessor_config.json", "{", ConfigError, "preprocessor_config.json is not valid JSON"),
        ("model.safetensors", "x", DamagedFileError, "model.safetensors is not a safetensors file"),
    ],
)
def test_damaged_files_are_refused(copy, name, content, error, message):
    folder = copy()
    (folder / name).write_text(content)
    with pytest.raises(error, match=message):
        load(folder)


def test_a_file_that_is_cut_off_is_refused(copy):
    path = copy() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match=r"is cut off: .* ends 1 bytes after it; download it again"):
        load(path.parent)


@pytest.mark.parametrize(
    ("rename", "error", "message"),
    [
        ("model.txt", NotACheckpointError, "is no checkpoint: looked for model.safetensors"),
        ("pytorch_model.bin", PickleRefusedError, "holds only pickled weights"),
    ],
)
def test_a_folder_without_weights_is_refused(copy, rename, error, message):
    folder = copy()
    (folder / "model.safetensors").rename(folder / rename)
    with pytest.raises(error, match=message):
        load(folder)


def test_another_models_weights_are_refused(copy):
    folder = copy()
    mx.save_safetensors(str(folder / "model.safetensors"), {"vit.cls_token": mx.zeros((1, 1, 8))})
    with pytest.raises(LayoutError, match=r"not an AIMv2 checkpoint: .* found 1: vit\.cls_token"):
        load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_size": {"height": 42, "width": 56}},
        {
            "do_center_crop": False,
            "size": {"height": 42, "width": 56},
            "crop_size": {"height": 56, "width": 56},
        },
    ],
    ids=["crop", "size"],
)
def test_a_preprocessor_that_makes_another_size_is_refused(copy, changes):
    folder = copy()
    edit_json(folder / "preprocessor_config.json", **changes)
    with pytest.raises(
        ConfigError, match="makes images of 42 x 56 pixels, and the model takes 56 x 56: correct its size"
    ):
        load(folder)


def test_a_preprocessor_without_a_fixed_size_is_refused_for_a_fixed_model(copy):
    folder = copy()
    edit_json(folder / "preprocessor_config.json", do_resize=False, do_center_crop=False)
    with pytest.raises(ConfigError, match=r"makes images of \d+ x \d+ pixels, and the model takes 56 x 56"):
        load(folder)


def test_a_pair_without_a_tokenizer_is_refused(copy):
    folder = copy("lit", "apple")
    (folder / "vocab.json").unlink()
    with pytest.raises(TokenizerError, match=r"no tokenizer; looked for tokenizer\.json, or vocab\.json"):
        load(folder)


def test_the_tokenizer_of_a_larger_vocabulary_is_refused(copy):
    folder = copy("lit", "apple")
    edit_json(folder / "vocab.json", more=514)
    with pytest.raises(
        ConfigError, match=r"has 515 tokens with EOS 513, its model 514 with EOS 513: .* another"
    ):
        load(folder)


def test_the_tokenizer_with_another_end_is_refused(copy):
    folder = copy("lit", "mlx")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_json(folder / "config.json", text_config={**text, "eos_token_id": 7})
    with pytest.raises(ConfigError, match=r"with EOS 513, its model 514 with EOS 7: .* another model's"):
        load(folder)


def test_texts_are_cut_to_what_the_model_takes(tmp_path, variants):
    text = replace(variants["lit"].text_config, max_position_embeddings=12)
    folder = write_checkpoint(tmp_path / "x", replace(variants["lit"], text_config=text))
    edit_json(folder / "tokenizer_config.json", model_max_length=77)
    model, processor = load(folder)
    ids = processor(text="x" * 100)["input_ids"]
    assert ids.shape == (1, 12) and ids[0, -1].item() == text.eos_token_id
    model.get_text_features(ids)


# --- quantized checkpoints ---

SCHEMES = {
    "affine-4": {"group_size": 64, "bits": 4, "mode": "affine"},
    "affine-8": {"group_size": 32, "bits": 8, "mode": "affine"},
    "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    "nvfp4": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
    "mxfp8": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
}
OVERRIDE = {"group_size": 32, "bits": 8, "mode": "affine"}
OVERRIDDEN = "vision_model.encoder.layers.0.ffn.down_proj"


def quantize(folder, scheme, override=False):
    """Quantize the checkpoint in ``folder`` as mlx-lm does; gives the model with packed weights."""
    model, _ = load(folder)

    def predicate(path, module):
        if not hasattr(module, "to_quantized") or module.weight.shape[-1] % scheme["group_size"]:
            return False
        return OVERRIDE if override and path == OVERRIDDEN else True

    nn.quantize(model, **scheme, class_predicate=predicate)
    mx.save_safetensors(str(folder / "model.safetensors"), parameters(model), metadata={"format": "mlx"})
    entry = {**scheme, **({OVERRIDDEN: OVERRIDE} if override else {})}
    edit_json(folder / "config.json", quantization=entry, quantization_config=entry)
    return model


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("override", [False, True], ids=["plain", "override"])
def test_on_a_cpu_packed_weights_are_unpacked_with_a_notice(copy, monkeypatch, name, override):
    monkeypatch.setattr("mlx_aimv2.loading.on_cpu", lambda: True)
    folder, events = copy("lit", "mlx"), []
    quantize(folder, SCHEMES[name], override)
    written = mx.load(str(folder / "model.safetensors"))
    quantization = Quantization.from_config(json.loads((folder / "config.json").read_text()))
    expected = dequantize(written, quantization, mx.float32)
    model, _ = load(folder, dtype="float32", on_event=events.append)
    assert all(mx.array_equal(x, expected[name]) for name, x in parameters(model).items())
    assert parameters(model).keys() == expected.keys()
    notice = f"{quantization} weights were unpacked to float32: packed ones are slow on a CPU"
    assert Notice(notice) in events
    assert model.origin.quantization == str(quantization)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("override", [False, True], ids=["plain", "override"])
def test_kept_packed_they_give_what_unpacked_ones_give(copy, name, override):
    folder, events = copy("lit", "mlx"), []
    before = quantize(folder, SCHEMES[name], override)
    packed, processor = load(
        folder, "float32", options=LoadOptions(keep_quantized=True), on_event=events.append
    )
    plain, _ = load(folder, "float32", on_event=lambda event: None)
    layer = packed.vision_model.encoder.layers[0]
    assert isinstance(layer.attention.q_proj, nn.QuantizedLinear)
    assert layer.ffn.down_proj.bits == (8 if override else SCHEMES[name]["bits"])
    assert not any("unpacked" in event.message for event in events)
    x, ids = pixels(packed.config), processor(text="a cat")["input_ids"]
    states = packed(ids, x, output_hidden_states=True).text_model_output.hidden_states
    assert {state.dtype for state in states} == {mx.float32}
    for call in (lambda m: m.get_image_features(x), lambda m: m.get_text_features(ids)):
        np.testing.assert_array_equal(np.array(call(packed)), np.array(call(before)))
        difference = np.abs(np.array(call(packed)) - np.array(call(plain))).max()
        assert difference < 1e-3 * np.abs(np.array(call(plain))).max()


def test_without_a_callback_a_notice_is_a_warning(copy, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.loading.on_cpu", lambda: True)
    folder = copy("lit", "mlx")
    quantize(folder, SCHEMES["affine-4"])
    with pytest.warns(UserWarning, match="4-bit affine, groups of 64 weights were unpacked to float32"):
        load(folder, dtype="float32")


def test_packed_weights_without_a_scheme_are_refused(copy):
    folder = copy("lit", "mlx")
    quantize(folder, SCHEMES["affine-4"])
    edit_json(folder / "config.json", quantization=None)
    with pytest.raises(
        ConfigError, match=r"its weights are quantized, and its config\.json does not say how"
    ):
        load(folder)


def test_plain_weights_are_not_called_quantized(copy):
    folder = copy()
    edit_json(folder / "config.json", quantization=SCHEMES["affine-4"])
    assert load(folder)[0].origin.quantization is None  # and no notice, which would be a warning


@pytest.mark.parametrize("keep", [False, True], ids=["unpacked", "packed"])
@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ("4-bit", ConfigError, "quantization must be an object, not str"),
        ({"bits": 4, "mode": "gptq"}, ConfigError, "quantization mode 'gptq' is not one of"),
        ({"bits": 9}, ConfigError, "has no 9 bits in groups of 64"),
        ({"bits": 8}, (MismatchError, DamagedFileError), "does not fit|do not fit"),
        ({"group_size": 32}, (MismatchError, DamagedFileError), "does not fit|do not fit"),
        ({"bits": 4, "mode": "nvfp4", "group_size": 16}, (MismatchError, DamagedFileError), "not fit"),
    ],
)
def test_a_wrong_scheme_is_refused(copy, keep, entry, error, message):
    folder = copy("lit", "mlx")
    quantize(folder, SCHEMES["affine-4"])
    edit_json(folder / "config.json", quantization=entry)
    with pytest.raises(error, match=message):
        load(folder, options=LoadOptions(keep_quantized=keep), on_event=lambda event: None)


def test_scales_of_an_unknown_module_are_refused(copy):
    folder = copy("lit", "mlx")
    quantize(folder, SCHEMES["affine-4"])
    edit_weights(folder, **{"text_model.more.scales": mx.ones((2, 2))})
    with pytest.raises((MismatchError, DamagedFileError), match=r"more"):
        load(folder, on_event=lambda event: None)


def test_a_million_strange_names_are_one_short_line(copy):
    folder = copy()
    strange = {f"encoder.x{number}.{number}.weight": mx.zeros(0) for number in range(3000)}
    edit_weights(
        folder, **strange, **{f"encoder.y.{number**2}.weight": mx.zeros(0) for number in range(3000)}
    )
    with pytest.raises(MismatchError, match=r"6000 unexpected: .* … and 2981 more$") as caught:
        load(folder)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tables_that_always_are_float32_do_not_count_as_what_most_is_stored_in(copy, dtype):
    folder = copy("lit", "mlx")
    tensors = mx.load(str(folder / "model.safetensors"))
    half = {name: x.astype(getattr(mx, dtype)) for name, x in tensors.items() if "position" not in name}
    edit_weights(
        folder, **half, **{"vision_model.embeddings.position_embedding.weight": mx.zeros((10**6, 1))}
    )
    assert inspect(folder).stored_dtype == getattr(mx, dtype)


# --- memory ---

PEAK = """
    import sys
    from pathlib import Path
    from mlx_aimv2 import load
    import mlx.core as mx

    def peak():  # bytes; that of this program alone, unlike getrusage's, which a parent's peak can raise
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    mx.eval(mx.ones((8, 8)) @ mx.ones((8, 8)))
    load(sys.argv[1])
    before = peak()
    load(sys.argv[2], dtype=sys.argv[3])
    print(peak() - before)
"""


@pytest.fixture(scope="module")
def larger(tmp_path_factory, variants):
    """Checkpoints of 100 MB in float32."""
    root = tmp_path_factory.mktemp("larger")
    config = replace(
        variants["fixed"],
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=4,
    )
    yield {layout: write_checkpoint(root / layout, config, layout) for layout in ("apple", "transformers")}
    shutil.rmtree(root)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("layout", "dtype", "size"), [("apple", "float16", 2), ("transformers", "float32", 4)]
)
def test_loading_takes_little_more_than_the_weights(larger, tiny_vision, layout, dtype, size):
    weights = inspect(larger[layout]).header.nbytes // 4 * size
    assert weights > 23e6 * size
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK), tiny_vision, larger[layout], dtype],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert 0.9 * weights < int(result.stdout) < 1.15 * weights + 25e6


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2)])
def test_a_published_size_loads_within_its_bound(tmp_path, tiny_vision, stored, dtype, size):
    config = Aimv2VisionConfig(use_head=False)  # large-224
    folder = write_checkpoint(tmp_path / "large", config, "apple", dtype=getattr(mx, stored))
    command = [sys.executable, "-c", textwrap.dedent(PEAK), tiny_vision, folder, dtype]
    result = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(folder)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 1.15 * 309_197_824 * size


def test_a_checkpoint_that_was_looked_at_can_be_loaded_more_than_once(tiny_pair):
    checkpoint = inspect(tiny_pair)
    one, two = (parameters(build_model(checkpoint, mx.float32)) for _ in range(2))
    assert one.keys() == two.keys() and all(mx.array_equal(x, two[name]) for name, x in one.items())


# --- whatever config.json holds ---

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 300), st.integers(), st.floats(), st.text(max_size=3),
    st.lists(st.integers(0, 100), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@pytest.mark.parametrize("variant", ["fixed", "lit"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_config_json_says_it_loads_or_is_refused(checkpoint, tmp_path, variants, variant, data):
    folder = tmp_path / "x"
    if not folder.exists():
        shutil.copytree(checkpoint(variant, "transformers"), folder)
    config = variants[variant].to_dict() if data.draw(st.booleans()) else original_config(variants[variant])
    parts = [config, *(config[name] for name in ("vision_config", "text_config") if name in config)]
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from(parts))
        part[data.draw(st.sampled_from([*part, "quantization", "use_head", "is_native"]))] = data.draw(VALUES)
    (folder / "config.json").write_text(json.dumps(config))
    try:
        load(folder)
    except Aimv2Error as error:
        assert "\n" not in str(error)


def test_what_load_does_by_default(tiny_pair, tiny_native, tmp_path):
    """On a CPU: float32, packed weights unpacked, exact decoding on white, the published bounds of patches."""
    assert LoadOptions() == LoadOptions(
        dtype=None,
        keep_quantized=False,
        weights=None,
        decode=DecodeOptions(
            decode="exact", background="white", max_megapixels=DecodeOptions().max_megapixels
        ),
        native=NativeOptions(min_patches=112, max_patches=4096),
        any_base=False,
        interpolate_positions=False,
        image_size=None,
    )
    stored = convert(tiny_pair, tmp_path / "q", dtype="float16", quantize=True, q_group_size=32)
    model, processor = load(stored, on_event=ignore)
    assert {x.dtype for _, x in tree_flatten(model.parameters())} == {mx.float32}
    assert not any(isinstance(one, nn.QuantizedLinear) for one in model.modules())
    assert not model.training and not any(one.training for one in model.modules())
    assert processor.image_processor.decode == LoadOptions().decode
    native = load(tiny_native)[1].image_processor
    assert native.output_size(28, 28) == (154, 154)  # 11 x 11 patches, the fewest with at least 112
    assert (lambda size: size[0] * size[1] // 14**2)(native.output_size(5000, 5000)) == 4096
