"""The checkpoint `demo` inside the package: its folder and its sizes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from ..errors import NotACheckpointError
from ..presets import DEMO_MODEL
from .file_names import CONFIG, SINGLE

CHECKPOINT = Path(__file__).parent.parent / "demo" / "checkpoint"
PACKED_IN = 32  # bits of the integers that hold packed weights


@dataclass(frozen=True)
class BundledSizes:
    """Sizes of the checkpoint.

    Attributes:
        parameters: weights of both towers.
        quantizable: weights that are stored packed.
        num_patches: tokens of an image.
        nbytes: of the weight file.
    """

    parameters: int
    quantizable: int
    num_patches: int
    nbytes: int

    def bytes_at(self, bits: float) -> int:
        """Memory of the weights with ``bits`` for a packed weight, and 16 for the others."""
        return round((self.quantizable * bits + (self.parameters - self.quantizable) * 16) / 8)


def is_demo(name: str) -> bool:
    """Whether a name, in any case, is that of the checkpoint inside the package."""
    return name.strip().lower() == DEMO_MODEL


def bundled_folder() -> Path:
    """The folder of the checkpoint; raise NotACheckpointError if this installation lacks it."""
    if not all((CHECKPOINT / name).is_file() for name in (CONFIG, SINGLE)):
        raise NotACheckpointError(
            f"this installation lacks the checkpoint {DEMO_MODEL}, which comes with the package: install mlx-aimv2"
            " again, or name another model (mlx-aimv2 models)"
        )
    return CHECKPOINT


def bundled_sizes() -> BundledSizes | None:
    """The sizes from the headers of the checkpoint's files; None if it is missing or damaged."""
    try:
        return _sizes(bundled_folder())
    except Exception:  # noqa: BLE001 - damaged files raise anything, and loading says what is wrong
        return None


def _sizes(folder: Path) -> BundledSizes:
    from safetensors import safe_open

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    bits = config.get("quantization", {}).get("bits", PACKED_IN)
    with safe_open(folder / SINGLE, framework="numpy") as file:
        counts = {name: math.prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    packed = {name.removesuffix(".scales") for name in counts if name.endswith(".scales")}
    quantizable = sum(counts[f"{path}.weight"] for path in packed) * PACKED_IN // bits
    plain = sum(count for name, count in counts.items() if name.rpartition(".")[0] not in packed)
    vision = config["vision_config"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    return BundledSizes(quantizable + plain, quantizable, patches, (folder / SINGLE).stat().st_size)
