"""The command line as its users run it, its output piped; in this process, or in one of its own."""

import contextlib
import io
import json
import os
import subprocess
import sys
import warnings
from typing import NamedTuple
from unittest import mock

import mlx.core as mx
import numpy as np
import pytest
from drawn_world.untrained import write_checkpoint
from mlx.utils import tree_flatten
from PIL import Image

from mlx_aimv2 import load
from mlx_aimv2.adapters.attach import AdapterConfig
from mlx_aimv2.adapters.store import write_tensors
from mlx_aimv2.adapters.task import Task, write_task
from mlx_aimv2.adapters.weights import HEAD
from mlx_aimv2.models.classifier_heads import make_head

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "MLX_AIMV2_DEVICE": "cpu"}
READ_AT_CALL = {"COLUMNS", "MLX_AIMV2_DEVICE"}  # other variables are read when a module is imported


class Finished(NamedTuple):
    """What a command left, as `subprocess.run` has it."""

    returncode: int
    stdout: str
    stderr: str


def run_process(*arguments, stdin=None, **environment):
    """Run `python -m mlx_aimv2`; the result has `returncode`, `stdout` and `stderr` as text."""
    return subprocess.run(
        [sys.executable, "-m", "mlx_aimv2", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **ENVIRONMENT, **environment},
    )


def run_cli(*arguments, stdin=None, **environment):
    """Run the command line in this process, which takes a tenth of the time of another one."""
    if not environment.keys() <= READ_AT_CALL:
        return run_process(*arguments, stdin=stdin, **environment)
    from mlx_aimv2.cli.app import run

    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(3)]
    streams[0].write(stdin or "")
    streams[0].seek(0)
    names = ("sys.stdin", "sys.stdout", "sys.stderr")
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.dict(os.environ, {**ENVIRONMENT, **environment}))
        patches.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        for name, stream in zip(names, streams, strict=True):
            patches.enter_context(mock.patch(name, stream))
        status = run([str(argument) for argument in arguments])
    return Finished(status, *(stream.buffer.getvalue().decode() for stream in streams[1:]))


@pytest.fixture(scope="session")
def cli():
    return run_cli


@pytest.fixture(scope="session")
def cli_process():
    """The command line in a process of its own, for what depends on that."""
    return run_process


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """A tiny image-text pair in Apple's layout."""
    return write_checkpoint(tmp_path_factory.mktemp("cli") / "pair")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three images of different sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for number, size in enumerate([(90, 60), (60, 90), (200, 80)]):
        image = Image.effect_noise(size, 60 + 20 * number).convert("RGB")
        image.save(folder / f"{number}.png")
    return folder


@pytest.fixture
def many(tmp_path):
    """Makes a folder with one image under many names."""

    def make(name, count):
        folder = tmp_path / name
        folder.mkdir()
        Image.effect_noise((600, 500), 80).convert("RGB").save(folder / "00000.png")
        for number in range(1, count):
            os.link(folder / "00000.png", folder / f"{number:05d}.png")
        return folder

    return make


LEVELS = {"bright": 255, "dark": 0, "grey_ish": 128}


@pytest.fixture(scope="session")
def shades(tmp_path_factory):
    """A folder for each of three classes, with ten images each."""
    folder = tmp_path_factory.mktemp("shades")
    for name, level in LEVELS.items():
        (folder / name).mkdir()
        for k in range(10):
            Image.new("RGB", (60, 70 + k), (max(0, level - k),) * 3).save(folder / name / f"{k}.png")
    return folder


def write_head(folder, base, data, multi_label=False):
    """A head on ``base`` that knows the classes of ``data``: it is solved for, by least squares."""
    from mlx.utils import tree_flatten

    from mlx_aimv2.adapters.store import write_tensors
    from mlx_aimv2.adapters.task import Task, write_task
    from mlx_aimv2.adapters.weights import HEAD
    from mlx_aimv2.datasets.labelled import read_dataset
    from mlx_aimv2.datasets.record import MARKS, RECORD, file_marks, split_record
    from mlx_aimv2.models.classifier import Classifier
    from mlx_aimv2.models.classifier_heads import LinearHead

    pair, processor = load(base)
    dataset = read_dataset(data, val_fraction=0)
    classifier = Classifier(pair.vision_model, LinearHead(64, len(dataset.labels)), "mean")
    pixels = np.stack([processor.image_processor(example.path) for example in dataset.train])
    features = np.array(classifier.features(mx.array(pixels))).astype(np.float64)
    targets = np.array([example.labels[0] for example in dataset.train])
    inputs = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    wanted = np.eye(len(dataset.labels))[targets] * 20 - 10
    solved = np.linalg.lstsq(inputs, wanted, rcond=None)[0].astype(np.float32)
    classifier.head.linear.weight, classifier.head.linear.bias = mx.array(solved[:-1].T), mx.array(solved[-1])
    folder.mkdir()
    write_tensors(folder / HEAD, dict(tree_flatten(classifier.head.parameters())), {"format": "mlx"})
    write_task(
        folder, Task(labels=dataset.labels, base=pair.origin, method="linear-probe", multi_label=multi_label)
    )
    held_out = read_dataset(data)
    (folder / RECORD).write_text(json.dumps({**split_record(held_out), MARKS: file_marks(held_out)}))
    return folder


@pytest.fixture(scope="session")
def probe(pair, shades, tmp_path_factory):
    """A trained head on the pair, for the shades."""
    return write_head(tmp_path_factory.mktemp("probe") / "one", pair, shades)


@pytest.fixture(scope="session")
def tagger(pair, shades, tmp_path_factory):
    """The same with a yes or no for every label."""
    return write_head(tmp_path_factory.mktemp("probe") / "several", pair, shades, multi_label=True)


@pytest.fixture(scope="session")
def adapter(with_adapter, pair, tmp_path_factory):
    """An adapter of the pair's image encoder, with a head."""
    folder = tmp_path_factory.mktemp("adapters") / "a"
    model = with_adapter(pair, folder, AdapterConfig(rank=2))
    head = make_head({"kind": "linear"}, 64, 2)
    write_tensors(folder / HEAD, dict(tree_flatten(head.parameters())), {"format": "mlx"})
    write_task(folder, Task(labels=("cat", "dog"), base=model.origin, method="lora"))
    return folder
