"""`Report`: all measurements of a run, what follows from them, and the line to paste."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..messages import counted
from .architecture import Architecture
from .decoding import Decoding
from .forward import Cell
from .machine import Machine


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        machine: where it was measured.
        architecture: the model, whose weights were random.
        image_size: (H, W) of the images in pixels.
        photos: what was decoded, in words.
        cells: a measurement for each setting.
        decodings: a measurement for each mode of decoding.
    """

    machine: Machine
    architecture: Architecture
    image_size: tuple[int, int]
    photos: str
    cells: Sequence[Cell] = ()
    decodings: Sequence[Decoding] = ()

    def with_result(self, result: Cell | Decoding) -> Report:
        """The report with one more measurement."""
        if isinstance(result, Cell):
            return dataclasses.replace(self, cells=[*self.cells, result])
        return dataclasses.replace(self, decodings=[*self.decodings, result])

    @property
    def best(self) -> Cell | None:
        """The setting with the most images per second; None if nothing was measured."""
        measured = [cell for cell in self.cells if cell.timing is not None]
        return max(measured, key=lambda cell: cell.images_per_second or 0.0, default=None)

    @property
    def single(self) -> Cell | None:
        """The measurement of one image at a time: of the weights of `best`, else of any; None if there is none."""
        measured = [cell for cell in self.cells if cell.timing is not None and cell.setting.batch_size == 1]
        same = [cell for cell in measured if self.best and cell.setting.weights == self.best.setting.weights]
        return next(iter(same or measured), None)

    @property
    def tokens(self) -> int:
        """Patches of an image."""
        patch = self.architecture.config.vision.patch_size
        return (self.image_size[0] // patch) * (self.image_size[1] // patch)

    def end_to_end(self, decoding: Decoding) -> float | None:
        """Images per second of decoding and computing together, estimated; None if nothing was computed.

        On a CPU both share the cores; a GPU computes while the CPU decodes.
        """
        if self.best is None or self.best.images_per_second is None:
            return None
        computing, decoded = self.best.images_per_second, decoding.images_per_second
        if self.machine.device == "cpu":
            return 1 / (1 / computing + 1 / decoded)
        return min(computing, decoded)

    def limit(self) -> str | None:
        """A sentence: what takes longer, decoding (fast) or computing at the best batch size."""
        fast = next((decoding for decoding in self.decodings if decoding.mode == "fast"), None)
        if fast is None or self.best is None or self.best.images_per_second is None:
            return None
        factor = fast.images_per_second / self.best.images_per_second
        if factor >= 1:
            return f"computing is the limit: decoding is {factor:.3g} times as fast"
        return f"decoding is the limit: computing is {1 / factor:.3g} times as fast"

    @property
    def line(self) -> str | None:
        """Machine and best results in a line; None if nothing was measured."""
        best, single, machine = self.best, self.single, self.machine
        if best is None:
            return None
        memory = f", {machine.memory_bytes / 2**30:.0f} GB" if machine.memory_bytes else ""
        blas = f", {machine.blas_name}" if machine.device == "cpu" else ""
        latency = f", {1000 * single.timing.median:.1f} ms at batch 1" if single and single.timing else ""
        decoded = " and ".join(f"{x.images_per_second:.1f}/s {x.mode}" for x in self.decodings)
        parts = (
            f"{machine.device_name}, {counted(machine.cores, 'core')}{memory}, {machine.system}",
            f"MLX {machine.mlx} on {machine.device}{blas}",
            f"{self.architecture.name} {best.setting.weights} {best.images_per_second:.2f} images/s"
            f" at batch {best.setting.batch_size}{latency}",
            *([f"decoding {decoded}"] if decoded else []),
            f"mlx-aimv2 {machine.mlx_aimv2}",
        )
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "machine": self.machine.to_dict(),
            "model": {
                "name": self.architecture.name,
                "parameters": self.architecture.parameters,
                "weights": "random",
                "image_size": list(self.image_size),
                "tokens": self.tokens,
            },
            "measurements": [cell.to_dict() for cell in self.cells],
            "decoding": [
                {
                    **decoding.to_dict(),
                    "photos": self.photos,
                    "end_to_end_images_per_second": self.end_to_end(decoding),
                }
                for decoding in self.decodings
            ],
            "best": self.best.to_dict() if self.best else None,
            "limit": self.limit(),
            "line": self.line,
        }
