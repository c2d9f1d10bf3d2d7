"""Contrastive training against PyTorch's, live: the same loss, gradients, steps, and files that PEFT opens."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

from mlx_aimv2 import load
from mlx_aimv2.adapters.attach import AdapterConfig, adapted
from mlx_aimv2.adapters.store import save_adapter
from mlx_aimv2.datasets.captioned import read_captions
from mlx_aimv2.finetuning.caption_task import make_pair_stepper
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.pair_model import build_pair
from mlx_aimv2.finetuning.prepared import batch_options
from mlx_aimv2.finetuning.run import finetune
from mlx_aimv2.processing.image_config import ImageProcessorConfig
from mlx_aimv2.processing.image_settings import write_settings
from mlx_aimv2.training.caption_batches import PairBatches

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

VISION = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "use_head": True,
    "qkv_bias": True,
}
TEXT = {
    "vocab_size": 514,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
    "eos_token_id": 513,
}
STEPS, RATE = 8, 1e-3
PROJECTIONS = {"vision": "visual_projection", "text": "text_projection"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder of an image-text pair that transformers wrote."""
    from drawn_world.vocabulary import Vocabulary, write_vocabulary

    folder = tmp_path_factory.mktemp("pair")
    config = transformers.Aimv2Config(
        vision_config=VISION, text_config=TEXT, projection_dim=32, attn_implementation="eager"
    )
    model, generator = transformers.Aimv2Model(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    write_settings(folder, ImageProcessorConfig.default(56))
    write_vocabulary(folder, Vocabulary(), TEXT["max_position_embeddings"])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Coloured noise with captions of different lengths, two of which are the same."""
    root, rng, rows = tmp_path_factory.mktemp("images"), np.random.default_rng(0), ["path,caption"]
    for number in range(14):
        pixels = rng.integers(0, 255, 3) + rng.normal(0, 40, (60, 60, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{number}.png")
        rows.append(f"{number}.png,{'an image ' * (number % 3)}of number {number % 13}")
    (root / "captions.csv").write_text("\n".join(rows))
    return root / "captions.csv"


def options(data, **given):
    return FinetuneOptions(
        data=str(data), task="contrastive", fine_tune_type="full", batch_size=5, val_fraction=0.2, **given
    )


def theirs_of(folder):
    return transformers.Aimv2Model.from_pretrained(folder, attn_implementation="eager")


def our_batches(pair, data, given):
    model, processor = load(pair, dtype="float32")
    dataset = read_captions(data, val_fraction=given.val_fraction)
    return model, PairBatches(dataset, processor, batch_options(given))


def their_loss(model, batch, ids_mask):
    """The reference: cross-entropies both ways, with the same targets."""
    pixels = torch.tensor(batch.pixels).permute(0, 3, 1, 2)
    ids, targets = torch.tensor(batch.inputs[1]).long(), torch.tensor(batch.targets)
    logits = model(ids, pixels, ids_mask).logits_per_image
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets.T)) / 2


def mask_of(batch):
    """1 up to the first EOS; what stands behind it is padding."""
    ids = batch.inputs[1]
    first = (ids == TEXT["eos_token_id"]).argmax(axis=1)
    return torch.tensor((np.arange(ids.shape[1]) <= first[:, None]).astype(np.int64))


def our_name(name):
    """Theirs for a parameter of ours, and whether it is a convolution."""
    return name.removeprefix("trunk.")


def our_adapter_name(name):
    """Ours for a parameter of an adapter of theirs."""
    name = name.removeprefix("base_model.model.").replace(".default", "").removesuffix(".weight").lower()
    return name.replace("lora_magnitude_vector", "magnitude")


@pytest.mark.parametrize("frozen", [None, "vision", "text"])
def test_loss_and_every_gradient_are_those_of_transformers(pair, data, frozen):
    """Of a whole pair, and of one with a frozen tower, as LiT has it."""
    given = options(data, **({f"{frozen}_tower": "frozen"} if frozen else {}))
    model, batches = our_batches(pair, data, given)
    contrast = build_pair(model, None, given)
    stepper, theirs = make_pair_stepper(contrast, given), theirs_of(pair).train()
    if frozen:
        getattr(theirs, f"{frozen}_model").requires_grad_(False)
        getattr(theirs, PROJECTIONS[frozen]).requires_grad_(False)
    contrast.train()
    batch = next(batches.epoch())
    arrays = tuple(map(mx.array, batch.inputs))
    (loss, weight), gradients = stepper._compute(arrays, mx.array(batch.targets), mx.array(batch.weights))
    expected = their_loss(theirs, batch, mask_of(batch))
    expected.backward()
    assert abs((loss / weight).item() - expected.item()) < 1e-5
    found = {our_name(name): np.array(x / weight) for name, x in tree_flatten(gradients)}
    wanted = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.requires_grad}
    assert set(found) == set(wanted)
    largest = max(np.abs(x).max() for x in wanted.values())
    for name, x in wanted.items():
        if x.ndim == 4:
            x = x.transpose(0, 2, 3, 1)
        assert np.abs(found[name] - x).max() < 1e-5 * largest, name


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_gradients_of_adapters_are_those_of_peft(pair, data, tmp_path, kind):
    given = FinetuneOptions(**{**vars(options(data)), "fine_tune_type": kind})
    model, batches = our_batches(pair, data, given)
    adapter = AdapterConfig(kind, rank=3, alpha=6.0)
    contrast = build_pair(model, adapter, given)
    keys = iter(mx.random.split(mx.random.key(1), 200))
    for layer in adapted(contrast).values():
        layer.lora_b = 0.1 * mx.random.normal(
            layer.lora_b.shape, key=next(keys)
        )  # with zeros lora_a gets nothing
    save_adapter(tmp_path / "a", contrast.trunk, adapter, None)
    theirs = peft.PeftModel.from_pretrained(theirs_of(pair), tmp_path / "a", is_trainable=True).train()
    contrast.train()
    batch = next(batches.epoch())
    arrays = tuple(map(mx.array, batch.inputs))
    (loss, weight), gradients = make_pair_stepper(contrast, given)._compute(
        arrays, mx.array(batch.targets), mx.array(batch.weights)
    )
    expected = their_loss(theirs, batch, mask_of(batch))
    expected.backward()
    assert abs((loss / weight).item() - expected.item()) < 1e-5
    found = {our_name(name): np.array(x / weight) for name, x in tree_flatten(gradients)}
    found = {name: x for name, x in found.items() if name.endswith((".lora_a", ".lora_b", ".magnitude"))}
    wanted = {
        our_adapter_name(name): x.grad.numpy() for name, x in theirs.named_parameters() if ".lora_" in name
    }
    layers = VISION["num_hidden_layers"] + TEXT["num_hidden_layers"]
    assert set(found) == set(wanted) and len(found) == 7 * layers * (2 if kind == "lora" else 3)
    largest = max(np.abs(x).max() for x in wanted.values())
    for name, x in wanted.items():
        assert np.abs(found[name] - x).max() < 1e-5 * largest, name


def test_of_different_captions_the_loss_is_the_reference_formula(pair, data):
    given = options(data)
    model, batches = our_batches(pair, data, given)
    contrast = build_pair(model, None, given)
    contrast.train()
    batch = next(each for each in batches.epoch() if (each.targets == np.eye(len(each.targets))).all())
    arrays = tuple(map(mx.array, batch.inputs))
    (loss, weight), _ = make_pair_stepper(contrast, given)._compute(
        arrays, mx.array(batch.targets), mx.array(batch.weights)
    )
    pixels, ids = torch.tensor(batch.pixels).permute(0, 3, 1, 2), torch.tensor(batch.inputs[1]).long()
    with torch.no_grad():
        logits = theirs_of(pair)(ids, pixels, mask_of(batch)).logits_per_image
    right, cross_entropy = torch.arange(len(logits)), torch.nn.functional.cross_entropy
    expected = (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2
    assert abs((loss / weight).item() - expected.item()) < 1e-5


def test_losses_of_a_training_are_those_of_pytorch(pair, data):
    given = options(data, learning_rate=RATE, weight_decay=0.05, max_grad_norm=0.5)
    model, batches = our_batches(pair, data, given)
    contrast = build_pair(model, None, given)
    stepper, theirs = make_pair_stepper(contrast, given), theirs_of(pair).train()
    contrast.train()
    groups = [[p for p in theirs.parameters() if (p.ndim < 2) == small] for small in (True, False)]
    groups = [{"params": ps, "weight_decay": decay} for ps, decay in zip(groups, (0.0, 0.05), strict=True)]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    taken = [batch for number in range(STEPS) for batch in batches.epoch(number)][:STEPS]
    ours, expected = [], []
    for batch in taken:
        ours.append(stepper.step([batch], RATE)[0])
        loss = their_loss(theirs, batch, mask_of(batch))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        expected.append(loss.item())
    assert np.abs(np.array(ours) - np.array(expected)).max() < 1e-4
    assert np.ptp(expected) > 0.05


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_peft_opens_what_a_training_leaves(pair, data, tmp_path, kind):
    given = options(data, model=str(pair), adapter_path=str(tmp_path / "a"), epochs=2, learning_rate=1e-2)
    given = FinetuneOptions(**{**vars(given), "fine_tune_type": kind, "rank": 2})
    finetune(given)
    ours, _ = load(pair, dtype="float32", adapter_path=tmp_path / "a")
    theirs = theirs_of(pair)
    trained = mx.load(str(tmp_path / "a" / "trained.safetensors"))
    assert set(trained) == {"visual_projection.weight", "text_projection.weight", "logit_scale"}
    state = {name: torch.tensor(np.array(x)) for name, x in trained.items()}
    assert not theirs.load_state_dict(state, strict=False).unexpected_keys
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "a").eval()
    x = torch.randn((2, 3, 56, 56), generator=torch.Generator().manual_seed(5))
    ids = np.array([[512, 40, 41, 513], [512, 50, 51, 513]])
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), x, torch.ones(2, 4, dtype=torch.long)).logits_per_image.numpy()
    found = np.array(ours(mx.array(ids), mx.array(x.permute(0, 2, 3, 1).numpy())).logits_per_image)
    plain, _ = load(pair, dtype="float32")
    before = np.array(plain(mx.array(ids), mx.array(x.permute(0, 2, 3, 1).numpy())).logits_per_image)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(found - before).max() > 1e-2 * np.abs(expected).max()
