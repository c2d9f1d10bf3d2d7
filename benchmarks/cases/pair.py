"""Image side and text side of the image-text pair."""

from __future__ import annotations

import torch_peers
from suite import Case, Family, Result, Setup, Side
from timing import repeated

LENGTH = 77  # tokens of a text
QUICK_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SIDES = {"image": ((1, 2), (8, 1)), "text": ((1, 2), (8, 2), (32, 1))}  # batches with their rounds


def configs(setup: Setup) -> tuple[dict, dict]:
    """Fields of the vision config and of the text config."""
    return setup.vision(use_head=True), QUICK_TEXT if setup.quick else {}


def mlx(setup: Setup, part: str, batch: int) -> Result:
    """This package."""
    from mlx_aimv2 import Aimv2Config, Aimv2Model, Aimv2TextConfig, Aimv2VisionConfig
    from mlx_aimv2.backend.device import compute_dtype

    import mlx.core as mx  # isort: skip

    vision, text = configs(setup)
    model = Aimv2Model(Aimv2Config(Aimv2VisionConfig(**vision), Aimv2TextConfig(**text)))
    model.set_dtype(compute_dtype(None))
    model.eval()
    mx.eval(model.parameters())
    pixels = mx.random.normal((batch, 224, 224, 3))
    ids = mx.random.randint(0, 40000, (batch, LENGTH))
    mx.eval(pixels, ids)
    functions = {
        "image": lambda: mx.eval(model.get_image_features(pixels)),
        "text": lambda: mx.eval(model.get_text_features(ids)),
    }
    return {"timings": {"": repeated(setup, functions[part])}, "values": {}}


def transformers(setup: Setup, part: str, batch: int) -> Result:
    """transformers, float32, as shipped."""
    import torch
    from transformers import Aimv2Config, Aimv2Model

    vision, text = configs(setup)
    model = Aimv2Model(Aimv2Config(vision_config=vision, text_config=text)).to(torch_peers.device()).eval()
    pixels = torch_peers.noise(batch, 224, 224)
    ids = torch.randint(0, 40000, (batch, LENGTH), device=torch_peers.device())
    functions = {
        "image": lambda: model.get_image_features(pixel_values=pixels),
        "text": lambda: model.get_text_features(input_ids=ids),
    }
    with torch.inference_mode():
        return {
            "timings": {"": repeated(setup, torch_peers.finished(functions[part]))},
            "values": {},
        }


def cases(setup: Setup) -> list[Case]:
    """Batches of both sides."""
    return [
        Case(f"{part} side, batch {batch}", (
            Side("mlx-aimv2", mlx, {"part": part, "batch": batch}),
            Side("transformers float32", transformers, {"part": part, "batch": batch}, is_peer=True),
        ), batch, rounds)
        for part, batches in SIDES.items() for batch, rounds in batches
    ]  # fmt: skip


FAMILY = Family(
    "pair",
    "Image-text pair",
    f"Images of 224 pixels, or texts of {LENGTH} tokens, to projected embeddings; random weights.",
    cases,
)
