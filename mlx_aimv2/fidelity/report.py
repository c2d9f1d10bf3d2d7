"""The report of a comparison of two checkpoints: as a table, as JSON, and in a model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

WORST = 5  # layers in a table of the worst


@dataclass(frozen=True)
class Side:
    """A compared checkpoint.

    Attributes:
        name: the repository, or the folder's path.
        layout: of its files.
        quantization: such as `4-bit affine, groups of 64`; None for plain weights.
        stored: the dtype in which most plain weights are stored.
        nbytes: of its weights on disk.
        dtype: of the computation.
        unpacked: whether quantized weights were unpacked to that dtype, and the speed is that of plain ones.
        images_per_second: of the model alone, without decoding; the best of a few batches.
    """

    name: str
    layout: str
    quantization: str | None
    stored: str
    nbytes: int
    dtype: str
    unpacked: bool
    images_per_second: float


@dataclass(frozen=True)
class ZeroShot:
    """The difference of two image-text pairs in zero-shot labels.

    Attributes:
        labels: the labels to choose from.
        agreement: share of the images with the same best label.
        probability_difference: the largest of any label on any image.
        text_cosine_min: the least cosine similarity of a text's two embeddings.
    """

    labels: tuple[str, ...]
    agreement: float
    probability_difference: float
    text_cosine_min: float


@dataclass(frozen=True)
class Fidelity:
    """The difference between a converted checkpoint and its original.

    Attributes:
        original: the source.
        converted: the result.
        device: cpu or gpu.
        images: how many images both were run on.
        drawn: whether the images were the built-in drawings.
        cosine_min: the least cosine similarity of an image's two embeddings.
        cosine_mean: their mean.
        neighbour_recall: of each image's nearest neighbours among the others, the share that both agree on
            (recall@k, where k is ``neighbours``); None for two images, which leave no choice.
        neighbours: how many nearest neighbours: 10, or half of the others if those are fewer than 20.
        layers: module path and largest relative error of the embeddings and of every layer, in order.
        layer_images: how many images the layers were compared on.
        zero_shot: for an image-text pair.
        differing: settings of the preprocessing that differ; both checkpoints got the original's inputs.
    """

    original: Side
    converted: Side
    device: str
    images: int
    drawn: bool
    cosine_min: float
    cosine_mean: float
    neighbour_recall: float | None
    neighbours: int
    layers: tuple[tuple[str, float], ...]
    layer_images: int
    zero_shot: ZeroShot | None = None
    differing: tuple[str, ...] = ()

    @property
    def worst_layers(self) -> list[tuple[str, float]]:
        """The five layers with the largest errors, the largest first."""
        return sorted(self.layers, key=lambda layer: -layer[1])[:WORST]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        layers = [{"layer": name, "relative_error": error} for name, error in self.layers]
        plain = {**dataclasses.asdict(self), "layers": layers, "differing": list(self.differing)}
        if self.zero_shot is not None:
            plain["zero_shot"]["labels"] = list(self.zero_shot.labels)
        return plain

    def rows(self) -> list[tuple[str, str, str]]:
        """Rows of a table: name, value of the original, value of the converted checkpoint or of the comparison."""
        sides = (self.original, self.converted)
        checkpoints = [
            ("layout", *(side.layout for side in sides)),
            ("stored as", *(side.quantization or side.stored for side in sides)),
            ("weights", *(f"{side.nbytes / 1e6:,.1f} MB" for side in sides)),
            ("computed in", *(f"{side.dtype}{', unpacked' * side.unpacked}" for side in sides)),
            ("speed", *(f"{side.images_per_second:,.1f} images/s" for side in sides)),
        ]
        return [*checkpoints, *((name, "", value) for name, value in self._measures())]  # type: ignore[list-item]

    def _measures(self) -> Iterator[tuple[str, str]]:
        yield "image cosine, least", f"{self.cosine_min:.6f}"
        yield "image cosine, mean", f"{self.cosine_mean:.6f}"
        if self.neighbour_recall is not None:
            yield f"same {self.neighbours} nearest neighbours", percent(self.neighbour_recall)
        yield "largest layer error", percent(self.worst_layers[0][1])
        if self.zero_shot is not None:
            yield "same zero-shot label", percent(self.zero_shot.agreement)
            yield "largest probability change", f"{self.zero_shot.probability_difference:.4f}"
            yield "text cosine, least", f"{self.zero_shot.text_cosine_min:.6f}"

    def markdown(self) -> str:
        """The section `Fidelity` of a model card."""
        kind = "built-in drawings" if self.drawn else "images"
        device = {"cpu": "a CPU", "gpu": "a GPU"}.get(self.device, self.device)
        texts = f" or {len(self.zero_shot.labels)} texts" if self.zero_shot else ""
        lines = [
            "## Fidelity",
            "",
            f"This checkpoint against the one it was converted from, on {self.images} {kind}, on {device}.",
            "",
            "| | original | converted |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in self.rows()),
            "",
            "| layers with the largest errors | relative error |",
            "|---|---|",
            *(f"| {name} | {percent(error)} |" for name, error in self.worst_layers),
            "",
            "The cosine similarity is that of an image's two embeddings. The error of a layer is"
            " ‖converted − original‖ / ‖original‖ of its output, the largest of"
            f" {self.layer_images} images{texts}. The speed is the model's alone, without decoding.",
        ]
        if self.differing:
            lines += [
                "",
                f"The two prepare images or texts differently ({', '.join(self.differing)}); both were given"
                " the original's.",
            ]
        return "\n".join(lines) + "\n"


def percent(share: float) -> str:
    """A share in three digits, such as `98.4 %` or `0.0123 %`."""
    return f"{100 * share:.3g} %"
