"""Whole runs on a buffer of mlx-data: every kind of method, labels and captions, resumed runs, broken samples."""

from __future__ import annotations

import csv
import json
from typing import Any

import numpy as np
import pytest
from helpers.captioned import captioned
from PIL import Image

from mlx_aimv2.datasets.buffers import read_buffer_labels
from mlx_aimv2.errors import InputError
from mlx_aimv2.events import Skipped, ignore
from mlx_aimv2.finetuning.estimate import estimate
from mlx_aimv2.finetuning.features import _key as feature_key
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.run import finetune

dx: Any = pytest.importorskip("mlx.data", reason="mlx-data has no package for this machine")


def samples_of(data, as_pixels=True):
    """The images of class folders, with their paths as ids."""
    return [
        {
            "image": np.array(Image.open(path)) if as_pixels else str(path).encode(),
            "label": path.parent.name.encode(),
            "id": path.relative_to(data).as_posix().encode(),
        }
        for path in sorted(data.rglob("*.png"))
    ]


def record_of(finished):
    return json.loads((finished.folder / "splits.json").read_text())


@pytest.mark.parametrize("method", ["lora", "linear", "knn"])
@pytest.mark.parametrize("as_pixels", [True, False])
def test_a_run_is_that_of_the_folder(options, data, tmp_path, method, as_pixels):
    given = {"fine_tune_type": method, **({} if method == "knn" else {"epochs": 1})}
    folder = finetune(options(**given), ignore)
    buffer = dx.buffer_from_vector(samples_of(data, as_pixels))
    other = options(**given, data="", adapter_path=str(tmp_path / "buffer"))
    finished = finetune(other, ignore, data=buffer)
    ours, theirs = record_of(finished), record_of(folder)
    assert {name: ours[name] for name in ("labels", "train", "val", "skipped")} == {
        name: theirs[name] for name in ("labels", "train", "val", "skipped")
    }
    assert (ours["files"] == theirs["files"]) == (not as_pixels)
    assert set(ours["files"]) == set(theirs["files"])
    name = "head.safetensors"
    assert (finished.folder / name).read_bytes() == (folder.folder / name).read_bytes()
    assert finished.evaluation.to_dict() == {
        **folder.evaluation.to_dict(), "mistakes": finished.evaluation.to_dict()["mistakes"]
    }  # fmt: skip
    ids = {sample["id"].decode() for sample in samples_of(data)}
    assert {each.path for each in finished.evaluation.predictions} <= ids


def test_a_resumed_run_needs_the_same_samples(options, data):
    samples = samples_of(data)
    given = options(data="", epochs=1)
    finetune(given, ignore, data=dx.buffer_from_vector(samples))
    longer = options(data="", epochs=2, resume=True)
    changed = [{**samples[0], "image": 255 - samples[0]["image"]}, *samples[1:]]
    for other in (changed, samples[1:]):
        with pytest.raises(InputError, match=r"--resume: the images are not those that .*splits\.json names"):
            finetune(longer, ignore, data=dx.buffer_from_vector(other))
    finished = finetune(longer, ignore, data=dx.buffer_from_vector(samples[::-1]))
    assert finished.trained.steps == 8


def test_a_broken_sample_is_named_and_recorded(options, data):
    broken = {"image": b"nothing.png", "label": b"red", "id": b"gone"}
    events = []
    buffer = dx.buffer_from_vector([*samples_of(data), broken])
    finished = finetune(options(data="", epochs=1), events.append, data=buffer)
    skipped = [event for event in events if isinstance(event, Skipped)]
    assert [(each.source, each.reason) for each in skipped] == [
        ("gone", "gone: cannot be read: No such file or directory")
    ]
    assert record_of(finished)["skipped"] == ["gone"]


def test_random_crops_and_an_estimate(options, data):
    buffer = dx.buffer_from_vector(samples_of(data))
    given = options(data="", epochs=1, random_resized_crop=0.5, flip=0.5)
    assert estimate(given, ignore, data=buffer).steps == 4
    assert finetune(given, ignore, data=buffer).evaluation.metrics.count == 3


def test_stored_features_are_those_of_the_content(data):
    def key(samples):
        return feature_key(read_buffer_labels(dx.buffer_from_vector(samples)).train, {})

    pixels, paths = samples_of(data), samples_of(data, as_pixels=False)
    assert key(pixels) == key(pixels[::-1]) != key(paths)
    held = {item.path for item in read_buffer_labels(dx.buffer_from_vector(pixels)).val}
    place = next(k for k, sample in enumerate(pixels) if sample["id"].decode() not in held)
    pixels[place] = {**pixels[place], "image": 255 - pixels[place]["image"]}
    assert key(pixels) != key(samples_of(data))


def test_captions(tiny_pair, tmp_path, quick_runs):
    table = captioned(tmp_path / "words")
    texts: dict[str, list[str]] = {}
    with table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            texts.setdefault(row["path"], []).append(row["caption"])
    samples = [
        {"image": str(table.parent / name).encode(), "caption": "\n".join(own).encode(), "id": name.encode()}
        for name, own in texts.items()
    ]

    def run(name, buffer=None, data=""):
        given = FinetuneOptions(
            task="contrastive", model=str(tiny_pair), data=data, batch_size=6, epochs=1, rank=4,
            adapter_path=str(tmp_path / name),
        )  # fmt: skip
        return finetune(given, ignore, data=buffer)

    ours, theirs = run("buffer", dx.buffer_from_vector(samples)), run("table", data=str(table))
    assert record_of(ours) == record_of(theirs)
    assert ours.evaluation.metrics.numbers() == theirs.evaluation.metrics.numbers()


def test_options_for_paths_are_refused(options, data):
    buffer = dx.buffer_from_vector(samples_of(data))
    with pytest.raises(InputError, match=r"^the option data is for paths, and the data is a buffer"):
        finetune(options(), ignore, data=buffer)
    with pytest.raises(InputError, match=r"^the option exclude is for paths"):
        finetune(options(data="", exclude=("a",)), ignore, data=buffer)
    with pytest.raises(InputError, match=r"^data is a str, but has to be an mlx\.data\.Buffer"):
        finetune(options(data=""), ignore, data="photos")
