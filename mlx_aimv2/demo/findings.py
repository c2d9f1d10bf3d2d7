"""Results of the demo's tour: images with predictions and neighbours, sentences with ranked images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..inference.zero_shot import Prediction
from .images import SampleImage

IMAGES, LABELS_FILE, VECTORS, SHEET = "images", "labels.txt", "vectors.npz", "contact-sheet.png"
TOP = 5  # predictions, neighbours and ranked images that are reported


@dataclass(frozen=True)
class TourImage:
    """An image with the model's predictions.

    Attributes:
        path: its file.
        sample: the sample image that the file is a copy of.
        predictions: the most probable labels, best first.
        neighbours: the indices of the most similar images and their cosines, best first.
    """

    path: Path
    sample: SampleImage
    predictions: list[Prediction]
    neighbours: list[tuple[int, float]]

    @property
    def labels(self) -> tuple[str, ...]:
        """The correct labels, one for each kind of shape on the image."""
        return self.sample.labels

    @property
    def is_right(self) -> bool:
        """Whether the best prediction is a correct label."""
        return self.predictions[0][0] in self.labels


@dataclass(frozen=True)
class Sentence:
    """The caption of an image, and all images ranked for it.

    Attributes:
        text: the sentence.
        own: the index of the image that it describes.
        ranking: the indices of all images and their cosines, best first.
    """

    text: str
    own: int
    ranking: list[tuple[int, float]]

    @property
    def rank(self) -> int:
        """The rank of its own image, from 1."""
        return [number for number, _ in self.ranking].index(self.own) + 1


@dataclass(frozen=True)
class Step:
    """A step of the tour and its duration."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Tour:
    """The results of a tour.

    Attributes:
        folder: contains the images, their vectors and the contact sheet.
        model: the name of the checkpoint.
        images: in the order of their files.
        sentences: the captions of some images.
        steps: in order.
    """

    folder: Path
    model: str
    images: tuple[TourImage, ...]
    sentences: tuple[Sentence, ...]
    steps: tuple[Step, ...]

    @property
    def right(self) -> int:
        """The number of images whose best prediction is correct."""
        return sum(image.is_right for image in self.images)

    def to_dict(self) -> dict[str, Any]:
        """All results as JSON values."""
        return {
            "folder": str(self.folder),
            "model": self.model,
            "top1": self.right / len(self.images),
            "images": [self._image_entry(image) for image in self.images],
            "sentences": [self._sentence_entry(sentence) for sentence in self.sentences],
            "vectors": str(self.folder / VECTORS),
            "contact_sheet": str(self.folder / SHEET),
            "steps": [asdict(step) for step in self.steps],
        }

    def _image_entry(self, image: TourImage) -> dict[str, Any]:
        return {
            "path": str(image.path),
            "caption": image.sample.caption,
            "labels": list(image.labels),
            "predictions": [{"label": label, "score": score} for label, score in image.predictions],
            "right": image.is_right,
            "neighbours": self._scored(image.neighbours),
        }

    def _sentence_entry(self, sentence: Sentence) -> dict[str, Any]:
        own = str(self.images[sentence.own].path)
        ranked = self._scored(sentence.ranking[:TOP])
        return {"text": sentence.text, "path": own, "rank": sentence.rank, "images": ranked}

    def _scored(self, scores: list[tuple[int, float]]) -> list[dict[str, Any]]:
        return [{"path": str(self.images[k].path), "score": score} for k, score in scores]
