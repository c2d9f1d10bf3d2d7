"""Train the checkpoint `demo` from scratch: an image-text pair on drawn images.

The same command resumes an interrupted training; only drawing starts again. The folder --work keeps everything:
images, logs, curves, the checkpoint of every stage, the means `mean-1` (of `names-1` and `names-2`) and `mean-2` (of
`names-3` and `names-4`), and `demo`: `mean-2` in 8 bits, as in mlx_aimv2/demo/checkpoint. benchmarks/demo.py measures
it.

    python examples/drawn_world/train_demo.py [--work demo-training] [--images 200000] [--seed 0]
"""

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for drawn_world

from drawn_world.derived import enlarged_tensors, mean_tensors
from drawn_world.examples import training_examples
from drawn_world.parent_process import end_with_parent
from drawn_world.untrained import initial_tensors, write_checkpoint
from drawn_world.vocabulary import learn_vocabulary
from drawn_world.world import WorldOptions, processor_count, write_world
from mlx_aimv2 import (
    Aimv2Config,
    Aimv2TextConfig,
    Aimv2VisionConfig,
    FinetuneOptions,
    convert,
    finetune,
    load,
)
from mlx_aimv2.conversion.fuse import fuse
from mlx_aimv2.errors import Aimv2Error
from mlx_aimv2.events import EpochDone, StepDone
from mlx_aimv2.storage.atomic import replacing
from mlx_aimv2.storage.locks import locked

SIDE, LENGTH = 84, 32  # pixels, tokens
VALIDATION = 0.01  # the share of validation images
RECOLORED = 0.45  # the number of recolored images as a share of --images
TRAINING = {"fine_tune_type": "full", "weight_decay": 0.05, "warmup": 0.05, "val_fraction": VALIDATION,
            "save_every": 50}  # fmt: skip
CAPTIONS = {**TRAINING, "task": "contrastive", "batch_size": 128}
CLOSE_UP_STAGES = (  # name, data, number of images as a factor of --images, options
    ("shapes", "world/close_ups/shapes.csv", 1, {**TRAINING, "pooling": "head", "head_lr": 2e-3, "metric": "top1",
                                            "batch_size": 64, "learning_rate": 6e-4}),
    ("words", "world/close_ups/captions.jsonl", 0.5, {**CAPTIONS, "learning_rate": 4e-4}),
)  # fmt: skip
WHOLE_STAGES = (  # on whole images
    ("captions", "world/captions.jsonl", 1, {**CAPTIONS, "learning_rate": 4e-4}),
)  # fmt: skip
NAMES = {**CAPTIONS, "learning_rate": 3e-4, "vision_tower": "trained", "text_tower": "frozen"}
LAST_ROUNDS = (  # parallel stages with different orders of images; the next round starts from their mean
    (("names-1", "world/names.jsonl", 2 * RECOLORED, {**NAMES, "seed": 0}),
     ("names-2", "world/names.jsonl", 2 * RECOLORED, {**NAMES, "seed": 1})),
    (("names-3", "world/names.jsonl", RECOLORED, {**NAMES, "seed": 2}),
     ("names-4", "world/names.jsonl", RECOLORED, {**NAMES, "seed": 3})),
)  # fmt: skip


def pair(image_size, vocabulary):
    """The config of the pair for an image size."""
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
    """Write a checkpoint with the weights of ``draw``, unless it exists."""
    if not folder.exists():
        write_checkpoint(folder, pair(image_size, vocabulary), "mlx", draw=draw, vocabulary=vocabulary)


def show_drawing(event):
    """Print a line for every 20,000 images."""
    if event.done % 20_000 == 0 or event.done == event.total:
        print(f"drawing: {event.done:,} of {event.total:,} images", flush=True)


def show(name, event):
    """Print a line for every epoch and every fifty steps."""
    if isinstance(event, EpochDone):
        print(name, event.step, {key: round(x, 4) for key, x in event.metrics.items()}, flush=True)
    elif isinstance(event, StepDone) and event.step % 50 == 0:
        print(name, event.step, {"loss": round(event.loss, 4)}, flush=True)


def train(model, arguments, stage):
    """Train or resume a stage; return its checkpoint."""
    name, data, times, options = stage
    run, checkpoint = arguments.work / name, arguments.work / f"{name}-checkpoint"
    if not checkpoint.exists():
        steps = max(1, int(times * (1 - VALIDATION) * arguments.images / options["batch_size"]))
        paths = {
            "data": str(arguments.work / data),
            "model": str(model),
            "adapter_path": str(run),
            "iters": steps,
        }
        options = {
            **options,
            **paths,
            "seed": arguments.seed + options.get("seed", 0),
            "resume": run.exists(),
        }
        finetune(FinetuneOptions(**options), partial(show, name))
        fuse(model, run, checkpoint)
    return checkpoint


def train_all(stages, model, arguments):
    """Train one stage after the other; return the last checkpoint."""
    for stage in stages:
        model = train(model, arguments, stage)
    return model


def train_together(stages, model, arguments):
    """Train each stage in its own process; return their checkpoints."""
    threads = str(max(1, processor_count() // len(stages)))
    for library in ("OPENBLAS", "BLIS", "MKL"):  # each process would use all processors
        os.environ.setdefault(f"{library}_NUM_THREADS", threads)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(stages), spawn, end_with_parent) as pool:
        jobs = [pool.submit(train, model, arguments, stage) for stage in stages]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:  # the others resume from their saved states
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return [job.result() for job in jobs]


def mean_of(checkpoints, *_):
    """The mean of the weights of several checkpoints."""
    return mean_tensors([load(checkpoint, "float32")[0] for checkpoint in checkpoints])


def check_same(path, arguments):
    """Refuse a folder that was started with other arguments; otherwise write them to it."""
    values = {name: value for name, value in arguments.items() if name != "work"}
    values |= {"close_ups": CLOSE_UP_STAGES, "whole": WHOLE_STAGES, "last": LAST_ROUNDS}
    values = json.loads(json.dumps(values))
    if path.exists() and json.loads(path.read_text()) != values:
        sys.exit(
            f"{path.parent} was started with other arguments, see {path}: name another folder with --work"
        )
    if not path.exists():
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(values, indent=2) + "\n")


def main(command=None):
    """Parse the arguments, and draw and train what the folder of work lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("demo-training"))
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(command)
    if arguments.images < 1:
        parser.error(f"--images is {arguments.images}, but has to be 1 or more")
    options = WorldOptions(
        arguments.images, arguments.images, int(RECOLORED * arguments.images), side=SIDE, seed=arguments.seed
    )
    try:
        arguments.work.mkdir(parents=True, exist_ok=True)
        with locked(arguments.work, "--work"):
            check_same(arguments.work / "arguments.json", vars(arguments))
            complete(options, arguments)
    except KeyboardInterrupt:
        print("interrupted: the same command resumes it", file=sys.stderr)
        sys.exit(130)
    except (Aimv2Error, OSError) as error:
        sys.exit(f"error: {error}")


def complete(options, arguments):
    """Draw and train everything that the folder of work lacks."""
    world, demo = arguments.work / "world", arguments.work / "demo"
    if not world.exists():
        write_world(world, options, on_event=show_drawing)
    captions = (example.caption for example in training_examples(20_000, arguments.seed))
    vocabulary = learn_vocabulary(captions)
    initial, larger = arguments.work / "initial", arguments.work / "larger"
    write(initial, SIDE // 2, vocabulary, lambda config, _: initial_tensors(config, arguments.seed))
    trained = train_all(CLOSE_UP_STAGES, initial, arguments)
    write(larger, SIDE, vocabulary, lambda *_: enlarged_tensors(load(trained, "float32")[0], SIDE))
    model = train_all(WHOLE_STAGES, larger, arguments)
    for number, stages in enumerate(LAST_ROUNDS, 1):
        several = train_together(stages, model, arguments)
        model = arguments.work / f"mean-{number}"
        write(model, SIDE, vocabulary, partial(mean_of, several))
    if not demo.exists():
        convert(model, demo, dtype="float16", quantize=True, q_bits=8, q_group_size=64)


if __name__ == "__main__":  # child processes import this file
    main()
