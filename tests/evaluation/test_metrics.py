import json

import numpy as np
import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.evaluation.metrics import (
    average_precision,
    calibrate,
    calibration_error,
    measure,
    measure_multi_label,
)

LABELS = ["cat", "dog", "owl"]
# Probabilities that can be followed by hand: right, right, wrong (a dog for a cat), wrong (an owl for a dog).
BY_HAND = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.2, 0.3, 0.5]])
TRUTH = np.array([0, 1, 0, 1])


@pytest.fixture
def found():
    return measure(np.log(BY_HAND), TRUTH, LABELS)


def test_shares_and_likelihood_by_hand(found):
    assert (found.count, found.top1, found.top5) == (4, 0.5, 1.0)
    assert found.nll == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.3]).mean())


def test_confusion_has_truth_by_row(found):
    assert found.confusion.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_classes_by_hand(found):
    rows = [(each.label, each.precision, each.recall, each.support) for each in found.per_class]
    assert rows == [("cat", 1.0, 0.5, 2), ("dog", 0.5, 0.5, 2), ("owl", 0.0, 0.0, 0)]
    assert [each.f1 for each in found.per_class] == pytest.approx([2 / 3, 0.5, 0])
    assert found.macro_f1 == pytest.approx((2 / 3 + 0.5 + 0) / 3)  # owl was predicted, so it counts


def test_a_class_that_does_not_occur_counts_nowhere():
    found = measure(np.array([[9.0, 0, -9], [0, 9, -9]]), np.array([0, 1]), LABELS)
    assert found.macro_f1 == 1


def test_calibration_by_hand(found):
    # confidences 0.7 (right), 0.8 (right), 0.6 (wrong), 0.5 (wrong), each in a bin of its own
    assert found.ece == pytest.approx((0.3 + 0.2 + 0.6 + 0.5) / 4)
    filled = [each for each in found.calibration if each.count]
    assert [(each.confidence, each.accuracy) for each in filled] == [
        (pytest.approx(0.5), 0),
        (pytest.approx(0.6), 0),
        (pytest.approx(0.7), 1),
        (pytest.approx(0.8), 1),
    ]
    assert len(found.calibration) == 15


def test_a_bin_holds_its_upper_edge_and_not_its_lower():
    bins = calibrate(np.array([0.0, 1 / 15, 1.0]), np.array([True, False, True]))
    assert [k for k, each in enumerate(bins) if each.count] == [0, 14]
    assert (bins[0].count, bins[0].accuracy) == (2, 0.5)


def test_the_error_of_two_bins_is_weighed():
    bins = calibrate(np.array([0.9, 0.9, 0.9, 0.5]), np.array([True, True, False, True]))
    assert calibration_error(bins) == pytest.approx(3 / 4 * (0.9 - 2 / 3) + 1 / 4 * 0.5)


def test_top5_looks_at_five():
    logits = np.array([[7.0, 6, 5, 4, 3, 2, 1]] * 7)
    assert measure(logits, np.arange(7), list("abcdefg")).top5 == pytest.approx(5 / 7)


def test_extreme_logits_stay_finite():
    found = measure(np.array([[2000.0, -2000], [0, 0]]), np.array([1, 0]), ["a", "b"])
    assert found.nll == pytest.approx((4000 + np.log(2)) / 2)


def test_dict_has_fractions_and_plain_values(found):
    plain = json.loads(json.dumps(found.to_dict()))
    assert {"top1", "top5", "macro_f1", "ece", "nll", "per_class", "confusion", "labels"} <= set(plain)
    assert (plain["top1"], plain["images"], plain["multi_label"]) == (0.5, 4, False)
    assert plain["per_class"][0] == {
        "label": "cat",
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
    }
    assert "map" not in plain


def test_rows_are_words_and_percent(found):
    assert found.rows()[:3] == [("images", "4"), ("classes", "3"), ("top-1", "50.00%")]
    assert "top-5" not in dict(found.rows())  # of three classes it says nothing
    assert found.class_rows()[0] == ("cat", "100.00%", "50.00%", "66.67%", "2")


# Three images, two labels; the second image has both.
SEVERAL = np.array([[2.0, -2], [2, 3], [1, 2]])
MANY_HOT = np.array([[1, 0], [1, 1], [0, 1]])


def test_several_labels_by_hand():
    found = measure_multi_label(SEVERAL, MANY_HOT, ["a", "b"])
    assert found.exact_match == pytest.approx(2 / 3)  # the third is called a as well
    assert found.micro_f1 == pytest.approx(2 * 4 / (5 + 4))
    assert [each.f1 for each in found.per_class] == pytest.approx([0.8, 1.0])
    assert found.macro_f1 == pytest.approx(0.9)
    assert found.map == pytest.approx(1.0)  # what is so has the higher scores
    probabilities = 1 / (1 + np.exp(-SEVERAL))
    assert found.nll == pytest.approx(-np.log(np.where(MANY_HOT, probabilities, 1 - probabilities)).mean())
    assert (found.top1, found.confusion) == (None, None)
    assert "confusion" not in found.to_dict() and found.to_dict()["map"] == pytest.approx(1.0)


def test_average_precision_by_hand():
    truth = np.array([True, False, True, False])
    assert average_precision(np.array([4.0, 3, 2, 1]), truth) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.zeros(4), truth) == pytest.approx(0.5)  # equal scores are one step


def test_images_without_any_label():
    found = measure_multi_label(np.array([[-3.0, -3]]), np.array([[0, 0]]), ["a", "b"])
    assert (found.exact_match, found.map, found.macro_f1, found.micro_f1) == (1, 0, 0, 0)


def test_scikit_learn_agrees():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(400, 8)), rng.integers(0, 8, 400)
    logits[np.arange(400), targets] += 1
    found = measure(logits, targets, list("abcdefgh"))
    predicted = logits.argmax(axis=1)
    assert found.top1 == pytest.approx(metrics.accuracy_score(targets, predicted))
    assert found.top5 == pytest.approx(metrics.top_k_accuracy_score(targets, logits, k=5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found.nll == pytest.approx(metrics.log_loss(targets, probabilities))
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(targets, predicted))
    expected = metrics.precision_recall_fscore_support(targets, predicted)
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose([getattr(each, name) for each in found.per_class], column)
    assert found.macro_f1 == pytest.approx(metrics.f1_score(targets, predicted, average="macro"))


def test_scikit_learn_agrees_with_several_labels():
    from sklearn import metrics

    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, (300, 6))
    logits = (rng.normal(size=(300, 6)) + 2 * targets - 1).round(1)  # with equal scores among them
    found = measure_multi_label(logits, targets, list("abcdef"))
    predicted = logits >= 0
    assert found.map == pytest.approx(metrics.average_precision_score(targets, logits, average="macro"))
    assert found.micro_f1 == pytest.approx(metrics.f1_score(targets, predicted, average="micro"))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(targets, predicted, average="macro"))
    assert found.exact_match == pytest.approx(metrics.accuracy_score(targets, predicted))


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (np.zeros((2, 2)), [0, 1], r"logits must be \(N, 3\), one for each label, not \(2, 2\)"),
        (np.zeros((0, 3)), [], "there are no predictions to measure"),
        (np.full((1, 3), np.nan), [0], "the logits hold NaN: leave those images out"),
        (np.zeros((2, 3)), [0, 3], "a target is 3, and there are 3 classes"),
        (np.zeros((2, 3)), [0, -1], "a target is -1, and there are 3 classes"),
        (np.zeros((2, 3)), [0.0, 1.0], r"targets must be \(2,\) integers, not \(2,\) float64"),
        (np.zeros((2, 3)), [0], r"targets must be \(2,\) integers, not \(1,\) int64"),
    ],
)
def test_what_cannot_be_measured(logits, targets, message):
    with pytest.raises(InputError, match=message):
        measure(logits, np.array(targets), LABELS)


@pytest.mark.parametrize("targets", [[[0, 2]], [[0]]])
def test_several_labels_are_zeros_and_ones(targets):
    with pytest.raises(InputError, match=r"targets must be \(1, 2\) zeros and ones"):
        measure_multi_label(np.zeros((1, 2)), np.array(targets), ["a", "b"])


def test_a_logit_of_zero_predicts_its_label():
    logits = np.array([[0.0, -1e-9], [0.0, 5.0]])
    found = measure_multi_label(logits, np.array([[1, 0], [1, 1]]), ("dog", "cat"))
    assert (found.exact_match, found.micro_f1, found.macro_f1) == (1, 1, 1)
    assert [each.recall for each in found.per_class] == [1, 1]
    assert found.nll == pytest.approx((3 * np.log(2) + np.log1p(np.exp(-5))) / 4)


def test_of_equal_logits_the_first_label_is_predicted():
    found = measure(np.zeros((3, 6)), np.array([0, 4, 5]), tuple("abcdef"))
    assert (found.top1, found.top5) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert found.confusion[:, 0].tolist() == [1, 0, 0, 0, 1, 1]
    assert found.nll == pytest.approx(np.log(6))


def test_a_logit_of_0_is_a_probability_of_a_half_and_says_yes():
    """The boundary belongs to yes, as in scikit-learn's `decision >= 0`."""
    found = measure_multi_label(np.array([[0.0, -1.0], [-1.0, 0.0]]), np.array([[1, 0], [0, 0]]), ["a", "b"])
    assert (found.exact_match, found.micro_f1) == (0.5, pytest.approx(2 / 3))
    assert {each.label: (each.precision, each.recall) for each in found.per_class} == {
        "a": (1, 1),
        "b": (0, 0),
    }
    half = [each for each in found.calibration if each.count and each.lower <= 0.5 < each.upper]
    assert [(each.count, each.confidence, each.accuracy) for each in half] == [(2, 0.5, 0.5)]
    assert found.nll == pytest.approx((2 * np.log(2) + 2 * np.log(1 + np.exp(-1))) / 4)
