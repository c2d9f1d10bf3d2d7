"""The comparison with transformers once more, at the size of the published checkpoints; minutes, not seconds.

Weights are random, shapes are those of large-224, native and lit. Each layout is written by hand, loaded, and
compared in every hidden state; the largest relative errors are printed (`pytest -m slow -s`).
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from parity.test_models_parity import (  # noqa: E402
    apple_pair,
    apple_pair_config,
    apple_vision,
    apple_vision_config,
    error,
    randomize,
    timm_vision,
    write,
)

from mlx_aimv2.loading import build_model, inspect  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

VISION = {"large-224": {"use_head": False}, "native": {"use_head": False, "is_native": True}}
SIZES = {"large-224": (224, 224), "native": (224, 308)}
PARAMETERS = {"large-224": 309_197_824, "native": 308_935_680, "lit": 436_680_193}
LIT_TEXT = {"vocab_size": 49408, "eos_token_id": 49407}
WORDS = [[49406, 320, 1125, 539, 320, 2368, 49407, 49407], [49406, 320, 1125, 539, 518, 1929, 530, 49407]]


def worst(ours, theirs):
    return max(error(a, b) for a, b in zip(ours, theirs, strict=True))


def report(what, **errors):
    print(f"\n{what}: " + ", ".join(f"{name} {value:.1e}" for name, value in errors.items()))
    return errors.values()


@pytest.mark.parametrize("name", VISION)
def test_vision(name, tmp_path):
    config = transformers.Aimv2VisionConfig(**VISION[name], attn_implementation="eager")
    theirs = randomize(transformers.Aimv2VisionModel(config))
    assert sum(p.numel() for p in theirs.parameters()) == PARAMETERS[name]
    pixels = torch.randn((1, 3, *SIZES[name]), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(pixels, output_hidden_states=True)
    layouts = {
        "apple": lambda s: apple_vision(s),
        "apple-mlx": lambda s: apple_vision(s, channels_last=True),
        "timm": timm_vision,
    }
    theirs.save_pretrained(tmp_path / "transformers")
    for layout, make in layouts.items():
        if layout != "timm" or name != "native":
            (tmp_path / layout).mkdir()
            write(tmp_path / layout, make(theirs.state_dict()), apple_vision_config(config))
    for folder in sorted(tmp_path.iterdir()):
        model = load_model(folder)
        assert model.origin.layout == folder.name
        ours = model(mx.array(pixels.permute(0, 2, 3, 1).contiguous().numpy()), output_hidden_states=True)
        errors = report(
            f"{name} {folder.name}",
            hidden=worst(ours.hidden_states, expected.hidden_states),
            last=error(ours.last_hidden_state, expected.last_hidden_state),
        )
        assert max(errors) < 1e-4


def test_lit(tmp_path):
    config = transformers.Aimv2Config(
        vision_config={"use_head": True},
        text_config=LIT_TEXT,
        projection_dim=768,
        attn_implementation="eager",
    )
    theirs = randomize(transformers.Aimv2Model(config))
    assert sum(p.numel() for p in theirs.parameters()) == PARAMETERS["lit"]
    pixels = torch.randn((2, 3, 224, 224), generator=torch.Generator().manual_seed(2))
    ids = torch.tensor(WORDS)
    mask = (torch.arange(ids.shape[1]) <= (ids == 49407).int().argmax(1, keepdim=True)).long()
    with torch.no_grad():
        expected = theirs(ids, pixels, attention_mask=mask, output_hidden_states=True)
    theirs.save_pretrained(tmp_path / "transformers")
    for layout, last in (("apple", False), ("apple-mlx", True)):
        (tmp_path / layout).mkdir()
        write(
            tmp_path / layout, apple_pair(theirs.state_dict(), channels_last=last), apple_pair_config(config)
        )
    for folder in sorted(tmp_path.iterdir()):
        model = load_model(folder)
        ours = model(
            mx.array(ids.numpy()),
            mx.array(pixels.permute(0, 2, 3, 1).contiguous().numpy()),
            mx.array(mask.numpy()),
            output_hidden_states=True,
        )
        vision, text = ours.vision_model_output, ours.text_model_output
        real = mask.bool().numpy()
        errors = report(
            f"lit {folder.name}",
            vision=worst(vision.hidden_states, expected.vision_model_output.hidden_states),
            head=error(vision.pooler_output, expected.vision_model_output.pooler_output),
            text=max(
                error(np.array(a)[real], b[real])
                for a, b in zip(text.hidden_states, expected.text_model_output.hidden_states, strict=True)
            ),
            pooled=error(text.pooler_output, expected.text_model_output.pooler_output),
            embeds=error(ours.image_embeds, expected.image_embeds),
        )
        assert max(errors) < 1e-4
        logits = np.abs(np.array(ours.logits_per_image) - expected.logits_per_image.numpy()).max()
        print(f"  logits {np.array(ours.logits_per_image).tolist()} absolute error {logits:.1e}")
        assert logits < 1e-3


def load_model(folder):
    """The model alone: these folders have no preprocessor and no tokenizer."""
    return build_model(inspect(folder), mx.float32)
