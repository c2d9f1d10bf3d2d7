"""Training against PyTorch's, live: the same checkpoint, data, order and hyperparameters give the same losses."""

from __future__ import annotations

import math
from itertools import islice

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

from mlx_aimv2 import load
from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.events import StepDone
from mlx_aimv2.finetuning.classifier_model import build_classifier
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.prepared import make_stepper
from mlx_aimv2.processing.image_config import ImageProcessorConfig
from mlx_aimv2.processing.image_settings import write_settings
from mlx_aimv2.training.batches import Batches, BatchOptions
from mlx_aimv2.training.loop import Loop
from mlx_aimv2.training.state import SavedRun

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

STEPS, PEAK, WARMUP, DECAY, CLIP, BATCH = 20, 2e-3, 0.2, 0.05, 0.5, 4
VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "use_head": False,
}


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """The folder of an image encoder that transformers wrote."""
    folder = tmp_path_factory.mktemp("vision")
    config = transformers.Aimv2VisionConfig(**VISION, attn_implementation="eager")
    model = transformers.Aimv2VisionModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    write_settings(folder, ImageProcessorConfig.default(56))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three colours with seven images each: 18 to train on, so that an epoch ends with half a batch."""
    root, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for name, colour in {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}.items():
        (root / name).mkdir()
        for number in range(7):
            noisy = np.array(colour) + rng.normal(0, 45, (60, 60, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


class Theirs(torch.nn.Module):
    """Encoder, mean of the tokens, linear layer."""

    def __init__(self, trunk, classes):
        super().__init__()
        self.trunk, self.head = trunk, torch.nn.Linear(VISION["hidden_size"], classes)

    def forward(self, pixels):
        return self.head(self.trunk(pixels).last_hidden_state.mean(dim=1))


def our_run(vision, data, method, tmp_path):
    """The classifier, its weights before training, the batches, and what trains it."""
    options = FinetuneOptions(
        data=str(data),
        fine_tune_type=method,
        iters=STEPS,
        batch_size=BATCH,
        **({"rank": 4, "alpha": 8.0} if method == "lora" else {}),
        learning_rate=PEAK if method == "lora" else PEAK / 20,
        weight_decay=DECAY,
        warmup=WARMUP,
        max_grad_norm=CLIP,
        save_every=1000,
    )
    model, processor = load(vision, dtype="float32")
    dataset = read_dataset(data)
    mx.random.seed(7)
    classifier = build_classifier(model, dataset, options)
    mx.eval(classifier.parameters())
    before = {name: np.array(x) for name, x in tree_flatten(classifier.trainable_parameters())}
    batches = Batches(dataset, processor.image_processor, BatchOptions(BATCH))
    losses = []

    def remember(event):
        if isinstance(event, StepDone):
            losses.append(event.loss)

    loop = Loop(
        make_stepper(classifier, options, multi_label=False),
        batches,
        options.loop,
        SavedRun(tmp_path, {}),
        lambda: {"loss": 0.0, "top1": 0.0},
        lambda: None,
        remember,
    )
    return loop, before, batches, losses, options


def with_our_start(theirs, before, method):
    """Their model with the weights that ours began with."""
    names = {"lora_a": "lora_A.default.weight", "lora_b": "lora_B.default.weight"}
    state = theirs.state_dict()
    for path, x in before.items():
        if path.startswith("head."):
            name = path.replace("head.linear.", "head.")
        elif method == "lora":
            module, _, kind = path.removeprefix("trunk.").rpartition(".")
            name = f"trunk.base_model.model.{module}.{names[kind]}"
        else:
            continue  # it is the checkpoint's own
        assert state[name].shape == x.shape
        state[name] = torch.tensor(x)
    theirs.load_state_dict(state)
    return theirs


def their_losses(theirs, batches, peak):
    """The reference: torch's own AdamW, cross-entropy, clipping; cosine with linear warm-up."""
    trained = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    groups = [
        {"params": [x for x in trained if x.ndim > 1]},
        {"params": [x for x in trained if x.ndim < 2], "weight_decay": 0.0},  # gains and biases
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.999), eps=1e-8, weight_decay=DECAY)
    rising = round(WARMUP * STEPS)

    def factor(step):
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / (STEPS - rising)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    losses = []
    theirs.train()
    epochs = (batch for number in range(STEPS) for batch in batches.epoch(number))
    for batch in islice(epochs, STEPS):
        pixels = torch.tensor(batch.pixels).permute(0, 3, 1, 2)
        loss = torch.nn.functional.cross_entropy(theirs(pixels), torch.tensor(batch.targets))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", ["lora", "full"])
def test_twenty_losses_are_those_of_pytorch(vision, data, method, tmp_path):
    loop, before, batches, ours, options = our_run(vision, data, method, tmp_path)
    trunk = transformers.Aimv2VisionModel.from_pretrained(vision, attn_implementation="eager")
    if method == "lora":
        targets = ["q_proj", "k_proj", "v_proj", "out_proj", "gate_proj", "up_proj", "down_proj"]
        trunk = peft.get_peft_model(trunk, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    theirs = with_our_start(Theirs(trunk, 3), before, method)
    count = sum(x.size for x in before.values())
    assert count == sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    loop.run()
    expected = their_losses(theirs, batches, options.learning_rate)
    assert len(ours) == len(expected) == STEPS
    difference = np.abs(np.array(ours) - np.array(expected)).max()
    print(
        f"{method}: largest difference of {STEPS} losses {difference:.1e}, from {ours[0]:.3f} to {ours[-1]:.3f}"
    )
    assert difference < 1e-5
    assert ours[-1] < 0.8 * ours[0]
