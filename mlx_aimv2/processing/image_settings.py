"""Where a checkpoint folder keeps its settings for images, and which of several places counts.

1. timm's config.json (`pretrained_cfg`), as timm itself and transformers have it.
2. `image_processor` in processor_config.json, where transformers 5 writes the processor of an image-text pair.
3. preprocessor_config.json, where every transformers writes an image processor by itself.
4. None of them: the published settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import AnyConfig
from ..errors import ConfigError
from ..storage.json_files import read_json, write_json
from .image_config import PREPROCESSOR, PROCESSOR_TYPE, ImageProcessorConfig
from .timm_settings import DEFAULTS, from_timm, timm_words

PROCESSOR, ENTRY = "processor_config.json", "image_processor"
PROCESSOR_ENTRY = f"{PROCESSOR} ({ENTRY})"
OF_CLIP = PROCESSOR_TYPE
SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "image_mean": 0.5, "image_std": 0.5}
CLASS_DEFAULTS: Mapping[str, Mapping[str, Any]] = {  # of transformers' classes, where they are not CLIP's
    OF_CLIP: {},
    "BitImageProcessor": {},
    "SiglipImageProcessor": SQUARE,
    "ViTImageProcessor": SQUARE | {"resample": 2},
}
NEEDED = {  # what decides the pixels, and what makes it matter
    "size": "do_resize",
    "crop_size": "do_center_crop",
    "image_mean": "do_normalize",
    "image_std": "do_normalize",
}


@dataclass(frozen=True)
class ImageSettings:
    """What is done to an image, and which file says so.

    Attributes:
        config: the settings.
        source: the file's name, with the entry in it; None for the published settings.
        notes: what a user should hear, such as which defaults stand in for something missing.
    """

    config: ImageProcessorConfig
    source: str | None
    notes: tuple[str, ...] = ()


def find_settings(folder: Path, config: AnyConfig) -> ImageSettings:
    """The settings of a checkpoint folder.

    Raises:
        ConfigError: a file cannot be read, is not JSON, or holds a wrong value.
    """
    vision = config.vision
    words = None if vision.is_native else timm_words(vision.extra)
    if words is not None:
        arguments = vision.extra.get("model_args")
        stated = arguments.get("img_size") if isinstance(arguments, Mapping) else None
        return _of_timm(
            folder, words if stated is None else {**words, "input_size": stated}, vision.image_size
        )
    if (first := next(_entries(folder), None)) is not None:
        return first
    published = ImageProcessorConfig.default(vision.image_size, vision.is_native)
    size = "native resolution" if vision.is_native else f"{vision.image_size} pixels"
    note = f"{folder} says nothing of how images are prepared: the published settings for {size} stand in"
    return ImageSettings(published, None, (f"{note} (no {PREPROCESSOR}, no {PROCESSOR})",))


def write_settings(folder: Path, config: ImageProcessorConfig) -> None:
    """Make the files of transformers in a checkpoint folder say ``config``; those that say so already stay.

    There is a preprocessor_config.json in any case, which every version of transformers reads.

    Raises:
        ConfigError: a file in the folder cannot be read, is not JSON, or holds a wrong value.
    """
    saying = {one.source: one.config.same_pixels(config) for one in _entries(folder)}
    if not saying.get(PREPROCESSOR, False):
        write_json(folder / PREPROCESSOR, {"image_processor_type": PROCESSOR_TYPE, **config.to_dict()})
    if saying.get(PROCESSOR_ENTRY) is False:
        rest = read_json(folder / PROCESSOR)
        rest.pop(ENTRY)
        write_json(folder / PROCESSOR, rest)


def _entries(folder: Path) -> Iterator[ImageSettings]:
    """What the files of transformers say, the one that counts first."""
    if (path := folder / PROCESSOR).exists():
        entry = read_json(path).get(ENTRY)  # older files have other entries alone
        if entry is not None and not isinstance(entry, Mapping):
            raise ConfigError(f"{path}: {ENTRY} has to be an object, not a {type(entry).__name__}")
        if entry is not None:
            yield _read(folder, PROCESSOR_ENTRY, entry)
    if (path := folder / PREPROCESSOR).exists():
        yield _read(folder, PREPROCESSOR, read_json(path))


def _read(folder: Path, source: str, data: Mapping[str, Any]) -> ImageSettings:
    try:
        kind, known = processor_kind(data)
        given = {key: value for key, value in data.items() if value is not None}
        config = ImageProcessorConfig.from_dict({**CLASS_DEFAULTS.get(kind, {}), **given})
    except ConfigError as error:
        raise ConfigError(f"{folder / source}: {error}") from error
    notes = []
    if not known:
        notes.append(f"{folder / source} names {kind}, which is not known here: it is read as {OF_CLIP}")
    missing = [key for key, switch in NEEDED.items() if key not in given and getattr(config, switch)]
    if missing:
        shown = kind if known else OF_CLIP
        notes.append(f"{folder / source} names no {', '.join(missing)}: the defaults of {shown} stand in")
    return ImageSettings(config, source, tuple(notes))


def processor_kind(data: Mapping[str, Any]) -> tuple[str, bool]:
    """The class of transformers that the settings are of, by its name of today, and whether it is known here.

    Raises:
        ConfigError: the name is no text.
    """
    name = data.get("image_processor_type") or data.get("feature_extractor_type") or OF_CLIP
    if not isinstance(name, str):
        raise ConfigError(f"image_processor_type is {name!r:.80}, but has to be a name")
    kind = name.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    return kind, kind in CLASS_DEFAULTS


def _of_timm(folder: Path, words: Mapping[str, Any], edge: int) -> ImageSettings:
    source = "config.json (pretrained_cfg)"
    try:
        config = from_timm(words, edge)
    except ConfigError as error:
        raise ConfigError(f"{folder / source}: {error}") from error
    notes = []
    if missing := [key for key in DEFAULTS if not words.get(key)]:
        notes.append(f"{folder / source} names no {', '.join(missing)}: timm's defaults stand in")
    size = words.get("input_size")  # with the channels first, or a size alone
    edges = size[-2:] if isinstance(size, list) else [size, size]
    if size is not None and edges != [edge, edge]:
        notes.append(
            f"{folder / source} says input_size {size!r:.80}: the model takes {edge} x {edge} pixels"
        )
    return ImageSettings(config, source, tuple(notes))
