"""A run that begins at what an earlier one left: its weights, and every mismatch by name."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.captioned import captioned

from mlx_aimv2.errors import InputError, NotACheckpointError
from mlx_aimv2.events import Notice, StepDone
from mlx_aimv2.finetuning.estimate import estimate
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.run import finetune

STILL = {"iters": 1, "epochs": None, "learning_rate": 1e-12}  # a run that leaves what it began with
FILES = ("adapter_model.safetensors", "head.safetensors", "trunk.safetensors", "trained.safetensors")


def tensors(folder):
    return {
        f"{name}: {key}": np.array(x)
        for name in FILES
        if (Path(folder) / name).is_file()
        for key, x in mx.load(str(Path(folder) / name)).items()
        if "running" not in key  # averages of features move whatever the rate is
    }


def messages(given):
    events = []
    finished = finetune(given, events.append)
    return finished, [event.message for event in events if isinstance(event, Notice)]


@pytest.fixture
def first(options, tmp_path):
    """Gives the folder of a finished run by some method."""

    def make(method="lora", **given):
        rate = {"linear": 1e-2, "attentive": 5e-3, "full": 3e-4}.get(method, 3e-3)
        path = str(tmp_path / "first")
        return finetune(
            options(**{"fine_tune_type": method, "adapter_path": path, "learning_rate": rate, **given})
        ).folder

    return make


@pytest.fixture
def pair_options(tiny_pair, tmp_path, quick_runs):
    data = str(captioned(tmp_path / "words"))

    def make(**given):
        defaults = {
            "task": "contrastive", "data": data, "model": str(tiny_pair), "epochs": 1, "batch_size": 6,
            "rank": 4, "learning_rate": 1e-2, "adapter_path": str(tmp_path / "adapter"),
        }  # fmt: skip
        if given.get("fine_tune_type") == "full":
            del defaults["rank"]
        return FinetuneOptions(**{**defaults, **given})

    return make


@pytest.mark.parametrize(
    ("method", "named"),
    [
        ("linear", "file"), ("attentive", "folder"), ("lora", "file"), ("lora", "folder"), ("dora", "folder"),
        ("full", "file"),
    ],
)  # fmt: skip
def test_a_run_begins_with_the_weights_of_another(options, first, method, named):
    folder = first(method)
    file = {"full": "trunk.safetensors", "linear": "head.safetensors", "attentive": "head.safetensors"}
    start = folder / file.get(method, "adapter_model.safetensors") if named == "file" else folder
    given = options(fine_tune_type=method, resume_adapter_file=str(start), **STILL)
    finished, notices = messages(given)
    expected, found = tensors(folder), tensors(finished.folder)
    assert found.keys() == expected.keys() and notices == []
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, atol=1e-6, err_msg=name)
    fresh = tensors(finetune(replace(given, resume_adapter_file=None, adapter_path=f"{folder}-fresh")).folder)
    assert any(not np.allclose(fresh[name], x, atol=1e-3) for name, x in expected.items())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_pair_begins_with_the_weights_of_another(pair_options, tmp_path, method):
    first = finetune(pair_options(fine_tune_type=method, adapter_path=str(tmp_path / "first"))).folder
    given = pair_options(fine_tune_type=method, resume_adapter_file=str(first), **STILL)
    finished, notices = messages(given)
    expected, found = tensors(first), tensors(finished.folder)
    assert found.keys() == expected.keys() and notices == []
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, atol=1e-6, err_msg=name)


def test_the_optimizer_and_the_schedule_are_fresh(options, first, tmp_path):
    folder = first("lora")
    given = options(resume_adapter_file=str(folder), epochs=2)
    rates = []

    def keep(event):
        if isinstance(event, StepDone):
            rates.append((event.step, event.learning_rate))

    finished = finetune(given, keep)
    fresh = finetune(options(epochs=2, adapter_path=str(tmp_path / "fresh")))
    log = [json.loads(x) for x in (fresh.folder / "metrics.jsonl").read_text().splitlines()]
    assert rates == [(line["step"], line["learning_rate"]) for line in log if "learning_rate" in line]
    state = mx.load(str(finished.folder / ".training" / "state.safetensors"))
    assert {int(x) for name, x in state.items() if name.endswith(".step")} == {8}


def test_a_linear_probe_is_where_lora_begins(options, first):
    folder = first("linear")
    finished, notices = messages(options(resume_adapter_file=str(folder), **STILL))
    for name, x in tensors(folder).items():
        np.testing.assert_allclose(tensors(finished.folder)[name], x, atol=1e-6)
    assert notices == [f"{folder} has no adapter: this run begins with a fresh one"]


def test_an_adapter_of_peft_has_no_head(options, first, tmp_path):
    folder = first("lora")
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(folder / name, bare / name)
    finished, notices = messages(
        options(resume_adapter_file=str(bare / "adapter_model.safetensors"), **STILL)
    )
    expected, found = tensors(bare), tensors(finished.folder)
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, atol=1e-6)
    assert notices == [f"{bare} has no head: this run begins with a fresh one"]


def test_it_is_looked_at_by_a_dry_run_and_no_more_needed_for_a_resume(options, first, tmp_path):
    folder = first("lora")
    given = options(resume_adapter_file=str(folder), epochs=1)
    assert estimate(given).steps == 4
    with pytest.raises(InputError, match="--rank 2"):
        estimate(replace(given, rank=4))
    finetune(given)
    shutil.rmtree(folder)
    assert finetune(replace(given, resume=True, epochs=2)).trained.steps == 8
    estimated = estimate(replace(given, resume=True, epochs=5))
    assert (estimated.steps, estimated.epochs) == (12, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 4}, "its adapter has rank 2, not 4: give --rank 2"),
        ({"alpha": 8.0}, "its adapter has alpha 16, not 8: give --alpha 16"),
        ({"fine_tune_type": "dora"}, "the kind lora, and dora trains none such: give --fine-tune-type lora"),
        ({"fine_tune_type": "linear"}, "an adapter of the kind lora, and linear trains none such"),
        ({"fine_tune_type": "full"}, "an adapter of the kind lora, and full trains none such"),
        (
            {"target_modules": "q,v"},
            r"of other layers: 10 layers only there \(encoder.layers.{0-1}.attention.k_proj, .*: give the same"
            " --target-modules and --num-layers",
        ),
        ({"num_layers": 1}, r"7 layers only there \(encoder.layers.0.attention"),
        ({"batch_norm": True}, "batch_norm of its head is False, and True in this run"),
        ({"model": "demo"}, r"--resume-adapter-file .* was trained on .*, and this is demo .*: train on that one"),
        ({"resume_adapter_file": "nothing"}, "nothing: there is no such folder"),
        ({"resume_adapter_file": __file__}, "name the folder of an adapter, or its adapter_model.safetensors"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(options, first, tmp_path, given, message):
    folder = first("lora")
    usual = options(resume_adapter_file=str(folder))
    fields = {
        "fine_tune_type": given.get("fine_tune_type", "lora"),
        "resume_adapter_file": str(folder),
        **given,
    }
    with pytest.raises((InputError, NotACheckpointError), match=message):
        finetune(options(**fields))
    assert not Path(usual.adapter_path).exists() or not list(Path(usual.adapter_path).glob("*"))


def test_other_labels_are_named(options, first, own_data):
    folder = first("lora")
    (own_data / "red").rename(own_data / "rose")
    message = r"its head has other labels than the data: 1 only there \('red'\), 1 only in the data \('rose'\); copy"
    with pytest.raises(InputError, match=message):
        finetune(options(data=str(own_data), resume_adapter_file=str(folder)))


@pytest.mark.parametrize("method", ["lora", "linear"])
def test_a_whole_encoder_is_for_full_alone(options, first, method):
    folder = first("full")
    with pytest.raises(
        InputError, match=f"holds a whole encoder .*, and {method} trains none: give --fine-tune-type full"
    ):
        finetune(options(fine_tune_type=method, resume_adapter_file=str(folder)))


def test_an_adapter_with_several_ranks_is_named(options, first):
    folder = first("lora")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rank_pattern": {"q_proj": 4}}))
    with pytest.raises(InputError, match="its adapter has rank 2, 4, not 2: a run has a single one"):
        finetune(options(resume_adapter_file=str(folder)))


def test_another_task_is_named(options, pair_options, first):
    folder = first("lora")
    with pytest.raises(
        InputError, match="was trained with --task classify, and this run is --task contrastive"
    ):
        finetune(pair_options(resume_adapter_file=str(folder)))


def test_other_towers_are_named(pair_options, tmp_path):
    folder = finetune(pair_options(adapter_path=str(tmp_path / "first"))).folder
    with pytest.raises(
        InputError, match="was trained with --vision-tower adapted --text-tower adapted: give the same"
    ):
        finetune(pair_options(resume_adapter_file=str(folder), vision_tower="frozen"))


def test_neighbours_have_nothing_to_begin_with():
    with pytest.raises(
        InputError, match="--resume-adapter-file is for linear, attentive, lora, dora, full, not for knn"
    ):
        FinetuneOptions(data="x", fine_tune_type="knn", resume_adapter_file="x")


def test_held_out_images_that_were_trained_on_are_told(options, first):
    folder = first("lora")
    _, notices = messages(options(resume_adapter_file=str(folder), seed=5, **STILL))
    assert len(notices) == 1
    assert re.match(rf"[1-3] of 3 held-out images were trained on in {re.escape(str(folder))}: ", notices[0])
