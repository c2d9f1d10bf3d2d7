"""Read the tags of a TIFF file that determine its pixels, and refuse unsupported values."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn

import numpy as np

from ..errors import BrokenImageError, ImageError

TYPES = {1: "u1", 2: "S1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 18: "u8"}
LONGEST = 2**25  # bytes of one value; more than the offsets of a million strips

NAMES = {  # of the tags that are read; others are skipped
    256: "ImageWidth",
    257: "ImageLength",
    258: "BitsPerSample",
    259: "Compression",
    262: "PhotometricInterpretation",
    266: "FillOrder",
    273: "StripOffsets",
    274: "Orientation",
    277: "SamplesPerPixel",
    278: "RowsPerStrip",
    279: "StripByteCounts",
    284: "PlanarConfiguration",
    317: "Predictor",
    320: "ColorMap",
    322: "TileWidth",
    323: "TileLength",
    324: "TileOffsets",
    325: "TileByteCounts",
    332: "InkSet",
    338: "ExtraSamples",
    339: "SampleFormat",
    530: "YCbCrSubSampling",
    34675: "ICCProfile",
    42113: "GDAL_NODATA",
}
DISPENSABLE = ("ICCProfile", "GDAL_NODATA", "Orientation")
GRAY_INVERTED, GRAY, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
COLOR_SAMPLES = {GRAY_INVERTED: 1, GRAY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}
UINT, INT, FLOAT, VOID = 1, 2, 3, 4
HORIZONTAL, FLOATING = 2, 3  # predictors
PREDICTED = (5, 8, 32946, 34925, 50000)  # compressions that may have a predictor
PLAIN = (1, 5, 8, 32946, 32773, 34925, 50000)  # none, LZW, Deflate, Deflate, PackBits, LZMA, Zstandard
PILLOWS = {2: "CCITT RLE", 3: "CCITT fax 3", 4: "CCITT fax 4", 6: "old JPEG", 7: "JPEG", 50001: "WebP"}
MEANINGS: dict[str, dict[int, str]] = {
    "Compression": {
        32809: "ThunderScan",
        34676: "SGI Log",
        34677: "SGI Log 24",
        34712: "JPEG 2000",
        33003: "JPEG 2000",
        33005: "JPEG 2000",
        34887: "LERC",
        34892: "lossy JPEG of DNG",
        50002: "JPEG XL",
        52546: "JPEG XL",
    },
    "PhotometricInterpretation": {
        4: "a mask",
        10: "ITU Lab",
        32844: "LogL",
        32845: "LogLuv",
    },
    "SampleFormat": {5: "complex integers", 6: "complex floats"},
}


@dataclass(frozen=True)
class TiffTags:
    """The tags of the first page of a TIFF file, with the names of the specification.

    Attributes:
        byte_order: "<" or ">".
        values: Name to value: a tuple of integers, or bytes for `GDAL_NODATA` and `ICCProfile`.
        big: Whether the file is BigTIFF.
    """

    byte_order: str
    values: dict[str, Any] = field(repr=False)
    big: bool = False

    def first(self, name: str, default: int | None = None) -> int:
        """The first value of a tag.

        Raises:
            BrokenImageError: The tag is missing and has no default.
        """
        values = self.values.get(name)
        if values:
            return int(values[0])
        if default is None:
            raise BrokenImageError(f"cut off or damaged (a TIFF file without {name})")
        return default

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, as stored."""
        return self.first("ImageWidth"), self.first("ImageLength")

    @property
    def photometric(self) -> int:
        """The colour space of the samples; 0 (white is zero) if the tag is missing, as in Pillow."""
        return self.first("PhotometricInterpretation", 0)

    @property
    def compression(self) -> int:
        """The compression of strips or tiles."""
        return self.first("Compression", 1)

    @property
    def samples(self) -> int:
        """Samples per pixel, including those that are not colours."""
        return self.first("SamplesPerPixel", len(self.values.get("BitsPerSample", (1,))))

    @property
    def bits(self) -> int:
        """Bits per sample.

        Raises:
            ImageError: The samples differ.
        """
        return self._same("BitsPerSample", 1)

    @property
    def sample_format(self) -> int:
        """`UINT`, `INT` or `FLOAT`; "undefined" is read as `UINT`.

        Raises:
            ImageError: The format is another one, or the samples differ.
        """
        kind = self._same("SampleFormat", UINT)
        if kind not in (UINT, INT, FLOAT, VOID):
            self.refuse("SampleFormat")
        return UINT if kind == VOID else kind

    @property
    def in_planes(self) -> bool:
        """Whether each sample is stored in a separate plane."""
        planar = self.first("PlanarConfiguration", 1)
        if planar not in (1, 2):
            self.refuse("PlanarConfiguration")
        return planar == 2 and self.samples > 1

    @property
    def predictor(self) -> int:
        """1 (none), or `HORIZONTAL` or `FLOATING` for differences of neighbours or of bytes.

        Raises:
            ImageError: The predictor is another one, or does not go with these samples.
        """
        predictor = self.first("Predictor", 1) if self.compression in PREDICTED else 1
        if predictor not in (1, HORIZONTAL, FLOATING):
            self.refuse("Predictor")
        if predictor == FLOATING and self.sample_format != FLOAT:
            self.refuse("Predictor", f"not possible with SampleFormat {self.sample_format}")
        if predictor == HORIZONTAL and self.bits not in (8, 16, 32, 64):
            self.refuse("Predictor", f"not supported with BitsPerSample {self.bits}")
        return predictor

    @property
    def extra(self) -> tuple[int, ...]:
        """The kinds of the samples after the colours: 0 unspecified, 1 premultiplied alpha, 2 alpha."""
        count = self.samples - COLOR_SAMPLES[self.photometric]
        kinds = tuple(self.values.get("ExtraSamples", ()))
        if not kinds and count == 1 and self.photometric == RGB:
            return (2,)  # Pillow reads an unspecified fourth sample as alpha
        return (*kinds, *[0] * count)[: max(count, 0)]

    def refuse(self, name: str, why: str = "not supported") -> NoReturn:
        """Raise ImageError for the value of a tag."""
        values = self.values.get(name, ("missing",))
        value = values[0] if len(set(values)) == 1 else tuple(values)
        meaning = MEANINGS.get(name, {}).get(value) if isinstance(value, int) else None
        raise ImageError(f"TIFF with {name} {value}{f' ({meaning})' if meaning else ''}: {why}")

    def _same(self, name: str, default: int) -> int:
        values = tuple(self.values.get(name) or (default,))
        if len(set(values[: self.samples])) > 1:
            self.refuse(name)
        return int(values[0])


def read_tags(stream: IO[bytes]) -> TiffTags | None:
    """Read the tags of the first page; None if the header does not follow the specification."""
    stream.seek(0)
    head = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return None
    (version,) = struct.unpack(f"{order}H", head[2:4])
    if version not in (42, 43) or (version == 43 and len(head) < 16):
        return None
    big = version == 43
    (where,) = struct.unpack(f"{order}Q", head[8:16]) if big else struct.unpack(f"{order}L", head[4:8])
    entry, count_format = (f"{order}HHQ8s", f"{order}Q") if big else (f"{order}HHL4s", f"{order}H")
    if where >= 2**63:
        raise BrokenImageError("cut off or damaged (its tags are beyond its end)")
    stream.seek(where)
    raw_count = stream.read(struct.calcsize(count_format))
    if len(raw_count) < struct.calcsize(count_format):
        raise BrokenImageError("cut off or damaged (its tags are beyond its end)")
    (count,) = struct.unpack(count_format, raw_count)
    size = struct.calcsize(entry)
    table = stream.read(min(count, 4096) * size)
    if len(table) < min(count, 4096) * size:
        raise BrokenImageError("cut off or damaged (its tags reach beyond its end)")
    values: dict[str, Any] = {}
    for at in range(0, len(table) - size + 1, size):
        tag, kind, length, inline = struct.unpack(entry, table[at : at + size])
        if tag in NAMES and kind in TYPES and NAMES[tag] not in values:
            value = _value(stream, order, kind, length, inline)
            if value is not None:
                values[NAMES[tag]] = value
            elif NAMES[tag] not in DISPENSABLE:
                raise BrokenImageError(f"cut off or damaged (the value of {NAMES[tag]} is not there)")
    return TiffTags(order, values, big)


def _value(stream: IO[bytes], order: str, kind: int, length: int, inline: bytes) -> Any:
    """The value of one entry; None if it lies outside of the file or is implausibly long."""
    dtype = np.dtype(TYPES[kind]).newbyteorder("<" if order == "<" else ">")
    size = length * dtype.itemsize
    if size > LONGEST:
        return None
    data = inline[:size]
    if size > len(inline):
        (where,) = struct.unpack(f"{order}{'Q' if len(inline) == 8 else 'L'}", inline)
        if where >= 2**63:
            return None
        stream.seek(where)
        data = stream.read(size)
    if len(data) < size:
        return None
    return data if kind in (2, 7) else tuple(np.frombuffer(data, dtype).tolist())
