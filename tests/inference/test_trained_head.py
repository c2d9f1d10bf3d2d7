"""TrainedClassifier: probabilities, order, broken images, refusals."""

import numpy as np
import pytest
from helpers.shades import LABELS

from mlx_aimv2.errors import BrokenImageError, InputError
from mlx_aimv2.inference.trained_head import TrainedClassifier
from mlx_aimv2.models.classifier import MULTI_LABEL, Classifier


def test_predictions_are_probabilities_best_first(learned, shades):
    found = TrainedClassifier(*learned)([path for path, _ in shades])
    for ranked, (_, numbers) in zip(found, shades, strict=True):
        scores = [score for _, score in ranked]
        assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1)
        assert ranked[0][0] == LABELS[numbers[0]]


def test_with_several_labels_each_has_a_probability_of_its_own(learned, shades):
    classifier = Classifier(learned[0].trunk, learned[0].head, "mean")
    classifier.labels, classifier.task = LABELS, MULTI_LABEL
    ((first, *others),) = TrainedClassifier(classifier, learned[1])(shades[0][0])
    assert first == ("dark", pytest.approx(1 / (1 + np.exp(-10)), abs=1e-4))
    assert all(score < 0.01 for _, score in others)


def test_a_stream_keeps_order_and_survives_broken_images(learned, shades):
    found = list(TrainedClassifier(*learned, batch_size=2).stream([shades[1][0], b"no", shades[0][0]]))
    assert [item.index for item in found] == [0, 1, 2]
    assert isinstance(found[1].error, BrokenImageError)
    assert [found[k].predictions[0][0] for k in (0, 2)] == ["bright", "dark"]


def test_a_broken_image_is_raised_with_its_number(learned, shades):
    with pytest.raises(BrokenImageError, match=r"^image 1: "):
        TrainedClassifier(*learned)([shades[0][0], b"no"])
    with pytest.raises(BrokenImageError):
        TrainedClassifier(*learned)(b"no")


def test_a_labeller_needs_labels_and_as_many_as_logits(learned, shades):
    classifier = Classifier(learned[0].trunk, learned[0].head, "mean")
    with pytest.raises(InputError, match="the classes of this classifier have no names: set its labels"):
        TrainedClassifier(classifier, learned[1])
    classifier.labels = ("one", "two")
    with pytest.raises(InputError, match="the head gives 3 logits, and there are 2 labels"):
        TrainedClassifier(classifier, learned[1])(shades[0][0])
    with pytest.raises(InputError, match="batch_size must be at least 1, not 0"):
        TrainedClassifier(learned[0], learned[1], batch_size=0)


def test_a_model_without_a_trained_head_is_refused(vision):
    with pytest.raises(
        InputError, match="this model has no trained head: load it with the adapter_path of one"
    ):
        TrainedClassifier(*vision)
