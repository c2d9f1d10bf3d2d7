"""Adapters against PEFT's, live: files both ways, outputs, gradients."""

from __future__ import annotations

import dataclasses

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import load
from mlx_aimv2.adapters.attach import TARGETS, AdapterConfig, adapted, attach
from mlx_aimv2.adapters.store import save_adapter
from mlx_aimv2.adapters.stored_adapter import read_stored
from mlx_aimv2.conversion.export import export
from mlx_aimv2.conversion.fuse import fuse
from mlx_aimv2.events import ignore

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of alpha_pattern, and the notices of `warn`
]

VISION = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "use_head": True,
    "qkv_bias": True,
    "mlp_bias": True,
}
TEXT = {
    "vocab_size": 514,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 20,
    "eos_token_id": 513,
}
KINDS = ("lora", "dora")


def randomize(model, seed=0, only=""):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if only in name and parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            elif only and only in name:
                parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=generator))
    return model.eval()


def vision_model():
    config = transformers.Aimv2VisionConfig(**VISION, attn_implementation="eager")
    return randomize(transformers.Aimv2VisionModel(config))


def pair_model():
    config = transformers.Aimv2Config(
        vision_config=VISION, text_config=TEXT, projection_dim=32, attn_implementation="eager"
    )
    return randomize(transformers.Aimv2Model(config))


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """The folder of an image encoder that transformers wrote."""
    folder = tmp_path_factory.mktemp("vision")
    vision_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder of an image-text pair that transformers wrote."""
    from drawn_world.vocabulary import Vocabulary, write_vocabulary

    folder = tmp_path_factory.mktemp("pair")
    pair_model().save_pretrained(folder)
    write_vocabulary(folder, Vocabulary(), TEXT["max_position_embeddings"])
    return folder


def theirs_of(folder, pair=False):
    make = transformers.Aimv2Model if pair else transformers.Aimv2VisionModel
    return make.from_pretrained(folder, attn_implementation="eager").eval()


def ours_of(folder, **options):
    return load(folder, dtype="float32", on_event=ignore, **options)[0]


def pixels(batch=2):
    x = torch.randn((batch, 3, 56, 56), generator=torch.Generator().manual_seed(5))
    return x, mx.array(x.permute(0, 2, 3, 1).contiguous().numpy())


def error(ours, theirs):
    ours, theirs = np.array(ours, np.float64), theirs.detach().double().numpy()
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def randomize_ours(model, seed=1):
    """A and B from the seed, B not zero, and lengths that are not those of the rows."""
    keys = iter(mx.random.split(mx.random.key(seed), 512))
    for layer in adapted(model).values():
        layer.lora_b = mx.random.normal(layer.lora_b.shape, scale=0.3, key=next(keys))
        bound = layer.lora_a.shape[1] ** -0.5
        layer.lora_a = mx.random.uniform(-bound, bound, layer.lora_a.shape, key=next(keys))
        if "magnitude" in layer:
            layer.magnitude = layer.magnitude * mx.random.uniform(
                0.8, 1.3, layer.magnitude.shape, key=next(keys)
            )
    return model


CONFIGS = {
    "every layer": AdapterConfig(rank=4),
    "the last two, q and v": AdapterConfig(rank=4, num_layers=2, target_modules=("q", "v")),
    "rslora": AdapterConfig(rank=4, rslora=True, alpha=3.5),
    "one target": AdapterConfig(rank=1, target_modules=("k",), dropout=0.1),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_peft_opens_what_is_saved_here(vision, tmp_path, kind, name):
    config = dataclasses.replace(CONFIGS[name], type=kind)
    ours = ours_of(vision)
    attach(ours, config)
    save_adapter(tmp_path / "adapter", randomize_ours(ours), config, ours.origin)
    theirs = peft.PeftModel.from_pretrained(theirs_of(vision), tmp_path / "adapter").eval()
    count = sum(p.numel() for n, p in theirs.named_parameters() if "lora" in n)
    assert count == sum(x.size for _, x in tree_flatten(ours.trainable_parameters()))
    x, y = pixels()
    with torch.no_grad():
        out, plain = theirs(x), theirs_of(vision)(x)
    found = ours(y)
    assert error(found.last_hidden_state, out.last_hidden_state) < 1e-4
    assert error(found.pooler_output, out.pooler_output) < 1e-4
    assert error(found.last_hidden_state, plain.last_hidden_state) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("towers", [("vision",), ("text",), ("vision", "text")], ids="-".join)
def test_peft_opens_a_pairs_adapter(pair, tmp_path, kind, towers):
    config = AdapterConfig(type=kind, rank=3, num_layers=2)
    ours = ours_of(pair)
    attach(ours, config, towers)
    save_adapter(tmp_path / "adapter", randomize_ours(ours), config, ours.origin)
    theirs = peft.PeftModel.from_pretrained(theirs_of(pair, pair=True), tmp_path / "adapter").eval()
    count = sum(p.numel() for n, p in theirs.named_parameters() if "lora" in n)
    assert count == sum(x.size for _, x in tree_flatten(ours.trainable_parameters()))
    x, y = pixels()
    ids = np.array([[512, 40, 41, 513], [512, 50, 51, 513]])
    with torch.no_grad():
        out = theirs(torch.tensor(ids), x, torch.ones(2, 4, dtype=torch.long))
    assert error(ours(mx.array(ids), y).logits_per_image, out.logits_per_image) < 1e-4


def test_auto_peft_finds_base_and_adapter(vision, tmp_path):
    config = AdapterConfig(rank=2)
    ours = ours_of(vision)
    attach(ours, config)
    save_adapter(tmp_path / "adapter", randomize_ours(ours), config, ours.origin)
    theirs = peft.AutoPeftModel.from_pretrained(tmp_path / "adapter").eval()
    x, y = pixels()
    with torch.no_grad():
        assert error(ours(y).pooler_output, theirs(x).pooler_output) < 1e-4


LORA = {
    "ends of names, the pooling head's too": {"target_modules": ["q_proj", "k_proj", "gate_proj"]},
    "a pattern": {"target_modules": r".*\.layers\.[02]\.(attention\.v_proj|ffn\.\w+_proj)"},
    "all-linear": {"target_modules": "all-linear"},
    "some layers": {
        "target_modules": ["out_proj"],
        "layers_to_transform": [0, 2],
        "layers_pattern": "layers",
    },
    "one layer": {"target_modules": ["up_proj"], "layers_to_transform": 1},
    "other ranks and alphas": {
        "target_modules": ["q_proj", "down_proj"],
        "rank_pattern": {"down_proj": 2, r"^encoder.layers.0.attention.q_proj": 5},
        "alpha_pattern": {"layers.1.attention.q_proj": 32},
    },
    "but not": {"target_modules": ["k_proj"], "exclude_modules": ["head.k_proj"]},
    "rslora": {"target_modules": ["q_proj"], "use_rslora": True},
}


@pytest.mark.parametrize("dora", [False, True], ids=KINDS)
@pytest.mark.parametrize("name", LORA)
def test_what_peft_saves_is_opened_here(vision, tmp_path, dora, name):
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "use_dora": dora, **LORA[name]})
    theirs = randomize(peft.get_peft_model(theirs_of(vision), config), 3, only="lora_")
    theirs.save_pretrained(tmp_path)
    ours = ours_of(vision, adapter_path=tmp_path)
    assert ours.origin.adapter is not None
    x, y = pixels()
    with torch.no_grad():
        out = theirs(x)
    assert error(ours(y).last_hidden_state, out.last_hidden_state) < 1e-4
    assert error(ours(y).pooler_output, out.pooler_output) < 1e-4


class Wrapper(torch.nn.Module):
    """A class of one's own around an image encoder."""

    def __init__(self, vision, attribute):
        super().__init__()
        setattr(self, attribute, vision)
        self.attribute, self.classifier = attribute, torch.nn.Linear(VISION["hidden_size"], 3)

    def forward(self, x):
        return getattr(self, self.attribute)(x)


WRAPPED = {
    "targets": {"target_modules": ["q_proj", "v_proj"]},
    "a trained classifier": {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]},
    "an adapted classifier": {"target_modules": ["q_proj", "classifier"]},
    "a pattern": {"target_modules": r".*\.encoder\.layers\.\d+\.attention\.(k|v)_proj"},
    "the last layer": {
        "target_modules": ["out_proj"],
        "layers_to_transform": [1],
        "layers_pattern": "layers",
    },
    "ranks": {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {r"layers\.0\.attention\.q_proj": 2}},
    "all linear": {"target_modules": "all-linear"},
}


@pytest.mark.parametrize("attribute", ["vision", "model", "encoder", "vision_model"])
@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("dora", [False, True], ids=KINDS)
def test_what_was_trained_inside_another_module_is_opened_here(vision, tmp_path, dora, name, attribute):
    config = peft.LoraConfig(r=4, lora_alpha=6, use_dora=dora, **WRAPPED[name])
    theirs = randomize(peft.get_peft_model(Wrapper(theirs_of(vision), attribute), config), 3, only="lora_")
    theirs.save_pretrained(tmp_path)
    ours = ours_of(vision, adapter_path=tmp_path)
    assert len(adapted(ours)) > 0
    x, y = pixels()
    with torch.no_grad():
        out = theirs(x)
    assert error(ours(y).last_hidden_state, out.last_hidden_state) < 1e-4
    assert error(ours(y).last_hidden_state, theirs_of(vision)(x).last_hidden_state) > 1e-2


@pytest.mark.parametrize("dora", [False, True], ids=KINDS)
def test_an_adapter_of_the_image_encoder_fits_the_pair(pair, tmp_path, dora):
    whole = theirs_of(pair, pair=True)
    config = peft.LoraConfig(r=4, lora_alpha=6, use_dora=dora, target_modules=["q_proj", "v_proj"])
    theirs = randomize(peft.get_peft_model(whole.vision_model, config), 3, only="lora_")
    theirs.save_pretrained(tmp_path)
    ours = ours_of(pair, adapter_path=tmp_path)
    x, y = pixels()
    with torch.no_grad():
        assert error(ours.vision_model(y).pooler_output, theirs(x).pooler_output) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_fused_checkpoint_gives_what_peft_gives(vision, tmp_path, kind):
    config = AdapterConfig(type=kind, rank=4)
    ours = ours_of(vision)
    attach(ours, config)
    save_adapter(tmp_path / "adapter", randomize_ours(ours), config, ours.origin)
    fuse(vision, tmp_path / "adapter", tmp_path / "fused")
    export(vision, tmp_path / "out", adapter_path=tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(theirs_of(vision), tmp_path / "adapter").eval()
    x, y = pixels()
    with torch.no_grad():
        out, exported = theirs(x).last_hidden_state, theirs_of(tmp_path / "out")(x).last_hidden_state
    assert error(ours_of(tmp_path / "fused")(y).last_hidden_state, out) < 1e-4
    assert error(exported.numpy(), out) < 1e-4


@pytest.mark.parametrize("dora", [False, True], ids=KINDS)
def test_gradients_are_those_of_torch(vision, tmp_path, dora):
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_dora=dora,
        target_modules=list(TARGETS.values()),
    )
    theirs = randomize(peft.get_peft_model(theirs_of(vision), config), 3, only="lora_").train()
    theirs.save_pretrained(tmp_path)
    ours = ours_of(vision)
    read_stored(tmp_path).put_on(ours)
    ours.train()
    x, y = pixels()
    wanted = torch.randn((2, 64), generator=torch.Generator().manual_seed(7))
    ((theirs(x).pooler_output - wanted) ** 2).mean().backward()

    def loss(model):
        return mx.mean((model(y).pooler_output - mx.array(wanted.numpy())) ** 2)

    _, gradients = nn.value_and_grad(ours, loss)(ours)
    gradients = dict(tree_flatten(gradients))
    names = {"lora_a": "lora_A.default.weight", "lora_b": "lora_B.default.weight"}
    names["magnitude"] = "lora_magnitude_vector.default.weight"
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    assert len(gradients) == len(expected) == 3 * 7 * (3 if dora else 2)
    for name, gradient in gradients.items():
        path, _, kind = name.rpartition(".")
        assert error(gradient, expected[f"base_model.model.{path}.{names[kind]}"]) < 1e-3, name


def test_dropout_of_dora_is_as_in_peft(vision, tmp_path):
    """With everything dropped the outcome is no matter of chance: only what is not the adapter's part is left."""
    config = peft.LoraConfig(
        r=4, lora_alpha=6, use_dora=True, target_modules=["q_proj"], lora_dropout=1 - 1e-9
    )
    theirs = randomize(peft.get_peft_model(theirs_of(vision), config), 3, only="lora_").train()
    theirs.save_pretrained(tmp_path)
    ours = ours_of(vision)
    read_stored(tmp_path).put_on(ours)
    ours.train()
    x, y = pixels()
    with torch.no_grad():
        out = theirs(x).pooler_output
    assert error(ours(y).pooler_output, out) < 1e-4
