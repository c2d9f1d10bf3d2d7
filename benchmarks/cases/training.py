"""Steps of LoRA and full fine-tuning against PyTorch; epochs of a linear probe with and without stored features."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch_peers
from data import LABELLED, checkpoint, write_labelled
from suite import Case, Family, Result, Setup, Side
from timing import repeated

NAME, BATCH, RANK, ALPHA, CLASSES, RATE = "large-224", 4, 8, 16.0, 10, 5e-4
TARGETS = ("q", "k", "v", "out", "gate", "up", "down")
TRAINED = LABELLED * 4 // 5  # images of the split `train`
STEPS = {"most": 2, "budget_s": 5}


def mlx_step(setup: Setup, method: str, checkpointed: bool = False) -> Result:
    """A step of this package: forward, backward, clipping, AdamW."""
    from mlx_aimv2 import Aimv2VisionConfig, Aimv2VisionModel  # first: it loads the BLAS

    import numpy as np  # isort: skip

    from mlx_aimv2.adapters.attach import AdapterConfig, attach
    from mlx_aimv2.backend.device import compute_dtype
    from mlx_aimv2.finetuning.options import FinetuneOptions
    from mlx_aimv2.finetuning.prepared import make_stepper
    from mlx_aimv2.models.classifier import Classifier
    from mlx_aimv2.models.classifier_heads import make_head
    from mlx_aimv2.training.step import Batch

    trunk = Aimv2VisionModel(Aimv2VisionConfig(**setup.vision()))
    if method == "lora":
        trunk.set_dtype(compute_dtype(None))
        trunk.freeze()
        attach(trunk, AdapterConfig(type="lora", rank=RANK, alpha=ALPHA, target_modules=TARGETS))
    classifier = Classifier(trunk, make_head({"kind": "linear"}, trunk.config.hidden_size, CLASSES), "mean")
    trunk.encoder.checkpoint_layers = checkpointed
    classifier.train()
    stepper = make_stepper(classifier, FinetuneOptions(data="-"), False)
    pixels = np.random.default_rng(0).normal(size=(BATCH, 224, 224, 3)).astype(np.float32)
    targets = np.eye(CLASSES, dtype=np.float32)[np.arange(BATCH) % CLASSES]
    batch = Batch((pixels,), targets, np.ones(BATCH, np.float32), np.arange(BATCH))
    samples = repeated(setup, lambda: stepper.step([batch], RATE), **STEPS)
    return {"timings": {"": samples}, "values": {}}


def torch_step(setup: Setup, method: str) -> Result:
    """The same step in PyTorch, LoRA by PEFT."""
    import torch
    from transformers import Aimv2VisionConfig, Aimv2VisionModel

    class Classifier(torch.nn.Module):
        def __init__(self, trunk: Any, width: int) -> None:
            super().__init__()
            self.trunk, self.head = trunk, torch.nn.Linear(width, CLASSES)

        def forward(self, pixels: Any) -> Any:
            return self.head(self.trunk(pixels).last_hidden_state.mean(dim=1))

    config = Aimv2VisionConfig(**setup.vision())
    trunk = Aimv2VisionModel(config)
    if method == "lora":
        import peft

        modules = [f"{name}_proj" for name in TARGETS]
        trunk = peft.get_peft_model(trunk, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=modules))
    model = Classifier(trunk, config.hidden_size).to(torch_peers.device()).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE)
    pixels = torch_peers.noise(BATCH, 224, 224)
    targets = torch.arange(BATCH, device=torch_peers.device()) % CLASSES

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(model(pixels), targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return {"timings": {"": repeated(setup, torch_peers.finished(step), **STEPS)}, "values": {}}


def probe(setup: Setup) -> Result:
    """`finetune`: the time to compute the features of the training images, and the epochs after that."""
    from mlx_aimv2 import FinetuneOptions, finetune
    from mlx_aimv2.events import EpochDone, Progress

    features, epochs = list[float](), list[float]()

    def note(event: object) -> None:
        if isinstance(event, EpochDone):
            epochs.append(time.perf_counter())
        elif isinstance(event, Progress) and event.stage == "computing features" and event.total == TRAINED:
            features.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        finetune(
            FinetuneOptions(
                data=str(setup.folder / "labelled"),
                model=str(setup.folder / NAME),
                adapter_path=f"{folder}/probe",
                fine_tune_type="linear",
                epochs=30,
            ),
            on_event=note,
        )
    stored = [after - before for before, after in itertools.pairwise(epochs)]
    return {
        "timings": {"with stored features": stored, "computing features": [features[-1] - features[0]]},
        "values": {},
    }


def cases(setup: Setup) -> list[Case]:
    """Steps, then epochs."""

    def step(name: str, function: Callable[..., Result], **arguments: Any) -> Side:
        return Side(name, function, arguments, is_peer=function is torch_step)

    lora = (
        step("mlx-aimv2", mlx_step, method="lora"),
        step("PEFT", torch_step, method="lora"),
        Side("mlx-aimv2, --grad-checkpoint", mlx_step, {"method": "lora", "checkpointed": True}, rounds=1),
    )
    full = (step("mlx-aimv2", mlx_step, method="full"), step("PyTorch", torch_step, method="full"))
    prepare = (checkpoint(NAME), Side("labelled images", write_labelled))
    return [
        Case(f"LoRA step, batch {BATCH}", lora, BATCH, 2),
        Case(f"full step, batch {BATCH}", full, BATCH, 1),
        Case("epoch of a linear probe", (Side("mlx-aimv2", probe),), TRAINED, 1, prepare),
    ]


FAMILY = Family(
    "training",
    "Fine-tuning",
    f"A step on large-224 with random weights and {BATCH} images of 224 pixels in float32: forward, backward,"
    f" clipping, AdamW. LoRA has rank {RANK} on every projection. An epoch of the probe goes over"
    f" {TRAINED} images; without stored features, each would compute them.",
    cases,
)
