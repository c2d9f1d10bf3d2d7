"""Makes the golden files beside this one: tiny checkpoints, inputs, and what transformers gives for them.

    python tests/golden/make_golden.py          # needs torch and transformers

Each file holds the tensors `checkpoint.*` (in transformers' layout), `input.*` (images channels last) and
`expected.*`, and in its metadata the checkpoint's config.json and what made it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).parent
VOCABULARY = 514  # of the tokenizer that mlx_aimv2.demo writes: every byte twice, BOS, EOS
BOS, EOS = VOCABULARY - 2, VOCABULARY - 1
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 7,
}
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "eos_token_id": EOS,
}
TEXTS = [[BOS, 40, 41, 300, EOS], [BOS, 50, EOS, EOS, EOS]]  # the second is padded
MASK = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def randomize(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights with which every part of the model matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim:
                noise = torch.randn(parameter.shape, generator=generator)
                fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
                spread = 0.3 if parameter.ndim == 1 or "embedding" in name else 1.5 * fan_in**-0.5
                parameter.copy_(noise * spread + (1.0 if "norm" in name else 0.0))
    return model.eval()


def encoder(out: object, prefix: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of an encoder's output by name."""
    states = {f"{prefix}hidden_states.{i}": x for i, x in enumerate(out.hidden_states)}
    weights = {f"{prefix}attentions.{i}": x for i, x in enumerate(out.attentions)}
    pooled = {} if out.pooler_output is None else {f"{prefix}pooler_output": out.pooler_output}
    return {**states, **weights, **pooled, f"{prefix}last_hidden_state": out.last_hidden_state}


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(7))


def save(name: str, model: torch.nn.Module, inputs: dict, expected: dict) -> None:
    tensors = {f"checkpoint.{key}": x for key, x in model.state_dict().items()}
    tensors |= {f"input.{key}": x for key, x in inputs.items()}
    tensors |= {f"expected.{key}": x for key, x in expected.items()}
    tensors = {key: x.detach().contiguous().clone() for key, x in tensors.items()}
    made = {
        "config": model.config.to_diff_dict() | {"model_type": model.config.model_type},
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    path = HERE / f"{name}.safetensors"
    save_file(tensors, path, metadata={"made": json.dumps(made)})  # one entry: their order is not kept
    path.chmod(0o644)


def make_vision(name: str, seed: int, height: int, width: int, **changes: object) -> None:
    config = transformers.Aimv2VisionConfig(**{**VISION, **changes}, attn_implementation="eager")
    model, pixels = randomize(transformers.Aimv2VisionModel(config), seed), images(height, width)
    out = model(pixels, output_hidden_states=True, output_attentions=True)
    save(name, model, {"pixel_values": pixels.permute(0, 2, 3, 1)}, encoder(out))


def make_pair(name: str, seed: int) -> None:
    config = transformers.Aimv2Config(
        vision_config={**VISION, "use_head": True},
        text_config=TEXT,
        projection_dim=20,
        attn_implementation="eager",  # with the other one the text encoder would not be causal
    )
    model, pixels = randomize(transformers.Aimv2Model(config), seed), images(28, 28)
    ids, mask = torch.from_numpy(np.array(TEXTS)), torch.from_numpy(np.array(MASK))
    assert model.text_model.config._attn_implementation == "eager"
    kinds = {"output_hidden_states": True, "output_attentions": True}
    vision, text = model.vision_model(pixels, **kinds), model.text_model(ids, mask, **kinds)
    out = model(ids, pixels, mask)
    expected = {
        **encoder(vision, "vision."),
        **encoder(text, "text."),
        "image_features": model.visual_projection(vision.pooler_output),
        "text_features": model.text_projection(text.pooler_output),
        "image_embeds": out.image_embeds,
        "text_embeds": out.text_embeds,
        "logits_per_image": out.logits_per_image,
    }
    inputs = {"pixel_values": pixels.permute(0, 2, 3, 1), "input_ids": ids, "attention_mask": mask}
    save(name, model, inputs, expected)


if __name__ == "__main__":
    with torch.no_grad():
        make_vision("fixed", 1, 28, 28, use_head=False, qkv_bias=True, mlp_bias=True)
        make_vision("native", 2, 37, 24, use_head=False, is_native=True)
        make_pair("lit", 3)
