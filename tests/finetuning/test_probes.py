"""Probes on a frozen encoder."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import load
from mlx_aimv2.errors import InputError, TrainingError
from mlx_aimv2.events import EpochDone, Notice, StepDone, ignore
from mlx_aimv2.finetuning import probes as probing
from mlx_aimv2.finetuning.prepared import batch_options
from mlx_aimv2.finetuning.probes import features_of
from mlx_aimv2.finetuning.run import finetune, prepare
from mlx_aimv2.models.classifier import Classifier
from mlx_aimv2.models.classifier_heads import AttentiveHead, KnnHead, LinearHead
from mlx_aimv2.models.vision import Aimv2VisionModel
from mlx_aimv2.processing.image import ImageProcessor
from mlx_aimv2.processing.processor import Processor
from mlx_aimv2.training.batches import Batches, class_weights
from mlx_aimv2.training.state import Unsaved

HEADS = {"linear": LinearHead, "attentive": AttentiveHead, "knn": KnnHead}


@pytest.mark.parametrize("method", HEADS)
def test_a_probe_learns_colours_and_is_found_again(options, method, data, tmp_path):
    how = {
        "linear": {"epochs": 12, "learning_rate": 2e-2},
        "attentive": {"epochs": 12, "learning_rate": 5e-3},
        "knn": {"neighbours": 3},
    }
    given = options(fine_tune_type=method, **how[method])
    finished = finetune(given)
    assert finished.evaluation.metrics.top1 == 1
    model, processor = load(given.model, adapter_path=given.adapter_path, dtype="float32")
    assert isinstance(model, Classifier) and isinstance(model.head, HEADS[method])
    for number, label in enumerate(("blue", "green", "red")):
        logits = model(processor(images=[data / label / "00.png"])["pixel_values"])
        assert int(mx.argmax(logits)) == number
    assert not any("trunk" in path.name or "adapter" in path.name for path in finished.folder.iterdir())
    assert (
        finished.trainable
        == {
            "linear": 64 * 3 + 3,
            "attentive": 64 + 2 * 64 * 64 + 64 * 3 + 3,
            "knn": 0,
        }[method]
    )
    assert (finished.trained is None) == (method == "knn")


@pytest.mark.parametrize("method", ["linear", "attentive"])
def test_the_loss_falls(options, method):
    losses = []
    finetune(
        options(fine_tune_type=method, epochs=8, learning_rate=1e-2),
        lambda event: losses.append(event.loss) if isinstance(event, StepDone) else None,
    )
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_the_encoder_is_asked_once_however_many_epochs(options, monkeypatch):
    asked, call = [], Aimv2VisionModel.__call__

    def counted(self, pixels, *rest):
        asked.append(len(pixels))
        return call(self, pixels, *rest)

    monkeypatch.setattr(Aimv2VisionModel, "__call__", counted)
    finetune(options(fine_tune_type="linear", epochs=6, sweep=True))
    assert sum(asked) == 15 + 3 + 3  # training, validation, and the report's
    asked.clear()
    given = options(fine_tune_type="linear", epochs=6, sweep=True, resume=True)
    finetune(given)
    assert sum(asked) == 15 + 3 + 3  # a run that has ended leaves no features


def test_a_sweep_tries_all_and_takes_the_best(options, tmp_path):
    notices = []
    given = options(fine_tune_type="linear", epochs=3, metric="loss", sweep=True, learning_rate=1e-3)
    finished = finetune(given, lambda event: notices.append(event) if isinstance(event, Notice) else None)
    tried = json.loads((tmp_path / "adapter" / "sweep.json").read_text())
    assert len(tried) == len(notices) == 12
    assert all(set(one) == {"learning_rate", "weight_decay", "loss"} for one in tried)
    assert sorted({one["learning_rate"] for one in tried}) == pytest.approx([1e-4, 3e-4, 1e-3, 3e-3])
    assert {one["weight_decay"] for one in tried} == {0.0, 0.01, 0.1}
    assert [one["loss"] for one in tried] == sorted(one["loss"] for one in tried)
    assert finished.trained.best == pytest.approx(tried[0]["loss"])
    assert tried[0]["learning_rate"] == pytest.approx(3e-3)
    assert [path.name for path in (tmp_path / "adapter").glob(".*")] == [".training"]


def test_a_sweep_by_a_share_takes_the_highest(options, tmp_path):
    finetune(options(fine_tune_type="linear", epochs=3, sweep=True, learning_rate=1e-2))
    tried = json.loads((tmp_path / "adapter" / "sweep.json").read_text())
    found = [(-one["top1"], one["loss"]) for one in tried]
    assert found == sorted(found) and len({top1 for top1, _ in found}) < len(found)  # the loss decides


def notices_of(given):
    notices = []
    finished = finetune(given, lambda event: notices.append(event) if isinstance(event, Notice) else None)
    return finished, [notice.message for notice in notices]


def test_a_sweep_goes_on_without_those_that_fail(options, tmp_path):
    how = {"optimizer": "sgd", "schedule": "constant", "warmup": 0.0, "max_grad_norm": 0.0}
    given = options(fine_tune_type="linear", sweep=True, learning_rate=1e38, **how)
    with pytest.raises(
        TrainingError, match=r"not finite with any learning rate from 1e\+37 on: try a smaller"
    ):
        finetune(given)
    assert not (tmp_path / "adapter" / "sweep.json").exists()
    given = replace(given, learning_rate=1.0, adapter_path=str(tmp_path / "second"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probing, "SWEPT_RATES", (1e38, 0.01))
        finished, notices = notices_of(given)
    assert notices[0] == "learning rate 1e+38, weight decay 0: the loss is not finite"
    tried = json.loads((tmp_path / "second" / "sweep.json").read_text())
    assert [one["loss"] is None for one in tried] == [False] * 3 + [True] * 3
    assert finished.trained.best == tried[0]["top1"] and tried[-1]["top1"] is None


@pytest.mark.parametrize("damage", [None, "", "[]", "[{}]"])
def test_a_run_that_goes_on_is_not_swept_again(options, tmp_path, damage):
    given = options(fine_tune_type="linear", sweep=True, epochs=3)
    first, notices = notices_of(given)
    assert len(notices) == 12
    if damage is not None:
        (tmp_path / "adapter" / "sweep.json").write_text(damage)
    again, notices = notices_of(replace(given, resume=True))
    assert len(notices) == (0 if damage is None else 12) + 1
    assert notices[-1] == "this run has ended after 12 steps: more --epochs let it go on"
    assert again.trained == first.trained


def test_a_sweep_without_decays_tries_rates_alone(options, tmp_path):
    finetune(options(fine_tune_type="linear", sweep=True, optimizer="rmsprop", epochs=1))
    assert len(json.loads((tmp_path / "adapter" / "sweep.json").read_text())) == 4


def test_a_head_is_trained_as_the_run_says(options):
    """The head of a frozen encoder is that of a training of the whole whose encoder does not move."""
    given = options(
        fine_tune_type="linear", batch_norm=True, ema=0.5, class_weights="balanced", label_smoothing=0.1
    )
    finished = finetune(given)
    head = mx.load(str(finished.folder / "head.safetensors"))
    assert set(head) == {"linear.weight", "linear.bias", "norm.running_mean", "norm.running_var"}
    assert not mx.array_equal(head["norm.running_mean"], mx.zeros(64)).item()


def test_rare_classes_count_more_where_asked(options, own_data):
    for path in sorted((own_data / "red").iterdir())[2:]:
        path.unlink()
    heads = []
    for number, how in enumerate(("none", "balanced")):
        given = options(
            data=str(own_data),
            fine_tune_type="linear",
            class_weights=how,
            adapter_path=f"{own_data}-{number}",
        )
        finetune(given)
        heads.append(np.array(mx.load(f"{given.adapter_path}/head.safetensors")["linear.bias"]))
    assert heads[1][2] > heads[0][2]  # of red


@pytest.mark.parametrize("resume_at", ["features", "training"])
def test_a_probe_goes_on_too(options, tmp_path, monkeypatch, resume_at):
    whole = finetune(options(fine_tune_type="linear", adapter_path=str(tmp_path / "whole")))
    from mlx_aimv2.finetuning import features
    from mlx_aimv2.training import loop

    class Stop(Exception):
        pass

    def stop(*arguments):
        raise Stop

    given = {"fine_tune_type": "linear", "adapter_path": str(tmp_path / "cut"), "save_every": 2}
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(
            *((features, "_check", stop) if resume_at == "features" else (loop.Loop, "_end_epoch", stop))
        )
        finetune(options(**given))
    cut = finetune(options(**given, resume=True))
    for name in ("head.safetensors",):
        first, second = (mx.load(str(one.folder / name)) for one in (whole, cut))
        assert all(mx.array_equal(first[key], second[key]).item() for key in first)
    assert (cut.folder / "metrics.jsonl").read_text() == (whole.folder / "metrics.jsonl").read_text()


@pytest.fixture
def several(tmp_path, data):
    """A table of the coloured images with two labels each."""
    lines = ["path,label"]
    lines += [
        f"{data}/{c}/{n:02}.png,{c};{'warm' if c == 'red' else 'cold'}"
        for c in ("blue", "green", "red")
        for n in range(6)
    ]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return str(tmp_path / "table.csv")


@pytest.mark.parametrize("method", ["linear", "attentive", "lora"])
def test_several_labels(options, several, method):
    given = options(data=several, fine_tune_type=method, epochs=10, learning_rate=2e-2)
    events = []
    finished = finetune(given, events.append)
    metrics = finished.evaluation.metrics
    assert metrics.multi_label and metrics.labels == ("blue", "cold", "green", "red", "warm")
    assert metrics.map > 0.9 and finished.trained.metric == "map" and finished.trained.best == metrics.map
    names = {name for event in events if isinstance(event, EpochDone) for name in event.metrics}
    assert names == {"loss", "macro_f1", "map", "exact_match"}
    again = finetune(replace(given, resume=True))
    assert again.trained == finished.trained


def test_a_sweep_over_several_labels_goes_by_map(options, several, tmp_path):
    finetune(options(data=several, fine_tune_type="linear", sweep=True, epochs=2))
    tried = json.loads((tmp_path / "adapter" / "sweep.json").read_text())
    assert [one["map"] for one in tried] == sorted((one["map"] for one in tried), reverse=True)


def test_what_several_labels_are_not_for(options, several, tmp_path):
    with pytest.raises(InputError, match="knn votes for one label, and these images have several"):
        finetune(options(data=several, fine_tune_type="knn"))
    with pytest.raises(InputError, match="--metric top1 is for images with one label: use map, exact_match"):
        finetune(options(data=several, metric="top1"))
    assert not (tmp_path / "adapter").exists()


def test_the_encoder_stays_as_it_is(options):
    run = prepare(options(fine_tune_type="linear"))
    before = {name: np.array(x) for name, x in tree_flatten(run.model.trunk.parameters())}
    from mlx_aimv2.finetuning.probes import train_probe

    train_probe(run, lambda event: None)
    after = dict(tree_flatten(run.model.trunk.parameters()))
    assert all(np.array_equal(np.array(after[name]), x) for name, x in before.items())


# what the features in a file follow from, and what a probe is taught


def key_of(run, split="train"):
    """What the names of the files of a split's features begin with."""
    before = set((run.folder / ".training" / "features").glob("*"))
    features_of(run, split, ignore)
    new = {path.name.partition("-")[0] for path in (run.folder / ".training" / "features").glob("*")}
    return (new - {path.name.partition("-")[0] for path in before}) or None


@pytest.fixture
def prepared(options, own_data):
    return prepare(options(data=str(own_data), fine_tune_type="linear"))


def with_processor(run, **changes):
    """The same run whose images are prepared otherwise."""
    images = run.processor.image_processor
    config = replace(images.config, **{k: v for k, v in changes.items() if k not in ("decode", "background")})
    decode = replace(images.decode, **{k: v for k, v in changes.items() if k in ("decode", "background")})
    made = ImageProcessor(config, images.patch_size, decode, images.native)
    return replace(run, processor=Processor(made, run.processor.tokenizer, run.processor.max_text_length))


PREPARED = {
    "decode": {"decode": "fast"},
    "background": {"background": "black"},
    "crop": {"size": 64},
    "resample": {"resample": 2},
    "mean": {"image_mean": (0.5, 0.5, 0.5)},
    "std": {"image_std": (0.5, 0.5, 0.5)},
    "not normalized": {"do_normalize": False},
    "rescale": {"rescale_factor": 1 / 127},
    "rounding": {"crop_rounding": "even"},
    "fill": {"longest": True, "crop_fill": (9, 9, 9)},
}
ORIGINS = {
    "model": {"checkpoint": "another"},
    "dtype": {"dtype": "bfloat16"},
    "quantization": {"quantization": "4-bit affine"},
    "adapter": {"adapter": "one"},
    "revision": {"revision": "another"},
}


@pytest.mark.parametrize("what", PREPARED)
def test_images_that_are_prepared_otherwise_have_other_features(prepared, what):
    first = key_of(prepared)
    other = key_of(with_processor(prepared, **PREPARED[what]))
    assert first and other and first != other
    assert key_of(prepared) is None  # and what was there is found again


@pytest.mark.parametrize("what", ORIGINS)
def test_another_encoder_has_other_features(prepared, what):
    first, trunk = key_of(prepared), prepared.model.trunk
    trunk.origin = replace(trunk.origin, **ORIGINS[what])
    assert first and key_of(prepared)


@pytest.mark.parametrize("what", ["pooling", "image", "time", "order", "fewer"])
def test_other_images_or_another_pooling_have_other_features(prepared, own_data, what):
    first, path = key_of(prepared), Path(prepared.dataset.train[0].path)
    if what == "pooling":
        prepared.model.pooling = "attentive"
    elif what == "image":
        stamp = path.stat()
        path.write_bytes(path.read_bytes() + b"0")
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    elif what == "time":
        os.utime(path, ns=(1, 1))
    else:
        examples = prepared.dataset.train
        examples = examples[1:] if what == "fewer" else examples[::-1]
        prepared = replace(prepared, dataset=replace(prepared.dataset, train=examples))
    assert first and key_of(prepared)


@pytest.mark.parametrize("labels", ["one", "two"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_probe_is_taught_what_batches_of_images_teach(
    options, own_data, several, monkeypatch, labels, smoothing, weights
):
    """Targets and weights of every image are those with which LoRA is trained."""
    for number in range(4):
        (own_data / "red" / f"0{number}.png").unlink()
    data = str(own_data) if labels == "one" else several
    given = options(
        data=data, fine_tune_type="linear", label_smoothing=smoothing, class_weights=weights, epochs=1
    )
    run, taught = prepare(given), {}

    class Listening(probing.FeatureEpochs):
        def __init__(self, features, targets, weights, *rest):
            taught.update(targets=targets, weights=weights)
            super().__init__(features, targets, weights, *rest)

    monkeypatch.setattr(probing, "FeatureEpochs", Listening)
    train, val = (features_of(run, split, ignore) for split in ("train", "val"))
    probing.probe_loop(
        run, probing.with_metric(given, labels == "two"), Unsaved(), train, val, lambda: None, ignore
    )
    by_class = class_weights(run.dataset) if weights == "balanced" else None
    batches = Batches(run.dataset, run.processor.image_processor, batch_options(given), weights=by_class)
    seen = set()
    for batch in batches.epoch(0):
        seen |= set(batch.indices.tolist())
        np.testing.assert_allclose(taught["targets"][batch.indices], batch.targets, atol=1e-6)
        np.testing.assert_allclose(taught["weights"][batch.indices], batch.weights, atol=1e-6)
    assert len(seen) == len(run.dataset.train)
    assert (len(set(taught["weights"].round(4).tolist())) > 1) == (weights == "balanced")
    assert (taught["targets"].min() > 0) == (smoothing > 0)
