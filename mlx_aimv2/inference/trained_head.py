"""Classification with a trained head: labels and their probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized

import numpy as np

from ..errors import InputError
from ..loading import AnyModel
from ..models.classifier import Classifier
from ..processing.decode import ImageInput
from ..processing.processor import Processor, as_items
from ..sources.readahead import Failed
from .collect import mapped, require
from .probabilities import log_softmax, sigmoid
from .stream import Embedded, ImageStream
from .zero_shot import Classified, Prediction, ranked


class TrainedClassifier:
    """Labels of images from a head that fine-tuning trained.

        from mlx_aimv2 import TrainedClassifier, load

        classifier = TrainedClassifier(*load("large-224", adapter_path="adapters"))
        [[(label, probability), *others]] = classifier("photo.jpg")

    The probabilities of an image are a softmax over the labels. If the head was trained on images with several
    labels, the probability of each label is independent of the others (a sigmoid).

    Attributes:
        labels: the names of the classes, in the order of the logits.
    """

    def __init__(
        self, model: AnyModel | Classifier, processor: Processor, batch_size: int | None = None
    ) -> None:
        """Take a model with a trained head, and put it into eval mode.

        Args:
            model: from `load` with ``adapter_path``, a folder that `finetune` wrote.
            processor: from the same call of `load`.
            batch_size: images in a batch; None for what suits the device.

        Raises:
            InputError: the model has no trained head, its classes have no names, or the batch size is under 1.
        """
        if not isinstance(model, Classifier):
            raise InputError("this model has no trained head: load it with the adapter_path of one")
        if not model.labels:
            raise InputError("the classes of this classifier have no names: set its labels")
        self.model, self.processor, self.labels = model, processor, tuple(model.labels)
        self._stream = logit_stream(model, processor, batch_size)

    def __call__(self, images: ImageInput | Iterable[ImageInput]) -> list[list[Prediction]]:
        """Label images.

        Args:
            images: one image or several: paths, bytes, file objects, PIL images, numpy arrays.

        Returns:
            For each image a list of all labels with their probabilities, the most probable label first.

        Raises:
            ImageError: an image cannot be read; the message says which one.
            InputError: the number of logits differs from the number of labels.
            NonFiniteError: the model's output is not finite.
        """
        items = as_items(images)
        lone = isinstance(items, Sized) and len(items) == 1
        results = require(self.stream(items), None if lone else "image {}".format)
        return [result.predictions for result in results]

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Classified | Failed]:
        """Label any number of images, in order; broken images do not stop the stream.

        Raises:
            InputError: the number of logits differs from the number of labels.
        """
        return mapped(
            check_logits(self._stream(images), self.labels),
            lambda item: Classified(item.index, ranked(self.labels, self.scores(item.vector[None])[0])),
        )

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (B, C) float64 of logits (B, C)."""
        return sigmoid(logits) if self.model.multi_label else np.exp(log_softmax(logits))


def logit_stream(model: Classifier, processor: Processor, batch_size: int | None = None) -> ImageStream:
    """The logits (C,) of any number of images, in order; the model is put into eval mode."""
    model.eval()
    return ImageStream(model, processor, model.trunk, batch_size)


def check_logits(results: Iterable[Embedded | Failed], labels: Sequence[str]) -> Iterator[Embedded | Failed]:
    """Pass logits on; raise InputError if their number differs from the number of labels."""
    for item in results:
        if not isinstance(item, Failed) and len(item.vector) != len(labels):
            raise InputError(f"the head gives {len(item.vector)} logits, and there are {len(labels)} labels")
        yield item
