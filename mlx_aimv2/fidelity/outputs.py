"""The outputs of a checkpoint on sample images: embeddings, hidden states, zero-shot labels, speed.

One model is in memory at a time; its results are small.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..backend.device import compute_dtype
from ..checkpoints.matching import dtype_name
from ..errors import InputError, NonFiniteError
from ..events import OnEvent
from ..inference.batch_size import BatchSize
from ..inference.collect import collect
from ..inference.embedder import Embedder
from ..inference.pooling import pool
from ..inference.zero_shot import ZeroShotClassifier, fill_template
from ..loading import AnyModel, Checkpoint, LoadOptions, build_model
from ..models.vision import Aimv2VisionModel
from ..processing.decode import ImageInput
from ..processing.processor import Processor, as_items, is_sequence
from ..quantization.scheme import quantized_paths
from .report import Side
from .sample_drawings import draw

IMAGES = 64  # drawings: enough that ten neighbours are a choice
SIZES = ((320, 240), (240, 320), (280, 280), (336, 224))  # of the drawings, as many of each
LAYER_IMAGES, LAYER_BYTES = 16, 2**29  # images and bytes of hidden states to keep, at most
BATCHES, TIMED_S = 3, 0.2  # batches and seconds that are timed, at least, after an untimed batch
LABELS = (  # for images of unknown content
    "a person", "a group of people", "a dog", "a cat", "a bird", "a horse", "a wild animal", "a flower", "a tree",
    "a mountain", "the sea", "a street", "a building", "a room", "a car", "an aircraft", "a boat", "food",
    "a drink", "a toy", "a machine", "a text", "a drawing", "the sky at night",
)  # fmt: skip
PROMPT = "a photo of {}."
States = dict[str, np.ndarray]  # by module path, (N, D) float32


@dataclass(frozen=True)
class Sample:
    """The inputs of a comparison.

    Attributes:
        images: the images.
        labels: for zero-shot classification with an image-text pair.
        drawn: whether the images are the built-in drawings.
    """

    images: Sequence[ImageInput]
    labels: tuple[str, ...]
    drawn: bool

    @property
    def prompts(self) -> list[str]:
        """The prompt of each label."""
        return [fill_template(PROMPT, label) for label in self.labels]


@dataclass(frozen=True)
class Labelling:
    """The zero-shot results of an image-text pair.

    Attributes:
        embeddings: (C, P) float32 of the prompts, unit length.
        probabilities: (N, C) float32 of the images.
        states: hidden states of every prompt.
    """

    embeddings: np.ndarray
    probabilities: np.ndarray
    states: list[States]


@dataclass(frozen=True)
class Outputs:
    """What a checkpoint computes from the sample.

    Attributes:
        side: the checkpoint in the report.
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

    @property
    def all_states(self) -> list[States]:
        """Hidden states of images and prompts."""
        return self.states + (self.labelling.states if self.labelling else [])


def make_sample(images: Sequence[ImageInput] | None) -> Sample:
    """The sample of ``images`` with general labels, or without images drawings with their captions.

    Raises:
        InputError: there are fewer than two images, or ``images`` is no sequence.
    """
    if images is not None:
        items = as_items(images)
        images = items if is_sequence(items) else list(items)  # type: ignore[assignment]
        _check_count(len(images), len(images))
        return Sample(images, LABELS, drawn=False)
    each = IMAGES // len(SIZES)
    drawings = [drawing for seed, size in enumerate(SIZES) for drawing in draw(each, seed, size)]
    captions = tuple(sorted({drawing.caption for drawing in drawings}))
    return Sample([drawing.image for drawing in drawings], captions, drawn=True)


def _check_count(readable: int, total: int) -> None:
    if readable < 2:
        count = f"only {readable} of {total} could be read" if readable < total else f"not {total}"
        raise InputError(
            f"a comparison needs at least two images, {count}: name more, or none for built-in drawings"
        )


def compute_outputs(
    stage: str,
    checkpoint: Checkpoint,
    processor: Processor,
    sample: Sample,
    options: LoadOptions,
    on_event: OnEvent,
) -> Outputs:
    """Load a checkpoint, run it on the sample, and free it.

    Args:
        stage: the name of the stage in progress events.
        checkpoint: the checkpoint to load.
        processor: the checkpoint's own, or that of the one it is compared with.
        sample: images and labels.
        options: dtype, and whether quantized weights stay packed.
        on_event: called with progress, notices, and the images that cannot be read.

    Raises:
        InputError: fewer than two images can be read.
        NonFiniteError: the model gives NaN or infinity; the message names it.
        CheckpointError: the weights cannot be read.
        OutputError: there is no room to unpack an .npz or .msgpack file.
    """
    model = build_model(checkpoint, compute_dtype(options.dtype), options.keep_quantized, on_event)
    embedder = Embedder(model, processor)
    try:
        images, embeddings = _embed(stage, embedder, sample.images, on_event)
        states = list(_image_states(model, processor, images))
        labelling = _label(embedder, embeddings, sample) if model.config.is_pair else None
    except NonFiniteError as error:
        raise error.at(model.origin.name) from error
    speed = _images_per_second(model, embedder.pooling, processor.image_processor(images[0]))
    return Outputs(_side(checkpoint, model, speed), images, embeddings, states, labelling)


def _embed(
    stage: str, embedder: Embedder, images: Sequence[ImageInput], on_event: OnEvent
) -> tuple[list[ImageInput], np.ndarray]:
    """The images that can be read, and their embeddings (N, P)."""
    names = [
        os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"image {index}"
        for index, image in enumerate(images)
    ]
    collected = collect(embedder.stream(images), names, stage, on_event)
    _check_count(len(collected.indices), len(images))
    return [images[index] for index in collected.indices], collected.vectors


def _label(embedder: Embedder, embeddings: np.ndarray, sample: Sample) -> Labelling:
    model, processor = embedder.model, embedder.processor
    classifier = ZeroShotClassifier(model, processor, sample.labels)
    states = list(_text_states(model, processor, sample.prompts))
    return Labelling(embedder.texts(sample.prompts), classifier.scores(embeddings), states)


def _image_states(model: AnyModel, processor: Processor, images: Sequence[ImageInput]) -> Iterator[States]:
    """Hidden states of some images, spread evenly over all, one image at a time."""
    vision, tower = _vision(model)
    nbytes = 0
    count = min(len(images), LAYER_IMAGES)
    for image in (images[number * len(images) // count] for number in range(count)):
        if nbytes >= LAYER_BYTES:
            return
        pixels = mx.array(processor.image_processor(image))[None]
        output = vision(pixels, output_hidden_states=True)
        states = _named_states(tower, output.hidden_states)
        nbytes += sum(state.nbytes for state in states.values())
        yield states


def _text_states(model: AnyModel, processor: Processor, texts: list[str]) -> Iterator[States]:
    """Hidden states of texts, one at a time and so without padding."""
    for text in texts:
        output = model.text_model(mx.array(processor.encode(text).input_ids), output_hidden_states=True)
        yield _named_states("text_model.", output.hidden_states)


def _vision(model: AnyModel) -> tuple[Aimv2VisionModel, str]:
    """The vision tower, and the start of its module paths."""
    return model.vision, "vision_model." if model.config.is_pair else ""


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
    """The best speed of a few batches of one image (H, W, 3), as large as suits the device."""
    count = BatchSize(None, _vision(model)[0]).of(*pixels.shape[:2])
    batch = mx.repeat(mx.array(pixels)[None], count, axis=0)
    mx.eval(batch, pool(model, batch, pooling))
    seconds: list[float] = []
    while len(seconds) < BATCHES or sum(seconds) < TIMED_S:
        start = time.perf_counter()
        mx.eval(pool(model, batch, pooling))
        seconds.append(time.perf_counter() - start)
    return count / min(seconds)


def _side(checkpoint: Checkpoint, model: AnyModel, speed: float) -> Side:
    packed = quantized_paths(dict(tree_flatten(model.parameters())))
    return Side(
        name=model.origin.name,
        layout=model.origin.layout,
        quantization=model.origin.quantization,
        stored=dtype_name(checkpoint.stored_dtype),
        nbytes=checkpoint.header.nbytes,
        dtype=model.origin.dtype,
        unpacked=model.origin.quantization is not None and not packed,
        images_per_second=speed,
    )
