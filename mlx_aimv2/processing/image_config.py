"""`ImageProcessorConfig`: image settings (size, crop, filter, mean, std), checked, from and to JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ConfigError

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR_TYPE = "CLIPImageProcessor"  # the class in transformers
MAX_EDGE = 4096  # pixels; a larger edge is an error in the file
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RESAMPLE_NAMES = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers 0 to 5
ROUNDINGS = ("down", "even")
TRANSFORMERS_DOES: Mapping[str, Any] = {"longest": False, "crop_fill": (0, 0, 0), "crop_rounding": "down"}
SWITCHES = {  # switch -> settings without effect if it is false; `resample` always has one
    "do_resize": ("size", "longest"),
    "do_center_crop": ("crop_size", "crop_fill", "crop_rounding"),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ImageProcessorConfig:
    """The steps from an 8-bit RGB image to `pixel_values`, in this order.

    The defaults are those of transformers' `CLIPImageProcessor`, the class of every published checkpoint.

    Attributes:
        do_convert_rgb: Whether other modes are converted to RGB. Has no effect and is only written back: images are
            always converted.
        do_resize: Whether to resize to `size`. Together with `do_center_crop` false: native resolution.
        size: An integer is the short edge in pixels, and the aspect ratio is kept; (height, width) is exact.
        longest: Whether an integer `size` is the long edge instead, as in timm's crop mode "border".
        resample: Pillow's number of a filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.
        do_center_crop: Whether to crop to `crop_size`, with borders if the image is smaller.
        crop_size: (height, width) in pixels.
        crop_fill: Colour of the borders, (red, green, blue) in 0..255.
        crop_rounding: The rounding of a middle between two pixels: "down", as in transformers, or "even", as in
            torchvision and timm.
        do_rescale: Whether to multiply pixels, 0..255, by `rescale_factor`.
        rescale_factor: 1/255 brings pixels to 0..1.
        do_normalize: Whether to subtract `image_mean` and divide by `image_std`, after rescaling.
        image_mean: (red, green, blue), in units of the rescaled pixels.
        image_std: (red, green, blue), likewise.
        extra: Keys of the file that this package does not use, unchanged.
    """

    do_convert_rgb: bool = True
    do_resize: bool = True
    size: int | tuple[int, int] = 224
    longest: bool = False
    resample: int = 3
    do_center_crop: bool = True
    crop_size: tuple[int, int] = (224, 224)
    crop_fill: tuple[int, int, int] = (0, 0, 0)
    crop_rounding: str = "down"
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Triple = CLIP_MEAN
    image_std: Triple = CLIP_STD
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def default(cls, image_size: int, native: bool = False) -> ImageProcessorConfig:
        """The published settings, for a checkpoint without the file.

        Args:
            image_size: Edge of the square input in pixels; at native resolution, without effect.
            native: Whether images keep their own resolution.

        Raises:
            ConfigError: `image_size` is out of range.
        """
        edge = _edge("image_size", image_size)
        return cls(do_resize=not native, do_center_crop=not native, size=edge, crop_size=(edge, edge))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ImageProcessorConfig:
        """Read the keys of any transformers version: sizes as numbers or as dictionaries, missing keys, nulls.

        Null means the default, as in transformers. Unknown keys go to `extra`.

        Raises:
            ConfigError: A value has a wrong type or is out of range; the message names key and value.
        """
        # CLIP's processor takes a number as the short edge unless the file says otherwise
        square = bool(data.get("default_to_square", False))
        readers = dict(READERS, size=_square_size) if square else READERS
        known = {key: read(key, data[key]) for key, read in readers.items() if data.get(key) is not None}
        size = data.get("size")
        known["longest"] = isinstance(size, Mapping) and size.get("longest_edge") is not None
        return cls(**known, extra={key: value for key, value in data.items() if key not in READERS})

    def to_dict(self) -> dict[str, Any]:
        """The keys of `preprocessor_config.json`; `from_dict` gives the same config back."""
        height, width = self.crop_size
        edge = "longest_edge" if self.longest else "shortest_edge"
        size = (
            {edge: self.size}
            if isinstance(self.size, int)
            else {"height": self.size[0], "width": self.size[1]}
        )
        ours = {key: value for key, value in self.unusual.items() if key != "longest"}
        return {
            **self.extra,
            "do_convert_rgb": self.do_convert_rgb,
            "do_resize": self.do_resize,
            "size": size,
            "resample": self.resample,
            "do_center_crop": self.do_center_crop,
            "crop_size": {"height": height, "width": width},
            **{key: list(value) if isinstance(value, tuple) else value for key, value in ours.items()},
            "do_rescale": self.do_rescale,
            "rescale_factor": self.rescale_factor,
            "do_normalize": self.do_normalize,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
        }

    @property
    def unusual(self) -> dict[str, Any]:
        """The settings that transformers does not have, if they differ from what transformers does."""
        return {
            key: getattr(self, key) for key, usual in TRANSFORMERS_DOES.items() if getattr(self, key) != usual
        }

    def resized(self, edge: int) -> ImageProcessorConfig:
        """The settings for images of ``edge`` x ``edge`` pixels that crop the same part of an image."""
        if not self.do_center_crop:
            return self if isinstance(self.size, int) else replace(self, size=(edge, edge))
        factors = [edge / old for old in self.crop_size]
        edges = (self.size, self.size) if isinstance(self.size, int) else self.size
        height, width = (max(round(old * factor), 1) for old, factor in zip(edges, factors, strict=True))
        size = height if isinstance(self.size, int) else (height, width)
        return replace(self, size=size, crop_size=(edge, edge))

    def same_pixels(self, other: ImageProcessorConfig) -> bool:
        """Whether both produce the same pixels for every image."""
        return self._effective() == other._effective()

    def _effective(self) -> dict[str, Any]:
        values = {key: getattr(self, key) for key in ("longest", *READERS) if key != "do_convert_rgb"}
        idle = [key for switch, keys in SWITCHES.items() if not values[switch] for key in keys]
        return {key: value for key, value in values.items() if key not in idle}


def _wrong(key: str, value: object, rule: str) -> ConfigError:
    return ConfigError(f"{key} is {value!r:.200}, but has to be {rule}")


def _boolean(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    return value


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e6:
        raise _wrong(key, value, "a number from -1e6 to 1e6")
    return value


def _edge(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_EDGE:
        raise _wrong(key, value, f"a whole number of pixels from 1 to {MAX_EDGE}")
    return value


def _size(key: str, value: object) -> int | tuple[int, int]:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return _edge(key, value[0]), _edge(key, value[1])
    if not isinstance(value, Mapping):
        return _edge(key, value)
    edges = {name: edge for name, edge in value.items() if edge is not None}
    for name in ("shortest_edge", "longest_edge"):
        if set(edges) == {name}:
            return _edge(f"{key}.{name}", edges[name])
    if set(edges) == {"height", "width"}:
        return _edge(f"{key}.height", edges["height"]), _edge(f"{key}.width", edges["width"])
    raise _wrong(
        key, value, 'a number, [height, width], {"shortest_edge": ...} or {"height": ..., "width": ...}'
    )


def _square_size(key: str, value: object) -> int | tuple[int, int]:
    size = _size(key, value)
    return (size, size) if isinstance(size, int) and not isinstance(value, Mapping) else size


def _crop_size(key: str, value: object) -> tuple[int, int]:
    if isinstance(value, Mapping) and set(value) == {"shortest_edge"}:
        raise _wrong(key, value, 'a number or {"height": ..., "width": ...}')
    size = _size(key, value)
    return (size, size) if isinstance(size, int) else size


def _resample(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(RESAMPLE_NAMES):
        names = ", ".join(f"{number} ({name})" for number, name in enumerate(RESAMPLE_NAMES))
        raise _wrong(key, value, f"one of {names}")
    return value


def _positive(key: str, value: object) -> float:
    number = _number(key, value)
    if number < 1e-6:
        raise _wrong(key, value, "a number from 1e-6 to 1e6")
    return number


def _triple(key: str, value: object) -> Triple:
    values = value if isinstance(value, (list, tuple)) else [value] * 3
    if len(values) != 3:
        raise _wrong(key, value, "three numbers: red, green, blue")
    red, green, blue = (_number(key, channel) for channel in values)
    return red, green, blue


def _positive_triple(key: str, value: object) -> Triple:
    triple = _triple(key, value)
    for channel in triple:
        _positive(key, channel)
    return triple


def _color(key: str, value: object) -> tuple[int, int, int]:
    channels = value if isinstance(value, (list, tuple)) else ()
    if len(channels) != 3 or not all(type(channel) is int and 0 <= channel <= 255 for channel in channels):
        raise _wrong(key, value, "three whole numbers from 0 to 255: red, green, blue")
    red, green, blue = channels
    return red, green, blue


def _rounding(key: str, value: object) -> str:
    if value not in ROUNDINGS:
        raise _wrong(key, value, f"one of {', '.join(ROUNDINGS)}")
    return str(value)


READERS: dict[str, Callable[[str, Any], Any]] = {
    "do_convert_rgb": _boolean,
    "do_resize": _boolean,
    "size": _size,
    "resample": _resample,
    "do_center_crop": _boolean,
    "crop_size": _crop_size,
    "crop_fill": _color,
    "crop_rounding": _rounding,
    "do_rescale": _boolean,
    "rescale_factor": _positive,
    "do_normalize": _boolean,
    "image_mean": _triple,
    "image_std": _positive_triple,
}
