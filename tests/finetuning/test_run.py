"""Whole runs: every method on every base, and every mistake in one line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers.captioned import captioned
from mlx.utils import tree_flatten
from PIL import Image

from mlx_aimv2 import load
from mlx_aimv2.adapters.attach import adapted
from mlx_aimv2.errors import CheckpointError, InputError, OutputError, TrainingError
from mlx_aimv2.evaluation.metrics import measure
from mlx_aimv2.events import Notice, Skipped, StepDone, ignore
from mlx_aimv2.finetuning.estimate import estimate
from mlx_aimv2.finetuning.label_task import LabelTask
from mlx_aimv2.finetuning.run import finetune, prepare
from mlx_aimv2.models import layers
from mlx_aimv2.models.classifier import Classifier

RATES = {"linear": 1e-2, "attentive": 5e-3, "lora": 3e-3, "dora": 3e-3, "full": 3e-4}


class Losses(list):
    """The losses of all steps, as a callback, which an empty list is not taken for."""

    def __bool__(self):
        return True

    def __call__(self, event):
        if isinstance(event, StepDone):
            self.append(event.loss)


def training(method, epochs):
    """How long and how fast to train, for a method that does."""
    return {} if method == "knn" else {"epochs": epochs, "learning_rate": RATES[method]}


def accuracy(given, data):
    """Of the classifier that a run left, as it is loaded again."""
    model, processor = load(given.model, adapter_path=given.adapter_path, dtype="float32", on_event=ignore)
    assert isinstance(model, Classifier)
    right = []
    for number, label in enumerate(model.labels):
        pixels = processor(images=sorted((Path(data) / label).iterdir()))["pixel_values"]
        right += np.array(mx.argmax(model(pixels), axis=1) == number).tolist()
    return np.mean(right)


@pytest.mark.parametrize(
    ("method", "bits", "is_packed"),
    [
        *((method, None, False) for method in (*RATES, "knn")),
        ("linear", 4, True), ("attentive", 8, True), ("knn", 4, False),  # a frozen encoder is the same to all three
        ("lora", 4, True), ("lora", 8, True), ("lora", 4, False), ("dora", 4, True), ("dora", 4, False),
        ("full", 4, True), ("full", 8, True), ("full", 4, False),
    ],
)  # fmt: skip
def test_every_method_lowers_its_loss_on_every_base(
    options, method, bits, is_packed, tiny_vision, packed, data, monkeypatch
):
    """A CPU unpacks weights that are packed, and a GPU does not."""
    model = str(packed(bits) if bits else tiny_vision)
    if is_packed:
        monkeypatch.setattr("mlx_aimv2.loading.on_cpu", lambda: False)
    given = options(model=model, fine_tune_type=method, **training(method, epochs=4))
    losses = Losses()
    if is_packed:
        trunk = prepare(given).model.trunk
        found = any(isinstance(module, nn.QuantizedLinear) for module in trunk.modules())
        assert found == (method != "full")  # which trains the weights themselves
    finished = finetune(given, losses)
    if method != "knn":
        assert len(losses) == 16 and np.mean(losses[-4:]) < 0.85 * np.mean(losses[:4])
    assert finished.evaluation.metrics.top1 == 1
    assert accuracy(given, data) > 0.9


@pytest.mark.charts
def test_what_lora_leaves(options, tmp_path):
    finished = finetune(options())
    assert sorted(path.name for path in finished.folder.iterdir()) == [
        ".training", "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "metrics.jsonl",
        "report", "splits.json", "task.json",
    ]  # fmt: skip
    assert [path.name for path in (finished.folder / ".training").iterdir()] == ["state.safetensors"]
    drawn = {path.name for path in (finished.folder / "report").glob("*.png") if path.stat().st_size > 999}
    assert drawn == {"calibration.png", "confusion.png", "curves.png"}
    task = json.loads((finished.folder / "task.json").read_text())
    assert (task["labels"], task["method"], task["pooling"]) == (["blue", "green", "red"], "lora", "mean")
    splits = json.loads((finished.folder / "splits.json").read_text())
    assert (len(splits["train"]), len(splits["val"]), len(splits["test"])) == (15, 3, 0)
    config = json.loads((finished.folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 16.0)
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 8 + 2


def test_the_best_epoch_is_what_is_left(options, tmp_path):
    """Training that goes wrong in the end does not matter: what was best is evaluated, and is what is on disk."""
    given = options(epochs=6, metric="loss", schedule="constant", learning_rate=2e-2)
    finished = finetune(given)
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation"]["loss"] for line in lines if "validation" in line]
    assert finished.trained.best_epoch == int(np.argmin(losses))
    assert finished.evaluation.metrics.nll == pytest.approx(min(losses), abs=1e-5)


def test_the_random_state_of_the_caller_stays(options):
    mx.random.seed(5)
    mx.eval(mx.random.uniform(shape=(2,)))  # a state that no small seed gives
    state = np.array(next(iter(mx.random.state)))
    expected = mx.random.uniform(shape=(4,)).tolist()
    for run in (finetune, prepare, estimate):
        for method, name in (("lora", "a"), ("linear", "b"), ("lora", "a")):  # the last one is refused
            mx.random.seed(int(state[0]) << 32 | int(state[1]))
            with contextlib.suppress(InputError):
                run(options(fine_tune_type=method, epochs=1, adapter_path=f"{options().adapter_path}-{name}"))
            assert mx.random.uniform(shape=(4,)).tolist() == expected


def test_layers_are_computed_twice_only_while_a_run_trains(options):
    run, states = prepare(options(grad_checkpoint=True, epochs=1)), []

    def note(event):
        if isinstance(event, StepDone):
            states.append(run.model.trunk.encoder.checkpoint_layers)

    run.folder.mkdir()
    LabelTask().train(run, note)
    assert states and all(states) and not run.model.trunk.encoder.checkpoint_layers


@pytest.mark.parametrize(
    "given",
    [
        {"optimizer": "lion", "schedule": "linear", "learning_rate": 1e-3},
        {"optimizer": "sgd", "head_lr": 0.5, "layer_decay": 0.7, "learning_rate": 0.05},
        {"grad_checkpoint": True, "dropout": 0.1, "num_layers": 1, "target_modules": "q,v"},
        {"grad_accumulation_steps": 2, "ema": 0.5, "label_smoothing": 0.1, "class_weights": "balanced"},
        {"random_resized_crop": 0.5, "flip": 0.5, "randaugment": 1, "mixup": 0.2, "cutmix": 0.5},
        {"iters": 9, "batch_norm": True, "max_grad_norm": 0.0},
        {"fine_tune_type": "full", "num_layers": 1, "learning_rate": 1e-3},
    ],
    ids=lambda given: "-".join(given),
)
def test_options_go_together(options, given):
    losses = Losses()
    finished = finetune(options(**{"epochs": 4, **given}), losses)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert np.isfinite(losses).all() and len(finished.evaluation.metrics.labels) == 3


def left_by(given):
    """The adapter and the head of a run, as one vector."""
    folder = finetune(given).folder
    tensors = [mx.load(str(folder / name)) for name in ("adapter_model.safetensors", "head.safetensors")]
    return np.concatenate([np.array(x).ravel() for part in tensors for _, x in sorted(part.items())])


def test_native_decoding_trains_the_same_weights(options, own_data, tmp_path):
    pytest.importorskip("mlx.data", reason="mlx-data has no package for this machine")
    for path in sorted(own_data.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    exact, native = (
        left_by(options(data=str(own_data), adapter_path=str(tmp_path / decode), epochs=1, decode=decode))
        for decode in ("exact", "native")
    )
    np.testing.assert_array_equal(native, exact)


def test_the_filter_is_recorded_in_the_run(options):
    finetune(options(epochs=1, resize="bilinear"))
    with pytest.raises(InputError, match=r"--resume: resize was 'bilinear' in .* and is 'bicubic' now"):
        finetune(options(epochs=2, resume=True))


@pytest.mark.parametrize(
    "given",
    [
        {"random_resized_crop": 0.5}, {"resize": "bilinear"},
        {"flip": 0.5}, {"color_jitter": 0.5}, {"randaugment": 2}, {"mixup": 1.0},
        {"cutmix": 1.0}, {"label_smoothing": 0.2}, {"randaugment": 2, "randaugment_magnitude": 30.0},
        {"weight_decay": 5.0}, {"optimizer": "lion"}, {"schedule": "constant"}, {"warmup": 0.9},
        {"max_grad_norm": 0.01}, {"ema": 0.9}, {"head_lr": 0.1}, {"layer_decay": 0.5}, {"dropout": 0.5},
        {"alpha": 4.0}, {"grad_accumulation_steps": 2}, {"seed": 1}, {"num_layers": 1, "rank": 2},
        {"batch_norm": True}, {"target_modules": "q"},
    ],
    ids=lambda given: "-".join(given),
)  # fmt: skip
def test_every_option_changes_what_is_learned(options, given, tmp_path, cached):
    found = left_by(options(epochs=1, adapter_path=str(tmp_path / "other"), **given))
    if given == {"randaugment": 2, "randaugment_magnitude": 30.0}:
        usual = left_by(options(epochs=1, adapter_path=str(tmp_path / "weaker"), randaugment=2))
    elif "usual" in cached:
        usual = cached["usual"]
    else:
        usual = cached["usual"] = left_by(options(epochs=1))
    assert found.shape != usual.shape or not np.allclose(found, usual, atol=1e-6)


@pytest.fixture(scope="module")
def cached():
    """What a run leaves by default, as "usual", once there was one."""
    return {}


def test_class_weights_change_what_is_learned(options, own_data, tmp_path):
    for path in sorted((own_data / "red").iterdir())[3:]:
        path.unlink()
    given = options(epochs=1, data=str(own_data))
    usual = left_by(given)
    found = left_by(replace(given, class_weights="balanced", adapter_path=str(tmp_path / "other")))
    assert not np.allclose(found, usual, atol=1e-6)


@pytest.mark.parametrize("twice", [False, True])
def test_layers_are_computed_twice_where_asked(options, twice, monkeypatch):
    """With the same result; only the time and the memory tell otherwise."""
    ran, checkpointed = [], layers.checkpointed

    def counted(layer):
        ran.append(layer)
        return checkpointed(layer)

    monkeypatch.setattr(layers, "checkpointed", counted)
    finetune(options(epochs=1, grad_checkpoint=twice))
    assert len(ran) == (4 * 2 if twice else 0)  # steps, layers


def test_a_base_of_native_resolution(options, tiny_native, own_data):
    Image.new("RGB", (90, 30), (40, 60, 200)).save(own_data / "blue" / "wide.png")
    finished = finetune(options(model=str(tiny_native), data=str(own_data), epochs=1, batch_size=6))
    settings = json.loads((finished.folder / "task.json").read_text())["preprocessing"]
    assert settings["size"] == {"shortest_edge": 224}


@pytest.mark.parametrize("method", ["linear", "lora", "full"])
def test_the_pooling_head_of_a_pair(options, tiny_pair, data, method):
    given = options(
        model=str(tiny_pair), fine_tune_type=method, pooling="head", learning_rate=RATES[method], epochs=6
    )
    finetune(given)
    assert accuracy(given, data) > 0.7
    pooler = [name for name, _ in finished_trainable(given, method) if ".head." in name]
    assert bool(pooler) == (method == "full")


def finished_trainable(given, method):
    """The parameters that such a run trains."""
    classifier = prepare(replace(given, adapter_path=given.adapter_path + "-2")).model
    return tree_flatten(classifier.trainable_parameters())


def test_a_pooling_head_that_nothing_goes_through_is_left_alone(options, tiny_pair):
    given = options(model=str(tiny_pair), fine_tune_type="full", pooling="mean")
    assert not [name for name, _ in finished_trainable(given, "full") if "trunk.head." in name]


def test_a_huge_learning_rate_ends_with_advice_and_keeps_the_best_epoch(options, data, tmp_path):
    given = options(
        learning_rate=1e30, schedule="linear", warmup=1.0, optimizer="sgd", max_grad_norm=0.0, epochs=40
    )
    with pytest.raises(TrainingError) as caught:
        finetune(given)
    assert "try a tenth of it in another --adapter-path (--learning-rate 1e+29)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_was_good_before_is_kept(options, data, tmp_path, monkeypatch):
    from mlx_aimv2.training import loop as module

    rate = module.learning_rate
    monkeypatch.setattr(module, "learning_rate", lambda step, *rest: 1e25 if step == 6 else rate(step, *rest))
    given = options(epochs=4, optimizer="sgd", learning_rate=0.05, max_grad_norm=0.0)
    with pytest.raises(TrainingError, match=r"in step 8, .* the best epoch so far, 1, is kept in .*adapter"):
        finetune(given)
    folder = tmp_path / "adapter"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (found,) = [line["validation"] for line in lines if "validation" in line]
    model, processor = load(given.model, adapter_path=folder, dtype="float32", on_event=ignore)
    held_out = json.loads((folder / "splits.json").read_text())["val"]
    logits = np.array(model(processor(images=[data / path for path in held_out])["pixel_values"]))
    kept = measure(
        logits, np.array([model.labels.index(label) for (label,) in held_out.values()]), model.labels
    )
    assert (kept.top1, kept.nll) == pytest.approx((found["top1"], found["loss"]), abs=1e-5)


def test_a_run_goes_on_in_this_process_too(options, tmp_path):
    whole = finetune(options(adapter_path=str(tmp_path / "whole"), dropout=0.1))
    finetune(options(adapter_path=str(tmp_path / "cut"), dropout=0.1, patience=1, metric="loss", iters=None))
    again = finetune(options(adapter_path=str(tmp_path / "cut"), dropout=0.1, resume=True, metric="loss"))
    assert again.trained.steps == whole.trained.steps


def test_broken_images_are_named_and_left_out(options, own_data):
    (own_data / "red" / "bad.png").write_bytes(b"no image")
    events = []
    finished = finetune(options(data=str(own_data), epochs=1), events.append)
    skipped = [event for event in events if isinstance(event, Skipped)]
    assert [Path(event.source).name for event in skipped] == ["bad.png"]
    splits = json.loads((finished.folder / "splits.json").read_text())
    assert not any("bad.png" in path for split in ("train", "val") for path in splits[split])


# what is refused


@pytest.mark.parametrize("mistake", ["one class", "no images", "nothing there"])
def test_mistakes_in_the_data_are_one_line_and_leave_nothing(options, own_data, tmp_path, mistake):
    message = {
        "one class": "there is only one class, 'blue'",
        "no images": "holds images: it holds nothing",
        "nothing there": "No such file or directory: name a folder of images",
    }[mistake]
    if mistake == "one class":
        for name in ("green", "red"):
            (own_data / name).rename(tmp_path / name)
    else:
        for path in own_data.rglob("*.png"):
            path.unlink()
    data = tmp_path / "none" if mistake == "nothing there" else own_data
    with pytest.raises(InputError) as caught:
        finetune(options(data=str(data)))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "adapter").exists()


def test_a_folder_that_holds_something_is_left_alone(options, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "thesis.txt").write_text("all of it")
    with pytest.raises(
        InputError, match="adapter holds something already: --resume goes on with a run, or name another"
    ):
        finetune(options())
    with pytest.raises(InputError, match="adapter holds no run to go on with: leave --resume out"):
        finetune(options(resume=True))
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["thesis.txt"]


def test_a_run_that_is_there_is_not_begun_again(options):
    finetune(options(epochs=1))
    with pytest.raises(InputError, match="holds something already"):
        finetune(options(epochs=1))


def test_there_is_nothing_to_go_on_with(options):
    with pytest.raises(InputError, match="adapter holds no run to go on with: leave --resume out"):
        finetune(options(resume=True))


def test_a_finished_run_of_neighbours_has_nothing_to_go_on_with(options, tmp_path):
    """And no option names it as a beginning: knn takes no --resume-adapter-file."""
    finetune(options(fine_tune_type="knn"))
    before = (tmp_path / "adapter" / "head.safetensors").read_bytes()
    message = (
        "adapter holds a finished run of knn, which has no steps to go on with: leave --resume out and name another"
        " --adapter-path$"
    )
    with pytest.raises(InputError, match=message):
        finetune(options(fine_tune_type="knn", resume=True))
    assert (tmp_path / "adapter" / "head.safetensors").read_bytes() == before


def test_what_a_training_left_is_not_overwritten_for_want_of_its_state(options, tmp_path):
    finetune(options(epochs=1))
    shutil.rmtree(tmp_path / "adapter" / ".training")
    before = (tmp_path / "adapter" / "head.safetensors").read_bytes()
    with pytest.raises(
        InputError,
        match=r"adapter holds what a training left, and not its \.training/state\.safetensors, without"
        r" which it cannot go on: begin another run from it, with --resume-adapter-file .*adapter and another",
    ):
        finetune(options(epochs=1, resume=True, learning_rate=1.0))
    assert (tmp_path / "adapter" / "head.safetensors").read_bytes() == before


def test_another_model_by_the_same_name_is_told_by_its_options_first(options, tmp_path):
    finetune(options(epochs=1))
    with pytest.raises(InputError, match="--resume: fine_tune_type was 'lora' in"):
        finetune(options(epochs=1, resume=True, fine_tune_type="dora"))


def test_a_name_that_is_too_long(options):
    with pytest.raises(InputError, match=r"x{200}: File name too long: name another --adapter-path"):
        finetune(options(adapter_path="x" * 300))


def test_images_that_cannot_be_read_are_recorded(options, own_data, tmp_path):
    (own_data / "red" / "broken.png").write_bytes(b"no image")
    finetune(options(data=str(own_data), epochs=1), ignore)
    record = json.loads((tmp_path / "adapter" / "splits.json").read_text())
    assert record["skipped"] == ["red/broken.png"]
    assert set(record["files"]) == {"red/broken.png", *record["train"], *record["val"]}


def test_a_run_that_was_killed_at_once_can_be_gone_on_with(options, tmp_path):
    (tmp_path / "adapter").mkdir()
    events = []
    finetune(options(resume=True, epochs=1), events.append)
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert any("nothing was saved in" in message for message in notices)


def test_other_options_or_images_or_weights_are_refused(options, own_data, tmp_path, variants):
    given = {"data": str(own_data), "epochs": 1}
    finetune(options(**given))
    with pytest.raises(InputError, match=r"--resume: batch_size was 4 in .*adapter and is 2 now"):
        finetune(options(**given, resume=True, batch_size=2))
    from drawn_world.untrained import write_checkpoint

    other = write_checkpoint(tmp_path / "other", variants["fixed"], "transformers", seed=1)
    model = tmp_path / "base"
    model.symlink_to(options().model)
    given["adapter_path"] = str(tmp_path / "second")
    finetune(options(**given, model=str(model)))
    model.unlink()
    model.symlink_to(other)
    with pytest.raises(InputError, match="--resume: checkpoint was "):
        finetune(options(**given, model=str(model), resume=True))
    (own_data / "red" / "05.png").unlink()
    with pytest.raises(InputError, match=r"--resume: the images are not those that .*splits\.json names"):
        finetune(options(data=str(own_data), epochs=1, resume=True))


def test_a_place_that_cannot_be_written(options, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="adapter cannot be written: Not a directory"):
        finetune(options(adapter_path=str(tmp_path / "file" / "adapter")))
    with pytest.raises(InputError, match="file is a file: name another --adapter-path"):
        finetune(options(adapter_path=str(tmp_path / "file")))


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_without_permission(options, tmp_path, monkeypatch, exists):
    """Root may write anywhere, so the system's answer is made up."""
    folder = tmp_path / "adapter"
    if exists:
        folder.mkdir()
    place = (os, "open") if exists else (Path, "mkdir")
    asked = getattr(*place)

    def denied(path, *arguments, **more):
        if folder in (Path(path), Path(path).parent):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return asked(path, *arguments, **more)

    monkeypatch.setattr(*place, denied)
    with pytest.raises(OutputError, match=r"adapter cannot be written: Permission denied$"):
        finetune(options(resume=exists))


# going on with data that was moved


def moved(kind, images, root, target):
    """The same images in another folder; what to give as --data before and after."""
    if kind == "captions":
        captioned(root / "data")
    else:
        shutil.copytree(images, root / "data")
    if kind == "table":
        rows = sorted(path.relative_to(root / "data") for path in (root / "data").rglob("*.png"))
        lines = ["path,label", *(f"{row.as_posix()},{row.parent}" for row in rows)]
        (root / "data" / "all.csv").write_text("\n".join(lines) + "\n")
    shutil.copytree(root / "data", target)
    file = {"folders": "", "table": "all.csv", "captions": "captions.csv"}[kind]
    return root / "data" / file, target / file


@pytest.mark.parametrize("kind", ["folders", "table", "captions"])
def test_a_run_goes_on_with_data_that_was_moved_but_not_with_other_data(
    options, data, tmp_path, tiny_pair, kind, monkeypatch
):
    first, second = moved(kind, data, tmp_path, tmp_path / "elsewhere" / "images")
    task = {"task": "contrastive", "model": str(tiny_pair)} if kind == "captions" else {}
    done = finetune(options(data=str(first), epochs=1, **task))
    monkeypatch.chdir(tmp_path)
    for place in (f"./data/../data/{first.name if first.is_file() else ''}", str(second)):
        again = finetune(options(data=place, epochs=1, resume=True, **task))
        assert again.trained == done.trained
    image = sorted(second.parent.rglob("*.png") if second.is_file() else second.rglob("*.png"))[0]
    pixels = np.array(Image.open(image))
    Image.fromarray(255 - pixels).save(image)
    refused = r"--resume: the images are not those that .*splits\.json names"
    with pytest.raises(InputError, match=refused):
        finetune(options(data=str(second), epochs=1, resume=True, **task))
    Image.fromarray(pixels).save(image)
    finetune(options(data=str(second), epochs=1, resume=True, **task))
    if second.is_file():  # other words, the same images
        text = second.read_text()
        second.write_text(
            text.replace("red at the top, number 0", "a car").replace("00.png,red", "00.png,green")
        )
        with pytest.raises(InputError, match=refused):
            finetune(options(data=str(second), epochs=1, resume=True, **task))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_layers": 9}, "--num-layers 9: this encoder has 2 layers"),
        ({"pooling": "head"}, "pooling head: this checkpoint has no pooling head"),
        ({"metric": "map"}, "--metric map is for images with several labels: use top1 or macro_f1"),
        ({"metric": "exact_match"}, "--metric exact_match is for images with several labels: use top1 or"),
    ],
)
def test_what_the_encoder_cannot_do(options, given, message):
    with pytest.raises(InputError, match=message):
        finetune(options(**given))


def test_a_checkpoint_that_is_none(options, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError):
        finetune(options(model=str(tmp_path / "empty")))


# what it would take


def test_trained_in_other_dtypes(options):
    losses = Losses()
    model, _ = load(options().model, dtype="bfloat16")
    assert not adapted(model)
    finetune(options(dtype="bfloat16", epochs=1), losses)
    assert np.isfinite(losses).all()
