"""The published layouts as tables of rules, and detection of a checkpoint's layout.

The canonical names are transformers' own; the canonical patch kernel is MLX's (D, p, p, C). The facts come from
the state dicts of apple/ml-aim (aim-v2), transformers (`models/aimv2`) and timm (`_convert_aimv2`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import mlx.core as mx

from ..errors import LayoutError
from .prefixes import beside, only_root, roots, unwrapped
from .rules import (
    DENSE,
    FLAX_KERNEL,
    KERNEL,
    TABLE,
    Rule,
    Tensors,
    Transform,
    from_canonical,
    matcher,
    prefixed,
    rule,
    same,
    to_canonical,
)

Transforms = tuple[Transform, Transform]  # (forward, inverse)
KEEP = (same, same)
IGNORED_SUFFIXES = ("position_ids",)  # buffers in older files


def _both(source: str, *targets: str) -> list[Rule]:
    """Weight and bias of the same projection."""
    return [
        rule(f"{source}.{kind}", *(f"{target}.{kind}" for target in targets)) for kind in ("weight", "bias")
    ]


def _layer(source: str, norms: tuple[str, str], mlp: tuple[str, str, str]) -> list[Rule]:
    """One layer with a fused qkv, as Apple and timm write it; ``mlp`` names gate, up and down."""
    here = "encoder.layers.{i}"
    gate, up, down = mlp
    return [
        rule(f"{source}.{norms[0]}.weight", f"{here}.rms_norm1.weight"),
        rule(f"{source}.{norms[1]}.weight", f"{here}.rms_norm2.weight"),
        *_both(f"{source}.attn.qkv", *(f"{here}.attention.{x}_proj" for x in "qkv")),
        *_both(f"{source}.attn.proj", f"{here}.attention.out_proj"),
        *_both(f"{source}.mlp.{gate}", f"{here}.ffn.gate_proj"),
        *_both(f"{source}.mlp.{up}", f"{here}.ffn.up_proj"),
        *_both(f"{source}.mlp.{down}", f"{here}.ffn.down_proj"),
    ]


def _apple(kernel: Transforms) -> list[Rule]:
    trunk = [
        *_layer("trunk.blocks.{i}", ("norm_1", "norm_2"), ("fc1", "fc3", "fc2")),
        rule("trunk.post_trunk_norm.weight", "rms_norm.weight"),
    ]
    vision = [
        rule("preprocessor.patchifier.proj.weight", "embeddings.patch_embed.weight", transform=kernel),
        rule("preprocessor.patchifier.proj.bias", "embeddings.patch_embed.bias"),
        rule("preprocessor.patchifier.norm.weight", "embeddings.rms_norm.weight"),
        rule("preprocessor.pos_embed", "embeddings.position_embedding.weight", transform=TABLE),
        *trunk,
        rule("head.cls_token", "head.cls_token"),
        *_both("head.k", "head.k_proj"),
        *_both("head.v", "head.v_proj"),
        *_both("head.linear", "head.output_proj"),
    ]
    text = [
        rule("preprocessor.text_embedding.weight", "embeddings.token_embedding.weight"),
        rule("preprocessor.positional_embedding", "embeddings.position_embedding.weight"),
        *trunk,
    ]
    pair = [
        *prefixed(vision, "image_encoder.", "vision_model."),
        *prefixed(text, "text_encoder.", "text_model."),
        rule("image_projector.weight", "visual_projection.weight"),
        rule("text_projector.weight", "text_projection.weight"),
        rule("log_logit_scale", "logit_scale"),
    ]
    return [*vision, *pair]


def _canonical(kernel: Transforms) -> list[Rule]:
    names = [
        "embeddings.patch_embed.bias",
        "embeddings.rms_norm.weight",
        "embeddings.position_embedding.weight",
        "embeddings.token_embedding.weight",
        "encoder.layers.{i}.rms_norm1.weight",
        "encoder.layers.{i}.rms_norm2.weight",
        "rms_norm.weight",
        "head.cls_token",
    ]
    projections = [
        *(f"encoder.layers.{{i}}.attention.{x}_proj" for x in ("q", "k", "v", "out")),
        *(f"encoder.layers.{{i}}.ffn.{x}_proj" for x in ("gate", "up", "down")),
        *(f"head.{x}_proj" for x in ("k", "v", "output")),
    ]
    names += [f"{name}.{kind}" for name in projections for kind in ("weight", "bias")]
    weight = "embeddings.patch_embed.weight"
    tower = [rule(weight, weight, transform=kernel), *(rule(name, name) for name in names)]
    pair = [rule(x, x) for x in ("visual_projection.weight", "text_projection.weight", "logit_scale")]
    return [
        *tower,
        *prefixed(tower, "vision_model.", "vision_model."),
        *prefixed(tower, "text_model.", "text_model."),
        *pair,
    ]


def _timm() -> list[Rule]:
    return [
        rule("patch_embed.proj.weight", "embeddings.patch_embed.weight", transform=KERNEL),
        rule("patch_embed.proj.bias", "embeddings.patch_embed.bias"),
        rule("patch_embed.norm.weight", "embeddings.rms_norm.weight"),
        rule("pos_embed", "embeddings.position_embedding.weight", transform=TABLE),
        *_layer("blocks.{i}", ("norm1", "norm2"), ("fc1_g", "fc1_x", "fc2")),
        rule("norm.weight", "rms_norm.weight"),
    ]


def _flax() -> list[Rule]:
    """Apple's names as Flax writes them: its own terms for weights, kernels with the output last."""
    return [_flax_rule(r) for r in _apple(KEEP)]


def _flax_rule(apple: Rule) -> Rule:
    module, _, kind = apple.source.replace("blocks.{i}", "layers_{i}").rpartition(".")
    if kind != "weight":
        return dataclasses.replace(apple, source=f"{module}.{kind}".lstrip("."))
    if "norm" in module.rpartition(".")[2]:
        return dataclasses.replace(apple, source=f"{module}.scale")
    if module.endswith("text_embedding"):
        return dataclasses.replace(apple, source=f"{module}.embedding")
    transform = FLAX_KERNEL if module.endswith("patchifier.proj") else DENSE
    return rule(f"{module}.kernel", *apple.targets, transform=transform)


@dataclass(frozen=True)
class Layout:
    """A layout of AIMv2 checkpoints.

    Attributes:
        name: the name in `info` and `export`.
        marks: ends of names; every checkpoint of this layout has at least one, and no other layout has any.
        kernel_first: True if the patch kernel is (D, C, p, p), False if it is (D, p, p, C), None if the marks alone
            tell the layout.
        rules: the table; None for canonical names, quantized tensors included.
        parts: prefixes of the layout itself that may precede a mark.
        prefix: of all names in a checkpoint, such as `module.`.
    """

    name: str
    marks: tuple[str, ...]
    kernel_first: bool | None
    rules: tuple[Rule, ...] | None
    parts: tuple[str, ...] = ()
    prefix: str = ""

    def left_out(self, names: Iterable[str]) -> list[str]:
        """The names that do not belong to the model, such as those of a classifier on top."""
        match = matcher(r.source for r in self.rules or LAYOUTS["transformers"].rules or ())
        kept = [name for name in map(unwrapped, names) if not name.endswith(IGNORED_SUFFIXES)]
        return beside(kept, self.prefix, lambda name: match(_plain(name)) is not None)

    def to_canonical(self, tensors: Mapping[str, mx.array]) -> tuple[Tensors, list[str]]:
        """Canonical tensors, and the names without a place in this layout."""
        out = set(self.left_out(tensors))
        wanted = {
            name[len(self.prefix) :]: tensor
            for name, tensor in ((unwrapped(stored), tensor) for stored, tensor in tensors.items())
            if name not in out and not name.endswith(IGNORED_SUFFIXES)
        }
        return (wanted, []) if self.rules is None else to_canonical(wanted, self.rules)

    def from_canonical(self, tensors: Mapping[str, mx.array]) -> tuple[Tensors, list[str]]:
        """This layout's tensors, and the canonical names without a place in it."""
        return (dict(tensors), []) if self.rules is None else from_canonical(tensors, self.rules)


APPLE_PARTS, PARTS = ("image_encoder.",), ("vision_model.",)
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("apple", ("preprocessor.patchifier.proj.weight",), True, tuple(_apple(KERNEL)), APPLE_PARTS),
        Layout(
            "apple-mlx", ("preprocessor.patchifier.proj.weight",), False, tuple(_apple(KEEP)), APPLE_PARTS
        ),
        Layout("flax", ("preprocessor.patchifier.proj.kernel",), None, tuple(_flax()), APPLE_PARTS),
        Layout("transformers", ("embeddings.patch_embed.weight",), True, tuple(_canonical(KERNEL)), PARTS),
        Layout("mlx", ("embeddings.patch_embed.weight",), False, None, PARTS),
        Layout("timm", ("patch_embed.proj.weight",), True, tuple(_timm())),
    )
}


def detect(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str] | None = None) -> Layout:
    """The layout of a checkpoint, from its tensor names and the shape of its patch kernel.

    Args:
        shapes: every tensor's shape.
        metadata: of the file; only read if the kernel's shape fits both orders.

    Raises:
        LayoutError: the layout is unknown, or the file holds two models; the message names tensors.
    """
    stored, shapes = shapes, {unwrapped(name): shape for name, shape in shapes.items()}
    if len(shapes) < len(stored):
        raise LayoutError(
            "some tensors are there twice, once below a wrapper such as _orig_mod: leave one out"
        )
    for layout in LAYOUTS.values():
        for mark in layout.marks:
            if not (prefixes := roots(shapes, mark, layout.parts)):
                continue
            kernel = next(
                shape for name, shape in shapes.items() if name == mark or name.endswith(f".{mark}")
            )
            if layout.kernel_first in (None, _is_kernel_first(kernel, metadata or {})):
                return dataclasses.replace(layout, prefix=only_root(prefixes, shapes))
    names = ", ".join(sorted(shapes)[:3]) or "nothing"
    marks = ", ".join(dict.fromkeys(mark for layout in LAYOUTS.values() for mark in layout.marks))
    raise LayoutError(
        f"not an AIMv2 checkpoint: no tensor named like {marks}; found {len(shapes)}: {names} …"
    )


def _plain(name: str) -> str:
    """The name of the plain tensor for a tensor of quantized weights."""
    for kind in (".scales", ".biases"):
        if name.endswith(kind):
            return f"{name.removesuffix(kind)}.weight"
    return name


def _is_kernel_first(shape: tuple[int, ...], metadata: Mapping[str, str]) -> bool:
    """Whether a patch kernel is (D, C, p, p) rather than (D, p, p, C)."""
    if len(shape) != 4:
        raise LayoutError(
            f"not an AIMv2 checkpoint: its patch kernel has the shape {list(shape)}, not four sides"
        )
    if shape[1] == shape[3]:  # both orders fit
        return metadata.get("format") != "mlx"
    return shape[2] == shape[3]
