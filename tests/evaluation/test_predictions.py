"""What was predicted for each image: order, ties, several labels, cells of a table."""

from __future__ import annotations

import numpy as np
import pytest

from mlx_aimv2.evaluation.predictions import Predictions

LABELS = ("dog", "cat", "owl", "jay", "ant", "bee", "cow")


def test_the_five_likeliest_labels_best_first():
    logits = np.log(np.array([[1, 2, 3, 4, 5, 6, 7], [7, 1, 1, 1, 1, 1, 1]], dtype=np.float32))
    found = Predictions.from_logits([("a", (6,)), ("b", (2,))], logits, LABELS, False)
    first, second = found
    assert (len(found), first.path, first.truth, first.predicted) == (2, "a", ("cow",), ("cow",))
    assert [label for label, _ in first.ranked] == ["cow", "bee", "ant", "jay", "owl"]
    assert [score for _, score in first.ranked] == pytest.approx([7 / 28, 6 / 28, 5 / 28, 4 / 28, 3 / 28])
    assert (second.truth, second.predicted, found[1]) == (("owl",), ("dog",), second)


def test_equal_scores_stand_in_the_order_of_the_labels():
    (found,) = Predictions.from_logits([("a", (1,))], np.array([[0.0, 3, 0, 3, 0, 3, 0]]), LABELS, False)
    assert [label for label, _ in found.ranked] == ["cat", "jay", "bee", "dog", "owl"]


def test_with_several_labels_all_from_a_logit_of_zero_are_predicted():
    logits = np.array([[0.0, -1e-6, 2], [-1, -2, -3]])
    found = Predictions.from_logits([("a", (0, 2)), ("b", ())], logits, LABELS[:3], True)
    assert [one.predicted for one in found] == [("dog", "owl"), ()]
    assert [one.truth for one in found] == [("dog", "owl"), ()]
    assert found[0].ranked == (
        ("owl", pytest.approx(1 / (1 + np.exp(-2)))),
        ("dog", 0.5),
        ("cat", pytest.approx(0.5)),
    )


def test_plain_values_and_cells():
    found = Predictions.from_logits([("a", (0, 1))], np.array([[0.0, -1.0]]), LABELS[:2], True)
    (one,) = found
    score = pytest.approx(1 / (1 + np.e))
    assert one.to_dict() == {
        "path": "a",
        "truth": ["dog", "cat"],
        "predicted": ["dog"],
        "score": 0.5,
        "predictions": [{"label": "dog", "score": 0.5}, {"label": "cat", "score": score}],
    }
    assert one.rows() == [["a", "dog;cat", "dog", 0.5, "dog", 0.5, "cat", score]]
    assert list(found.columns) == [
        "path",
        "truth",
        "predicted",
        "score",
        "label_1",
        "score_1",
        "label_2",
        "score_2",
    ]


def test_there_may_be_none():
    assert list(Predictions()) == [] and len(Predictions()) == 0
