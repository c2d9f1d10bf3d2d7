"""All that an image-text pair does, on a few drawn images: vectors, labels, sentences, neighbours."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import ExistsError, InputError, OutputError
from ..evaluation.canvas import save_image
from ..events import Notice, OnEvent, ignore
from ..inference.embedder import Embedder
from ..inference.zero_shot import ZeroShotClassifier
from ..loading import load
from ..presets import DEMO_MODEL
from ..storage.atomic import replacing
from ..vectors.files import write
from .contact_sheet import draw_contact_sheet
from .examples import Example, shown_examples
from .findings import IMAGES, KEPT, LABELS_FILE, SHEET, VECTORS, Sentence, Step, Tour, TourImage
from .scenes import LABELS

SIDE = 224  # of the images, in pixels
FEWEST, MOST = 4, 60
TEMPLATES = ("{}", "a {}")  # as the captions of the drawn world put it
SENTENCES = 3
_LABEL = f"(?:{'|'.join(label.replace(' ', '-') for label in LABELS)})"
_DRAWN = re.compile(rf"\d\d-{_LABEL}(?:-{_LABEL})?\.png")  # the files of an earlier tour


@dataclass(frozen=True)
class TourOptions:
    """What a tour shows.

    Attributes:
        model: a folder, a repository, or a short name of an image-text pair.
        seed: of the images.
        count: how many there are.
        force: write into a folder that holds something already.

    Raises:
        InputError: the count is out of range.
    """

    model: str = DEMO_MODEL
    seed: int = 0
    count: int = 12
    force: bool = False

    def __post_init__(self) -> None:
        if not FEWEST <= self.count <= MOST:
            raise InputError(f"the count is {self.count!r}, but has to be from {FEWEST} to {MOST} images")


class _Steps:
    """Says what was done and how long it took, and keeps it."""

    def __init__(self, on_event: OnEvent) -> None:
        self.done: list[Step] = []
        self._on_event = on_event

    @contextlib.contextmanager
    def step(self, name: str, words: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.done.append(Step(name, time.perf_counter() - start))
        self._on_event(Notice(f"{words} ({self.done[-1].seconds:.1f} s)"))


def take_tour(folder: Path, options: TourOptions | None = None, on_event: OnEvent = ignore) -> Tour:
    """Draw images with things that `demo` has never seen, and let a model embed, label, find and compare them.

    Args:
        folder: for `images/`, `labels.txt`, `vectors.npz` and `contact-sheet.png`.
        options: which model, which images.
        on_event: called with what is done, and how long it took.

    Raises:
        InputError: the model is no image-text pair, or names nothing.
        OutputError: the folder holds something already, or cannot be written.
        HubError, CheckpointError: the model cannot be had or loaded.
    """
    options = options or TourOptions()
    steps = _Steps(on_event)
    _check_folder(folder, options.force)
    with steps.step("load", f"loaded {options.model}"):
        model, processor = load(options.model, on_event=on_event)
        embedder = Embedder(model, processor)
    with steps.step("label", f"embedded {len(LABELS)} labels"):
        classifier = ZeroShotClassifier(model, processor, LABELS, TEMPLATES)
    examples = shown_examples(options.count, options.seed)
    with steps.step("draw", f"drew {len(examples)} images into {folder / IMAGES}"):
        paths = _draw(folder, examples)
    with steps.step("embed", f"embedded them into {folder / VECTORS}"):
        vectors = embedder.images(paths)
        write(folder / VECTORS, [str(path) for path in paths], vectors, embedder.fingerprint)
    with steps.step("classify", "classified them"):
        images = _classified(paths, examples, vectors, classifier)
    with steps.step("rank", f"ranked them for {SENTENCES} sentences"):
        sentences = _ranked(examples, vectors, embedder)
    tour = Tour(folder, model.origin.name, images, sentences, tuple(steps.done))
    with steps.step("sheet", f"put all of it on {folder / SHEET}"):
        save_image(folder / SHEET, draw_contact_sheet(tour))
    return replace(tour, steps=tuple(steps.done))


def _check_folder(folder: Path, force: bool) -> None:
    with _writing(folder):
        other = folder.exists() and not folder.is_dir()
        full = folder.is_dir() and any(folder.iterdir())
        earlier = (folder / IMAGES).is_dir()
    if other:
        raise ExistsError(f"{folder} is not a folder: name another")
    if earlier and not force:
        raise ExistsError(
            f"{folder} holds what an earlier run drew: draw it again with --force, or name another folder"
        )
    if full and not force:
        raise ExistsError(f"{folder} is not empty: name another folder, or write into it with --force")


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error


def _draw(folder: Path, examples: list[Example]) -> list[Path]:
    """Write the labels, and the images in place of those of an earlier tour; the files of the images."""
    with _writing(folder):
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        for earlier in (folder / IMAGES).iterdir():
            if _DRAWN.fullmatch(earlier.name):
                earlier.unlink()
    with replacing(folder / LABELS_FILE) as partial:
        partial.write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
    paths = []
    for number, example in enumerate(examples):
        words = "-".join(thing.label.replace(" ", "-") for thing in example.scene.things)
        paths.append(folder / IMAGES / f"{number:02d}-{words}.png")
        save_image(paths[-1], example.image(SIDE))
    return paths


def _classified(
    paths: list[Path], examples: list[Example], vectors: np.ndarray, classifier: ZeroShotClassifier
) -> tuple[TourImage, ...]:
    """The images with their best labels and nearest neighbours; ``vectors`` (N, P) have unit length."""
    scores, cosines = classifier.scores(vectors), vectors @ vectors.T  # (N, C), (N, N)
    np.fill_diagonal(cosines, -np.inf)
    images = []
    for k, (path, example) in enumerate(zip(paths, examples, strict=True)):
        predictions = [(classifier.labels[c], score) for c, score in _best(scores[k])[:KEPT]]
        images.append(TourImage(path, example, predictions, _best(cosines[k])[: min(KEPT, len(paths) - 1)]))
    return tuple(images)


def _ranked(examples: list[Example], vectors: np.ndarray, embedder: Embedder) -> tuple[Sentence, ...]:
    """Sentences about images that differ in kind, with the images ranked for each."""
    kinds = {(one.scene.other is None, one.scene.thing.count > 1): k for k, one in enumerate(examples)}
    others = [k for k in range(len(examples)) if k not in kinds.values()]
    numbers = sorted([*kinds.values(), *others][:SENTENCES])
    texts = [examples[k].caption for k in numbers]
    cosines = embedder.texts(texts) @ vectors.T  # (sentences, N)
    return tuple(Sentence(text, k, _best(row)) for text, k, row in zip(texts, numbers, cosines, strict=True))


def _best(scores: np.ndarray) -> list[tuple[int, float]]:
    """Places and scores, best first."""
    return [(int(k), float(scores[k])) for k in np.argsort(-scores, kind="stable")]
