"""Train the checkpoint `demo` from scratch: an image-text pair on pictures that are drawn for it.

Interrupt it whenever you like: it goes on where it was. Everything is kept in --work: pictures, logs, curves, the
checkpoint of every stage, and `demo`, the last one in 8 bits, as it lies in mlx_aimv2/demo/checkpoint (with a card
and a licence of its own). benchmarks/demo.py measures what it can do.

    python examples/train_demo.py [--work demo-training] [--pictures 200000] [--seed 0]
"""

import argparse
import json
import sys
from pathlib import Path

from mlx_aimv2 import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig, convert, load
from mlx_aimv2.checkpoints.atomic import replacing
from mlx_aimv2.demo.examples import training_examples
from mlx_aimv2.demo.untrained import enlarged_tensors, initial_tensors, write_checkpoint
from mlx_aimv2.demo.vocabulary import learn_vocabulary
from mlx_aimv2.demo.world import WorldOptions, write_world
from mlx_aimv2.events import Metric
from mlx_aimv2.finetune.options import make_options
from mlx_aimv2.finetune.running import finetune
from mlx_aimv2.fusing import fuse

SIDE, LENGTH = 84, 32  # pixels, tokens
VALIDATION = 0.01  # of the pictures
DYED = 0.3  # of --pictures, the share of further ones, in any colour
TRAINING = {"fine_tune_type": "full", "weight_decay": 0.05, "warmup": 0.05, "val_fraction": VALIDATION,
            "save_every": 50}  # fmt: skip
CAPTIONS = {**TRAINING, "task": "contrastive", "batch_size": 128}
NEAR_STAGES = (  # on close-ups, which take a quarter of the time: the data, how many of it times --pictures, and how
    ("shapes", "world/near/shapes.csv", 1, {**TRAINING, "pooling": "head", "head_lr": 2e-3, "metric": "top1",
                                            "batch_size": 64, "learning_rate": 6e-4}),
    ("words", "world/near/captions.jsonl", 0.5, {**CAPTIONS, "learning_rate": 4e-4}),
)  # fmt: skip
STAGES = (  # on whole pictures
    ("captions", "world/captions.jsonl", 1, {**CAPTIONS, "learning_rate": 4e-4}),
    ("names", "world/names.jsonl", 2 * DYED, {**CAPTIONS, "learning_rate": 3e-4, "vision_tower": "trained",
                                              "text_tower": "frozen"}),
)  # fmt: skip


def pair(image_size, vocabulary):
    """The configuration of the pair for pictures of a size."""
    vision = Aimv2VisionConfig(
        hidden_size=256, intermediate_size=704, num_hidden_layers=5, num_attention_heads=8, image_size=image_size,
        use_head=True,
    )  # fmt: skip
    size = len(vocabulary.tokens)
    text = Aimv2TextConfig(
        vocab_size=size, hidden_size=192, intermediate_size=512, num_hidden_layers=3, num_attention_heads=3,
        max_position_embeddings=LENGTH, eos_token_id=size - 1,
    )  # fmt: skip
    return Aimv2Config(vision, text, projection_dim=192)


def write(folder, image_size, vocabulary, draw):
    """Write a checkpoint for pictures of a size, unless it is there; what it holds, ``draw`` says."""
    if not folder.exists():
        write_checkpoint(folder, pair(image_size, vocabulary), "mlx", draw=draw, vocabulary=vocabulary)


def show(event):
    """A line for every epoch, and for every fifty steps."""
    if isinstance(event, Metric) and ("val_loss" in event.values or event.step % 50 == 0):
        print(event.step, {name: round(x, 4) for name, x in event.values.items()}, flush=True)


def train(data, model, run, options):
    """Train a stage, or go on with it; the checkpoint that it gives."""
    checkpoint = run.with_name(f"{run.name}-checkpoint")
    if not checkpoint.exists():
        given = {"data": str(data), "model": str(model), "adapter_path": str(run)}
        finetune(make_options({**given, **options, "resume": run.exists()}), show)
        fuse(model, run, checkpoint)
    return checkpoint


def train_all(stages, model, given):
    """One stage after the other; the checkpoint that the last one gives."""
    for name, data, times, options in stages:
        steps = max(1, int(times * (1 - VALIDATION) * given.pictures / options["batch_size"]))
        options = {**options, "seed": given.seed, "iters": steps}
        model = train(given.work / data, model, given.work / name, options)
    return model


def check_same(path, given):
    """A folder of work belongs to one choice of arguments."""
    told = {name: value for name, value in given.items() if name != "work"}
    told = json.loads(json.dumps({**told, "near": NEAR_STAGES, "stages": STAGES}))
    if path.exists() and json.loads(path.read_text()) != told:
        sys.exit(f"{path.parent} was begun with other arguments, see {path}: name another folder with --work")
    if not path.exists():
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(told, indent=2) + "\n")


def main():
    """Shapes and words from nearby; then, of whole pictures, all that can be said, and last mostly names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("demo-training"))
    parser.add_argument("--pictures", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    check_same(given.work / "arguments.json", vars(given))
    world, demo = given.work / "world", given.work / "demo"
    if not world.exists():
        count, dyed = given.pictures, int(DYED * given.pictures)
        write_world(world, WorldOptions(count, count, dyed, side=SIDE, seed=given.seed))
    captions = (example.caption for example in training_examples(20_000, given.seed))
    vocabulary = learn_vocabulary(captions)
    begun, larger = given.work / "begun", given.work / "larger"
    write(begun, SIDE // 2, vocabulary, lambda config, _: initial_tensors(config, given.seed))
    near = train_all(NEAR_STAGES, begun, given)
    write(larger, SIDE, vocabulary, lambda *_: enlarged_tensors(load(near, "float32")[0], SIDE))
    model = train_all(STAGES, larger, given)
    if not demo.exists():
        convert(model, demo, dtype="float16", quantize=True, q_bits=8, q_group_size=64)


if __name__ == "__main__":  # pictures are drawn by processes that import this file
    main()
