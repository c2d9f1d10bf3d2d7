"""An image -> the pixels a vision tower takes, (H, W, 3) float32.

The arithmetic is that of transformers' `CLIPImageProcessor` on its Pillow path
(`models/clip/image_processing_pil_clip.py`, `image_transforms.py`), to the last bit. Images at native
resolution follow the published behaviour within the range the model was trained on, and are brought into it
otherwise.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError, InputError
from .cropping import center_crop, middle_start
from .decode import Decoded, DecodeOptions, ImageInput, decode_reduced
from .image_config import MAX_EDGE, TRANSFORMERS_DOES, ImageProcessorConfig

__all__ = ["ImageProcessor", "ImageProcessorConfig", "NativeOptions"]

Pixels: TypeAlias = NDArray[np.float32]

MAX_RESIZED_PIXELS = 2**25  # 128 MiB in Pillow; beyond it only the part that the crop keeps is computed


@dataclass(frozen=True)
class NativeOptions:
    """How many patches an image at native resolution may have.

    Attributes:
        min_patches: Smaller images are enlarged to at least this many, where a patch grid near the shape of
            the image fits between the two bounds. 112 is the least that the published model was trained on;
            1 enlarges nothing.
        max_patches: Larger images are reduced to at most this many. 4096 is the most that the published
            model was trained on; time and memory of attention grow with its square.

    Raises:
        InputError: A bound is below 1, or `max_patches` is below `min_patches`.
    """

    min_patches: int = 112
    max_patches: int = 4096

    def __post_init__(self) -> None:
        for name, value in (("min_patches", self.min_patches), ("max_patches", self.max_patches)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}, but has to be a whole number of at least 1")
        if self.max_patches < self.min_patches:
            raise InputError(f"max_patches ({self.max_patches}) is below min_patches ({self.min_patches})")


class ImageProcessor:
    """Turns images into the pixels a vision tower takes.

    Args:
        config: What is done to every image.
        patch_size: Edge of a patch in pixels; only native resolution depends on it.
        decode: How files are read; the defaults of `DecodeOptions` if None.
        native: Bounds at native resolution; the defaults of `NativeOptions` if None.

    Raises:
        InputError: `patch_size` is below 1.
    """

    def __init__(
        self,
        config: ImageProcessorConfig,
        patch_size: int = 14,
        decode: DecodeOptions | None = None,
        native: NativeOptions | None = None,
    ) -> None:
        if isinstance(patch_size, bool) or not isinstance(patch_size, int) or patch_size < 1:
            raise InputError(f"patch_size is {patch_size!r}, but has to be a whole number of at least 1")
        self.config = config
        self.patch_size = patch_size
        self.decode = decode or DecodeOptions()
        self.native = native or NativeOptions()
        self._levels = _level_table(config)  # (3, 256)

    @property
    def is_native(self) -> bool:
        """Whether images keep their own resolution, so that their shapes differ."""
        return not self.config.do_resize and not self.config.do_center_crop

    def settings(self) -> dict[str, Any]:
        """Everything that decides what pixels come out, as plain values; not which images are refused."""
        settings = asdict(self.config) | asdict(self.decode) | {"patch_size": self.patch_size}
        settings["color_managed"] = self.decode.manages_colors
        usual = TRANSFORMERS_DOES.keys() - self.config.unusual.keys()
        for irrelevant in ("extra", "do_convert_rgb", "max_megapixels", "allow_truncated", *usual):
            del settings[irrelevant]
        settings = {name: list(x) if isinstance(x, tuple) else x for name, x in settings.items()}
        return settings | asdict(self.native) if self.is_native else settings

    def __call__(self, image: ImageInput) -> Pixels:
        """Pixels of one image: (H, W, 3) float32, contiguous and writable.

        Raises:
            ImageError: The image cannot be read or used; see `decode_image` for this and the other errors.
        """
        return self._pixels(decode_reduced(image, self.decode, self._short_edge()))

    def from_rgb(self, image: Image.Image) -> Pixels:
        """Pixels of an image that is upright and in mode RGB already: (H, W, 3) float32.

        Raises:
            InputError: The image has another mode.
            ImageError: Its shape cannot be used; see `output_size`.
        """
        if image.mode != "RGB":
            raise InputError(f"from_rgb takes an image in mode RGB, not {image.mode}: use decode_image first")
        return self._pixels(Decoded.whole(image))

    def normalize(self, image: Image.Image) -> Pixels:
        """An image in mode RGB rescaled and normalised as the config says, (H, W, 3) float32, its size kept.

        Raises:
            InputError: The image has another mode.
        """
        if image.mode != "RGB":
            raise InputError(
                f"normalize takes an image in mode RGB, not {image.mode}: use decode_image first"
            )
        return self._normalized(np.asarray(image))

    def at_size(self, height: int, width: int) -> ImageProcessor:
        """The same processor with every image resized and cropped to one size, as native resolution is not.

        Raises:
            InputError: An edge is no multiple of the patch size, or beyond `MAX_EDGE`.
        """
        for edge in (height, width):
            if not 1 <= edge <= MAX_EDGE or edge % self.patch_size:
                rule = f"a multiple of the patch size {self.patch_size}, at most {MAX_EDGE}"
                raise InputError(f"images of {height}x{width} pixels: both edges have to be {rule}")
        # as the published files of fixed size do it; of another shape than square, the whole image is squeezed
        size = height if height == width else (height, width)
        config = replace(
            self.config,
            do_resize=True,
            size=size,
            longest=False,
            do_center_crop=True,
            crop_size=(height, width),
        )
        return ImageProcessor(config, self.patch_size, self.decode, self.native)

    def _pixels(self, image: Decoded) -> Pixels:
        return self._normalized(self._native_pixels(image) if self.is_native else self._fixed_pixels(image))

    def _normalized(self, rgb: NDArray[np.uint8]) -> Pixels:
        pixels = np.empty(rgb.shape, dtype=np.float32)
        for channel, levels in enumerate(self._levels):
            pixels[..., channel] = levels[rgb[..., channel]]
        return pixels

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(H', W') in pixels of what comes out for an upright image of `height` by `width`.

        Raises:
            ImageError: The image has no pixels, is smaller than a patch where nothing is enlarged, or is so
                elongated that it would not fit into memory.
        """
        if height < 1 or width < 1:
            raise ImageError(f"an image of {width}x{height} has no pixels")
        if self.is_native:
            h, w = self._native_grid(height, width)
            return h * self.patch_size, w * self.patch_size
        if self.config.do_center_crop:
            return self.config.crop_size
        height, width = resized_size(height, width, self.config)
        if height * width > MAX_RESIZED_PIXELS:
            raise ImageError(f"too elongated: it would be resized to {width}x{height} pixels")
        return height, width

    def _short_edge(self) -> int | None:
        """The short edge in pixels that nothing is reduced below, for decode="fast"."""
        if self.is_native:
            # what is decoded to twice this edge still has over max_patches: nothing else is decoded reduced
            return math.ceil(math.sqrt(self.native.max_patches)) * self.patch_size
        if not self.config.do_resize:
            return None
        return self.config.size if isinstance(self.config.size, int) else max(self.config.size)

    def _native_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches, (h, w), at native resolution."""
        h, w = height // self.patch_size, width // self.patch_size
        least, most = self.native.min_patches, self.native.max_patches
        if least <= h * w <= most:
            return h, w
        if least == 1 and h * w == 0:
            edge = self.patch_size
            raise ImageError(f"{width}x{height} is smaller than one patch ({edge}x{edge}); raise min_patches")
        return nearest_grid(height / self.patch_size, width / self.patch_size, least, most)

    def _native_pixels(self, decoded: Decoded) -> NDArray[np.uint8]:
        """The image in whole patches: cut at the right and bottom, or resized."""
        full_width, full_height = decoded.size
        height, width = self.output_size(full_height, full_width)
        image, edge = decoded.image, self.patch_size
        if (full_height // edge * edge, full_width // edge * edge) != (height, width):
            image = image.resize((width, height), Image.Resampling(self.config.resample), decoded.box)
        return np.asarray(image)[:height, :width]

    def _fixed_pixels(self, decoded: Decoded) -> NDArray[np.uint8]:
        """The image resized and cropped as the config says."""
        config, image = self.config, decoded.image
        full_width, full_height = decoded.size
        self.output_size(full_height, full_width)
        if config.do_resize:
            height, width = resized_size(full_height, full_width, config)
            resample = Image.Resampling(config.resample)
            if height * width > MAX_RESIZED_PIXELS:
                image = _resized_middle(decoded, (height, width), config, resample)
            else:
                image = image.resize((width, height), resample, decoded.box)
        pixels = np.asarray(image)
        return center_crop(pixels, config) if config.do_center_crop else pixels


def resized_size(height: int, width: int, config: ImageProcessorConfig) -> tuple[int, int]:
    """(height, width) after resizing; the edge that follows the other is rounded as in the reference, or in timm."""
    if not config.do_resize:
        return height, width
    if not isinstance(config.size, int):
        return config.size
    short, long = min(height, width), max(height, width)
    if config.longest:
        ratio = long / config.size
        return max(round(height / ratio), 1), max(round(width / ratio), 1)
    scaled = int(config.size * long / short)
    return (scaled, config.size) if width <= height else (config.size, scaled)


def nearest_grid(rows: float, columns: float, least: int, most: int) -> tuple[int, int]:
    """The patch grid (h, w) nearest in shape to an image, with `least` to `most` patches.

    Args:
        rows: Height of the image in patches, not rounded.
        columns: Width, likewise.
        least: Lower bound for h * w; given up where no grid next to the image's shape fits both bounds.
        most: Upper bound for h * w, always kept.

    Returns:
        (h, w), each at least 1. The area is the image's own where that lies within the bounds.
    """
    area = min(max(rows * columns, least), most)
    h, w = math.sqrt(area * (rows / columns)), math.sqrt(area * (columns / rows))
    grids: set[tuple[int, int]] = set()
    for i, j in product((math.floor(h), math.ceil(h)), (math.floor(w), math.ceil(w))):
        i, j = max(i, 1), max(j, 1)
        # rounding up may leave the bounds, above all where the short side became 1: the long side gives way
        grids.add((min(i, most // j), j) if i > j else (i, min(j, most // i)))
    fitting = {(i, j) for i, j in grids if i * j >= least} or grids
    return min(fitting, key=lambda grid: (abs(math.log(grid[0] / h * w / grid[1])), -grid[0] * grid[1]))


def _level_table(config: ImageProcessorConfig) -> Pixels:
    """What each 8-bit level becomes, (3, 256): the reference's arithmetic, in its order and precisions."""
    levels = np.arange(256, dtype=np.uint8)
    values = levels.astype(np.float32)
    if config.do_rescale:
        values = (levels.astype(np.float64) * config.rescale_factor).astype(np.float32)
    table = np.stack([values] * 3)
    if config.do_normalize:
        mean = np.array(config.image_mean, dtype=np.float32)[:, None]
        std = np.array(config.image_std, dtype=np.float32)[:, None]
        table = (table - mean) / std
    return table


def _resized_middle(
    image: Decoded, resized: tuple[int, int], config: ImageProcessorConfig, resample: Image.Resampling
) -> Image.Image:
    """The middle of `image` resized to `resized`, at most `crop_size` large, without computing the rest.

    A box keeps the filter's reach beyond its edges, so this equals resizing and cropping but for what Pillow
    rounds and clips between its two passes. All sizes are (height, width).
    """
    left, top, right, bottom = image.box
    height, width = (min(edge, keep) for edge, keep in zip(resized, config.crop_size, strict=True))
    y, x = (bottom - top) / resized[0], (right - left) / resized[1]
    top, left = (
        top + middle_start(resized[0], height, config) * y,
        left + middle_start(resized[1], width, config) * x,
    )
    box = (left, top, min(left + width * x, right), min(top + height * y, bottom))
    return image.image.resize((width, height), resample, box)
