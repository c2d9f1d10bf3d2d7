"""The main job, offline: draw pictures, make a small checkpoint, embed and classify.

The checkpoint is written as Apple publishes them, with random weights: everything runs, and the labels are noise.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from mlx_aimv2 import Embedder, load
from mlx_aimv2.demo.drawing import write_drawings
from mlx_aimv2.demo.untrained import write_checkpoint

OUTPUT = Path("demo-output")
LABELS = "a red circle,a blue square,a green triangle"


def run(*arguments: str) -> None:
    """Show a command of the package, and run it."""
    print(f"\n$ {shlex.join(['mlx-aimv2', *arguments])}", flush=True)
    subprocess.run([sys.executable, "-m", "mlx_aimv2", *arguments], check=True)


shutil.rmtree(OUTPUT, ignore_errors=True)
pictures = write_drawings(OUTPUT / "pictures", count=8)
model = str(write_checkpoint(OUTPUT / "untrained"))
print(f"drew {len(pictures)} pictures into {OUTPUT / 'pictures'}, made an untrained checkpoint in {model}")

run("info", model)
run("embed", str(OUTPUT / "pictures"), "--model", model, "-o", str(OUTPUT / "vectors.npz"))
run("classify", *(str(path) for path, _ in pictures[:2]), "--labels", LABELS, "--model", model)

vectors = Embedder(*load(model)).images([str(path) for path, _ in pictures])
order = (-(vectors @ vectors[0])).argsort()
print(f"\nnearest to {pictures[0][1]}: {', '.join(pictures[k][1] for k in order[1:4])}")
print(
    "These weights are random, so labels and neighbours mean nothing. With Apple's (one download of 1.75 GB):"
)
print("  mlx-aimv2 classify photo.jpg --labels 'a dog,a cat'")
