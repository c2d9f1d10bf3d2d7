"""What a comparison of two checkpoints found, and how it reads: as a table, as JSON, in a model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

WORST = 5  # layers named where not all are


@dataclass(frozen=True)
class Side:
    """One of the two checkpoints.

    Attributes:
        name: the repository, or the folder's path.
        layout: how it is written.
        quantization: in words; None for plain weights.
        stored: the dtype that most of what is not packed is stored in.
        nbytes: its weights on disk.
        dtype: what was computed in.
        unpacked: quantized weights were unpacked to that dtype first, so that the speed is that of plain ones.
        images_per_second: of the model alone, without decoding; the median of a few batches, each checkpoint
            by itself.
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
    """How far the labels of an image-text pair are apart.

    Attributes:
        labels: what was chosen from.
        agreement: share of the images whose best label is the same.
        probability_difference: the largest of any label on any image.
        text_cosine_min: the least cosine similarity of a text's two embeddings.
    """

    labels: tuple[str, ...]
    agreement: float
    probability_difference: float
    text_cosine_min: float


@dataclass(frozen=True)
class Fidelity:
    """How far a converted checkpoint is from its original.

    Attributes:
        original: the one converted from.
        converted: the other.
        device: cpu or gpu.
        images: how many both were run on.
        drawn: whether these were the built-in ones.
        cosine_min: the least cosine similarity of an image's two embeddings.
        cosine_mean: their mean.
        neighbour_recall: of each image's nearest neighbours among the others, the share that both agree on
            (recall@k, where k is ``neighbours``); None for two images, which leave no choice.
        neighbours: how many nearest neighbours: 10, or half of the others where those are fewer than 20.
        layers: the largest relative error of the embeddings and every layer, in their order, by module path.
        layer_images: how many images the layers were compared on.
        zero_shot: for an image-text pair.
        differing: settings of the preprocessing that differ; both were given the original's inputs.
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
        """The table: what, of the original, of the converted checkpoint (or of it against the original)."""
        sides = (self.original, self.converted)
        described = [
            ("layout", *(side.layout for side in sides)),
            ("stored as", *(side.quantization or side.stored for side in sides)),
            ("weights", *(f"{side.nbytes / 1e6:,.1f} MB" for side in sides)),
            ("computed in", *(f"{side.dtype}{', unpacked' * side.unpacked}" for side in sides)),
            ("speed", *(f"{side.images_per_second:,.1f} images/s" for side in sides)),
        ]
        return [*described, *((what, "", value) for what, value in self._measures())]  # type: ignore[list-item]

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
        """A section of a model card."""
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
