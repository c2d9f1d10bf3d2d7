"""The models against transformers', live: every hidden state, from checkpoints that torch wrote.

Apple's and timm's layouts are written here by hand, from the names in their published state dicts, so that the
package's own tables are held against something that does not come from them.
"""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from drawn_world.untrained import VOCABULARY
from drawn_world.vocabulary import Vocabulary, write_vocabulary

from mlx_aimv2 import load
from mlx_aimv2.events import ignore

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

BOS, EOS = VOCABULARY - 2, VOCABULARY - 1
TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "use_head": False,
}
VISION = {
    "fixed": {},
    "native": {"is_native": True},
    "head": {"use_head": True},
    "biases": {"use_head": True, "qkv_bias": True, "mlp_bias": True},
    "three-heads": {"hidden_size": 48, "num_attention_heads": 3, "use_head": True},
    "patch-16": {"patch_size": 16, "image_size": 64},
    "patch-7-native": {"patch_size": 7, "is_native": True, "hidden_size": 72, "num_attention_heads": 3},
    "odd-sizes": {"hidden_size": 40, "num_attention_heads": 5, "intermediate_size": 33, "image_size": 70},
    "one-channel": {"num_channels": 1},
    "eps": {"rms_norm_eps": 1e-2},
    "gelu": {"hidden_act": "gelu"},
    "gelu-tanh": {"hidden_act": "gelu_pytorch_tanh"},
    "quick-gelu": {"hidden_act": "quick_gelu"},
}
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 20,
    "eos_token_id": EOS,
}
TEXTS = [
    [BOS, 40, 41, 42, 43, 44, EOS],
    [BOS, 50, EOS],
    [BOS, 60, 61, 62, EOS],
]


def randomize(model, seed=0):
    """Weights with which every part of the model matters: attention is not flat, norms are not ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 0:
                parameter.fill_(2.3)
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            spread = 0.3 if parameter.ndim == 1 or "embedding" in name else 1.5 * fan_in**-0.5
            parameter.copy_(noise * spread + (1.0 if "norm" in name else 0.0))
    return model.eval()


def vision_model(variant):
    config = transformers.Aimv2VisionConfig(**{**TINY, **VISION[variant]}, attn_implementation="eager")
    return randomize(transformers.Aimv2VisionModel(config))


def pair_model():
    config = transformers.Aimv2Config(
        vision_config={**TINY, "use_head": True},
        text_config=TEXT,
        projection_dim=32,
        attn_implementation="eager",
    )
    model = randomize(transformers.Aimv2Model(config))
    for part in (model, model.vision_model, model.text_model):
        assert part.config._attn_implementation == "eager"  # the other one is not causal
    return model


def images(config, batch=2, height=None, width=None):
    """The same random pixels as (B, C, H, W) in torch and (B, H, W, C) here."""
    shape = (batch, config.num_channels, height or config.image_size, width or config.image_size)
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    return pixels, mx.array(pixels.permute(0, 2, 3, 1).contiguous().numpy())


def texts():
    length = max(map(len, TEXTS))
    ids = np.array([row + [EOS] * (length - len(row)) for row in TEXTS])
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in TEXTS])
    return ids, mask


def error(ours, theirs):
    """The largest difference, relative to the largest value."""
    ours, theirs = np.array(ours, np.float64), theirs.detach().double().numpy()
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def assert_close(ours, theirs, tolerance=1e-4):
    assert error(ours, theirs) < tolerance


def assert_same_encoder(ours, theirs, rows=slice(None)):
    """Every state and weight of two encoders' outputs; ``rows`` are the tokens that count."""
    assert len(ours.hidden_states) == len(theirs.hidden_states)
    for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert_close(np.array(a)[rows], b[rows])
    for a, b in zip(ours.attentions, theirs.attentions, strict=True):
        assert_close(a if rows == slice(None) else np.array(a), b)
    assert_close(np.array(ours.last_hidden_state)[rows], theirs.last_hidden_state[rows])
    assert (ours.pooler_output is None) == (theirs.pooler_output is None)
    if ours.pooler_output is not None:
        assert_close(ours.pooler_output, theirs.pooler_output)


def run_vision(model, pixels):
    with torch.no_grad():
        return model(pixels, output_hidden_states=True, output_attentions=True)


def loaded(folder, **options):
    model, _ = load(folder, dtype="float32", on_event=ignore, **options)
    return model


@pytest.mark.parametrize("variant", VISION)
def test_vision_encoder(variant, tmp_path):
    theirs = vision_model(variant)
    theirs.save_pretrained(tmp_path)
    ours = loaded(tmp_path)
    assert ours.origin.layout == "transformers"
    pixels, x = images(theirs.config)
    assert_same_encoder(ours(x, True, True), run_vision(theirs, pixels))


@pytest.mark.parametrize("variant", ["native", "patch-7-native"])
@pytest.mark.parametrize(("height", "width"), [(42, 98), (75, 40), (14, 14), (14, 140)])
def test_native_resolutions(variant, height, width, tmp_path):
    theirs = vision_model(variant)
    theirs.save_pretrained(tmp_path)
    pixels, x = images(theirs.config, 1, height, width)
    assert_same_encoder(loaded(tmp_path)(x, True, True), run_vision(theirs, pixels))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Their pair, ours from the checkpoint it wrote, and that checkpoint."""
    folder, theirs = tmp_path_factory.mktemp("pair"), pair_model()
    theirs.save_pretrained(folder)
    write_vocabulary(folder, Vocabulary(), TEXT["max_position_embeddings"])
    return theirs, loaded(folder), folder


def test_text_encoder_of_the_pair(pair):
    theirs, ours, _ = pair
    ids, mask = texts()
    with torch.no_grad():
        expected = theirs.text_model(
            torch.tensor(ids), torch.tensor(mask), output_hidden_states=True, output_attentions=True
        )
    out = ours.text_model(mx.array(ids), mx.array(mask), True, True)
    real = mask.astype(bool)
    for a, b in zip(out.hidden_states, expected.hidden_states, strict=True):
        assert_close(np.array(a)[real], b[torch.tensor(real)])
    for a, b in zip(out.attentions, expected.attentions, strict=True):
        a, b = (np.moveaxis(np.array(x), 2, 1)[real] for x in (a, b))  # rows of real tokens
        assert_close(a, torch.tensor(b))
    assert_close(np.array(out.last_hidden_state)[real], expected.last_hidden_state[torch.tensor(real)])
    assert_close(out.pooler_output, expected.pooler_output)


def test_text_encoder_without_our_mask(pair):
    """The oracle needs a mask to be causal; here it may be left out."""
    theirs, ours, _ = pair
    ids, mask = texts()
    with torch.no_grad():
        expected = theirs.text_model(torch.tensor(ids), torch.tensor(mask))
    assert_close(ours.text_model(mx.array(ids)).pooler_output, expected.pooler_output)


def test_vision_encoder_of_the_pair(pair):
    theirs, ours, _ = pair
    pixels, x = images(theirs.config.vision_config)
    assert_same_encoder(ours.vision_model(x, True, True), run_vision(theirs.vision_model, pixels))


def test_features_of_the_pair(pair):
    theirs, ours, _ = pair
    (pixels, x), (ids, mask) = images(theirs.config.vision_config), texts()
    with torch.no_grad():
        image = theirs.visual_projection(theirs.vision_model(pixels).pooler_output)
        text = theirs.text_projection(theirs.text_model(torch.tensor(ids), torch.tensor(mask)).pooler_output)
        features = theirs.get_image_features(pixels)
    assert_close(ours.get_image_features(x), getattr(features, "pooler_output", features))
    assert_close(ours.get_image_features(x), image)
    assert_close(ours.get_text_features(mx.array(ids), mx.array(mask)), text)


@pytest.mark.parametrize("scale", [-1.0, 2.3, 9.0], ids=["below", "between", "above"])
def test_logits_and_loss(pair, scale, tmp_path):
    theirs, ours, _ = pair
    before = theirs.logit_scale.item(), ours.logit_scale
    try:
        with torch.no_grad():
            theirs.logit_scale.fill_(scale)
            ours.logit_scale = mx.array(scale)
            (pixels, x), (ids, mask) = images(theirs.config.vision_config, 3), texts()
            expected = theirs(torch.tensor(ids), pixels, torch.tensor(mask))
        out = ours(mx.array(ids), x, mx.array(mask), return_loss=True)
    finally:
        with torch.no_grad():
            theirs.logit_scale.fill_(before[0])
        ours.logit_scale = before[1]
    np.testing.assert_allclose(np.array(out.logits_per_image), expected.logits_per_image.numpy(), atol=1e-3)
    np.testing.assert_allclose(np.array(out.logits_per_text), expected.logits_per_text.numpy(), atol=1e-3)
    assert_close(out.image_embeds, expected.image_embeds)
    assert_close(out.text_embeds, expected.text_embeds)
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    assert out.loss.item() == pytest.approx(
        image_text_contrastive_loss(expected.logits_per_text).item(), rel=1e-4
    )


# --- the other layouts, written by hand ---


def fused(state, here, there, names, mlp):
    """Apple's and timm's layers: q, k and v in one; ``mlp`` names gate, up and down."""
    out = {
        f"{there}.{names[0]}.weight": state[f"{here}.rms_norm1.weight"],
        f"{there}.{names[1]}.weight": state[f"{here}.rms_norm2.weight"],
    }
    for kind in ("weight", "bias"):
        if f"{here}.attention.q_proj.{kind}" in state:
            out[f"{there}.attn.qkv.{kind}"] = torch.cat(
                [state[f"{here}.attention.{x}_proj.{kind}"] for x in ("q", "k", "v")]
            )
            out[f"{there}.attn.proj.{kind}"] = state[f"{here}.attention.out_proj.{kind}"]
        if f"{here}.ffn.gate_proj.{kind}" in state:
            for name, part in zip(mlp, ("gate", "up", "down"), strict=True):
                out[f"{there}.mlp.{name}.{kind}"] = state[f"{here}.ffn.{part}_proj.{kind}"]
    return out


def layers_of(state, prefix=""):
    number = 0
    while f"{prefix}encoder.layers.{number}.rms_norm1.weight" in state:
        yield number
        number += 1


def apple_trunk(state, here="", there=""):
    out = {f"{there}trunk.post_trunk_norm.weight": state[f"{here}rms_norm.weight"]}
    for i in layers_of(state, here):
        out |= fused(
            state,
            f"{here}encoder.layers.{i}",
            f"{there}trunk.blocks.{i}",
            ("norm_1", "norm_2"),
            ("fc1", "fc3", "fc2"),
        )
    return out


def apple_vision(state, here="", there="", channels_last=False):
    kernel = state[f"{here}embeddings.patch_embed.weight"]
    out = apple_trunk(state, here, there) | {
        f"{there}preprocessor.patchifier.proj.weight": kernel.permute(0, 2, 3, 1)
        if channels_last
        else kernel,
        f"{there}preprocessor.patchifier.proj.bias": state[f"{here}embeddings.patch_embed.bias"],
        f"{there}preprocessor.patchifier.norm.weight": state[f"{here}embeddings.rms_norm.weight"],
    }
    if f"{here}embeddings.position_embedding.weight" in state:
        out[f"{there}preprocessor.pos_embed"] = state[f"{here}embeddings.position_embedding.weight"][None]
    if f"{here}head.cls_token" in state:
        out[f"{there}head.cls_token"] = state[f"{here}head.cls_token"]
        for ours, theirs in (("k", "k_proj"), ("v", "v_proj"), ("linear", "output_proj")):
            for kind in ("weight", "bias"):
                if f"{here}head.{theirs}.{kind}" in state:
                    out[f"{there}head.{ours}.{kind}"] = state[f"{here}head.{theirs}.{kind}"]
    return out


def apple_pair(state, channels_last=False):
    return {
        **apple_vision(state, "vision_model.", "image_encoder.", channels_last),
        **apple_trunk(state, "text_model.", "text_encoder."),
        "text_encoder.preprocessor.text_embedding.weight": state[
            "text_model.embeddings.token_embedding.weight"
        ],
        "text_encoder.preprocessor.positional_embedding": state[
            "text_model.embeddings.position_embedding.weight"
        ],
        "image_projector.weight": state["visual_projection.weight"],
        "text_projector.weight": state["text_projection.weight"],
        "log_logit_scale": state["logit_scale"],
    }


def timm_vision(state):
    out = {
        "patch_embed.proj.weight": state["embeddings.patch_embed.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embed.bias"],
        "patch_embed.norm.weight": state["embeddings.rms_norm.weight"],
        "pos_embed": state["embeddings.position_embedding.weight"][None],
        "norm.weight": state["rms_norm.weight"],
    }
    for i in layers_of(state):
        out |= fused(
            state, f"encoder.layers.{i}", f"blocks.{i}", ("norm1", "norm2"), ("fc1_g", "fc1_x", "fc2")
        )
    return out


def apple_tower(config):
    return {
        "model_type": "aimv2",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "qkv_bias": config.qkv_bias,
        "use_bias": config.mlp_bias,
        "rms_norm_eps": config.rms_norm_eps,
        "torch_dtype": "float32",
    }


def apple_vision_config(config):
    data = apple_tower(config) | {"num_channels": config.num_channels, "patch_size": config.patch_size}
    return data if config.is_native else data | {"image_size": config.image_size}


def apple_pair_config(config):
    text = {
        "vocab_size": config.text_config.vocab_size,
        "eos_token_id": config.text_config.eos_token_id,
        "max_context_length": config.text_config.max_position_embeddings,
        "is_causal": True,
    }
    return {
        "model_type": "aimv2",
        "projection_dim": config.projection_dim,
        "init_temperature": 0.07,
        "max_logit_scale": config.max_logit_scale,
        "vision_config": apple_vision_config(config.vision_config) | {"num_queries": 1},
        "text_config": apple_tower(config.text_config) | text,
    }


def write(folder, tensors, config):
    from safetensors.torch import save_file

    save_file(
        {name: x.detach().contiguous().clone() for name, x in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))


FOR_TIMM = ("fixed", "patch-16")  # it has no place for a head, nor for native resolution
BY_HAND = [
    *((layout, x) for layout in ("apple", "apple-mlx") for x in VISION if "gelu" not in x and x != "eps"),
    *(("timm", x) for x in FOR_TIMM),
]


@pytest.mark.parametrize(("layout", "variant"), BY_HAND)
def test_vision_encoder_in_another_layout(layout, variant, tmp_path):
    theirs = vision_model(variant)
    state, config = theirs.state_dict(), apple_vision_config(theirs.config)
    tensors = (
        timm_vision(state) if layout == "timm" else apple_vision(state, channels_last=layout == "apple-mlx")
    )
    if layout == "timm":  # timm's config.json speaks of other things
        config = {"architecture": "aimv2_large_patch14_224", "num_features": 64, "num_attention_heads": 2}
    write(tmp_path, tensors, config)
    ours = loaded(tmp_path)
    assert ours.origin.layout == layout
    pixels, x = images(theirs.config)
    assert_same_encoder(ours(x, True, True), run_vision(theirs, pixels))


@pytest.mark.parametrize("layout", ["apple", "apple-mlx"])
def test_pair_in_another_layout(pair, layout, tmp_path):
    theirs, _, _ = pair
    tensors = apple_pair(theirs.state_dict(), channels_last=layout == "apple-mlx")
    write(tmp_path, tensors, apple_pair_config(theirs.config))
    write_vocabulary(tmp_path, Vocabulary(), TEXT["max_position_embeddings"])
    ours = loaded(tmp_path)
    assert ours.origin.layout == layout
    (pixels, x), (ids, mask) = images(theirs.config.vision_config), texts()
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), pixels, torch.tensor(mask))
    out = ours(mx.array(ids), x, mx.array(mask))
    np.testing.assert_allclose(np.array(out.logits_per_image), expected.logits_per_image.numpy(), atol=1e-3)
    assert_close(out.image_embeds, expected.image_embeds)
    assert_close(out.text_embeds, expected.text_embeds)


# --- other ways to store it ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("variant", ["fixed", "native", "biases"])
def test_half_precision_files(variant, dtype, tmp_path):
    theirs = vision_model(variant).to(dtype)
    theirs.save_pretrained(tmp_path)
    pixels, x = images(theirs.config)
    assert_same_encoder(loaded(tmp_path)(x, True, True), run_vision(theirs.float(), pixels))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-2), ("bfloat16", 6e-2)])
def test_computing_in_half_precision(pair, dtype, tolerance):
    theirs, _, folder = pair
    ours, _ = load(folder, dtype=dtype, on_event=ignore)
    pixels, x = images(theirs.config.vision_config)
    with torch.no_grad():
        expected = theirs.vision_model(pixels)
    assert_close(ours.vision_model(x).last_hidden_state, expected.last_hidden_state, tolerance)
    assert_close(ours.vision_model(x).pooler_output, expected.pooler_output, tolerance)


def test_shards(tmp_path):
    theirs = vision_model("head")
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    pixels, x = images(theirs.config)
    assert_same_encoder(loaded(tmp_path)(x, True, True), run_vision(theirs, pixels))
