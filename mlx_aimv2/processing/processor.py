"""The processor that `load` returns: image preprocessing and text tokenization to model inputs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, TypedDict, cast, overload

import numpy as np

from ..errors import InputError
from .decode import ImageInput
from .image import ImageProcessor
from .samples import is_buffer, is_stream, samples_of, stream_images
from .tokenizer import Encoding, Tokenizer

if TYPE_CHECKING:
    import mlx.core as mx


class PixelInputs(TypedDict):
    """Inputs of a vision tower."""

    pixel_values: mx.array
    """(B, H, W, 3) float32."""


class TextInputs(TypedDict):
    """Inputs of a text tower."""

    input_ids: mx.array
    """(B, T) int32."""
    attention_mask: mx.array
    """(B, T) int32."""


class PairInputs(PixelInputs, TextInputs):
    """Inputs of an image-text pair."""


class Processor:
    """Converts images and texts to the inputs of a model.

    Attributes:
        image_processor: converts an image to (H, W, 3) float32.
        tokenizer: converts texts to ids; None for checkpoints without a text encoder.
        max_text_length: the most tokens that the model takes, if that is less than the tokenizer allows.
    """

    def __init__(
        self,
        image_processor: ImageProcessor,
        tokenizer: Tokenizer | None = None,
        max_text_length: int | None = None,
    ) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.max_text_length = max_text_length

    @overload
    def __call__(self, images: ImageInput | Sequence[ImageInput], text: None = None) -> PixelInputs: ...

    @overload
    def __call__(self, images: None = None, *, text: str | Sequence[str]) -> TextInputs: ...

    @overload
    def __call__(self, images: None, text: str | Sequence[str]) -> TextInputs: ...

    @overload
    def __call__(
        self, images: ImageInput | Sequence[ImageInput], text: str | Sequence[str]
    ) -> PairInputs: ...

    def __call__(
        self, images: ImageInput | Sequence[ImageInput] | None = None, text: str | Sequence[str] | None = None
    ) -> PixelInputs | TextInputs | PairInputs:
        """Convert images, texts or both.

        Args:
            images: one image or several: paths, bytes, file objects, PIL images, numpy arrays (uint8, or
                floats in 0..1).
            text: one text or several; longer ones are truncated to the model's length, keeping EOS.

        Returns:
            `pixel_values` (B, H, W, 3) float32 for ``images``; `input_ids` and `attention_mask` (B, T) int32 for
            ``text``.

        Raises:
            InputError: both arguments are None, ``text`` is passed to a checkpoint without tokenizer, or images at
                native resolution differ in size (embed those one by one, or with `Embedder`).
            ImageError: an image cannot be read.
        """
        import mlx.core as mx

        if images is None and text is None:
            raise InputError("give images, text, or both")
        inputs: dict[str, mx.array] = {}
        if images is not None:
            inputs["pixel_values"] = mx.array(self._pixels(list(as_items(images))))
        if text is not None:
            encoding = self.encode(text)
            inputs["input_ids"] = mx.array(encoding.input_ids)
            inputs["attention_mask"] = mx.array(encoding.attention_mask)
        return cast("PairInputs", inputs)

    def encode(self, text: str | Sequence[str]) -> Encoding:
        """Tokenize texts to (B, T) int32, truncated to the length that the model takes.

        Raises:
            InputError: the checkpoint has no tokenizer, or an item is not a string.
        """
        if self.tokenizer is None:
            raise InputError("this checkpoint has no text encoder: use the image-text pair lit")
        longest = self.tokenizer.model_max_length
        return self.tokenizer(text, max_length=min(longest, self.max_text_length or longest))

    def _pixels(self, images: list[ImageInput]) -> np.ndarray:
        if not images:
            raise InputError("images is empty: give at least one")
        pixels = [self.image_processor(image) for image in images]
        sizes = sorted({array.shape[:2] for array in pixels})
        if len(sizes) > 1:
            listed = ", ".join(f"{height} x {width}" for height, width in sizes[:4])
            raise InputError(f"images of different sizes ({listed}) cannot share a batch: use Embedder")
        return np.stack(pixels)


def as_items(images: ImageInput | Iterable[ImageInput]) -> Iterable[ImageInput]:
    """Several images unchanged, a single image as a list; the samples of an mlx-data Buffer or Stream as images.

    Raises:
        InputError: the images are a set or a dictionary.
    """
    if is_stream(images):
        return stream_images(cast("Iterable[dict[str, Any]]", images))
    if is_buffer(images):
        return samples_of(images)
    if isinstance(images, (Set, Mapping)):
        raise InputError(
            f"images must be in an order, not a {type(images).__name__}: give a list, or its values"
        )
    one_image = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray))
    if one_image or hasattr(images, "read") or not (is_sequence(images) or hasattr(images, "__iter__")):
        return [cast("ImageInput", images)]
    return cast("Iterable[ImageInput]", images)


def is_sequence(images: object) -> bool:
    """Whether an object has a length and items, as a list has."""
    return hasattr(images, "__len__") and hasattr(images, "__getitem__")
