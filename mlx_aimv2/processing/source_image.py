"""`SourceImage`: one of many images in a file, such as a member of a tar, or an image at an address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .options import DecodeOptions


@dataclass(frozen=True)
class SourceImage:
    """An image that has no file of its own. It is read only when it is decoded.

    Attributes:
        id: its name in results and messages, such as `shard.tar/cat.jpg`.
        open: reads the image; called in a thread, perhaps several times. It raises an ImageError or OSError, or
            returns anything that `decode_image` takes.
        file: the path of the file that holds it; None if no file does. When that file changes, so may the image.
        version: what else it depends on, such as a box that the id does not say; the image changes with it.
        waits: whether reading mostly waits for others, so that many images should be read at once.
    """

    id: str
    open: Callable[[], Any]
    file: str | None = None
    waits: bool = False
    version: str = ""

    def open_for(self, options: DecodeOptions, short_edge: int | None) -> Any:
        """The image for decoding with these options, decoded already or not; see `decode_reduced`."""
        return self.open()

    def __str__(self) -> str:
        """The id."""
        return self.id


def name_of(image: str | SourceImage) -> str:
    """The path of an image, or its id."""
    return image.id if isinstance(image, SourceImage) else image
