"""The tables of the layouts, held against lists of the published names written out here on their own."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import Aimv2Config, Aimv2VisionConfig, load
from mlx_aimv2.checkpoints.layouts import LAYOUTS, detect
from mlx_aimv2.errors import LayoutError
from mlx_aimv2.loading import make_model


def apple_trunk(prefix, layers):
    names = ["norm_1", "norm_2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "mlp.fc3"]
    blocks = {f"{prefix}trunk.blocks.{i}.{name}.weight" for i in range(layers) for name in names}
    return blocks | {f"{prefix}trunk.post_trunk_norm.weight"}


def apple_vision(prefix="", native=False):
    front = ["patchifier.proj.weight", "patchifier.proj.bias", "patchifier.norm.weight"]
    front += [] if native else ["pos_embed"]
    return {f"{prefix}preprocessor.{name}" for name in front} | apple_trunk(prefix, 24)


def apple_lit():
    head = ["cls_token", "k.weight", "v.weight", "linear.weight", "linear.bias"]
    text = ["text_embedding.weight", "positional_embedding"]
    return (
        apple_vision("image_encoder.")
        | {f"image_encoder.head.{name}" for name in head}
        | {f"text_encoder.preprocessor.{name}" for name in text}
        | apple_trunk("text_encoder.", 12)
        | {"image_projector.weight", "text_projector.weight", "log_logit_scale"}
    )


def transformers_tower(prefix, layers):
    names = ["rms_norm1", "rms_norm2"]
    names += [f"attention.{x}_proj" for x in ("q", "k", "v", "out")]
    names += [f"ffn.{x}_proj" for x in ("gate", "up", "down")]
    blocks = {f"{prefix}encoder.layers.{i}.{name}.weight" for i in range(layers) for name in names}
    return blocks | {f"{prefix}rms_norm.weight"}


def transformers_vision(prefix="", native=False):
    front = ["patch_embed.weight", "patch_embed.bias", "rms_norm.weight"]
    front += [] if native else ["position_embedding.weight"]
    return {f"{prefix}embeddings.{name}" for name in front} | transformers_tower(prefix, 24)


def transformers_lit():
    head = ["cls_token", "k_proj.weight", "v_proj.weight", "output_proj.weight", "output_proj.bias"]
    text = ["token_embedding.weight", "position_embedding.weight"]
    return (
        transformers_vision("vision_model.")
        | {f"vision_model.head.{name}" for name in head}
        | {f"text_model.embeddings.{name}" for name in text}
        | transformers_tower("text_model.", 12)
        | {"visual_projection.weight", "text_projection.weight", "logit_scale"}
    )


def timm_vision():
    names = ["norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1_g", "mlp.fc1_x", "mlp.fc2"]
    front = ["patch_embed.proj.weight", "patch_embed.proj.bias", "patch_embed.norm.weight", "pos_embed"]
    return {f"blocks.{i}.{name}.weight" for i in range(24) for name in names} | {*front, "norm.weight"}


def flax(names):
    """Apple's names in Flax's words."""
    changed = set()
    for name in names:
        module, _, kind = name.replace("trunk.blocks.", "trunk.layers_").rpartition(".")
        if kind == "weight":
            norm = module.endswith((".norm", ".norm_1", ".norm_2", ".post_trunk_norm"))
            kind = "scale" if norm else "embedding" if module.endswith("text_embedding") else "kernel"
        changed.add(f"{module}.{kind}" if module else kind)
    return changed


PUBLISHED = {
    "apple": ("apple", apple_vision(), 173, "fixed"),
    "apple-native": ("apple", apple_vision(native=True), 172, "native"),
    "apple-lit": ("apple", apple_lit(), 268, "lit"),
    "apple-mlx": ("apple-mlx", apple_vision(), 173, "fixed"),
    "apple-mlx-native": ("apple-mlx", apple_vision(native=True), 172, "native"),
    "apple-mlx-lit": ("apple-mlx", apple_lit(), 268, "lit"),
    "flax": ("flax", flax(apple_vision()), 173, "fixed"),
    "flax-native": ("flax", flax(apple_vision(native=True)), 172, "native"),
    "flax-lit": ("flax", flax(apple_lit()), 268, "lit"),
    "transformers": ("transformers", transformers_vision(), 221, "fixed"),
    "transformers-native": ("transformers", transformers_vision(native=True), 220, "native"),
    "transformers-lit": ("transformers", transformers_lit(), 340, "lit"),
    "timm": ("timm", timm_vision(), 173, "fixed"),
}
LARGE = {
    "fixed": Aimv2VisionConfig(use_head=False),
    "native": Aimv2VisionConfig(use_head=False, is_native=True),
    "lit": Aimv2Config(),
}
CANONICAL = {
    "fixed": transformers_vision(),
    "native": transformers_vision(native=True),
    "lit": transformers_lit(),
}


def tiny_tensors(names):
    """Tensors under these names that every rule can be applied to."""
    return {name: mx.zeros((3, 1, 1, 1) if "patch" in name and "proj.w" in name else (3,)) for name in names}


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_names_are_as_many_as_published(case):
    _, names, count, _ = PUBLISHED[case]
    assert len(names) == count


@pytest.mark.parametrize("case", PUBLISHED)
def test_every_published_name_becomes_a_canonical_one(case):
    layout, names, _, kind = PUBLISHED[case]
    canonical, unknown = LAYOUTS[layout].to_canonical(tiny_tensors(names))
    assert unknown == []
    assert canonical.keys() == CANONICAL[kind]


@pytest.mark.parametrize("case", PUBLISHED)
def test_every_canonical_name_becomes_a_published_one(case):
    layout, names, _, kind = PUBLISHED[case]
    written, unknown = LAYOUTS[layout].from_canonical(tiny_tensors(CANONICAL[kind]))
    assert unknown == []
    assert written.keys() == names


@pytest.mark.parametrize("kind", LARGE)
def test_canonical_names_are_those_of_the_model(kind):
    parameters = dict(tree_flatten(make_model(LARGE[kind]).parameters()))
    assert parameters.keys() == CANONICAL[kind]


@pytest.mark.parametrize(
    ("kind", "count"), [("fixed", 309_197_824), ("native", 308_935_680), ("lit", 436_680_193)]
)
def test_large_models_have_as_many_parameters_as_published(kind, count):
    assert sum(x.size for _, x in tree_flatten(make_model(LARGE[kind]).parameters())) == count


def test_from_a_layout_to_canonical_and_back_is_the_identity(stored):
    layout, written = LAYOUTS[stored.layout], mx.load(str(stored.folder / "model.safetensors"))
    canonical, unknown = layout.to_canonical(written)
    again, left = layout.from_canonical(canonical)
    assert (unknown, left) == ([], []) and again.keys() == written.keys()
    assert all(mx.array_equal(again[name], written[name]) for name in written)


def test_every_layout_of_a_model_holds_the_same_canonical_tensors(stored, canonical):
    tensors, _ = LAYOUTS[stored.layout].to_canonical(mx.load(str(stored.folder / "model.safetensors")))
    expected = canonical(stored.config)
    assert tensors.keys() == expected.keys()
    assert all(mx.array_equal(tensors[name], expected[name]) for name in expected)


def test_every_layout_of_a_model_loads_to_the_same_weights(stored, canonical):
    model, _ = load(stored.folder)
    expected = canonical(stored.config)
    assert model.origin.layout == stored.layout
    for name, x in tree_flatten(model.parameters()):
        assert mx.array_equal(x, expected[name]), name


@pytest.mark.parametrize(
    ("layout", "gate", "up", "down"),
    [
        ("apple", "trunk.blocks.5.mlp.fc1", "trunk.blocks.5.mlp.fc3", "trunk.blocks.5.mlp.fc2"),
        ("apple-mlx", "trunk.blocks.5.mlp.fc1", "trunk.blocks.5.mlp.fc3", "trunk.blocks.5.mlp.fc2"),
        ("flax", "trunk.layers_5.mlp.fc1", "trunk.layers_5.mlp.fc3", "trunk.layers_5.mlp.fc2"),
        ("timm", "blocks.5.mlp.fc1_g", "blocks.5.mlp.fc1_x", "blocks.5.mlp.fc2"),
    ],
)
def test_gate_up_and_down_are_told_apart(layout, gate, up, down):
    kind = "kernel" if layout == "flax" else "weight"
    tensors = {f"{gate}.{kind}": mx.array(1), f"{up}.{kind}": mx.array(2), f"{down}.{kind}": mx.array(3)}
    canonical, _ = LAYOUTS[layout].to_canonical(tensors)
    values = {name.split("ffn.")[1]: x.item() for name, x in canonical.items()}
    assert values == {"gate_proj.weight": 1, "up_proj.weight": 2, "down_proj.weight": 3}


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("apple", "trunk.blocks.3.attn.qkv"),
        ("apple", "image_encoder.trunk.blocks.3.attn.qkv"),
        ("apple", "text_encoder.trunk.blocks.3.attn.qkv"),
        ("timm", "blocks.3.attn.qkv"),
    ],
)
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_rows_of_qkv_are_q_then_k_then_v(layout, name, kind):
    canonical, _ = LAYOUTS[layout].to_canonical({f"{name}.{kind}": mx.array([1, 1, 2, 2, 3, 3])})
    values = {x.split("attention.")[1]: value.tolist() for x, value in canonical.items()}
    assert values == {f"q_proj.{kind}": [1, 1], f"k_proj.{kind}": [2, 2], f"v_proj.{kind}": [3, 3]}


def test_kernels_of_flax_are_turned():
    names = ("trunk.layers_0.attn.qkv.kernel", "preprocessor.patchifier.proj.kernel")
    qkv, patch = mx.arange(2 * 9).reshape(2, 9), mx.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    canonical, _ = LAYOUTS["flax"].to_canonical(dict(zip(names, (qkv, patch), strict=True)))
    keys = canonical["encoder.layers.0.attention.k_proj.weight"]
    assert keys.tolist() == qkv.T[3:6].tolist()
    kernel = canonical["embeddings.patch_embed.weight"]
    assert kernel.shape == (5, 2, 3, 4) and kernel[4, 1, 2, 3].item() == patch[1, 2, 3, 4].item()


@pytest.mark.parametrize(("norm", "canonical_norm"), [("norm_1", "rms_norm1"), ("norm_2", "rms_norm2")])
def test_both_norms_of_a_layer_are_told_apart(norm, canonical_norm):
    canonical, _ = LAYOUTS["apple"].to_canonical({f"trunk.blocks.0.{norm}.weight": mx.array(1)})
    assert list(canonical) == [f"encoder.layers.0.{canonical_norm}.weight"]


def test_what_timm_has_no_place_for_is_named(variants, canonical):
    _, left = LAYOUTS["timm"].from_canonical(canonical(variants["head"]))
    assert left == [name for name in left if name.startswith("head.")] and len(left) == 5


@pytest.mark.parametrize("layout", ["apple", "apple-mlx", "flax", "transformers", "timm"])
def test_a_foreign_name_is_left_out_beside_the_model_and_given_back_inside(layout, variants, canonical):
    tensors, _ = LAYOUTS[layout].from_canonical(canonical(variants["fixed"]))
    inside = f"{next(name for name in tensors if name.count('.') > 2).rpartition('.')[0]}.gamma"
    tensors.update({"decoder.weight": mx.array(0), inside: mx.array(0)})
    assert LAYOUTS[layout].left_out(tensors) == ["decoder.weight"]
    assert LAYOUTS[layout].to_canonical(tensors)[1] == [inside]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_position_ids_are_passed_over(layout):
    buffers = {"embeddings.position_ids": mx.arange(4), "text_model.embeddings.position_ids": mx.arange(4)}
    assert LAYOUTS[layout].to_canonical(buffers) == ({}, [])


def test_the_layout_is_detected(stored):
    tensors = mx.load(str(stored.folder / "model.safetensors"))
    assert detect({name: x.shape for name, x in tensors.items()}).name == stored.layout


AMBIGUOUS = (8, 3, 3, 3)  # patches of 3 x 3 pixels


@pytest.mark.parametrize(
    ("name", "shape", "metadata", "layout"),
    [
        ("preprocessor.patchifier.proj.weight", (8, 3, 14, 14), {"format": "mlx"}, "apple"),
        ("preprocessor.patchifier.proj.weight", (8, 14, 14, 3), {"format": "pt"}, "apple-mlx"),
        ("image_encoder.preprocessor.patchifier.proj.weight", (8, 14, 14, 3), None, "apple-mlx"),
        ("vision_model.embeddings.patch_embed.weight", (8, 3, 14, 14), None, "transformers"),
        ("embeddings.patch_embed.weight", (8, 14, 14, 3), None, "mlx"),
        ("embeddings.patch_embed.weight", (8, 1, 14, 14), None, "transformers"),
        ("embeddings.patch_embed.weight", (8, 14, 14, 1), None, "mlx"),
        ("patch_embed.proj.weight", (8, 3, 14, 14), None, "timm"),
        ("preprocessor.patchifier.proj.kernel", (14, 14, 3, 8), None, "flax"),
        ("image_encoder.preprocessor.patchifier.proj.kernel", (3, 3, 3, 3), None, "flax"),
        ("preprocessor.patchifier.proj.weight", AMBIGUOUS, {"format": "mlx"}, "apple-mlx"),
        ("preprocessor.patchifier.proj.weight", AMBIGUOUS, {"format": "pt"}, "apple"),
        ("preprocessor.patchifier.proj.weight", AMBIGUOUS, None, "apple"),
        ("embeddings.patch_embed.weight", AMBIGUOUS, {"format": "mlx"}, "mlx"),
        ("embeddings.patch_embed.weight", AMBIGUOUS, {}, "transformers"),
    ],
)
def test_the_patch_kernel_tells_the_layout(name, shape, metadata, layout):
    assert detect({name: shape}, metadata).name == layout


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "no tensor named like preprocessor.patchifier.proj.weight, .*; found 0: nothing"),
        (
            {f"layer.{x}": (1,) for x in "dcba"},
            r"embeddings.patch_embed.weight, patch_embed.proj.weight; found 4: layer.a, layer.b, layer.c …$",
        ),
        (
            {"embeddings.patch_embed.weight": (8, 588)},
            r"patch kernel has the shape \[8, 588\], not four sides",
        ),
        ({"patch_embed.proj.weight": ()}, r"patch kernel has the shape \[\], not four sides"),
    ],
)
def test_another_checkpoint_is_refused(shapes, message):
    with pytest.raises(LayoutError, match=message):
        detect(shapes)
