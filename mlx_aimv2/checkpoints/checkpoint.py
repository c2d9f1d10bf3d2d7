"""A checkpoint on disk: folder, header, layout, configuration and quantization, without the weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import mlx.core as mx

from ..backend.device import DTYPES
from ..config import Aimv2Config, AnyConfig
from ..errors import InputError
from ..processing.image_config import MAX_EDGE
from ..quantization.scheme import Quantization
from .files import open_tensors
from .headers import Header
from .layouts import Layout
from .position_table import resample_table, table_name, table_size
from .resolve import Resolved

KEPT_FLOAT32 = ("position_embedding.weight", "logit_scale")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with its configuration and tensor names, and without its weights.

    Attributes:
        resolved: the folder and its source.
        header: names, shapes and dtypes of the stored tensors.
        layout: of the stored tensors.
        config: of the model.
        quantization: of the weights; None for plain ones.
        outline: lazy arrays by canonical name, with the shapes and dtypes of the tensors and no data.
        unknown: names that have no place in the layout.
        resampled: whether the position table is resampled for the image size in ``config``.
    """

    resolved: Resolved
    header: Header
    layout: Layout
    config: AnyConfig
    quantization: Quantization | None
    outline: dict[str, mx.array]
    unknown: list[str]
    resampled: bool = False

    def open(self) -> dict[str, mx.array]:
        """The tensors as lazy arrays by canonical name; an .npz or .msgpack file is unpacked first.

        Raises:
            DamagedFileError: a file cannot be opened, is damaged, or has changed since its header was read.
            OutputError: the disk has no room to unpack it.
        """
        return self._resampled(self.layout.to_canonical(open_tensors(self.header))[0])

    def at_size(self, image_size: int) -> Checkpoint:
        """The same checkpoint with its position table resampled for images of ``image_size`` pixels on a side.

        Raises:
            InputError: ``image_size`` is not a multiple of the patch size, or the model has no position table.
        """
        vision, patch = self.config.vision, self.config.vision.patch_size
        if vision.is_native:
            raise InputError(
                f"{self.resolved.name} takes any resolution as it is: leave interpolate_positions out"
            )
        if type(image_size) is not int or image_size % patch or not patch <= image_size <= MAX_EDGE:
            rule = f"a multiple of the patch size {patch}, at most {MAX_EDGE}"
            raise InputError(f"image_size is {image_size!r}, but has to be {rule}")
        size = table_size(self.outline, self.config)
        if size is None or size == image_size == vision.image_size:  # None: loading refuses the table
            return self
        vision, config = dataclasses.replace(vision, image_size=image_size), self.config
        config = (
            dataclasses.replace(config, vision_config=vision) if isinstance(config, Aimv2Config) else vision
        )
        other = dataclasses.replace(self, config=config, resampled=size != image_size)
        return dataclasses.replace(other, outline=other._resampled(dict(self.outline)))

    def _resampled(self, tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        name = table_name(self.config)
        if not self.resampled:
            return tensors
        return {**tensors, name: resample_table(tensors[name], self.config.vision.grid)}

    @property
    def stored_dtype(self) -> mx.Dtype:
        """The dtype of most plain weights, apart from tables that are always float32."""
        nbytes: dict[mx.Dtype, int] = {getattr(mx, name): 0 for name in DTYPES}
        for name, x in self.outline.items():
            if mx.issubdtype(x.dtype, mx.floating) and not name.endswith(KEPT_FLOAT32):
                nbytes[x.dtype] += x.nbytes
        return max(nbytes, key=lambda dtype: nbytes[dtype])
