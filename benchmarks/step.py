"""Duration and memory of a step of LoRA fine-tuning, compared with PEFT in PyTorch.

Large-224 with random weights, LoRA of rank 8 on every projection, a linear head, AdamW, noise as images. Each side
runs in its own process, in turns. Prints medians; quote ratios, because machines differ and are noisy.

    pip install 'mlx-aimv2[bench]'
    python benchmarks/step.py [--rounds 3] [--steps 3] [--batch 8] [--layers 24] [--no-torch]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

RANK, ALPHA, CLASSES, RATE = 8, 16.0, 10, 5e-4
TARGETS = ("q", "k", "v", "out", "gate", "up", "down")


def median_seconds(run, steps):
    run()  # compiles, allocates
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_mlx(arguments, checkpointed=False):
    from mlx_aimv2 import Aimv2VisionConfig, Aimv2VisionModel  # first: it loads the BLAS

    import numpy as np  # isort: skip

    from mlx_aimv2.adapters.attach import AdapterConfig, attach
    from mlx_aimv2.backend.device import compute_dtype
    from mlx_aimv2.finetuning.options import FinetuneOptions
    from mlx_aimv2.finetuning.prepared import make_stepper
    from mlx_aimv2.models.classifier import Classifier
    from mlx_aimv2.models.classifier_heads import make_head
    from mlx_aimv2.training.step import Batch

    trunk = Aimv2VisionModel(Aimv2VisionConfig(use_head=False, num_hidden_layers=arguments.layers))
    trunk.set_dtype(compute_dtype(None))
    trunk.freeze()
    attach(trunk, AdapterConfig(type="lora", rank=RANK, alpha=ALPHA, target_modules=TARGETS))
    classifier = Classifier(trunk, make_head({"kind": "linear"}, trunk.config.hidden_size, CLASSES), "mean")
    trunk.encoder.checkpoint_layers = checkpointed
    classifier.train()
    stepper = make_stepper(classifier, FinetuneOptions(data="-"), False)
    pixels = np.random.default_rng(0).normal(size=(arguments.batch, 224, 224, 3)).astype(np.float32)
    targets = np.eye(CLASSES, dtype=np.float32)[np.arange(arguments.batch) % CLASSES]
    batch = Batch((pixels,), targets, np.ones(arguments.batch, np.float32), np.arange(arguments.batch))
    return median_seconds(lambda: stepper.step([batch], RATE), arguments.steps)


def measure_checkpointed(arguments):
    return measure_mlx(arguments, checkpointed=True)


def measure_torch(arguments):
    import peft
    import torch
    from transformers import Aimv2VisionConfig, Aimv2VisionModel

    class Classifier(torch.nn.Module):
        def __init__(self, trunk, width):
            super().__init__()
            self.trunk, self.head = trunk, torch.nn.Linear(width, CLASSES)

        def forward(self, pixels):
            return self.head(self.trunk(pixels).last_hidden_state.mean(dim=1))

    config = Aimv2VisionConfig(use_head=False, num_hidden_layers=arguments.layers)
    wanted = [f"{name}_proj" for name in TARGETS]
    adapter = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=wanted)
    model = Classifier(peft.get_peft_model(Aimv2VisionModel(config), adapter), config.hidden_size).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE)
    pixels, targets = torch.randn(arguments.batch, 3, 224, 224), torch.arange(arguments.batch) % CLASSES

    def step():
        loss = torch.nn.functional.cross_entropy(model(pixels), targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return median_seconds(step, arguments.steps)


SIDES = {"mlx": measure_mlx, "mlx, layers computed twice": measure_checkpointed, "torch": measure_torch}


def in_own_process(side, arguments):
    command = [sys.executable, __file__, "--side", side]
    command += [
        "--batch",
        str(arguments.batch),
        "--steps",
        str(arguments.steps),
        "--layers",
        str(arguments.layers),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        seconds = SIDES[arguments.side](arguments)
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        print(json.dumps({"seconds": seconds, "peak": peak}))
        return
    sides = [side for side in SIDES if side != "torch" or not arguments.no_torch]
    results = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side in sides:
            results[side].append(in_own_process(side, arguments))
    print(
        f"LoRA step, {arguments.layers} layers of large-224, batch {arguments.batch}, {arguments.rounds} rounds"
    )
    first = statistics.median(result["seconds"] for result in results[sides[0]])
    for side in sides:
        seconds = statistics.median(result["seconds"] for result in results[side])
        peak = statistics.median(result["peak"] for result in results[side])
        print(
            f"{side:28} {seconds:7.2f} s   peak {peak / 1e9:6.2f} GB   mlx is {first / seconds:.2f} times that"
        )


if __name__ == "__main__":
    main()
