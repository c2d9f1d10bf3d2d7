"""Whole runs on captions: every method, what they leave, what is best, and every mistake in one line."""

from __future__ import annotations

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from helpers.captioned import captioned

from mlx_aimv2 import Aimv2Model, Embedder, LoadOptions, ZeroShotClassifier, convert, load
from mlx_aimv2.adapters.attach import adapted
from mlx_aimv2.conversion.fuse import fuse
from mlx_aimv2.conversion.options import ConvertOptions, FuseOptions
from mlx_aimv2.errors import ConfigError, InputError, MismatchError, NotACheckpointError, TrainingError
from mlx_aimv2.events import Notice, Skipped, StepDone, ignore
from mlx_aimv2.finetuning.estimate import estimate
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.run import finetune
from mlx_aimv2.quantization.scheme import Scheme
from mlx_aimv2.training.options import OPTIMIZERS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`

RATES = {"lora": 1e-2, "dora": 1e-2, "full": 2e-3}


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    """24 images with captions; tests must not change them."""
    return captioned(tmp_path_factory.mktemp("words") / "data")


@pytest.fixture
def options(words, tiny_pair, tmp_path, quick_runs):
    """Gives options for a short run on the images with captions."""

    def make(**given):
        defaults = {
            "task": "contrastive",
            "data": str(words),
            "model": str(tiny_pair),
            "adapter_path": str(tmp_path / "adapter"),
            "epochs": 2,
            "batch_size": 6,
        }
        method = given.get("fine_tune_type", "lora")
        defaults |= {"learning_rate": RATES[method]} | ({"rank": 4} if method != "full" else {})
        return FinetuneOptions(**{**defaults, **given})

    return make


def losses_of(events):
    return [event.loss for event in events if isinstance(event, StepDone)]


def sentences(model, processor):
    return Embedder(model, processor).texts(["red at the top", "white at the bottom"])


def images(model, processor, words):
    return Embedder(model, processor).images(sorted(map(str, words.parent.glob("*.png")))[:5])


@pytest.mark.parametrize("method", RATES)
def test_every_method_learns_and_its_result_is_loaded_again(options, method, words):
    events = []
    given = options(fine_tune_type=method, epochs=6)
    finished = finetune(given, events.append)
    losses = losses_of(events)
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    validated = [line["validation"] for line in lines if "validation" in line]
    assert len(validated) == 6 and {"loss", "recall@1", "text_to_image_recall@10"} <= set(validated[0])
    best = max(line["recall@1"] for line in validated)
    assert finished.trained.best == best == pytest.approx(finished.evaluation.metrics.numbers()["recall@1"])
    model, processor = load(given.model, adapter_path=finished.folder, dtype="float32")
    assert isinstance(model, Aimv2Model) and bool(adapted(model)) == (method != "full")
    plain, _ = load(given.model, dtype="float32")
    assert model.origin.adapter and not np.allclose(
        sentences(model, processor), sentences(plain, processor), atol=1e-3
    )
    report = json.loads((finished.folder / "report" / "evaluation.json").read_text())
    assert report["recall@1"] == best and (finished.folder / "report" / "curves.png").is_file()
    labels = ["red at the top", "blue at the bottom"]
    assert (
        ZeroShotClassifier(model, processor, labels)(str(words.parent / "red-top-0.png"))[0][0][0] in labels
    )


@pytest.mark.parametrize(
    "given",
    [
        {"vision_tower": "frozen"},
        {"fine_tune_type": "full", "text_tower": "frozen"},
        {"text_tower": "trained", "grad_checkpoint": True, "dropout": 0.1},
        {"ema": 0.5, "grad_accumulation_steps": 2, "schedule": "linear"},
        {"flip": 0.5, "random_resized_crop": 0.6, "randaugment": 1, "color_jitter": 0.2, "iters": 5},
        {"fine_tune_type": "full", "num_layers": 1, "head_lr": 1e-2, "layer_decay": 0.8},
        {"metric": "loss", "batch_size": 100, "target_modules": "q,v"},
        *(
            {"fine_tune_type": "full", "optimizer": name, "learning_rate": 1e-3, "iters": 2}
            for name in OPTIMIZERS
        ),
    ],
    ids=str,
)
def test_options_go_together(options, given):
    events = []
    finished = finetune(options(**given), events.append)
    assert np.isfinite(losses_of(events)).all()
    load(options().model, adapter_path=finished.folder, on_event=ignore)
    task = json.loads((finished.folder / "task.json").read_text())
    expected = {"vision": given.get("vision_tower"), "text": given.get("text_tower")}
    usual = "trained" if given.get("fine_tune_type") == "full" else "adapted"
    assert task["towers"] == {tower: state or usual for tower, state in expected.items()}


def test_what_a_frozen_tower_gives_stays_what_it_was(options, words):
    given = options(vision_tower="frozen")
    finished = finetune(given)
    model, processor = load(given.model, adapter_path=finished.folder)
    plain, _ = load(given.model)
    np.testing.assert_array_equal(images(model, processor, words), images(plain, processor, words))
    assert not np.allclose(sentences(model, processor), sentences(plain, processor), atol=1e-4)
    assert set(mx.load(str(finished.folder / "trained.safetensors"))) == {
        "logit_scale",
        "text_projection.weight",
    }


@pytest.mark.parametrize("method", ["dora", "full"])
def test_it_is_fused_into_a_plain_checkpoint(options, words, method, tmp_path):
    given = options(fine_tune_type=method)
    finished = finetune(given)
    model, processor = load(given.model, adapter_path=finished.folder, dtype="float32")
    fused, other = load(fuse(given.model, finished.folder, tmp_path / "fused"), dtype="float32")
    assert not (tmp_path / "fused" / "task.json").exists() and not adapted(fused)
    np.testing.assert_allclose(sentences(fused, other), sentences(model, processor), atol=2e-5)
    np.testing.assert_allclose(images(fused, other, words), images(model, processor, words), atol=2e-5)
    assert fused.logit_scale.item() == model.logit_scale.item()
    card = (tmp_path / "fused" / "README.md").read_text()
    assert (
        ("was merged" in card)
        if method != "full"
        else ("trained further on images and their captions" in card)
    )


@pytest.mark.parametrize(
    ("method", "is_packed", "dequantize"),
    [
        ("lora", True, True),
        ("dora", False, True),
        ("dora", True, False),
        ("full", True, True),
        ("full", False, False),
    ],
)  # every pair but lora unpacked
def test_a_quantized_base_is_trained_and_fused_too(
    options, words, tmp_path, tiny_pair, method, is_packed, dequantize, monkeypatch
):
    """A CPU unpacks weights that are packed, and a GPU only those that are trained themselves."""
    convert(tiny_pair, tmp_path / "q", options=ConvertOptions(scheme=Scheme(32, 8)))
    given = options(model=str(tmp_path / "q"), fine_tune_type=method, epochs=1)
    with monkeypatch.context() as patch:
        if is_packed:
            patch.setattr("mlx_aimv2.loading.on_cpu", lambda: False)
        finished = finetune(given, ignore)
        model, processor = load(given.model, adapter_path=finished.folder, dtype="float32", on_event=ignore)
    target = fuse(given.model, finished.folder, tmp_path / "f", options=FuseOptions(dequantize=dequantize))
    fused, other = load(target, dtype="float32", on_event=ignore)
    assert (fused.origin.quantization is None) == dequantize
    found, expected = images(fused, other, words), images(model, processor, words)
    assert (found * expected).sum(axis=1).min() > (0.9999 if dequantize else 0.99)


def test_a_packed_copy_takes_what_was_trained(options, words, tmp_path, tiny_pair):
    convert(tiny_pair, tmp_path / "q", options=ConvertOptions(scheme=Scheme(32, 8)))
    given = options(fine_tune_type="full", epochs=1)
    finished = finetune(given)
    plain, processor = load(given.model, adapter_path=finished.folder, dtype="float32")
    keep = LoadOptions(dtype="float32", keep_quantized=True, any_base=True)
    model, _ = load(tmp_path / "q", adapter_path=finished.folder, options=keep)
    np.testing.assert_allclose(images(model, processor, words), images(plain, processor, words), atol=1e-5)


def test_another_base_is_refused_by_name(options, tmp_path, variants, tiny_vision):
    from drawn_world.untrained import write_checkpoint

    finished = finetune(options(epochs=1, fine_tune_type="full"))
    other = write_checkpoint(tmp_path / "other", variants["lit"], "apple", seed=1)
    with pytest.raises(InputError, match=rf"adapter was trained on .*lit-apple.* and this is {other}"):
        load(other, adapter_path=finished.folder)
    load(other, adapter_path=finished.folder, options=any_base())
    with pytest.raises(
        InputError, match=r"was trained on an image-text pair, and .* is an image encoder alone: load the"
    ):
        load(tiny_vision, adapter_path=finished.folder, options=any_base())


def any_base():
    from mlx_aimv2 import LoadOptions

    return LoadOptions(any_base=True)


def test_a_folder_that_is_damaged(options, tmp_path):
    given = options(epochs=1)
    folder = finetune(given).folder

    def broken(name, change):
        copy = shutil.copytree(folder, tmp_path / name)
        change(copy)
        return copy

    def task(**values):
        def change(copy):
            data = json.loads((copy / "task.json").read_text())
            (copy / "task.json").write_text(json.dumps({**data, **values}))

        return change

    cases = {
        "1": (lambda copy: (copy / "trained.safetensors").unlink(), NotACheckpointError, "lacks trained.safetensors"),
        "2": (lambda copy: (copy / "task.json").unlink(), NotACheckpointError, "lacks task.json: the training"),
        "3": (task(towers={"vision": "frozen"}), ConfigError, "towers has to say of vision and text"),
        "4": (task(towers=[]), ConfigError, "towers has to be an object, not a list"),
        "5": (task(method=3), ConfigError, "method has to be a text, not a int"),
        "6": (task(extra=1), ConfigError, "1 unknown: extra"),
        "7": (task(format=9), ConfigError, "format is 9, and this version reads 1: update mlx-aimv2"),
        "8": (
            lambda copy: mx.save_safetensors(str(copy / "trained.safetensors"), {"x": mx.ones(1)}),
            MismatchError,
            "1 unexpected: x",
        ),
    }  # fmt: skip
    for name, (change, error, message) in cases.items():
        with pytest.raises(error, match=message):
            load(given.model, adapter_path=broken(name, change))


def test_broken_images_are_named_and_left_out(options, words, tmp_path):
    data = shutil.copytree(words.parent, tmp_path / "data")
    (data / "red-top-0.png").write_bytes(b"no image")
    events = []
    finished = finetune(options(data=str(data / "captions.csv"), epochs=1), events.append)
    assert [event.source for event in events if isinstance(event, Skipped)] == [str(data / "red-top-0.png")]
    splits = json.loads((finished.folder / "splits.json").read_text())
    assert len(splits["train"] + splits["val"]) == 23


def test_mirrors_and_sides_do_not_go_together(options, words, tmp_path):
    data = shutil.copytree(words.parent, tmp_path / "data") / "captions.csv"
    data.write_text(data.read_text().replace("red at", "red LEFT of"))
    events = []
    finetune(options(data=str(data), flip=0.5, epochs=1), events.append)
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert any(
        x.startswith("--flip mirrors images, and captions of ") and "left or right" in x for x in notices
    )
    events = []
    finetune(options(adapter_path=str(tmp_path / "b"), flip=0.5, epochs=1), events.append)
    assert not [event for event in events if isinstance(event, Notice) and "--flip" in event.message]


def test_it_stops_early_and_goes_on(options, tmp_path):
    finished = finetune(options(epochs=6, patience=1, learning_rate=1e-30, schedule="constant", warmup=0.0))
    assert finished.trained.stopped_early and finished.trained.epochs < 6
    again = finetune(options(epochs=6, learning_rate=1e-30, schedule="constant", warmup=0.0, resume=True))
    assert again.trained.epochs == 6


def test_an_estimate_leaves_nothing(options, tmp_path):
    found = estimate(options(fine_tune_type="full", epochs=3))
    assert list(tmp_path.iterdir()) == []
    finished = finetune(options(fine_tune_type="full", epochs=3))
    assert (found.trainable, found.steps, found.epochs) == (finished.trainable, finished.trained.steps, 3)


def test_a_huge_learning_rate_ends_with_advice(options):
    given = options(
        fine_tune_type="full", learning_rate=1e30, optimizer="sgd", max_grad_norm=0.0, epochs=9, warmup=0.0
    )
    with pytest.raises(TrainingError, match="try a tenth of it in another --adapter-path"):
        finetune(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": ""}, "there is no data: give --data FILE, a .csv or .jsonl file with path and caption, or"),
        ({"val_fraction": 0.0}, "there are no images for validation: give a --val-fraction"),
        ({"num_layers": 9}, "--num-layers 9: the vision encoder has 2 layers"),
        ({"data": "{labels}"}, "no caption for 18 images in"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(options, given, message, data, tmp_path):
    given = {name: value.format(labels=data) if name == "data" else value for name, value in given.items()}
    with pytest.raises(InputError) as caught:
        finetune(options(**given))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_one_image_alone(options, words, tmp_path):
    shutil.copy(words.parent / "red-top-0.png", tmp_path / "a.png")
    shutil.copy(words.parent / "red-top-1.png", tmp_path / "b.png")
    (tmp_path / "c.csv").write_text("path,caption\na.png,x\nb.png,y")
    with pytest.raises(
        InputError, match="there is only one training image, and nothing to tell it apart from"
    ):
        finetune(options(data=str(tmp_path / "c.csv")))


def test_other_captions_are_another_run(options, words, tmp_path):
    data = shutil.copytree(words.parent, tmp_path / "data") / "captions.csv"
    finetune(options(data=str(data), epochs=1))
    data.write_text(data.read_text().replace("red at", "pink at"))
    with pytest.raises(InputError, match="--resume: the images are not those that"):
        finetune(options(data=str(data), epochs=1, resume=True))
