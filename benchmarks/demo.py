"""Zero-shot top-1 and recall of the checkpoint `demo` on held-out combinations, by `mlx-aimv2 evaluate`.

2,000 images are labelled with 120 labels, and 1,000 captions are ranked for their images and the reverse. Prints a
line for each version of the checkpoint (original and fewer bits), and for the one in the package the top-1 of
colours, shapes, each label, and pairs from training with the same textures. `--hard` rotates, blurs and covers
things more than in training.

    python benchmarks/demo.py [--original demo-training/mean-2] [--seed 0] [--hard] [--work FOLDER]
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))  # for drawn_world

from drawn_world.combinations import HELD_OUT_PAIRS
from drawn_world.grammar import zero_shot_scene
from drawn_world.painting import Conditions, paint
from drawn_world.scenes import COLORS, SHAPES
from drawn_world.world import WorldOptions, write_world

from mlx_aimv2 import ZeroShotClassifier, convert, load
from mlx_aimv2.checkpoints.resolve import resolve
from mlx_aimv2.demo.tour import TEMPLATES
from mlx_aimv2.presets import DEMO_MODEL

SIDE = 84  # pixels, as in training
TRAINING_PAIRS = sorted(set(itertools.product(SHAPES, COLORS)) - HELD_OUT_PAIRS)
LABEL_WORDS = ((0, "colour"), (1, "shape"))
HARD = Conditions(turn=45, blur=0.7, occlusion=0.25)
RECALLS = ("recall@1", "text_to_image_recall@1", "image_to_text_recall@1", "recall@5", "recall@10")


def evaluate(model, data, *options):
    """The result of `mlx-aimv2 evaluate`."""
    command = [
        sys.executable,
        "-m",
        "mlx_aimv2",
        "evaluate",
        "--data",
        data,
        "--model",
        model,
        "--json",
        *options,
    ]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure(name, model, world):
    """Print a line about a checkpoint."""
    size = (resolve(str(model)).folder / "model.safetensors").stat().st_size
    templates = [part for template in TEMPLATES for part in ("--template", template)]
    labelled = evaluate(model, world / "zeroshot", "--labels", world / "labels.txt", *templates)
    retrieval = evaluate(model, world / "retrieval" / "captions.csv")
    result = {"version": name, "bytes": size, "top1": labelled["top1"], "top5": labelled.get("top5")}
    print(json.dumps({**result, **{key: retrieval.get(key) for key in RECALLS}}), flush=True)


def breakdown(world, conditions, seed):
    """Print a line with the top-1 of colours, shapes, each held-out label, and pairs from training."""
    paths = sorted((world / "zeroshot").rglob("*.png"))
    labels = (world / "labels.txt").read_text().splitlines()
    classifier = ZeroShotClassifier(*load(DEMO_MODEL), labels, TEMPLATES)
    labelled = [(path.parent.name, best(x)) for path, x in zip(paths, classifier(paths), strict=True)]
    right = {
        word: mean(true.split()[k] == label.split()[k] for true, label in labelled) for k, word in LABEL_WORDS
    }
    each = {true: mean(true == label for other, label in labelled if other == true) for true, _ in labelled}
    pairs = itertools.islice(itertools.cycle(TRAINING_PAIRS), len(paths))
    names = [f"{seed}/shown pairs/{k}" for k in range(len(paths))]
    scenes = [zero_shot_scene(pair, random.Random(name)) for pair, name in zip(pairs, names, strict=True)]
    images = [paint(scene, SIDE, name, conditions) for scene, name in zip(scenes, names, strict=True)]
    scored = zip(scenes, classifier(images), strict=True)
    right["pairs that training shows"] = mean(scene.thing.label == best(x) for scene, x in scored)
    print(json.dumps({**right, "labels": dict(sorted(each.items(), key=lambda item: item[1]))}), flush=True)


def best(predictions):
    """The label with the highest probability."""
    return predictions[0][0]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", default=DEMO_MODEL, help="the checkpoint to quantize")
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    parser.add_argument("--hard", action="store_true", help="harder images than in training")
    parser.add_argument("--work", type=Path, help="a folder that keeps the images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        world, conditions = work / "world", HARD if arguments.hard else Conditions()
        options = WorldOptions(
            train=1, close_ups=0, recolored=0, val=0, side=SIDE, seed=arguments.seed, conditions=conditions
        )
        if not world.exists():
            write_world(world, options)
        measure("in the package", DEMO_MODEL, world)
        breakdown(world, conditions, arguments.seed)
        if arguments.original != DEMO_MODEL:
            measure("original, float32", arguments.original, world)
        for bits in (8, 6, 4, 3):
            folder = Path(temporary) / f"{bits}-bit"
            convert(arguments.original, folder, dtype="float16", quantize=True, q_bits=bits, q_group_size=64)
            measure(f"{bits} bits", folder, world)


if __name__ == "__main__":  # child processes that draw import this file
    main()
