"""What came of a tour: images with what a model says of them, sentences with what it finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..inference.zero_shot import Prediction
from .examples import Example

IMAGES, LABELS_FILE, VECTORS, SHEET = "images", "labels.txt", "vectors.npz", "contact-sheet.png"
KEPT = 5  # images that are told of each sentence


@dataclass(frozen=True)
class TourImage:
    """A drawn image, and what the model says of it.

    Attributes:
        path: its file.
        example: what is on it.
        predictions: the likeliest labels, best first.
        neighbours: the numbers of the images most like it and their cosines, best first.
    """

    path: Path
    example: Example
    predictions: list[Prediction]
    neighbours: list[tuple[int, float]]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that are true of it, one for each kind of thing."""
        return tuple(thing.label for thing in self.example.scene.things)

    @property
    def is_right(self) -> bool:
        """Whether the best prediction names a thing that is there."""
        return self.predictions[0][0] in self.labels


@dataclass(frozen=True)
class Sentence:
    """A sentence about one image, and the images that the model finds with it.

    Attributes:
        text: the sentence.
        own: the number of the image that it is about.
        ranking: the numbers of all images and their cosines, best first.
    """

    text: str
    own: int
    ranking: list[tuple[int, float]]

    @property
    def rank(self) -> int:
        """Where its own image stands, from 1."""
        return [number for number, _ in self.ranking].index(self.own) + 1


@dataclass(frozen=True)
class Step:
    """A part of the work and how long it took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Tour:
    """What was done, and what came of it.

    Attributes:
        folder: with the images, their vectors and the contact sheet.
        model: the name of the checkpoint.
        images: in the order of their files.
        sentences: about some of them.
        steps: in order.
    """

    folder: Path
    model: str
    images: tuple[TourImage, ...]
    sentences: tuple[Sentence, ...]
    steps: tuple[Step, ...]

    @property
    def right(self) -> int:
        """Of how many images the best prediction names a thing that is there."""
        return sum(image.is_right for image in self.images)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
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
            "caption": image.example.caption,
            "labels": list(image.labels),
            "predictions": [{"label": label, "score": score} for label, score in image.predictions],
            "right": image.is_right,
            "neighbours": self._scored(image.neighbours),
        }

    def _sentence_entry(self, sentence: Sentence) -> dict[str, Any]:
        own = str(self.images[sentence.own].path)
        found = self._scored(sentence.ranking[:KEPT])
        return {"text": sentence.text, "path": own, "rank": sentence.rank, "images": found}

    def _scored(self, numbers: list[tuple[int, float]]) -> list[dict[str, Any]]:
        return [{"path": str(self.images[k].path), "score": score} for k, score in numbers]
