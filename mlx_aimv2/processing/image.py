"""Resize and crop an image, or fit it to native resolution, and normalise it to `pixel_values`: (H, W, 3) float32.

The arithmetic equals that of transformers' `CLIPImageProcessor` on its Pillow path
(`models/clip/image_processing_pil_clip.py`, `image_transforms.py`) to the last bit. At native resolution, images
within the range that the model was trained on keep their size; all others are resized into that range.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError, InputError
from .decode import Decoded, DecodeOptions, ImageInput, decode_reduced
from .image_config import MAX_EDGE, TRANSFORMERS_DOES, ImageProcessorConfig
from .options import NativeOptions
from .resizing import MAX_RESIZED_PIXELS, center_crop, nearest_grid, resize, resized_size

__all__ = ["ImageProcessor", "ImageProcessorConfig", "NativeOptions"]

Pixels: TypeAlias = NDArray[np.float32]


class ImageProcessor:
    """Converts images to the `pixel_values` of a vision tower.

    Args:
        config: Sizes, filter, mean and std.
        patch_size: Edge of a patch in pixels; only native resolution depends on it.
        decode: Options for decoding files; the defaults of `DecodeOptions` if None.
        native: Range of patches at native resolution; the defaults of `NativeOptions` if None.

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

    @property
    def is_native(self) -> bool:
        """Whether images keep their own resolution, so that their shapes differ."""
        return not self.config.do_resize and not self.config.do_center_crop

    def settings(self) -> dict[str, Any]:
        """All settings that change the pixels, as JSON values; those that only refuse images are left out."""
        settings = asdict(self.config) | asdict(self.decode) | {"patch_size": self.patch_size}
        settings["color_managed"] = self.decode.manages_colors
        settings["decode"] = settings["decode"].replace("native", "exact")  # the same pixels
        usual = TRANSFORMERS_DOES.keys() - self.config.unusual.keys()
        for irrelevant in ("extra", "do_convert_rgb", "max_megapixels", "allow_truncated", *usual):
            del settings[irrelevant]
        settings = {name: list(x) if isinstance(x, tuple) else x for name, x in settings.items()}
        return settings | asdict(self.native) if self.is_native else settings

    def __call__(self, image: ImageInput) -> Pixels:
        """The pixels of one image: (H, W, 3) float32, contiguous and writable.

        Raises:
            ImageError: The image cannot be decoded; see `decode_image` for this and the other errors.
        """
        return self._pixels(decode_reduced(image, self.decode, self._short_edge()))

    def normalize(self, image: Image.Image) -> Pixels:
        """Rescale and normalise an image in mode RGB without resizing it: (H, W, 3) float32.

        Raises:
            InputError: The image has another mode.
        """
        if image.mode != "RGB":
            raise InputError(
                f"normalize takes an image in mode RGB, not {image.mode}: use decode_image first"
            )
        return self._normalized(np.asarray(image))

    def at_size(self, height: int, width: int) -> ImageProcessor:
        """A copy of the processor that resizes and crops every image to one size, for batches at native resolution.

        Raises:
            InputError: An edge is no multiple of the patch size, or beyond `MAX_EDGE`.
        """
        for edge in (height, width):
            if not 1 <= edge <= MAX_EDGE or edge % self.patch_size:
                rule = f"a multiple of the patch size {self.patch_size}, at most {MAX_EDGE}"
                raise InputError(f"images of {height}x{width} pixels: both edges have to be {rule}")
        # a square as in the published files; otherwise the whole image is squeezed to the size
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
        """The floats of 8-bit pixels (H, W, 3), computed in the order and precisions of transformers."""
        config, (height, width, _) = self.config, rgb.shape
        pixels = np.empty((height, width * 3), dtype=np.float32)  # longer rows are faster
        factor = config.rescale_factor if config.do_rescale else 1
        np.multiply(rgb, factor, out=pixels.reshape(rgb.shape), dtype=np.float64, casting="same_kind")
        if config.do_normalize:
            pixels -= np.tile(np.array(config.image_mean, dtype=np.float32), width)
            pixels /= np.tile(np.array(config.image_std, dtype=np.float32), width)
        return pixels.reshape(rgb.shape)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """The output size (H', W') in pixels for an upright image of `height` by `width`.

        Raises:
            ImageError: The image has no pixels, is smaller than a patch with min_patches=1, or is so elongated that
                the result would not fit into memory.
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
        """The short edge in pixels that decode="fast" has to keep."""
        if self.is_native:
            # an image of twice this edge still has over max_patches: smaller ones are not reduced while decoding
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
        """The image in whole patches: cropped at the right and bottom, or resized."""
        full_width, full_height = decoded.size
        height, width = self.output_size(full_height, full_width)
        edge = self.patch_size
        if (full_height // edge * edge, full_width // edge * edge) == (height, width):
            return decoded.pixels[:height, :width]
        resample = Image.Resampling(self.config.resample)
        return np.asarray(decoded.image.resize((width, height), resample, decoded.box))

    def _fixed_pixels(self, decoded: Decoded) -> NDArray[np.uint8]:
        """The image resized and cropped as in the config."""
        config, (full_width, full_height) = self.config, decoded.size
        self.output_size(full_height, full_width)
        pixels = np.asarray(resize(decoded, config)) if config.do_resize else decoded.pixels
        return center_crop(pixels, config) if config.do_center_crop else pixels
