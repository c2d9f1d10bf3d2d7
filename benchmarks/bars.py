"""What the results must show: ratios and a few times, each with its bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cases.forward import PRODUCTS
from results import Results

OURS, PEER = "mlx-aimv2", "transformers float32"
FOLDER = "decoding/folder of 12-megapixel JPEGs"
MANY = "many/20,000 images"
THEIRS = ("transformers, Pillow", "transformers, torchvision")
PROBE = "training/epoch of a linear probe"


@dataclass(frozen=True)
class Bar:
    """A ratio, or a time, with its bar.

    Attributes:
        text: what is divided by what, or what is timed.
        bar: the most, or the least, that it may be.
        measure: from results to the number; None if a part was not measured.
        is_least: whether ``bar`` is the least.
    """

    text: str
    bar: float
    measure: Callable[[Results], float | None]
    is_least: bool = False

    def is_met(self, ratio: float) -> bool:
        """Whether a ratio meets the bar."""
        return ratio >= self.bar if self.is_least else ratio <= self.bar


def quotient(above: float | None, below: float | None) -> float | None:
    """A ratio; None if a part is missing."""
    return None if above is None or not below else above / below


def ratio(case: str, above: str, below: str) -> Callable[[Results], float | None]:
    """The quotient of two timings of a case."""
    return lambda results: quotient(results.seconds(case, above), results.seconds(case, below))


def share_of_peak(case: str) -> Callable[[Results], float | None]:
    """The rate of the model's matrix products over the best one of this machine."""

    def measure(results: Results) -> float | None:
        peaks = [results.value("peak/square products", side, "gflops") for side in ("MLX's BLAS", "PyTorch")]
        rate = results.value(case, OURS, "products_gflops")
        return quotient(rate, max((peak for peak in peaks if peak), default=None))

    return measure


def end_to_end(results: Results) -> float | None:
    """The whole over the slower of its parts."""
    case = "folder/12-megapixel JPEGs"
    parts = [results.seconds(case, f"{part} alone") for part in ("computing", "decoding")]
    return None if None in parts else quotient(results.seconds(case, "end to end"), max(filter(None, parts)))


def many_images(mode: str) -> Callable[[Results], float | None]:
    """The command on very many images over the slowest of its stages."""

    def measure(results: Results) -> float | None:
        stages = [f"decoding alone, {mode}", "computing alone", "writing alone"]
        parts = [results.seconds(MANY, stage) for stage in stages]
        whole = results.seconds(MANY, f"embed, {mode}")
        return None if None in parts else quotient(whole, max(filter(None, parts)))

    return measure


def folder_to_pixels(suffix: str) -> Callable[[Results], float | None]:
    """The faster one of transformers' two processors over this package's."""

    def measure(results: Results) -> float | None:
        theirs = [results.seconds(FOLDER, name + suffix) for name in THEIRS]
        return quotient(min(filter(None, theirs), default=None), results.seconds(FOLDER, "mlx-aimv2, fast"))

    return measure


def forward_bars(batch: int) -> list[Bar]:
    """Those of a batch of large-224."""
    case = f"forward/batch {batch}"
    return [
        Bar(f"large-224, batch {batch}: forward over transformers float32", 0.95, ratio(case, OURS, PEER)),
        Bar(
            f"large-224, batch {batch}: forward over its own matrix products",
            1.1,
            ratio(case, OURS, PRODUCTS),
        ),
        Bar(
            f"large-224, batch {batch}: its matrix products over the machine's peak",
            0.85,
            share_of_peak(case),
            True,
        ),
    ]


BARS = [
    *forward_bars(1),
    *forward_bars(8),
    Bar("LoRA step, rank 8, batch 4: over PEFT", 0.75, ratio("training/LoRA step, batch 4", OURS, "PEFT")),
    Bar("probe epoch: without over with stored features", 50, ratio(
        PROBE, f"{OURS}: computing features", f"{OURS}: with stored features"), True),
    Bar("12-megapixel JPEGs to pixels: transformers over mlx-aimv2", 8,
        folder_to_pixels(""), True),
    Bar("12-megapixel JPEGs to pixels: transformers in a thread for each core over mlx-aimv2", 8,
        folder_to_pixels(", in threads"), True),
    Bar("12-megapixel JPEG: cosine of the pixels with those of transformers", 0.999,
        lambda results: results.value("decoding/12 megapixels, JPEG", "mlx-aimv2, fast", "cosine"), True),
    Bar("folder to vectors: over the slower of decoding and computing", 1.1, end_to_end),
    *(Bar(f"20,000 JPEGs to a folder of vectors, {mode}: over the slowest stage alone", 1.1, many_images(mode))
      for mode in ("fast", "exact")),
    Bar("4-bit over float32, forward", 1.1, ratio("quantized/batch 1", "4-bit", "float32")),
    Bar("load to first vector: over reading the file plus one forward pass", 1.5,
        ratio("loading/first vector", OURS, "reading and one forward pass")),
    *(Bar(f"{text}, in seconds", bar, lambda results, case=case: results.seconds(case, OURS))
      for text, bar, case in (("mlx-aimv2 --help", 0.25, "start/--help"),
                              ("mlx-aimv2 embed of one image with demo", 0.8, "start/embed one image"))),
    Bar("peak memory: over weights plus activations, batch 1", 1.15,
        lambda results: results.value("loading/first vector", OURS, "peak_ratio")),
    Bar("peak memory: over weights plus activations, batch 8", 1.15,
        lambda results: results.value("loading/first 8 vectors", OURS, "peak_ratio")),
    Bar("memory over 3,000 image sizes: last tenth of the run over the first", 1.1,
        lambda results: results.value("shapes/3,000 random sizes", OURS, "last over first tenth")),
]  # fmt: skip
