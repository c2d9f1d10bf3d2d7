"""Find the image settings in the files of a checkpoint folder, such as `preprocessor_config.json`, and write them.

The first of these is used, as in timm and transformers:

1. `pretrained_cfg` in timm's config.json.
2. `image_processor` in processor_config.json, which transformers 5 writes for an image-text pair.
3. preprocessor_config.json, which every version of transformers writes for an image processor.
4. The published settings.
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
from .timm_settings import DEFAULTS, from_timm, timm_entries

PROCESSOR, ENTRY = "processor_config.json", "image_processor"
PROCESSOR_ENTRY = f"{PROCESSOR} ({ENTRY})"
OF_CLIP = PROCESSOR_TYPE
SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "image_mean": 0.5, "image_std": 0.5}
CLASS_DEFAULTS: Mapping[str, Mapping[str, Any]] = {  # of transformers' classes, if they differ from CLIP's
    OF_CLIP: {},
    "BitImageProcessor": {},
    "SiglipImageProcessor": SQUARE,
    "ViTImageProcessor": SQUARE | {"resample": 2},
}
NEEDED = {  # setting -> the switch that uses it
    "size": "do_resize",
    "crop_size": "do_center_crop",
    "image_mean": "do_normalize",
    "image_std": "do_normalize",
}


@dataclass(frozen=True)
class ImageSettings:
    """Image settings and the file that they are from.

    Attributes:
        config: the settings.
        source: the name of the file with the entry in it; None for the published settings.
        notes: messages for the user, such as the defaults that replace missing settings.
    """

    config: ImageProcessorConfig
    source: str | None
    notes: tuple[str, ...] = ()


def find_settings(folder: Path, config: AnyConfig) -> ImageSettings:
    """The image settings of a checkpoint folder.

    Raises:
        ConfigError: a file cannot be read, is not JSON, or has a wrong value.
    """
    vision = config.vision
    entries = None if vision.is_native else timm_entries(vision.extra)
    if entries is not None:
        arguments = vision.extra.get("model_args")
        size = arguments.get("img_size") if isinstance(arguments, Mapping) else None
        return _from_timm(
            folder, entries if size is None else {**entries, "input_size": size}, vision.image_size
        )
    if (first := next(_entries(folder), None)) is not None:
        return first
    published = ImageProcessorConfig.default(vision.image_size, vision.is_native)
    size = "native resolution" if vision.is_native else f"{vision.image_size} pixels"
    note = f"{folder} has no image settings: the published ones for {size} are used"
    return ImageSettings(published, None, (f"{note} (no {PREPROCESSOR}, no {PROCESSOR})",))


def write_settings(folder: Path, config: ImageProcessorConfig) -> None:
    """Write image settings to a checkpoint folder; files of transformers with the same settings stay unchanged.

    Always writes preprocessor_config.json, which every version of transformers reads.

    Raises:
        ConfigError: a file in the folder cannot be read, is not JSON, or has a wrong value.
    """
    is_same = {stored.source: stored.config.same_pixels(config) for stored in _entries(folder)}
    if not is_same.get(PREPROCESSOR, False):
        write_json(folder / PREPROCESSOR, {"image_processor_type": PROCESSOR_TYPE, **config.to_dict()})
    if is_same.get(PROCESSOR_ENTRY) is False:
        rest = read_json(folder / PROCESSOR)
        rest.pop(ENTRY)
        write_json(folder / PROCESSOR, rest)


def _entries(folder: Path) -> Iterator[ImageSettings]:
    """The settings in the files of transformers, in order of precedence."""
    if (path := folder / PROCESSOR).exists():
        entry = read_json(path).get(ENTRY)  # older files do not have it
        if entry is not None and not isinstance(entry, Mapping):
            raise ConfigError(f"{path}: {ENTRY} has to be an object, not a {type(entry).__name__}")
        if entry is not None:
            yield _read(folder, PROCESSOR_ENTRY, entry)
    if (path := folder / PREPROCESSOR).exists():
        yield _read(folder, PREPROCESSOR, read_json(path))


def _read(folder: Path, source: str, data: Mapping[str, Any]) -> ImageSettings:
    try:
        kind, known = processor_kind(data)
        stated = {key: value for key, value in data.items() if value is not None}
        config = ImageProcessorConfig.from_dict({**CLASS_DEFAULTS.get(kind, {}), **stated})
    except ConfigError as error:
        raise error.at(folder / source) from error
    notes = []
    if not known:
        notes.append(f"{folder / source} names {kind}, which is not known here: it is read as {OF_CLIP}")
    missing = [key for key, switch in NEEDED.items() if key not in stated and getattr(config, switch)]
    if missing:
        notes.append(
            f"{folder / source} has no {', '.join(missing)}: the defaults of {kind if known else OF_CLIP} are used"
        )
    return ImageSettings(config, source, tuple(notes))


def processor_kind(data: Mapping[str, Any]) -> tuple[str, bool]:
    """The class in transformers 5 that the settings belong to, and whether its defaults are known here.

    Raises:
        ConfigError: the name is not a string.
    """
    name = data.get("image_processor_type") or data.get("feature_extractor_type") or OF_CLIP
    if not isinstance(name, str):
        raise ConfigError(f"image_processor_type is {name!r:.80}, but has to be a name")
    kind = name.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    return kind, kind in CLASS_DEFAULTS


def _from_timm(folder: Path, entries: Mapping[str, Any], edge: int) -> ImageSettings:
    source = "config.json (pretrained_cfg)"
    try:
        config = from_timm(entries, edge)
    except ConfigError as error:
        raise error.at(folder / source) from error
    notes = []
    if missing := [key for key in DEFAULTS if not entries.get(key)]:
        notes.append(f"{folder / source} has no {', '.join(missing)}: timm's defaults are used")
    size = entries.get("input_size")  # [channels, height, width], or an edge
    edges = size[-2:] if isinstance(size, list) else [size, size]
    if size is not None and edges != [edge, edge]:
        notes.append(f"{folder / source} has input_size {size!r:.80}: the model takes {edge} x {edge} pixels")
    return ImageSettings(config, source, tuple(notes))
