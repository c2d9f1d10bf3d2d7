"""What the checkpoint `demo` can do with combinations it has never seen, as `mlx-aimv2 evaluate` measures it.

2,000 images are labelled among 120 shapes and colours, and 1,000 captions and their images are looked for in
each other. One line for each version of the checkpoint: as given, and what fewer bits make of it; and what the one in
the package gets right of colours, of shapes, of each label, and of pairs that training shows, in the same textures.
`--hard` turns, blurs and covers things more than training did.

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
SHOWN_PAIRS = sorted(set(itertools.product(SHAPES, COLORS)) - HELD_OUT_PAIRS)  # by training
PARTS = ((0, "colour"), (1, "shape"))  # of a label
HARD = Conditions(turn=45, blur=0.7, occlusion=0.25)
TOLD = ("recall@1", "text_to_image_recall@1", "image_to_text_recall@1", "recall@5", "recall@10")


def evaluate(model, data, *options):
    """What `mlx-aimv2 evaluate` says of a model on images."""
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
    """One line about a checkpoint."""
    size = (resolve(str(model)).folder / "model.safetensors").stat().st_size
    templates = [part for template in TEMPLATES for part in ("--template", template)]
    labelled = evaluate(model, world / "zeroshot", "--labels", world / "labels.txt", *templates)
    found = evaluate(model, world / "retrieval" / "captions.csv")
    result = {"version": name, "bytes": size, "top1": labelled["top1"], "top5": labelled.get("top5")}
    print(json.dumps({**result, **{key: found.get(key) for key in TOLD}}), flush=True)


def breakdown(world, conditions, seed):
    """One line: what is right of colours, shapes and each held-out label, and of pairs that training shows."""
    paths = sorted((world / "zeroshot").rglob("*.png"))
    labels = (world / "labels.txt").read_text().splitlines()
    classifier = ZeroShotClassifier(*load(DEMO_MODEL), labels, TEMPLATES)
    told = [(path.parent.name, best(found)) for path, found in zip(paths, classifier(paths), strict=True)]
    right = {part: mean(one.split()[k] == other.split()[k] for one, other in told) for k, part in PARTS}
    each = {label: mean(label == other for one, other in told if one == label) for label, _ in told}
    shown = itertools.islice(itertools.cycle(SHOWN_PAIRS), len(paths))
    names = [f"{seed}/shown pairs/{k}" for k in range(len(paths))]
    scenes = [zero_shot_scene(two, random.Random(name)) for two, name in zip(shown, names, strict=True)]
    images = [paint(scene, SIDE, name, conditions) for scene, name in zip(scenes, names, strict=True)]
    found = zip(scenes, classifier(images), strict=True)
    right["pairs that training shows"] = mean(scene.thing.label == best(one) for scene, one in found)
    print(json.dumps({**right, "labels": dict(sorted(each.items(), key=lambda one: one[1]))}), flush=True)


def best(predictions):
    """The label with the highest probability."""
    return predictions[0][0]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", default=DEMO_MODEL, help="what fewer bits are made of")
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    parser.add_argument("--hard", action="store_true", help="harder images than training had")
    parser.add_argument("--work", type=Path, help="where the images stay; otherwise they are removed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        world, conditions = work / "world", HARD if given.hard else Conditions()
        shown = WorldOptions(
            train=1, close_ups=0, recolored=0, val=0, side=SIDE, seed=given.seed, conditions=conditions
        )
        if not world.exists():
            write_world(world, shown)
        measure("in the package", DEMO_MODEL, world)
        breakdown(world, conditions, given.seed)
        if given.original != DEMO_MODEL:
            measure("original, float32", given.original, world)
        for bits in (8, 6, 4, 3):
            made = Path(temporary) / f"{bits}-bit"
            convert(given.original, made, dtype="float16", quantize=True, q_bits=bits, q_group_size=64)
            measure(f"{bits} bits", made, world)


if __name__ == "__main__":  # images are drawn by processes that import this file
    main()
