"""Labels for images: the scores, the templates, what is refused."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlx_aimv2 import Aimv2Model, Embedder, ZeroShotClassifier
from mlx_aimv2.errors import BrokenImageError, ImageError, InputError
from mlx_aimv2.events import Notice, Progress
from mlx_aimv2.inference.zero_shot import DEFAULT_TEMPLATES, check_templates, fill_template

LABELS = ["dog", "cat", "red bicycle"]
CHEAP = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = st.text(min_size=1, max_size=30).filter(str.strip)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


# --- scores


def test_every_label_comes_with_a_probability_best_first(pair, draw):
    for predictions in ZeroShotClassifier(*pair, LABELS)([draw(seed) for seed in range(4)]):
        assert sorted(label for label, _ in predictions) == sorted(LABELS)
        scores = [score for _, score in predictions]
        assert scores == sorted(scores, reverse=True)
        assert all(type(score) is float and 0 <= score <= 1 for score in scores)
        assert sum(scores) == pytest.approx(1, abs=1e-6)


def test_probabilities_are_those_of_the_models_logits(pair, draw):
    model, processor = pair
    logits = model(**processor(images=[draw(0), draw(1)], text=LABELS)).logits_per_image
    expected = np.array(mx.softmax(logits, axis=-1))
    found = ZeroShotClassifier(model, processor, LABELS, templates=["{}"])([draw(0), draw(1)])
    for row, predictions in zip(expected, found, strict=True):
        np.testing.assert_allclose([dict(predictions)[label] for label in LABELS], row, atol=1e-5)


def test_the_logit_scale_sharpens_probabilities_and_leaves_cosines(pair, draw):
    model, processor = pair
    found = {}
    for scale in (1.0, 4.0):
        model.logit_scale = mx.array(scale)
        for score in ("softmax", "cosine"):
            predictions = ZeroShotClassifier(model, processor, LABELS, score=score)(draw(0))[0]
            found[score, scale] = [value for _, value in predictions]
    assert found["softmax", 4.0][0] > found["softmax", 1.0][0]
    np.testing.assert_allclose(found["cosine", 4.0], found["cosine", 1.0], atol=1e-7)


def test_a_cosine_is_the_dot_product_of_the_embeddings(pair, draw):
    images, embedder = [draw(0), draw(1)], Embedder(*pair)
    expected = embedder.images(images) @ embedder.texts(LABELS).T
    found = ZeroShotClassifier(*pair, LABELS, templates=["{}"], score="cosine")(images)
    for row, predictions in zip(expected, found, strict=True):
        np.testing.assert_allclose([dict(predictions)[label] for label in LABELS], row, atol=1e-6)
        assert [label for label, _ in predictions] == [LABELS[k] for k in np.argsort(-row)]


def test_a_single_label_has_a_cosine(pair, draw):
    [[(label, score)]] = ZeroShotClassifier(*pair, ["dog"], score="cosine")(draw(0))
    assert label == "dog" and -1 <= score < 1


# --- label embeddings


def test_a_label_is_the_normalized_mean_of_its_normalized_prompts(pair):
    templates = ["a {}", "two of {}", "{}", "no {} at all"]
    classifier, embedder = ZeroShotClassifier(*pair, LABELS, templates=templates), Embedder(*pair)
    for label, found in zip(LABELS, classifier.label_embeddings, strict=True):
        prompts = embedder.texts([template.replace("{}", label) for template in templates])
        np.testing.assert_allclose(found, unit(unit(prompts).mean(axis=0)), atol=1e-6)


def test_the_default_templates_leave_out_their_article_for_a_label_with_its_own(pair):
    classifier, embedder = ZeroShotClassifier(*pair, ["a dog", "cat"]), Embedder(*pair)
    prompts = {
        "a dog": [
            "a photo of a dog.", "a picture of a dog.", "a close-up photo of a dog.", "a photo of a dog.",
            "an image showing a dog.", "a dog",
        ],
        "cat": [template.replace("{}", "cat") for template in DEFAULT_TEMPLATES],
    }  # fmt: skip
    for found, texts in zip(classifier.label_embeddings, prompts.values(), strict=True):
        np.testing.assert_allclose(found, unit(embedder.texts(texts).mean(axis=0)), atol=1e-6)


def test_templates_of_the_user_are_taken_as_they_are(pair):
    classifier = ZeroShotClassifier(*pair, ["a dog", "cat"], templates=["a photo of a {}"])
    expected = Embedder(*pair).texts(["a photo of a a dog", "a photo of a cat"])
    np.testing.assert_allclose(classifier.label_embeddings, expected, atol=1e-6)


def test_one_template_may_be_a_plain_text(pair):
    plain, listed = (ZeroShotClassifier(*pair, LABELS, templates=t) for t in ("the {}", ["the {}"]))
    np.testing.assert_array_equal(plain.label_embeddings, listed.label_embeddings)


def test_labels_are_embedded_once(pair, draw, monkeypatch):
    calls, features = [], Aimv2Model.get_text_features

    def counted(model, input_ids, attention_mask=None):
        calls.append(len(input_ids))
        return features(model, input_ids, attention_mask)

    monkeypatch.setattr(Aimv2Model, "get_text_features", counted)
    classifier = ZeroShotClassifier(*pair, LABELS)
    assert sum(calls) == len(LABELS) * len(DEFAULT_TEMPLATES)
    calls.clear()
    classifier([draw(0), draw(1)])
    list(classifier.stream([draw(0), draw(1)]))
    assert calls == []


def test_a_background_is_one_more_label(pair, draw):
    classifier = ZeroShotClassifier(*pair, ["dog"], background="something else")
    assert classifier.labels == ["dog", "something else"]
    assert {label for label, _ in classifier(draw(0))[0]} == {"dog", "something else"}


def test_many_labels_take_several_batches_of_texts(pair):
    labels = [f"thing {k}" for k in range(70)]
    found = ZeroShotClassifier(*pair, labels, templates=["{}", "a {}"]).label_embeddings
    alone = ZeroShotClassifier(*pair, labels[-2:], templates=["{}", "a {}"]).label_embeddings
    np.testing.assert_allclose(found[-2:], alone, atol=1e-6)


# --- many images


def test_a_stream_keeps_the_order_and_goes_on_after_broken_images(pair, draw):
    classifier = ZeroShotClassifier(*pair, LABELS)
    images = [draw(0), b"no image", draw(2), b"", draw(4)]
    expected = classifier([draw(0), draw(2), draw(4)])
    results = list(classifier.stream(images))
    assert [result.index for result in results] == [0, 1, 2, 3, 4]
    assert [isinstance(result.error, ImageError) for result in results] == [False, True, False, True, False]
    for found, predictions in zip(results[::2], expected, strict=True):
        assert [label for label, _ in found.predictions] == [label for label, _ in predictions]
        np.testing.assert_allclose([s for _, s in found.predictions], [s for _, s in predictions], atol=1e-5)


def test_no_images_have_no_predictions(pair):
    assert ZeroShotClassifier(*pair, LABELS)([]) == []


def test_a_broken_image_in_a_call_is_an_error(pair, draw):
    with pytest.raises(BrokenImageError, match="image 1: image of 8 bytes: not an image"):
        ZeroShotClassifier(*pair, LABELS)([draw(0), b"no image"])


# --- templates


@pytest.mark.parametrize(
    ("template", "label", "filled"),
    [
        ("a photo of a {}.", "dog", "a photo of a dog."),
        ("a photo of a {}.", "a dog", "a photo of a dog."),
        ("a photo of a {}.", "an owl", "a photo of an owl."),
        ("a photo of the {}.", "two dogs", "a photo of two dogs."),
        ("an {}", "The Beatles", "The Beatles"),
        ("a photo of a {}.", "antelope", "a photo of a antelope."),  # no article, though it begins like one
        ("a photo of a {}.", "a", "a photo of a a."),
        ("a big {}", "a dog", "a big a dog"),  # only the article right before the label gives way
        ("pizza {}", "a dog", "pizza a dog"),
        ("{} and {}", "x", "x and x"),
        ("{}", "{}", "{}"),
        ("{}", "{0} {name}", "{0} {name}"),
        ("100% {}", "%s", "100% %s"),
    ],
)
def test_a_label_goes_into_a_template(template, label, filled):
    assert fill_template(template, label) == filled


@given(WORDS, WORDS, WORDS)
def test_the_label_is_in_the_prompt_letter_by_letter(before, label, after):
    assert label in fill_template(f"{before}{{}}{after}", label)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of texts that are long, look like ids, or are the same
@given(st.lists(WORDS, min_size=2, max_size=4, unique=True), st.lists(WORDS, min_size=1, max_size=3))
@CHEAP
def test_any_labels_and_templates_give_finite_scores(pair, draw, labels, templates):
    classifier = ZeroShotClassifier(*pair, labels, templates=[f"{template} {{}}" for template in templates])
    [predictions] = classifier(draw(0))
    assert {label for label, _ in predictions} == set(labels)
    assert sum(score for _, score in predictions) == pytest.approx(1, abs=1e-5)


@given(st.text(max_size=20))
@CHEAP
def test_any_template_is_checked(template):
    assume("{}" not in template)
    with pytest.raises(InputError, match=r"has no \{\} for the label to go into"):
        check_templates([template])


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": []}, "no labels: give at least two"),
        ({"labels": ["dog"]}, "a softmax over one label is 1 whatever the image shows: give another label"),
        ({"labels": "dog"}, "a softmax over one label is 1"),  # not the letters d, o, g
        ({"labels": [], "background": "none"}, "a softmax over one label is 1"),
        ({"labels": ["dog", "cat", "dog"]}, "the label 'dog' is given twice"),
        ({"labels": ["dog", "cat"], "background": "cat"}, "the label 'cat' is given twice"),
        ({"labels": ["dog", ""]}, "a label must be a text, not ''"),
        ({"labels": ["dog", " \t"]}, r"a label must be a text, not ' \\t'"),
        ({"labels": ["dog", 7]}, "a label must be a text, not 7"),
        ({"labels": LABELS, "score": "sigmoid"}, "score 'sigmoid' is not one of softmax, cosine"),
        ({"labels": LABELS, "templates": []}, "no templates: give at least one"),
        ({"labels": LABELS, "templates": ["{}", "a photo"]}, "the template 'a photo' has no {}"),
        ({"labels": LABELS, "templates": ["{label}"]}, "the template '{label}' has no {}"),
        ({"labels": LABELS, "templates": [None]}, "the template None has no {}"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(pair, arguments, message):
    with pytest.raises(InputError, match=message):
        ZeroShotClassifier(*pair, **arguments)


@pytest.mark.parametrize("kind", ["vision", "native"])
def test_a_vision_encoder_knows_no_labels(request, kind):
    with pytest.raises(InputError, match="which zero-shot labels need: use the image-text pair lit"):
        ZeroShotClassifier(*request.getfixturevalue(kind), LABELS)


# --- what happens meanwhile, and names


def test_labels_are_counted_while_they_are_embedded(pair):
    events = []
    labels = [f"thing number {k}" for k in range(25)]
    ZeroShotClassifier(*pair, labels, on_event=events.append)
    assert [event for event in events if not isinstance(event, Progress)] == []
    done = [(event.stage, event.done, event.total, event.unit) for event in events]
    assert done == [("labels", count, 25, "labels") for count in (0, 10, 20, 25)]


def test_more_templates_than_a_batch_holds_are_one_label_at_a_time(pair):
    templates = [f"{k} of a {{}}" for k in range(70)]
    events = []
    found = ZeroShotClassifier(*pair, ["dog", "cat"], templates, on_event=events.append)
    assert [event.done for event in events] == [0, 1, 2]
    prompts = Embedder(*pair).texts([template.replace("{}", "cat") for template in templates])
    np.testing.assert_allclose(found.label_embeddings[1], unit(prompts.mean(axis=0)), atol=1e-6)


def test_labels_may_have_names(pair, draw):
    names = {"n1": "a dog", "n2": "a cat"}
    named, plain = (ZeroShotClassifier(*pair, labels) for labels in (names, list(names.values())))
    assert (named.labels, named.texts, plain.labels) == (["n1", "n2"], ["a dog", "a cat"], ["a dog", "a cat"])
    np.testing.assert_allclose(named.label_embeddings, plain.label_embeddings, atol=1e-7)
    assert {label for label, _ in named(draw(0))[0]} == {"n1", "n2"}


def test_labels_that_are_too_long_are_named_once_each(pair):
    notices = []
    labels = ["dog", *(f"{k} " + "word " * 90 for k in range(8))]
    ZeroShotClassifier(*pair, labels, on_event=notices.append)
    messages = [event.message for event in notices if isinstance(event, Notice)]
    starts = [f"{k} " + "word " * 11 + "wo…" for k in range(5)]
    assert messages == [
        *(f"the label {start!r} is longer than the model takes: the end does not count" for start in starts),
        "3 more labels are longer than the model takes: the end does not count",
    ]


def test_without_a_callback_notices_are_warnings(pair):
    with pytest.warns(
        UserWarning, match="1 of 2 labels looks like an id, which say nothing to a model: 'n01855672'"
    ):
        ZeroShotClassifier(*pair, ["dog", "n01855672"])
    with pytest.warns(
        UserWarning, match="the same words, of which the first is always chosen: 'dog', 'Dog': 'dog'"
    ):
        ZeroShotClassifier(*pair, ["dog", "Dog"])


# --- articles inside labels, ties, a scale of nothing


@pytest.mark.parametrize(
    "label",
    ["sea lion", "banana split", "pizza an apple", "stone wall", "a", "piano bench", "lathe", "tofu", "Anna Smith",
     "no-one", "the", "one", "someone else", "mandolin", "panda bear"],
)  # fmt: skip
def test_an_article_inside_a_label_is_none(label):
    assert fill_template("a photo of a {}.", label) == f"a photo of a {label}."
    assert fill_template("a photo of the {}.", label) == f"a photo of the {label}."


@pytest.mark.parametrize(
    "label", ["a dog", "An owl", "the sea", "some milk", "two dogs", "no one", "my cat", "a\tdog"]
)
def test_an_article_of_a_label_takes_the_place_of_the_templates(label):
    assert fill_template("a photo of a {}.", label) == f"a photo of {label}."
    assert fill_template("an {} and the {}", label) == f"{label} and {label}"
    assert fill_template("a pizza {}", label) == f"a pizza {label}"


def test_equal_scores_stand_in_the_order_of_the_labels(pair, draw):
    classifier = ZeroShotClassifier(*pair, ["dog", "cat", "owl", "jay"])
    classifier.label_embeddings[1] = classifier.label_embeddings[3] = classifier.label_embeddings[0]
    [ranked] = classifier(draw(0))
    labels = [label for label, _ in ranked]
    assert [label for label in labels if label != "owl"] == ["dog", "cat", "jay"]
    assert len({score for label, score in ranked if label != "owl"}) == 1


def test_a_logit_scale_of_zero_is_a_factor_of_one(pair, draw):
    model, processor = pair
    model.logit_scale = mx.array(0.0)
    found = ZeroShotClassifier(model, processor, ["dog", "cat"])
    (row,) = found.embedder.images([draw(0)])
    expected = row @ found.label_embeddings.T
    np.testing.assert_allclose(found.logits(row[None])[0], expected, atol=1e-6)
