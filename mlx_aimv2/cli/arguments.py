"""Arguments of verbs: images, texts, and - for a list on stdin."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import InputError
from .output import say, say_once

if TYPE_CHECKING:
    from ..processing.options import DecodeOptions
    from ..sources.find import Found
    from ..sources.options import CropOptions, SourceOptions

MANY = 10_000  # images whose sizes take seconds to read


def sources(
    arguments: Sequence[str],
    exclude: Sequence[str],
    options: SourceOptions,
    crops: CropOptions | None = None,
    decode: DecodeOptions | None = None,
) -> Found:
    """The images that the arguments name, also within files of many images; says what is left out.

    Args:
        arguments: names; there may be none if a file of boxes names the images.
        exclude: patterns of names to ignore.
        options: how to read files with many images.
        crops: which regions to take in place of the images; None for whole images.
        decode: how to read the sizes of images.

    Raises:
        InputError: there are none, or - is given and nothing is piped into stdin.
    """
    from ..sources.find import Found, find_sources

    found = find_sources(with_names(arguments), exclude, options) if arguments else Found()
    notices = found.notices()
    if crops and (arguments or crops.boxes):
        from ..sources.boxes import cropped

        if crops.tiles and len(found.images) >= MANY:
            say_once(f"reading the sizes of {len(found.images):,} images, to cut them into tiles")
        regions = cropped(found if arguments else None, crops, options, decode)
        found, notices = regions.found, [*notices, *regions.notices]
    for notice in notices:
        say_once(notice)
    if not found.images:
        raise InputError("no images: name files, folders or patterns")
    return found


def images(arguments: Sequence[str], exclude: Sequence[str] = ()) -> tuple[list[str], Mapping[str, str]]:
    """The image files that the arguments name; says which files are left out.

    Returns:
        The images, and those of them that are no image files, with the reason: see `screen`.

    Raises:
        InputError: there are none, or - is given and nothing is piped into stdin.
    """
    from ..sources.paths import find_images

    scan = find_images(with_names(arguments), exclude)
    for notice in replace(scan, empty={}).notices():
        say(notice)
    if not scan.images:
        raise InputError("no images: name files, folders or patterns")
    return list(scan.images), scan.empty


def with_names(arguments: Iterable[str]) -> list[str]:
    """The arguments, with the file names on stdin in place of -.

    Raises:
        InputError: nothing is piped into stdin, or an image in place of a list.
    """
    from ..storage.text_files import file_names

    def split(data: bytes) -> list[str]:
        if b"\0" in data and _is_image(data):  # its bytes would be names, and "/" the whole disk
            raise InputError("- reads a list of images from stdin, and this is an image: name its file")
        return file_names(data)

    return _with_stdin(arguments, "images", split)


def _is_image(data: bytes) -> bool:
    from ..processing.formats import identify

    try:
        identify(io.BytesIO(data))
    except Exception:  # noqa: BLE001 - Pillow raises anything
        return False
    return True


def with_texts(arguments: Iterable[str]) -> list[str]:
    """The arguments, with the texts on stdin in place of -.

    Raises:
        InputError: nothing is piped into stdin, it is not text, or there are no texts.
    """
    from ..storage.text_files import texts

    entries = _with_stdin(arguments, "texts", lambda data: texts(data, "stdin"))
    if not entries:
        raise InputError("no texts: the list on stdin is empty")
    return entries


def _with_stdin(arguments: Iterable[str], kind: str, split: Callable[[bytes], list[str]]) -> list[str]:
    entries: list[str] = []
    for argument in arguments:
        if argument != "-":
            entries.append(argument)
        elif sys.stdin is None or sys.stdin.isatty():
            raise InputError(f"- reads a list of {kind} from stdin, and nothing is piped into it")
        else:
            entries += split(sys.stdin.buffer.read())
    return entries
