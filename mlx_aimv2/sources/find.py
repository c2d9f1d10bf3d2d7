"""The images that names stand for: of files, folders, patterns, files with many images, and addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ..errors import Advice, Aimv2Error, BrokenImageError, ImageError, InputError
from ..processing.source_image import SourceImage
from .addresses import is_address
from .containers import Container, Listing, container_of, failing, suffixes_of
from .extensions import extension_of
from .folder_scan import Rules, holds
from .ignored import OWN, Ignored
from .options import SourceOptions
from .paths import find_images, path_of

NamedImage: TypeAlias = "str | SourceImage"


@dataclass(frozen=True)
class Found:
    """The images that names stand for.

    Attributes:
        images: paths, and images without a file of their own; `str` gives the name of either.
        ignored: everything else.
        empty: names of the user without an image, and a message for each. They are among the images too.
    """

    images: tuple[NamedImage, ...] = ()
    ignored: Ignored = field(default_factory=Ignored)
    empty: Mapping[str, str] = field(default_factory=dict)

    def notices(self) -> list[str]:
        """A message about ignored files, and one about videos among them."""
        notices = [f"left out {self.ignored.summary()}"] if self.ignored else []
        if any(reason == "video" for reason, _ in self.ignored.files):
            notices.append("videos in folders are read with `--fps` or `--every`")
        return notices

    @property
    def names(self) -> list[str]:
        """The names of the images."""
        return [str(image) for image in self.images]

    @property
    def files(self) -> list[str | None]:
        """The file of each image, or that holds it; None if no file does."""
        return [image if isinstance(image, str) else image.file for image in self.images]

    @property
    def versions(self) -> list[str]:
        """What else each image depends on; see `SourceImage`."""
        return ["" if isinstance(image, str) else image.version for image in self.images]


def find_sources(
    names: Iterable[str], exclude: Sequence[str] = (), options: SourceOptions | None = None
) -> Found:
    """The images that ``names`` stand for, in their order, as `find_images` documents.

    A file with many images, such as a tar archive, stands for these images. One that cannot be read stands for
    itself, so that opening it reports the reason.

    Args:
        names: of files, folders, patterns, and HTTP(S) addresses.
        exclude: patterns of names, or of paths relative to a named folder or in an archive, to ignore.
        options: how to read files with many images, and addresses.

    Raises:
        InputError: an empty name, or only folders, patterns and files without images; or options do not fit a file.
    """
    options, names = options or SourceOptions(), list(names)
    scan = find_images(names, exclude, many=(suffixes_of(options), suffixes_of()), addresses=True)
    rules, given = Rules(exclude=tuple(exclude)), {str(path_of(name)) for name in names if name}
    images: list[NamedImage] = []
    web = None
    ignored, empty = scan.ignored, dict(scan.empty)
    for path in scan.images:
        if is_address(path):
            from .web import Web

            web = web or Web(options)
            images.append(web.image(path))
            continue
        container = container_of(path)
        if container is None or path in scan.empty or holds(Path(path).is_dir):
            images.append(path)
            continue
        listing = _listed(container, path, rules, options)
        images += listing.images
        ignored += listing.ignored
        if not listing.images and path in given:
            empty[path] = f"no images in the {container.noun} {path}: {_why(listing.empty, listing.ignored)}"
            images.append(SourceImage(path, failing(ImageError(listing.empty)), path))
        elif not listing.images:
            why = OWN if listing.empty == OWN else f"{container.noun}, {listing.empty}"
            ignored.files[why, extension_of(path)] += 1
    if empty and len(empty) == len(images):
        raise InputError(next(iter(empty.values())))
    found = Found(tuple(images), ignored, empty)
    if options.id_column is not None:
        _check_unique(found)
    return found


def _listed(container: Container, path: str, rules: Rules, options: SourceOptions) -> Listing:
    """The images of a file; one that fails if the file cannot be read."""
    try:
        return container.list_images(path, rules, options)
    except InputError:
        raise
    except (Aimv2Error, OSError) as error:
        failure: Exception = error
    except Exception as error:  # noqa: BLE001 - libraries raise anything on damaged bytes, as Pillow does
        reason = " ".join(str(error).split())[:200]
        failure = BrokenImageError(f"damaged ({type(error).__name__}: {reason})")
    return Listing((SourceImage(path, failing(failure), path),))


def _check_unique(found: Found) -> None:
    """Refuse equal ids in two tables, or an id that is the name of a file."""
    files: dict[str, str | None] = {}
    for id, file in zip(found.names, found.files, strict=True):
        if files.setdefault(id, file) != file:
            advice = Advice("choose another {}, or leave it out", "id_column")
            raise InputError(f"the id {id} is in {files[id]} and in {file}", advice)


def _why(reason: str, ignored: Ignored) -> str:
    return f"it holds {ignored.summary()}" if ignored else reason
