"""Open an image with Pillow or pillow-heif, by its first bytes: JPEG, PNG, WebP, TIFF, HEIC, AVIF and others.

Pillow's plugins are called by name, from a list, instead of through `Image.open`. That excludes formats that start
other programs (EPS), formats that accept almost any bytes (TGA, PCX), and Pillow's process-wide pixel limit, which
warns from 89 megapixels on and refuses from 179. `DecodeOptions.max_megapixels` is checked instead, after the header.
Some plugins check Pillow's limit themselves: a WebP image, a TIFF tile or a GIF frame beyond 179
megapixels is always an `ImageTooLargeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import IO, TypeAlias

from PIL import Image, ImageFile, UnidentifiedImageError

from ..errors import BrokenImageError, ImageError, MissingExtraError
from ..storage.stand_ins import stand_in
from .jxl import is_jxl
from .optional_formats import JPEG_XL

_Factory: TypeAlias = Callable[[IO[bytes], "str | bytes"], ImageFile.ImageFile]

FORMATS = tuple("JPEG PNG GIF WEBP TIFF BMP DIB PPM JPEG2000 ICO ICNS QOI SGI DDS PSD".split())
AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIF_BRANDS = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())
NOT_IMAGES = {  # first bytes of other files
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript file",
    b"\xc5\xd0\xd3\xc6": "an EPS file",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file, perhaps an SVG drawing",
}


def identify(stream: IO[bytes]) -> ImageFile.ImageFile:
    """Open the image in a seekable stream: read its header, but not its pixels.

    Raises:
        BrokenImageError: The stream is empty or not an image, or the header is damaged.
        ImageError: Pillow was built without the codec.
        MissingExtraError: The image is HEIC or JPEG XL, and the package that reads it is not installed.
    """
    stream.seek(0)
    head = stream.read(256)
    if not head:
        raise BrokenImageError("empty, 0 bytes")
    failure: Exception | None = None
    for factory in _factories(head):
        stream.seek(0)
        try:
            return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, KeyError, UnidentifiedImageError) as error:
            failure = error  # a plugin rejects the file after its signature
    if failure is not None:
        raise BrokenImageError(f"cut off or damaged ({reason(failure)})") from failure
    names = (name for start, name in NOT_IMAGES.items() if head.lstrip().startswith(start))
    kind = stand_in(head) or next(names, None)
    raise BrokenImageError("not an image that can be read" + (f", but {kind}" if kind else ""))


def _factories(head: bytes) -> Iterator[_Factory]:
    """Pillow plugins whose signature matches the first bytes of a file."""
    brands = _brands(head)
    if brands & HEIF_BRANDS and not brands & AVIF_BRANDS:
        try:
            from pillow_heif import HeifImageFile
        except ImportError as error:
            raise MissingExtraError("Reading HEIC images", "pillow-heif", "heif") from error
        yield HeifImageFile
        return
    if is_jxl(head):
        try:
            from pillow_jxl.JpegXLImagePlugin import JXLImageFile
        except ImportError as error:
            raise JPEG_XL.missing() from error
        yield JXLImageFile
        return
    if brands & AVIF_BRANDS:
        Image.init()
        if "AVIF" not in Image.OPEN:
            raise ImageError("reading AVIF images needs Pillow 11.3 or newer")
        yield from _accepting(("AVIF",), head)
        return
    Image.preinit()  # JPEG, PNG and three others: importing all plugins takes 20 ms
    factories = _accepting(FORMATS, head)
    if not factories:
        Image.init()
        factories = _accepting(FORMATS, head)
    yield from factories


def _accepting(names: Iterable[str], head: bytes) -> list[_Factory]:
    """The plugins that Pillow has imported of these names, and that know the first bytes of a file."""
    factories = []
    for name in names:
        factory, accept = Image.OPEN.get(name, (None, None))
        accepted = accept is not None and accept(head[:16])
        if isinstance(accepted, str):  # Pillow has the plugin without its codec
            raise ImageError(accepted)
        if accepted and factory is not None:
            factories.append(factory)
    return factories


def _brands(head: bytes) -> set[bytes]:
    """Major and compatible brands of an ISO base media file (HEIF, AVIF); empty for every other format."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}


def reason(error: BaseException) -> str:
    """The message of an exception in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
