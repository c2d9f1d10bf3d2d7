"""Labels for images, from a trained head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..errors import ImageError, InputError, NonFiniteError
from ..models.classifier import Classifier
from ..processing.decode import ImageInput
from ..processing.processor import Processor, as_items
from .probabilities import log_softmax, sigmoid
from .stream import Embedded, ImageStream
from .zero_shot import Classified, Prediction


class TrainedClassifier:
    """Scores images with a trained head: probabilities over the labels, or of every label by itself.

    Attributes:
        labels: the names of the classes, in the order of the logits.
    """

    def __init__(self, model: Classifier, processor: Processor, batch_size: int | None = None) -> None:
        """Get ready, and put the model into eval mode.

        Args:
            model: from `load` with an adapter; its `task` says which scores there are.
            processor: from `load`.
            batch_size: images computed at once; None for what suits the device.

        Raises:
            InputError: the model's classes have no names, or a batch size under 1.
        """
        if not model.labels:
            raise InputError("the classes of this classifier have no names: set its labels")
        self.model, self.processor, self.labels = model, processor, tuple(model.labels)
        self._stream = logit_stream(model, processor, batch_size)

    def __call__(self, images: ImageInput | Iterable[ImageInput]) -> list[list[Prediction]]:
        """Label images.

        Args:
            images: one image or several.

        Returns:
            For each image all labels with their scores, best first.

        Raises:
            ImageError: an image cannot be read.
            NonFiniteError: the model's output is not finite.
        """
        results = list(self.stream(as_items(images)))
        for item in results:
            if isinstance(item.error, (ImageError, NonFiniteError)) and len(results) > 1:
                raise item.error.at(f"image {item.index}") from item.error
            if item.error is not None:
                raise item.error
        return [item.predictions or [] for item in results]

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Classified]:
        """Label any number of images, in order; broken ones do not stop it.

        Raises:
            InputError: the head gives another number of logits than there are labels.
        """
        for item in self._stream(images):
            if item.vector is None:
                yield Classified(item.index, error=item.error)
            else:
                check_count(item, self.labels)
                yield Classified(item.index, self._rank(self.scores(item.vector[None])[0]))

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Scores (B, C) float64 of logits (B, C): a softmax, or with several labels a sigmoid."""
        return sigmoid(logits) if self.model.multi_label else np.exp(log_softmax(logits))

    def _rank(self, row: np.ndarray) -> list[Prediction]:
        return [(self.labels[k], float(row[k])) for k in np.argsort(-row, kind="stable")]


def logit_stream(model: Classifier, processor: Processor, batch_size: int | None = None) -> ImageStream:
    """The logits (C,) of any number of images, in order; the model is put into eval mode.

    Raises:
        InputError: a batch size under 1.
    """
    model.eval()
    return ImageStream(model, processor, model.trunk.embeddings.patch_embed.weight.dtype, batch_size)


def check_count(item: Embedded, labels: Sequence[str]) -> None:
    """Make sure that there is a logit for every label.

    Raises:
        InputError: there are more, or fewer.
    """
    count = len(item.require_vector())
    if count != len(labels):
        raise InputError(f"the head gives {count} logits, and there are {len(labels)} labels")
