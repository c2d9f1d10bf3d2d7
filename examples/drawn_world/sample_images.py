"""Draw the sample images of the package: twelve JPEG files and captions.json in mlx_aimv2/demo.

python examples/drawn_world/sample_images.py
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for drawn_world

from drawn_world.examples import sample_examples
from mlx_aimv2.demo.images import CAPTIONS, FOLDER

COUNT, SIDE, QUALITY = 12, 224, 92


def main() -> None:
    """Replace the files in the package."""
    FOLDER.mkdir(exist_ok=True)
    for earlier in FOLDER.glob("*.jpg"):
        earlier.unlink()
    entries = []
    for number, example in enumerate(sample_examples(COUNT)):
        labels = [thing.label for thing in example.scene.things]
        file = f"{number:02d}-{'-'.join(labels).replace(' ', '-')}.jpg"
        example.image(SIDE).save(FOLDER / file, quality=QUALITY, subsampling=0, optimize=True)
        entries.append({"file": file, "caption": example.caption, "labels": labels})
    CAPTIONS.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
