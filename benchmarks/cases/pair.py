"""Image side and text side of the image-text pair."""

from __future__ import annotations

from collections.abc import Callable

import torch_peers
from suite import Case, Family, Result, Setup, Side
from timing import repeated, seconds

LENGTH = 77  # tokens of a text
QUICK_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
BATCHES = (1, 8, 32)


def configs(setup: Setup) -> tuple[dict, dict]:
    """Fields of the vision config and of the text config."""
    return setup.vision(use_head=True), QUICK_TEXT if setup.quick else {}


def mlx(setup: Setup, part: str) -> Result:
    """This package."""
    from mlx_aimv2 import Aimv2Config, Aimv2Model, Aimv2TextConfig, Aimv2VisionConfig
    from mlx_aimv2.backend.device import compute_dtype

    import mlx.core as mx  # isort: skip

    vision, text = configs(setup)
    model = Aimv2Model(Aimv2Config(Aimv2VisionConfig(**vision), Aimv2TextConfig(**text)))
    model.set_dtype(compute_dtype(None))
    model.eval()
    mx.eval(model.parameters())

    def run(batch: int) -> Callable[[], None]:
        pixels, ids = mx.random.normal((batch, 224, 224, 3)), mx.random.randint(0, 40000, (batch, LENGTH))
        mx.eval(pixels, ids)
        if part == "image":
            return lambda: mx.eval(model.get_image_features(pixels))
        return lambda: mx.eval(model.get_text_features(ids))

    return timings(setup, part, run)


def transformers(setup: Setup, part: str) -> Result:
    """transformers, float32, as shipped."""
    import torch
    from transformers import Aimv2Config, Aimv2Model

    vision, text = configs(setup)
    model = Aimv2Model(Aimv2Config(vision_config=vision, text_config=text)).to(torch_peers.device()).eval()

    def run(batch: int) -> Callable[[], object]:
        pixels = torch_peers.noise(batch, 224, 224)
        ids = torch.randint(0, 40000, (batch, LENGTH), device=torch_peers.device())
        if part == "image":
            return torch_peers.finished(lambda: model.get_image_features(pixel_values=pixels))
        return torch_peers.finished(lambda: model.get_text_features(input_ids=ids))

    with torch.inference_mode():
        return timings(setup, part, run)


def timings(setup: Setup, part: str, run: Callable[[int], Callable[[], object]]) -> Result:
    """The result of a side: seconds for an image or a text, by batch."""
    samples = {
        f"batch {batch}": [x / batch for x in repeated(setup, run(batch), budget_s=3)]
        for batch in BATCHES[:-1]
    }
    largest = BATCHES[-1]  # which takes long, and needs no run to warm up after the others
    samples[f"batch {largest}"] = [seconds(run(largest)) / largest]
    return {"timings": samples, "values": {}}


def cases(setup: Setup) -> list[Case]:
    """Both sides."""
    functions = (("mlx-aimv2", mlx, False), ("transformers float32", transformers, True))
    return [
        Case(f"{part} side", tuple(Side(name, function, {"part": part}, is_peer=is_peer)
                                   for name, function, is_peer in functions), rounds=1)
        for part in ("image", "text")
    ]  # fmt: skip


FAMILY = Family(
    "pair",
    "Image-text pair",
    f"Images of 224 pixels, or texts of {LENGTH} tokens, to projected embeddings; random weights. Times are for one"
    " image or text.",
    cases,
)
