"""The demo's tour: embed, label and rank the sample images, and write everything to a folder."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import ExistsError, OutputError
from ..events import Notice, OnEvent, warn
from ..inference.embedder import Embedder
from ..inference.zero_shot import ZeroShotClassifier
from ..loading import load
from ..storage.atomic import replacing
from ..vectors.files import write
from .contact_sheet import draw_contact_sheet
from .findings import IMAGES, LABELS_FILE, SHEET, TOP, VECTORS, Sentence, Step, Tour, TourImage
from .images import LABELS, SampleImage, sample_images
from .options import TourOptions

TEMPLATES = ("{}", "a {}")  # as in the captions that the demo checkpoint was trained on
SENTENCES = 3


def take_tour(folder: Path, options: TourOptions | None = None, on_event: OnEvent = warn) -> Tour:
    """Embed, label and rank the sample images with a model; the checkpoint `demo` has never seen their labels.

    Args:
        folder: for `images/`, `labels.txt`, `vectors.npz` and `contact-sheet.png`.
        options: the model and the number of images.
        on_event: called with each step and its duration.

    Raises:
        InputError: the model is not an image-text pair.
        OutputError: the folder is not empty, or cannot be written.
        HubError, CheckpointError: the model cannot be downloaded or loaded.
    """
    options = options or TourOptions()
    steps: list[Step] = []

    @contextlib.contextmanager
    def step(name: str, message: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        steps.append(Step(name, time.perf_counter() - start))
        on_event(Notice(f"{message} ({steps[-1].seconds:.1f} s)", is_warning=False))

    _check_folder(folder, options.force)
    with step("load", f"loaded {options.model}"):
        model, processor = load(options.model, on_event=on_event)
        embedder = Embedder(model, processor)
    with step("label", f"embedded {len(LABELS)} labels"):
        classifier = ZeroShotClassifier(model, processor, LABELS, TEMPLATES)
    samples = sample_images()[: options.count]
    with step("copy", f"copied {len(samples)} images into {folder / IMAGES}"):
        paths = _copy(folder, samples)
    with step("embed", f"embedded the images into {folder / VECTORS}"):
        vectors = embedder.images(paths)
        write(folder / VECTORS, [str(path) for path in paths], vectors, embedder.fingerprint)
    with step("classify", "classified the images"):
        images = _classify(paths, samples, vectors, classifier)
    with step("rank", f"ranked the images for {SENTENCES} sentences"):
        sentences = _rank(samples, vectors, embedder)
    tour = Tour(folder, model.origin.name, images, sentences, tuple(steps))
    with step("sheet", f"drew {folder / SHEET}"), replacing(folder / SHEET) as partial:
        draw_contact_sheet(tour).save(partial, format="PNG")
    return replace(tour, steps=tuple(steps))


def _check_folder(folder: Path, force: bool) -> None:
    with _writing(folder):
        is_other = folder.exists() and not folder.is_dir()
        is_full = folder.is_dir() and any(folder.iterdir())
        is_earlier = (folder / IMAGES).is_dir()
    if is_other:
        raise ExistsError(f"{folder} is not a folder: name another")
    if is_earlier and not force:
        raise ExistsError(
            f"{folder} has the files of an earlier run: replace them with --force, or name another folder"
        )
    if is_full and not force:
        raise ExistsError(f"{folder} is not empty: name another folder, or write into it with --force")


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError.writing(folder, error) from error


def _copy(folder: Path, samples: list[SampleImage]) -> list[Path]:
    """Write the labels, replace the images of an earlier tour, and return the paths of the new ones."""
    paths = [folder / IMAGES / sample.path.name for sample in samples]
    with _writing(folder):
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        for sample in sample_images():
            (folder / IMAGES / sample.path.name).unlink(missing_ok=True)
        for sample, path in zip(samples, paths, strict=True):
            shutil.copyfile(sample.path, path)
    with replacing(folder / LABELS_FILE) as partial:
        partial.write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
    return paths


def _classify(
    paths: list[Path], samples: list[SampleImage], vectors: np.ndarray, classifier: ZeroShotClassifier
) -> tuple[TourImage, ...]:
    """The images with their best labels and nearest neighbours; ``vectors`` (N, P) have unit length."""
    scores, cosines = classifier.scores(vectors), vectors @ vectors.T  # (N, C), (N, N)
    np.fill_diagonal(cosines, -np.inf)
    images = []
    for k, (path, sample) in enumerate(zip(paths, samples, strict=True)):
        predictions = [(classifier.labels[c], score) for c, score in _best_first(scores[k])[:TOP]]
        neighbours = _best_first(cosines[k])[: min(TOP, len(paths) - 1)]
        images.append(TourImage(path, sample, predictions, neighbours))
    return tuple(images)


def _rank(samples: list[SampleImage], vectors: np.ndarray, embedder: Embedder) -> tuple[Sentence, ...]:
    """The captions of a few images (one shape, several alike, two kinds), and all images ranked for each."""
    kinds = {(len(x.labels), x.caption.startswith(("a ", "an "))): k for k, x in enumerate(samples)}
    others = [k for k in range(len(samples)) if k not in kinds.values()]
    numbers = sorted([*kinds.values(), *others][:SENTENCES])
    texts = [samples[k].caption for k in numbers]
    cosines = embedder.texts(texts) @ vectors.T  # (sentences, N)
    return tuple(
        Sentence(text, k, _best_first(row)) for text, k, row in zip(texts, numbers, cosines, strict=True)
    )


def _best_first(scores: np.ndarray) -> list[tuple[int, float]]:
    """The indices and scores, sorted."""
    return [(int(k), float(scores[k])) for k in np.argsort(-scores, kind="stable")]
