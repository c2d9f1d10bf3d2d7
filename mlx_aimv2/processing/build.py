"""Build the processor of a checkpoint folder, and check it against the model."""

from __future__ import annotations

from pathlib import Path

from ..config import Aimv2Config, AnyConfig
from ..errors import Advice, ConfigError
from ..events import Notice, OnEvent, warn
from .image import ImageProcessor, NativeOptions
from .image_config import ImageProcessorConfig
from .image_settings import find_settings
from .options import DecodeOptions
from .processor import Processor
from .tokenizer import Tokenizer


def build_processor(
    folder: Path,
    config: AnyConfig,
    decode: DecodeOptions | None = None,
    native: NativeOptions | None = None,
    settings: ImageProcessorConfig | None = None,
    resized: bool = False,
    on_event: OnEvent = warn,
) -> Processor:
    """The processor of a checkpoint folder.

    Args:
        folder: the checkpoint.
        config: the config of its model.
        decode: options for decoding.
        native: range of patches of a native-resolution model.
        settings: image settings that replace those of the folder.
        resized: resize images of a fixed-size model to its ``image_size``, regardless of the settings.
        on_event: called with a notice about each default that replaces a missing setting.

    Raises:
        ConfigError: the image settings are damaged, or their output size does not fit the model; or the tokenizer
            does not fit the model.
        TokenizerError: the tokenizer files of an image-text pair are missing or damaged.
    """
    vision = config.vision
    source = "the adapter's task.json"
    if settings is None:
        stored = find_settings(folder, config)
        settings, source = stored.config, str(folder / (stored.source or ""))
        for note in stored.notes:
            on_event(Notice(note))
    if resized and not vision.is_native:
        settings = settings.resized(vision.image_size)
    images = ImageProcessor(settings, vision.patch_size, decode, native)
    _check_sizes(images, vision.image_size, vision.is_native, source)
    if not isinstance(config, Aimv2Config):
        return Processor(images)
    tokenizer, text = Tokenizer.from_folder(folder), config.text_config
    if tokenizer.vocab_size > text.vocab_size or tokenizer.eos_token_id != text.eos_token_id:
        raise ConfigError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} tokens with EOS {tokenizer.eos_token_id}, its model"
            f" {text.vocab_size} with EOS {text.eos_token_id}: the tokenizer files are another model's"
        )
    return Processor(images, tokenizer, text.max_position_embeddings)


def made_size(folder: Path, config: AnyConfig, settings: ImageProcessorConfig | None = None) -> int | None:
    """The edge in pixels of the square that a checkpoint's settings make of any image; None for other sizes.

    Raises:
        ConfigError: the image settings are damaged.
    """
    vision = config.vision
    settings = settings or find_settings(folder, config).config
    images = ImageProcessor(settings, vision.patch_size)
    if images.is_native:
        return None
    height, width = images.output_size(vision.image_size * 2, vision.image_size * 3)
    return height if height == width else None


def _check_sizes(images: ImageProcessor, image_size: int, is_native: bool, source: str) -> None:
    if is_native:  # the model takes any size
        return
    height, width = images.output_size(image_size * 2, image_size * 3)  # of an image that is not square
    if (height, width) != (image_size, image_size):
        raise ConfigError(
            f"{source} makes images of {height} x {width} pixels, and the model takes"
            f" {image_size} x {image_size}",
            resample_advice("correct its size and crop_size, or "),
        )


def resample_advice(instead: str = "") -> Advice:
    """The advice to resample the position table of a checkpoint, after what may be done instead."""
    text = f"{instead}resample the position table with {{}}"
    command = text.format("`mlx-aimv2 convert --interpolate-positions`")
    return Advice(text, "interpolate_positions", True, otherwise=command)
