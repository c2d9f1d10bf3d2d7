"""Evaluation of labels: a trained head, zero-shot pairs, mistakes, refusals."""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from helpers.shades import LABELS

from mlx_aimv2 import ZeroShotClassifier, load
from mlx_aimv2.errors import InputError, NonFiniteError
from mlx_aimv2.evaluation.labels import evaluate_labels
from mlx_aimv2.events import Notice, Progress, Skipped
from mlx_aimv2.inference.trained_head import TrainedClassifier
from mlx_aimv2.models.classifier import MULTI_LABEL, Classifier
from mlx_aimv2.models.classifier_heads import LinearHead


def several_labels(learned):
    """The same classifier, with every label a decision of its own; and the processor."""
    classifier = Classifier(learned[0].trunk, learned[0].head, "mean")
    classifier.labels, classifier.task = LABELS, MULTI_LABEL
    return classifier, learned[1]


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_a_classifier_that_is_right(learned, shades, batch_size):
    found = evaluate_labels(*learned, shades, LABELS, batch_size=batch_size)
    assert (found.metrics.count, found.metrics.top1, found.mistakes) == (9, 1, ())
    np.testing.assert_array_equal(found.metrics.confusion, 3 * np.eye(3))


def test_labels_are_found_by_name(learned, shades):
    turned = [(path, (2 - numbers[0],)) for path, numbers in shades]
    found = evaluate_labels(*learned, turned, LABELS[::-1])
    assert (found.metrics.top1, found.metrics.labels) == (1, LABELS)


def test_without_names_the_numbers_are_taken(learned, shades):
    classifier = Classifier(learned[0].trunk, learned[0].head, "mean")
    assert evaluate_labels(classifier, learned[1], shades, ("x", "y", "z")).metrics.top1 == 1


def test_an_unknown_label_is_refused_by_name(learned, shades):
    message = "the classifier does not know 'red': it was trained on 'dark', 'bright', 'grey'; evaluate it on"
    with pytest.raises(InputError, match=message):
        evaluate_labels(*learned, shades, ("dark", "red", "grey"))


def test_broken_images_are_skipped_and_named(learned, shades, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    events = []
    examples = [*shades[:2], (str(tmp_path / "broken.png"), (0,)), *shades[2:]]
    found = evaluate_labels(*learned, examples, LABELS, on_event=events.append)
    assert (found.metrics.count, found.metrics.top1) == (9, 1)
    assert [each.source for each in found.skipped] == [str(tmp_path / "broken.png")]
    assert [event for event in events if isinstance(event, Skipped)] == list(found.skipped)
    assert events[-1] == Progress("evaluating", 10, 10)
    assert found.to_dict()["skipped"][0]["path"] == str(tmp_path / "broken.png")


def test_mistakes_come_with_the_surest_first(learned, shades):
    wrong = [(path, (0,)) for path, _ in shades]
    found = evaluate_labels(*learned, wrong, LABELS)
    assert len(found.mistakes) == 6
    confidences = [each.confidence for each in found.mistakes]
    assert confidences == sorted(confidences, reverse=True) and confidences[0] > 0.99
    assert {each.truth for each in found.mistakes} == {("dark",)}
    assert {each.predicted for each in found.mistakes} == {("bright",), ("grey",)}


def test_several_labels(learned, shades):
    found = evaluate_labels(*several_labels(learned), shades, LABELS)
    assert (found.metrics.exact_match, found.metrics.map, found.metrics.top1) == (1, 1, None)
    wrong = [(shades[0][0], (0, 1)), (shades[1][0], ()), *shades[2:]]
    found = evaluate_labels(*several_labels(learned), wrong, LABELS)
    named = {(each.path, each.truth, each.predicted) for each in found.mistakes}
    assert named == {(shades[0][0], ("dark", "bright"), ("dark",)), (shades[1][0], (), ("bright",))}
    assert all(each.confidence > 0.99 for each in found.mistakes)


def test_the_model_is_put_into_eval_mode(learned, shades):
    learned[0].train()
    evaluate_labels(*learned, shades[:1], LABELS)
    assert not learned[0].trunk.training and not learned[0].head.training


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "there are no images to evaluate"),
        ([("a.png", (0, 1))], "a.png has 2 labels, and this model gives every image exactly one"),
        ([("a.png", ())], "a.png has 0 labels, and this model gives every image exactly one"),
        ([("a.png", (3,))], "a.png has the label number 3, and there are 3 labels"),
        ([("missing.png", (1,))], "none of 1 images can be read, the first because .*missing.png"),
    ],
)
def test_examples_that_are_refused(learned, examples, message):
    with pytest.raises(InputError, match=message):
        evaluate_labels(*learned, examples, LABELS)


def test_a_head_of_another_width_is_refused(learned, shades):
    classifier = Classifier(learned[0].trunk, LinearHead(64, 4), "mean")
    with pytest.raises(InputError, match="the head gives 4 logits, and there are 3 labels"):
        evaluate_labels(classifier, learned[1], shades, LABELS)


def test_an_output_that_is_not_finite_ends_it(learned, shades):
    head = LinearHead(64, 3)
    head.linear.bias = mx.array([0, float("nan"), 0])
    classifier = Classifier(learned[0].trunk, head, "mean")
    with pytest.raises(NonFiniteError, match=r"0\.png: the model's output holds NaN or infinity"):
        evaluate_labels(classifier, learned[1], shades, LABELS)


def test_zero_shot_equals_the_classifier_of_words(tiny_pair, shades):
    model, processor = load(tiny_pair)
    found = evaluate_labels(model, processor, shades, ("a_dark one", "bright", "grey"))
    classifier = ZeroShotClassifier(model, processor, ["a dark one", "bright", "grey"])
    best = [ranked[0] for ranked in classifier([path for path, _ in shades])]
    expected = [
        label == classifier.labels[numbers[0]] for (label, _), (_, numbers) in zip(best, shades, strict=True)
    ]
    assert found.metrics.top1 == pytest.approx(np.mean(expected))
    assert found.metrics.labels == ("a_dark one", "bright", "grey")
    sure = {each.path: each.confidence for each in found.mistakes}
    for (path, _), (_, score), right in zip(shades, best, expected, strict=True):
        assert right or sure[path] == pytest.approx(score, rel=1e-4)


def test_zero_shot_templates_are_used_and_checked(tiny_pair, shades):
    given = (*load(tiny_pair), shades, LABELS)
    one, other = (evaluate_labels(*given, t).metrics.nll for t in (None, ["this is {}!"]))
    assert one != pytest.approx(other)
    with pytest.raises(InputError, match=r"the template 'no place' has no \{\} for the label to go into"):
        evaluate_labels(*given, ["no place"])


def test_templates_do_not_go_with_a_head(learned, shades):
    with pytest.raises(InputError, match="templates are for zero-shot labels, and this model has a head"):
        evaluate_labels(*learned, shades, LABELS, ["a {}"])


def test_zero_shot_needs_texts_and_one_label_each(tiny_pair, learned, shades):
    with pytest.raises(InputError, match="which zero-shot labels need: use the image-text pair lit"):
        evaluate_labels(learned[0].trunk, learned[1], shades, LABELS)
    with pytest.raises(InputError, match="has 2 labels"):
        evaluate_labels(*load(tiny_pair), [(shades[0][0], (0, 1))], LABELS)


def test_labels_that_are_the_same_words_are_refused_or_given_names(tiny_pair, shades):
    message = "the classes 'a b' and 'a_b' are both 'a b' in a prompt: tell them apart with --labels"
    with pytest.raises(InputError, match=message):
        evaluate_labels(*load(tiny_pair), shades, ("a b", "a_b", "c"))
    texts = {"a b": "a b", "a_b": "a letter", "c": "c"}
    found = evaluate_labels(*load(tiny_pair), shades, texts)
    assert found.metrics.labels == ("a b", "a_b", "c")
    assert found.to_dict()["label_texts"] == ["a b", "a letter", "c"]


def constant(trunk, *biases):
    """A classifier that gives every image the same logits."""
    head = LinearHead(64, len(biases))
    head.linear.weight, head.linear.bias = mx.zeros((len(biases), 64)), mx.array(biases)
    classifier = Classifier(trunk, head, "mean")
    classifier.labels = LABELS[: len(biases)]
    return classifier


def test_a_logit_of_zero_is_a_yes(learned, shades):
    classifier = constant(learned[0].trunk, 0.0, -0.001, 0.0)
    examples = [(shades[0][0], (0, 2)), (shades[1][0], (0,))]
    classifier.task = MULTI_LABEL
    found = evaluate_labels(classifier, learned[1], examples, LABELS)
    assert [each.predicted for each in found.predictions] == [("dark", "grey"), ("dark", "grey")]
    ((mistake,), metrics) = found.mistakes, found.metrics
    assert (mistake.path, mistake.predicted, mistake.confidence) == (shades[1][0], ("dark", "grey"), 0.5)
    assert metrics.exact_match == 0.5
    ((*ranked,),) = TrainedClassifier(classifier, learned[1])(shades[0][0])
    assert ranked == [("dark", 0.5), ("grey", 0.5), ("bright", pytest.approx(0.49975))]


def test_of_equal_logits_the_first_label_stands_first(learned, shades):
    classifier = constant(learned[0].trunk, 0.0, 2.0, 2.0)
    found = evaluate_labels(classifier, learned[1], shades, LABELS)
    assert [label for label, _ in found.predictions[0].ranked] == ["bright", "grey", "dark"]
    assert found.metrics.confusion[:, 1].tolist() == [3, 3, 3]
    (ranked,) = TrainedClassifier(classifier, learned[1])(shades[0][0])
    assert [label for label, _ in ranked] == ["bright", "grey", "dark"]


def test_charts_are_pngs_and_a_confusion_matrix_needs_one_label_each(learned, shades):
    charts = evaluate_labels(*learned, shades, LABELS).charts()
    assert set(charts) == {"calibration.png", "confusion.png"}
    assert all(chart.startswith(b"\x89PNG") for chart in charts.values())
    assert set(evaluate_labels(*several_labels(learned), shades, LABELS).charts()) == {"calibration.png"}


def test_predictions_are_listed_where_they_are_asked_for(learned, shades):
    found = evaluate_labels(*learned, shades, LABELS)
    assert "predictions" not in found.to_dict()
    entries = json.loads(json.dumps(replace(found, lists_predictions=True).to_dict()))["predictions"]
    assert [(one["path"], one["truth"]) for one in entries] == [(path, [LABELS[k]]) for path, (k,) in shades]
    assert all(one["predicted"] == one["truth"] and one["score"] > 0.99 for one in entries)
    assert all(sum(each["score"] for each in one["predictions"]) == pytest.approx(1) for one in entries)


def test_zero_shot_reads_class_names_as_words_and_says_so(tiny_pair, shades):
    model, processor = load(tiny_pair)
    events = []
    names = ("DarkShade", "a_bright-one", "n01855672")
    found = evaluate_labels(model, processor, shades, names, on_event=events.append)
    with pytest.warns(UserWarning, match="looks like an id"):
        plain = evaluate_labels(model, processor, shades, ("Dark Shade", "a bright one", "n01855672"))
    assert found.metrics.labels == names and found.metrics.nll == pytest.approx(plain.metrics.nll)
    assert found.label_texts == ("Dark Shade", "a bright one", "n01855672")
    told = [event.message for event in events if isinstance(event, Notice)]
    assert told[0] == "names are read as words: 'DarkShade' as 'Dark Shade', 'a_bright-one' as 'a bright one'"
    assert told[1].startswith("1 of 3 labels looks like an id, which say nothing to a model: 'n01855672'")


# --- buffers of mlx-data


def buffer_of(shades, **changed):
    dx = pytest.importorskip("mlx.data", reason="mlx-data has no package for this machine")
    samples = [{"image": path.encode(), "label": numbers[0], "id": path.encode()} for path, numbers in shades]
    return dx.buffer_from_vector([{**sample, **changed} for sample in samples])


def test_a_buffer_is_evaluated_like_a_list(learned, shades):
    found, expected = (
        evaluate_labels(*learned, examples, LABELS) for examples in (buffer_of(shades), shades)
    )
    assert found.to_dict() == expected.to_dict()
    assert [prediction.path for prediction in found.predictions] == [path for path, _ in shades]
    turned = evaluate_labels(*learned, buffer_of(shades, label=b"bright"), LABELS[::-1])
    assert (turned.metrics.count, turned.metrics.top1) == (9, pytest.approx(1 / 3))


def test_a_broken_sample_is_skipped_by_its_name(learned, shades):
    dx = pytest.importorskip("mlx.data", reason="mlx-data has no package for this machine")
    samples = [
        {"image": b"nothing.jpg", "label": 0, "id": b"cat"},
        {"image": shades[0][0].encode(), "label": 0},
    ]
    events = []
    found = evaluate_labels(*learned, dx.buffer_from_vector(samples), LABELS, on_event=events.append)
    assert found.metrics.count == 1
    assert [event.source for event in events if isinstance(event, Skipped)] == ["cat"]


def test_labels_of_samples_are_checked(learned, shades):
    with pytest.raises(
        InputError, match=r"has no label: a sample needs the key label, which rename_key gives it"
    ):
        evaluate_labels(*learned, buffer_of(shades).rename_key("label", "class"), LABELS)
    with pytest.raises(InputError, match="has the label 'red', which is not one of 'dark', 'bright', 'grey'"):
        evaluate_labels(*learned, buffer_of(shades, label=b"red"), LABELS)
    with pytest.raises(InputError, match="has the label number 3, and there are 3 labels"):
        evaluate_labels(*learned, buffer_of(shades, label=3), LABELS)
    with pytest.raises(InputError, match="a Stream can only be embedded"):
        evaluate_labels(*learned, buffer_of(shades).to_stream(), LABELS)
