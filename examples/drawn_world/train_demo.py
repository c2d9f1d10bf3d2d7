"""Train the checkpoint `demo` from scratch: an image-text pair on images that are drawn for it.

Interrupt it whenever you like: it goes on where it was; only drawing begins again. Everything is kept in --work:
images, logs, curves, the checkpoint of every stage, `mean-1` and `mean-2`, the means of `names-1` and `names-2` and
of `names-3` and `names-4`, and `demo`, which is `mean-2` in 8 bits, as it lies in mlx_aimv2/demo/checkpoint (with a
card and a licence of its own). benchmarks/demo.py measures it.

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
from mlx_aimv2 import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig, convert, load
from mlx_aimv2.conversion.fuse import fuse
from mlx_aimv2.errors import Aimv2Error
from mlx_aimv2.events import Metric
from mlx_aimv2.finetuning.options import make_options
from mlx_aimv2.finetuning.run import finetune
from mlx_aimv2.storage.atomic import replacing
from mlx_aimv2.storage.locks import locked

SIDE, LENGTH = 84, 32  # pixels, tokens
VALIDATION = 0.01  # of the images
DYED = 0.45  # of --images, the share of further ones, with grounds of any colour
TRAINING = {"fine_tune_type": "full", "weight_decay": 0.05, "warmup": 0.05, "val_fraction": VALIDATION,
            "save_every": 50}  # fmt: skip
CAPTIONS = {**TRAINING, "task": "contrastive", "batch_size": 128}
NEAR_STAGES = (  # on close-ups, which take a quarter of the time: the data, how many of it times --images, and how
    ("shapes", "world/near/shapes.csv", 1, {**TRAINING, "pooling": "head", "head_lr": 2e-3, "metric": "top1",
                                            "batch_size": 64, "learning_rate": 6e-4}),
    ("words", "world/near/captions.jsonl", 0.5, {**CAPTIONS, "learning_rate": 4e-4}),
)  # fmt: skip
WHOLE_STAGES = (  # on whole images
    ("captions", "world/captions.jsonl", 1, {**CAPTIONS, "learning_rate": 4e-4}),
)  # fmt: skip
NAMES = {**CAPTIONS, "learning_rate": 3e-4, "vision_tower": "trained", "text_tower": "frozen"}
LAST_ROUNDS = (  # stages side by side, each in an order of its own; the mean of both goes on
    (("names-1", "world/names.jsonl", 2 * DYED, {**NAMES, "seed": 0}),
     ("names-2", "world/names.jsonl", 2 * DYED, {**NAMES, "seed": 1})),
    (("names-3", "world/names.jsonl", DYED, {**NAMES, "seed": 2}),
     ("names-4", "world/names.jsonl", DYED, {**NAMES, "seed": 3})),
)  # fmt: skip


def pair(image_size, vocabulary):
    """The configuration of the pair for images of a size."""
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
    """Write a checkpoint for images of a size, unless it is there; what it holds, ``draw`` says."""
    if not folder.exists():
        write_checkpoint(folder, pair(image_size, vocabulary), "mlx", draw=draw, vocabulary=vocabulary)


def show_drawing(event):
    """A line for every 20,000 images."""
    if event.done % 20_000 == 0 or event.done == event.total:
        print(f"drawing: {event.done:,} of {event.total:,} images", flush=True)


def show(name, event):
    """A line for every epoch, and for every fifty steps."""
    if isinstance(event, Metric) and ("val_loss" in event.values or event.step % 50 == 0):
        print(name, event.step, {key: round(x, 4) for key, x in event.values.items()}, flush=True)


def train(model, given, stage):
    """Train a stage, or go on with it; the checkpoint that it gives."""
    name, data, times, options = stage
    run, checkpoint = given.work / name, given.work / f"{name}-checkpoint"
    if not checkpoint.exists():
        steps = max(1, int(times * (1 - VALIDATION) * given.images / options["batch_size"]))
        told = {"data": str(given.work / data), "model": str(model), "adapter_path": str(run), "iters": steps}
        options = {**options, **told, "seed": given.seed + options.get("seed", 0), "resume": run.exists()}
        finetune(make_options(options), partial(show, name))
        fuse(model, run, checkpoint)
    return checkpoint


def train_all(stages, model, given):
    """One stage after the other; the checkpoint that the last one gives."""
    for stage in stages:
        model = train(model, given, stage)
    return model


def train_together(stages, model, given):
    """Each stage in a process of its own; the checkpoints that they give."""
    threads = str(max(1, processor_count() // len(stages)))
    for library in ("OPENBLAS", "BLIS", "MKL"):  # in these processes, each of which would take all processors
        os.environ.setdefault(f"{library}_NUM_THREADS", threads)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(stages), spawn, end_with_parent) as pool:
        jobs = [pool.submit(train, model, given, stage) for stage in stages]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:  # the others need not go on to their end: they have saved where they were
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return [job.result() for job in jobs]


def mean_of(checkpoints, *_):
    """The mean of the weights of several checkpoints."""
    return mean_tensors([load(one, "float32")[0] for one in checkpoints])


def check_same(path, given):
    """A folder of work belongs to one choice of arguments."""
    told = {name: value for name, value in given.items() if name != "work"}
    told = json.loads(json.dumps({**told, "near": NEAR_STAGES, "whole": WHOLE_STAGES, "last": LAST_ROUNDS}))
    if path.exists() and json.loads(path.read_text()) != told:
        sys.exit(f"{path.parent} was begun with other arguments, see {path}: name another folder with --work")
    if not path.exists():
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(told, indent=2) + "\n")


def main():
    """Shapes and words from nearby; then, of whole images, all that can be said, and last mostly names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("demo-training"))
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.images < 1:
        parser.error(f"--images is {given.images}, but has to be 1 or more")
    drawn = WorldOptions(given.images, given.images, int(DYED * given.images), side=SIDE, seed=given.seed)
    given.work.mkdir(parents=True, exist_ok=True)
    with locked(given.work, "--work"):
        check_same(given.work / "arguments.json", vars(given))
        complete(drawn, given)


def complete(drawn, given):
    """All that the folder of work lacks yet."""
    world, demo = given.work / "world", given.work / "demo"
    if not world.exists():
        write_world(world, drawn, on_event=show_drawing)
    captions = (example.caption for example in training_examples(20_000, given.seed))
    vocabulary = learn_vocabulary(captions)
    begun, larger = given.work / "begun", given.work / "larger"
    write(begun, SIDE // 2, vocabulary, lambda config, _: initial_tensors(config, given.seed))
    near = train_all(NEAR_STAGES, begun, given)
    write(larger, SIDE, vocabulary, lambda *_: enlarged_tensors(load(near, "float32")[0], SIDE))
    model = train_all(WHOLE_STAGES, larger, given)
    for number, stages in enumerate(LAST_ROUNDS, 1):
        several = train_together(stages, model, given)
        model = given.work / f"mean-{number}"
        write(model, SIDE, vocabulary, partial(mean_of, several))
    if not demo.exists():
        convert(model, demo, dtype="float16", quantize=True, q_bits=8, q_group_size=64)


if __name__ == "__main__":  # processes that draw and train import this file
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with it", file=sys.stderr)
        sys.exit(130)
    except (Aimv2Error, OSError) as error:
        sys.exit(f"error: {error}")
