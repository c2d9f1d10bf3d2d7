"""The models against frozen results of transformers; `golden/make_golden.py` makes them anew."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from drawn_world.vocabulary import Vocabulary, write_vocabulary

from mlx_aimv2 import load
from mlx_aimv2.events import ignore

FILES = sorted(Path(__file__).parent.glob("golden/*.safetensors"))
TOLERANCE = 2e-5  # of the largest value


def part(tensors, prefix):
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """Gives a golden file's model, inputs and expected outputs by its name."""
    made = {}

    def make(name):
        if name not in made:
            path = Path(__file__).parent / "golden" / f"{name}.safetensors"
            tensors, metadata = mx.load(str(path), return_metadata=True)
            folder = tmp_path_factory.mktemp(name)
            mx.save_safetensors(str(folder / "model.safetensors"), part(tensors, "checkpoint."))
            (folder / "config.json").write_text(json.dumps(json.loads(metadata["made"])["config"]))
            write_vocabulary(folder, Vocabulary(), 12)
            model, _ = load(folder, dtype="float32", on_event=ignore)
            assert model.origin.layout == "transformers"
            expected = {key: np.array(x) for key, x in part(tensors, "expected.").items()}
            made[name] = model, part(tensors, "input."), expected
        return made[name]

    return make


def assert_close(ours, expected):
    ours = np.array(ours)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= TOLERANCE * np.abs(expected).max()


def assert_same_encoder(out, expected, real=None):
    """Every tensor of an encoder's output; ``real`` says which tokens count."""
    names = {"last_hidden_state": out.last_hidden_state}
    names |= {f"hidden_states.{i}": x for i, x in enumerate(out.hidden_states)}
    names |= {f"attentions.{i}": x for i, x in enumerate(out.attentions)}
    names |= {} if out.pooler_output is None else {"pooler_output": out.pooler_output}
    assert names.keys() == expected.keys()
    for name, x in names.items():
        a, b = np.array(x), expected[name]
        if real is not None and name != "pooler_output":
            a, b = (np.moveaxis(y, 2, 1)[real] if "attentions" in name else y[real] for y in (a, b))
        assert_close(a, b)


@pytest.mark.parametrize("name", ["fixed", "native"])
def test_vision_encoder(golden, name):
    model, inputs, expected = golden(name)
    assert_same_encoder(model(inputs["pixel_values"], True, True), expected)


def test_vision_encoder_of_the_pair(golden):
    model, inputs, expected = golden("lit")
    out = model.vision_model(inputs["pixel_values"], True, True)
    assert_same_encoder(out, part(expected, "vision."))


def test_text_encoder_of_the_pair(golden):
    model, inputs, expected = golden("lit")
    out = model.text_model(inputs["input_ids"], inputs["attention_mask"], True, True)
    assert_same_encoder(out, part(expected, "text."), np.array(inputs["attention_mask"]).astype(bool))


def test_features_of_the_pair(golden):
    model, inputs, expected = golden("lit")
    assert_close(model.get_image_features(inputs["pixel_values"]), expected["image_features"])
    text = model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
    assert_close(text, expected["text_features"])


def test_logits_of_the_pair(golden):
    model, inputs, expected = golden("lit")
    out = model(**inputs)
    for name in ("logits_per_image", "image_embeds", "text_embeds"):
        assert_close(getattr(out, name), expected[name])


def test_the_kinds_are_what_their_names_say(golden):
    fixed, native, lit = (golden(name)[0].config for name in ("fixed", "native", "lit"))
    assert (fixed.is_native, fixed.use_head, fixed.qkv_bias, fixed.mlp_bias) == (False, False, True, True)
    assert (native.is_native, native.use_head) == (True, False)
    assert lit.vision_config.use_head and lit.text_config.num_hidden_layers == 2


def test_the_files_are_small_and_say_what_made_them():
    assert [path.stem for path in FILES] == ["fixed", "lit", "native"]
    assert sum(path.stat().st_size for path in FILES) < 500_000
    for path in FILES:
        made = json.loads(mx.load(str(path), return_metadata=True)[1]["made"])
        assert made.keys() == {"config", "torch", "transformers"}
        assert made["config"]["model_type"].startswith("aimv2")
