"""What a head is for, and heads that come with adapters."""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import LoadOptions, load
from mlx_aimv2.adapters.attach import adapted
from mlx_aimv2.adapters.store import write_tensors
from mlx_aimv2.adapters.task import Task, read_task, write_task
from mlx_aimv2.adapters.weights import HEAD
from mlx_aimv2.checkpoints.identity import Origin
from mlx_aimv2.errors import ConfigError, InputError, MismatchError, NotACheckpointError
from mlx_aimv2.models.classifier import Classifier
from mlx_aimv2.models.classifier_heads import make_head
from mlx_aimv2.processing.image_config import ImageProcessorConfig

BASE = Origin("apple/aimv2-large-patch14-224", "0" * 40, "0123456789abcdef", "apple", "float32")
LABELS = ("cat", "dog", "Großer Panda")


def task(**values):
    return Task(**{"labels": LABELS, "base": BASE, "method": "lora", "version": "0.1.0", **values})


def write_head(folder, one, width=64):
    """A folder with a head and its task, and that head."""
    folder.mkdir(exist_ok=True)
    head = make_head(one.head, width, len(one.labels))
    write_tensors(folder / HEAD, dict(tree_flatten(head.parameters())), {"format": "mlx"})
    write_task(folder, one)
    return head.eval()


def test_a_task_comes_back(tmp_path):
    one = task(
        multi_label=True,
        pooling="attentive",
        head={"kind": "attentive", "heads": 4},
        preprocessing=ImageProcessorConfig.default(56).to_dict(),
        base=replace(BASE, revision=None, quantization="4-bit affine, groups of 64"),
    )
    assert read_task(write_task(tmp_path, one).parent) == one
    data = json.loads((tmp_path / "task.json").read_text())
    assert data["format"] == 1 and data["labels"] == list(LABELS)
    assert set(data["base"]) == {"name", "revision", "checkpoint", "layout", "dtype", "quantization"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "detection"}, "task is 'detection', which is not classification"),
        ({"pooling": "max"}, "pooling is 'max', which is not one of mean, head, attentive"),
        ({"labels": ()}, "labels has to be a list of names, and none of them empty"),
        ({"labels": ("cat", "")}, "labels has to be a list of names, and none of them empty"),
        ({"labels": ("cat", "cat")}, "labels names a class twice"),
        ({"labels": ("cat", "\ud800")}, "labels has a name with half a surrogate pair, which is no text"),
        ({"multi_label": 1}, "multi_label is 1, but has to be true or false"),
        ({"head": "linear"}, "head has to be an object, not a str"),
        ({"preprocessing": []}, "preprocessing has to be an object, not a list"),
        (
            {"preprocessing": {"image_mean": 0, "size": -1}},
            "size is -1, but has to be a whole number of pixels",
        ),
        ({"method": None}, "method has to be a text, not a NoneType"),
    ],
)
def test_values_no_classifier_could_have_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        task(**values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format=2), "format is 2, and this version reads 1: update mlx-aimv2"),
        (lambda data: data.pop("format"), "format is None, and this version reads 1"),
        (
            lambda data: data.update(colour="red"),
            "task.json has other keys than it should: 1 unknown: colour",
        ),
        (
            lambda data: (data.pop("labels"), data.pop("head"), data.update(a=1)),
            "2 missing: head, labels; 1 unknown: a",
        ),
        (lambda data: data.update(labels="cat"), "labels has to be a list of names, not a str"),
        (lambda data: data.update(base=[]), "base has to be an object, not a list"),
        (
            lambda data: data["base"].pop("checkpoint"),
            "base has other keys than it should: 1 missing: checkpoint",
        ),
        (lambda data: data["base"].update(checkpoint=5), "base: checkpoint has to be a text, not 5"),
        (lambda data: data["base"].update(name=None), "base: name has to be a text, not None"),
    ],
)
def test_files_that_this_package_does_not_write_are_refused(tmp_path, change, message):
    path = write_task(tmp_path, task())
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=message) as caught:
        read_task(tmp_path)
    assert str(caught.value).startswith(str(path))


def test_a_damaged_file_is_named_once(tmp_path):
    (tmp_path / "task.json").write_text("[]")
    with pytest.raises(ConfigError) as caught:
        read_task(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'task.json'} must hold a JSON object, not list"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotACheckpointError, match=r"holds no trained head: it lacks task\.json"):
        read_task(tmp_path)


@pytest.mark.parametrize(
    ("variant", "pooling", "head"),
    [
        ("fixed", "mean", {"kind": "linear", "batch_norm": True}),
        ("fixed", "attentive", {"kind": "attentive", "heads": 4, "queries": 2}),
        ("head", "head", {"kind": "linear"}),
        ("lit", "head", {"kind": "linear"}),
    ],
)
def test_adapter_and_head_make_a_classifier(
    checkpoint, with_adapter, tmp_path, pixels, variant, pooling, head
):
    base = checkpoint(variant)
    model = with_adapter(base, tmp_path / "a")
    one = task(base=model.origin, pooling=pooling, head=head, multi_label=pooling == "attentive")
    trained_head = write_head(tmp_path / "a", one)
    classifier, processor = load(base, dtype="float32", adapter_path=tmp_path / "a")
    assert isinstance(classifier, Classifier) and classifier.labels == LABELS
    assert classifier.multi_label == one.multi_label and not classifier.training
    assert classifier.origin.adapter and classifier.origin.checkpoint == model.origin.checkpoint
    expected = Classifier(model.vision, trained_head, pooling).eval()
    assert mx.array_equal(classifier(pixels), expected(pixels))
    assert processor.image_processor.config == load(base)[1].image_processor.config


def test_a_head_alone_makes_a_classifier(tiny_vision, tmp_path, pixels):
    model, _ = load(tiny_vision, dtype="float32")
    head = write_head(tmp_path / "a", task(base=model.origin, method="linear"))
    classifier, _ = load(tiny_vision, dtype="float32", adapter_path=tmp_path / "a")
    assert mx.array_equal(classifier(pixels), Classifier(model, head, "mean")(pixels))
    assert not adapted(classifier) and classifier.origin == model.origin


def test_images_are_prepared_as_in_training(tiny_vision, tmp_path):
    model, processor = load(tiny_vision)
    settings = replace(processor.image_processor.config, image_mean=(0.5, 0.5, 0.5), resample=2)
    write_head(tmp_path / "a", task(base=model.origin, preprocessing=settings.to_dict()))
    _, other = load(tiny_vision, adapter_path=tmp_path / "a")
    assert other.image_processor.config == settings
    image = np.full((80, 70, 3), 200, np.uint8)
    assert not np.allclose(other(images=image)["pixel_values"], processor(images=image)["pixel_values"])


def test_a_head_of_another_base_is_refused_before_the_weights_are_read(tiny_vision, tmp_path, monkeypatch):
    write_head(tmp_path / "a", task())
    monkeypatch.setattr("mlx_aimv2.loading.build_model", lambda *_: pytest.fail("the weights were read"))
    with pytest.raises(InputError, match="was trained on apple/aimv2-large-patch14-224"):
        load(tiny_vision, adapter_path=tmp_path / "a")


def test_a_head_may_be_put_on_any_base(tiny_vision, tmp_path):
    write_head(tmp_path / "a", task())
    classifier, _ = load(tiny_vision, adapter_path=tmp_path / "a", options=LoadOptions(any_base=True))
    assert classifier.labels == LABELS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": {"kind": "forest"}}, r"task\.json: head 'forest' is not one of linear, attentive"),
        (
            {"head": {"kind": "linear", "depth": 2}},
            r"task\.json: a head of kind linear has no setting 'depth'",
        ),
    ],
)
def test_a_head_nobody_knows_is_refused(tiny_vision, tmp_path, values, message):
    write_head(tmp_path / "a", task(base=load(tiny_vision)[0].origin))
    write_task(tmp_path / "a", task(base=load(tiny_vision)[0].origin, **values))
    with pytest.raises(ConfigError, match=message):
        load(tiny_vision, adapter_path=tmp_path / "a")


def test_a_head_that_does_not_fit_its_task_is_refused(tiny_vision, tmp_path):
    one = task(base=load(tiny_vision)[0].origin)
    write_head(tmp_path / "a", one)
    write_task(tmp_path / "a", replace(one, labels=("a", "b"), head={"kind": "linear", "batch_norm": True}))
    with pytest.raises(MismatchError) as caught:
        load(tiny_vision, adapter_path=tmp_path / "a")
    assert r"head.safetensors does not fit the head in task.json: 2 missing: norm.running_" in str(
        caught.value
    )
    assert "2 of the wrong shape: linear.weight is [3, 64], not [2, 64]" in str(caught.value)


@pytest.mark.parametrize("name", ["task.json", "head.safetensors"])
def test_half_a_head_is_refused(tiny_vision, tmp_path, name):
    write_head(tmp_path / "a", task(base=load(tiny_vision)[0].origin))
    (tmp_path / "a" / name).unlink()
    with pytest.raises(NotACheckpointError, match=f"holds no trained head: it lacks {name}"):
        load(tiny_vision, adapter_path=tmp_path / "a")
