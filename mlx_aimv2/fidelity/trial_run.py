"""A checkpoint tried out on sample images: embeddings, hidden states, zero-shot labels, speed.

One model is in memory at a time; what is kept of it is small.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..backend.device import compute_dtype, on_cpu
from ..errors import InputError, NonFiniteError
from ..events import OnEvent, Progress, Skipped
from ..inference.embedder import Embedder
from ..inference.pooling import pool
from ..inference.stream import CPU_TOKENS, GPU_TOKENS
from ..inference.zero_shot import ZeroShotClassifier, fill_template
from ..loading import AnyModel, Checkpoint, LoadOptions, build_model
from ..models.lit import Aimv2Model
from ..models.vision import Aimv2VisionModel, patch_grid
from ..processing.decode import ImageInput
from ..processing.processor import Processor, as_items, is_sequence
from ..quantization.scheme import quantized_paths
from ..sources.readahead import Failed
from .report import Side
from .sample_drawings import draw

IMAGES = 64  # drawn where none are given: enough that ten neighbours are a choice
SIZES = ((320, 240), (240, 320), (280, 280), (336, 224))  # of the drawn ones, as many of each
LAYER_IMAGES, LAYER_BYTES = 16, 2**29  # whose hidden states are kept: so many, fewer where they are large
BATCHES = 3  # timed, after one that is not
LABELS = (  # for images that nothing is known of
    "a person", "a group of people", "a dog", "a cat", "a bird", "a horse", "a wild animal", "a flower", "a tree",
    "a mountain", "the sea", "a street", "a building", "a room", "a car", "an aircraft", "a boat", "food",
    "a drink", "a toy", "a machine", "a text", "a drawing", "the sky at night",
)  # fmt: skip
PROMPT = "a photo of {}."
States = dict[str, np.ndarray]  # by module path, (N, D) float32


@dataclass(frozen=True)
class Sample:
    """What a checkpoint is tried on.

    Attributes:
        images: the images.
        labels: for zero-shot labelling, where the checkpoint can do it.
        drawn: whether the images are the built-in drawings.
    """

    images: Sequence[ImageInput]
    labels: tuple[str, ...]
    drawn: bool

    @property
    def prompts(self) -> list[str]:
        """A sentence for each label."""
        return [fill_template(PROMPT, label) for label in self.labels]


@dataclass(frozen=True)
class Labelling:
    """What an image-text pair makes of the labels.

    Attributes:
        embeddings: (C, P) float32 of the prompts, unit length.
        probabilities: (N, C) float32 of the images.
        states: hidden states of every prompt.
    """

    embeddings: np.ndarray
    probabilities: np.ndarray
    states: list[States]


@dataclass(frozen=True)
class Trial:
    """What is kept of a checkpoint after its model is gone.

    Attributes:
        side: the checkpoint in words.
        images: the images that could be read.
        embeddings: (N, P) float32 of those, unit length.
        states: hidden states of a few of them, spread evenly.
        labelling: for an image-text pair.
    """

    side: Side
    images: Sequence[ImageInput]
    embeddings: np.ndarray
    states: list[States]
    labelling: Labelling | None = None


def make_sample(images: Sequence[ImageInput] | None) -> Sample:
    """The given images with general labels, or drawings with their captions.

    Raises:
        InputError: fewer than two images are given, or no sequence.
    """
    if images is not None:
        given = as_items(images)
        images = given if is_sequence(given) else list(given)  # type: ignore[assignment]
        _check_count(len(images), len(images))
        return Sample(images, LABELS, drawn=False)
    each = IMAGES // len(SIZES)
    drawings = [drawing for seed, size in enumerate(SIZES) for drawing in draw(each, seed, size)]
    captions = tuple(sorted({drawing.caption for drawing in drawings}))
    return Sample([drawing.image for drawing in drawings], captions, drawn=True)


def _check_count(good: int, given: int) -> None:
    if good < 2:
        found = f"only {good} of {given} could be read" if good < given else f"not {given}"
        raise InputError(
            f"a comparison needs at least two images, {found}: name more, or none for built-in drawings"
        )


def run_trial(
    stage: str,
    checkpoint: Checkpoint,
    processor: Processor,
    sample: Sample,
    options: LoadOptions,
    on_event: OnEvent,
) -> Trial:
    """Load a checkpoint, run it on the sample, and let it go.

    Args:
        stage: what progress is reported as.
        checkpoint: the one to load.
        processor: its own, or that of the checkpoint it is compared with.
        sample: what to run it on.
        options: dtype, and whether quantized weights stay packed.
        on_event: called with progress, notices, and the images that cannot be read.

    Raises:
        InputError: fewer than two images can be read.
        NonFiniteError: the model gives NaN or infinity; its name is in the message.
        CheckpointError: the weights cannot be read.
        OutputError: there is no room to unpack an .npz or .msgpack file.
    """
    model = build_model(checkpoint, compute_dtype(options.dtype), options.keep_quantized, on_event)
    embedder = Embedder(model, processor)
    with _named(model.origin.name):
        images, embeddings = _embed(stage, embedder, sample.images, on_event)
        states = list(_image_states(model, processor, images))
        labelling = _label(embedder, embeddings, sample) if isinstance(model, Aimv2Model) else None
    speed = _images_per_second(model, embedder.pooling, processor.image_processor(images[0]))
    return Trial(_side(checkpoint, model, speed), images, embeddings, states, labelling)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which of the two gives nothing finite."""
    try:
        yield
    except NonFiniteError as error:
        raise error.at(name) from error


def _embed(
    stage: str, embedder: Embedder, images: Sequence[ImageInput], on_event: OnEvent
) -> tuple[list[ImageInput], np.ndarray]:
    """The images that can be read, and their embeddings (N, P)."""
    good, vectors = [], []
    on_event(Progress(stage, 0, len(images)))
    for item in embedder.stream(images):
        if not isinstance(item, Failed):
            good.append(images[item.index])
            vectors.append(item.vector)
        elif isinstance(item.error, NonFiniteError):
            raise item.error
        elif item.error is not None:
            on_event(Skipped.of(_source(images[item.index], item.index), item.error))
        on_event(Progress(stage, item.index + 1, len(images)))
    _check_count(len(good), len(images))
    return good, np.stack(vectors)


def _source(image: ImageInput, index: int) -> str:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"image {index}"


def _label(embedder: Embedder, embeddings: np.ndarray, sample: Sample) -> Labelling:
    model, processor = embedder.model, embedder.processor
    classifier = ZeroShotClassifier(model, processor, sample.labels)
    states = list(_text_states(model, processor, sample.prompts))
    return Labelling(embedder.texts(sample.prompts), classifier.scores(embeddings), states)


def _image_states(model: AnyModel, processor: Processor, images: Sequence[ImageInput]) -> Iterator[States]:
    """Hidden states of some images, spread evenly over all, one image at a time."""
    vision, tower = _vision(model)
    held = 0
    count = min(len(images), LAYER_IMAGES)
    for image in (images[number * len(images) // count] for number in range(count)):
        if held >= LAYER_BYTES:
            return
        pixels = mx.array(processor.image_processor(image))[None]
        output = vision(pixels, output_hidden_states=True)
        states = _named_states(tower, output.hidden_states)
        held += sum(state.nbytes for state in states.values())
        yield states


def _text_states(model: AnyModel, processor: Processor, texts: list[str]) -> Iterator[States]:
    """Hidden states of texts, one at a time, so that there is no padding among them."""
    for text in texts:
        output = model.text_model(mx.array(processor.encode(text).input_ids), output_hidden_states=True)
        yield _named_states("text_model.", output.hidden_states)


def _vision(model: AnyModel) -> tuple[Aimv2VisionModel, str]:
    """The vision tower, and what its module paths begin with."""
    return model.vision, "vision_model." if isinstance(model, Aimv2Model) else ""


def _named_states(tower: str, hidden_states: tuple[mx.array, ...] | None) -> States:
    each = [state[0].astype(mx.float32) for state in hidden_states or ()]  # (N, D)
    mx.eval(each)
    states = [np.array(state) for state in each]
    names = [
        tower + name for name in ("embeddings", *(f"encoder.layers.{k}" for k in range(len(states) - 1)))
    ]
    for name, state in zip(names, states, strict=True):
        if not np.isfinite(state).all():
            raise NonFiniteError(f"the output of {name} holds NaN or infinity")
    return dict(zip(names, states, strict=True))


def _images_per_second(model: AnyModel, pooling: str, pixels: np.ndarray) -> float:
    """The median of a few batches of one image (H, W, 3), as many as suit the device."""
    h, w = patch_grid(_vision(model)[0].config, mx.array(pixels)[None])
    count = max(1, (CPU_TOKENS if on_cpu() else GPU_TOKENS) // (h * w))
    batch = mx.repeat(mx.array(pixels)[None], count, axis=0)
    mx.eval(batch, pool(model, batch, pooling))
    seconds = []
    for _ in range(BATCHES):
        start = time.perf_counter()
        mx.eval(pool(model, batch, pooling))
        seconds.append(time.perf_counter() - start)
    return count / statistics.median(seconds)


def _side(checkpoint: Checkpoint, model: AnyModel, speed: float) -> Side:
    packed = quantized_paths(dict(tree_flatten(model.parameters())))
    return Side(
        name=model.origin.name,
        layout=model.origin.layout,
        quantization=model.origin.quantization,
        stored=checkpoint.stored_dtype,
        nbytes=checkpoint.header.nbytes,
        dtype=model.origin.dtype,
        unpacked=model.origin.quantization is not None and not packed,
        images_per_second=speed,
    )
