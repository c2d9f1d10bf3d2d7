"""Retrieval: ranks by hand, several captions for an image, equal captions, ties, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mlx_aimv2 import load
from mlx_aimv2.errors import InputError, NonFiniteError
from mlx_aimv2.evaluation.retrieval import evaluate_retrieval, retrieve
from mlx_aimv2.events import Notice, Progress


def unit(rows):
    x = np.array(rows, dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_ranks_are_those_counted_by_hand():
    images = unit([[1, 0.1, 0], [0, 1, 0], [0, 0.2, 1]])
    texts = unit([[1, 0, 0], [0.2, 1, 0], [0.9, 1, 0]])  # the last one is the third image's, and far from it
    metrics, best = retrieve(images, texts, [[0], [1], [2]])
    assert metrics.image_to_text.tolist() == [1, 1, 2]
    assert metrics.text_to_image.tolist() == [1, 1, 3]
    assert best.tolist() == [0, 1, 1]


def brute_force(images, texts, belonging):
    scores = images @ texts.T
    of_images = [
        1 + sum(scores[i, t] >= max(scores[i, own]) for t in range(len(texts)) if t not in own)
        for i, own in enumerate(belonging)
    ]
    of_texts = []
    for t in range(len(texts)):
        own = [i for i, numbers in enumerate(belonging) if t in numbers]
        best = max(scores[i, t] for i in own)
        of_texts.append(1 + sum(scores[i, t] >= best for i in range(len(images)) if i not in own))
    return of_images, of_texts


def test_many_images_with_several_captions_some_of_them_shared(monkeypatch):
    monkeypatch.setattr("mlx_aimv2.evaluation.retrieval.ROWS", 7)
    rng = np.random.default_rng(0)
    images, texts = unit(rng.normal(size=(40, 8))), unit(rng.normal(size=(50, 8)))
    belonging = [[k] + ([40 + k // 2] if k < 20 else []) for k in range(40)]
    metrics, _ = retrieve(images, texts, belonging)
    of_images, of_texts = brute_force(images, texts, belonging)
    assert metrics.image_to_text.tolist() == of_images
    assert metrics.text_to_image.tolist() == of_texts
    numbers = metrics.to_dict()
    assert (numbers["images"], numbers["captions"]) == (40, 50)
    assert numbers["text_to_image_recall@5"] == np.mean(np.array(of_texts) <= 5)
    assert numbers["image_to_text_median_rank"] == np.median(of_images)
    assert numbers["recall@10"] == pytest.approx(
        (np.mean(np.array(of_texts) <= 10) + np.mean(np.array(of_images) <= 10)) / 2
    )
    assert [row[0] for row in metrics.rows()][:3] == [
        "images",
        "different captions",
        "image to text recall@1",
    ]


def test_a_model_that_says_the_same_of_everything_finds_nothing():
    same = np.ones((9, 4), np.float32) / 2
    metrics, _ = retrieve(same, same, [[k] for k in range(9)])
    assert metrics.numbers()["recall@5"] == 0 and metrics.numbers()["image_to_text_median_rank"] == 9


def test_what_does_not_fit():
    x = np.ones((2, 3), np.float32)
    for belonging in ([[0]], [[0], []], []):
        with pytest.raises(InputError, match="images need a caption each"):
            retrieve(x, x, belonging)
    with pytest.raises(InputError, match="the 2 texts have to belong to an image each"):
        retrieve(x, x, [[0], [0]])
    with pytest.raises(NonFiniteError, match="the embeddings hold NaN or infinity"):
        retrieve(x * np.nan, x, [[0], [1]])


@pytest.fixture
def images(tmp_path):
    """Six images with captions."""
    examples = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.effect_noise((60, 60), 20 + 30 * number).save(path)
        examples.append((str(path), (f"noise {number}", f"number {number}")))
    return examples


def test_a_pair_is_measured_and_broken_images_are_named(tiny_pair, images, tmp_path):
    (tmp_path / "3.png").write_bytes(b"no")
    events = []
    found = evaluate_retrieval(*load(tiny_pair), images, batch_size=2, on_event=events.append)
    assert [one.source for one in found.skipped] == [str(tmp_path / "3.png")]
    values = found.to_dict()
    assert (values["images"], values["captions"]) == (5, 10)
    assert all(miss["rank"] > 1 and miss["found"] != miss["path"] for miss in values["mistakes"])
    ranks = [miss["rank"] for miss in values["mistakes"]]
    assert ranks == sorted(ranks, reverse=True) and len(ranks) <= 10
    assert found.charts() == {}


def test_equal_captions_are_one_caption_of_all_their_images(tiny_pair, images):
    examples = [(path, ("a", "a", f"b {k // 2}")) for k, (path, _) in enumerate(images)]
    metrics = evaluate_retrieval(*load(tiny_pair), examples).metrics
    assert (len(metrics.image_to_text), len(metrics.text_to_image)) == (6, 4)
    assert metrics.text_to_image[0] == 1  # every image is right for "a"


def test_what_cannot_be_measured(tiny_pair, tiny_vision, images, tmp_path):
    with pytest.raises(InputError, match="which captions need: use the image-text pair lit"):
        evaluate_retrieval(*load(tiny_vision), images)
    with pytest.raises(InputError, match="there are no images to evaluate"):
        evaluate_retrieval(*load(tiny_pair), [])
    with pytest.raises(InputError, match="none of 1 images can be read, the first because "):
        evaluate_retrieval(*load(tiny_pair), [(str(tmp_path / "none.png"), ("x",))])


def test_captions_are_counted_while_they_are_embedded_and_named_where_they_are_cut(tiny_pair, tmp_path):
    examples = []
    for k in range(3):
        Image.new("RGB", (60, 60), (80 * k, 0, 0)).save(tmp_path / f"{k}.png")
        examples.append((str(tmp_path / f"{k}.png"), [f"a red {k}", f"{k} " + "word " * 90]))
    events = []
    evaluate_retrieval(*load(tiny_pair), examples, on_event=events.append)
    done = [event.done for event in events if isinstance(event, Progress) and event.unit == "captions"]
    assert done == list(range(7))
    told = [event.message for event in events if isinstance(event, Notice)]
    starts = [f"{k} " + "word " * 11 + "wo…" for k in range(3)]
    assert told == [
        f"the caption {start!r} is longer than the model takes: the end does not count" for start in starts
    ]


def test_a_buffer_of_mlx_data_is_measured_like_a_list(tiny_pair, images):
    dx = pytest.importorskip("mlx.data", reason="mlx-data has no package for this machine")
    samples = [
        {"image": path.encode(), "id": path.encode(), "caption": "\n".join(captions).encode()}
        for path, captions in images
    ]
    loaded = load(tiny_pair)
    found = evaluate_retrieval(*loaded, dx.buffer_from_vector(samples), batch_size=2)
    assert found.to_dict() == evaluate_retrieval(*loaded, images, batch_size=2).to_dict()
    samples[0]["caption"] = b"\n"
    with pytest.raises(InputError, match=r"0\.png has no caption"):
        evaluate_retrieval(*loaded, dx.buffer_from_vector(samples))
