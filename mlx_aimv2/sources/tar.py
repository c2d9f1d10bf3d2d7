"""Images in tar archives, WebDataset's shards among them: read in place, nothing is unpacked."""

from __future__ import annotations

import errno
import posixpath
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..errors import BrokenImageError, ImageError, ImageTooLargeError
from ..processing.source_image import SourceImage
from .containers import Listing, failing, unique_id
from .extensions import extension_of, is_image, kind_of
from .file_state import FileState, check_unchanged, state_of
from .folder_scan import Rules, is_system
from .forward import ForwardReader
from .ignored import EXCLUDED, HIDDEN, SPECIAL, SYSTEM, Ignored
from .options import SourceOptions

LARGEST = 2**30  # bytes of an encoded image; a larger member would fill the memory
LARGEST_HEADER = 2**21  # bytes, with a long name, other attributes and the map of a sparse member
# a compressed archive may unpack to 200 times its size plus 1 GiB
EXPANSION, EXPANSION_FREE = 200, 2**30
TAIL = 2**16  # bytes after the end of an archive that are searched for another archive
MOST_LINKS = 8  # from a link to a link
DAMAGED = (tarfile.TarError, EOFError, OSError, ValueError)  # of tarfile and the modules that decompress
UNPACKERS = ("zlib", "_lzma")  # modules with further exceptions for damage; Python may lack the latter


def list_images(path: str, rules: Rules, options: SourceOptions) -> Listing:
    """The images of a tar archive, in its order, with ids such as `shard.tar/000.jpg`.

    A compressed archive is read once to list its images, and once more to decode them. Links lead to other members.
    Members that cannot be read, and the rest of a damaged archive, are images that fail.

    Raises:
        BrokenImageError: the file is no tar archive.
        ImageError: it is not a regular file.
        OSError: it cannot be read.
    """
    state = state_of(path)
    for mode, is_packed in (("r:", False), ("r:*", True)):
        try:
            with _Archive.open(path, mode) as archive:  # type: ignore[call-overload]
                return _Search(path, state, rules, is_packed).run(archive)
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            failure = error
    raise BrokenImageError("not a tar archive, or damaged") from failure


class _Archive(tarfile.TarFile):
    """A tar archive whose damage is a `tarfile.ReadError`, and whose headers cannot fill the memory."""

    def __init__(self, name: Any = None, mode: Any = "r", fileobj: Any = None, **options: Any) -> None:
        """Open the file ``name``, or read the unpacked ``fileobj``."""
        self._limited = _Limited(fileobj or Path(name).open("rb"))  # noqa: SIM115 - `close` closes it
        try:
            super().__init__(name, mode, self._limited, **options)  # type: ignore[arg-type]
        except BaseException:
            self._limited.close()
            raise

    def next(self) -> tarfile.TarInfo | None:
        """The next member."""
        self._limited.left = LARGEST_HEADER
        try:
            member = super().next()
        except RecursionError as error:  # each header in front of a member is a call
            raise tarfile.ReadError("a member has too many headers") from error
        if member is not None and self.offset <= member.offset:
            raise tarfile.ReadError(f"the header at byte {member.offset:,} leads back")
        return member

    def extractfile(self, member: str | tarfile.TarInfo) -> IO[bytes] | None:
        """The content of a member of at most `LARGEST` bytes."""
        self._limited.left = LARGEST
        return super().extractfile(member)

    def rest(self) -> str:
        """What follows the last member, behind which `next` gives None; empty for the end of the archive.

        `tarfile` takes damage for the end.
        """
        header = self._limited.last
        self._limited.left = TAIL
        tail = self._limited.read(TAIL)
        if header.strip(b"\0"):
            return f"it is damaged at byte {self.offset:,}"
        return f"another archive follows its end at byte {self.offset:,}" if tail.strip(b"\0") else ""

    def close(self) -> None:
        """Close the archive and its file."""
        super().close()
        self._limited.close()


class _Limited:
    """A file of which only ``left`` more bytes can be read, and that keeps what was read last."""

    def __init__(self, file: Any) -> None:
        self._file, self.left, self.last = file, LARGEST_HEADER, b""
        self.tell, self.close = file.tell, file.close

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError(f"a header has more than {LARGEST_HEADER:,} bytes")
        self.last = self._try(self._file.read, size)
        return self.last

    def seek(self, position: int) -> int:
        try:
            return self._try(self._file.seek, position)
        except (OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise tarfile.ReadError("unexpected end of data") from error  # no file can be so large

    def _try(self, function: Callable[[int], Any], argument: int) -> Any:
        try:
            return function(argument)
        except DAMAGED:
            raise
        except Exception as error:
            if type(error).__module__ not in UNPACKERS:
                raise
            raise tarfile.ReadError("the packed data is damaged") from error


class _Member(NamedTuple):
    """Where the content of a member is."""

    header: int  # offsets in bytes, of a compressed archive after decompression
    content: int
    size: int
    is_sparse: bool


class _Search:
    """The search of one archive for images."""

    def __init__(self, path: str, state: FileState, rules: Rules, is_packed: bool) -> None:
        self.path, self.state, self.rules, self.is_packed = path, state, rules, is_packed
        self.images: list[SourceImage] = []
        self.ignored = Ignored()
        self.ids: Counter[str] = Counter()
        self.wanted: dict[int, int] = {}  # header of a member of a compressed archive -> its number
        self.reader = ForwardReader(lambda number: _unpacked(path, self.wanted))

    def run(self, archive: _Archive) -> Listing:
        members: dict[str, _Member] = {}
        links: list[tuple[int, str, str]] = []  # place among the images, name, and target
        largest = EXPANSION * self.state.size + EXPANSION_FREE
        problem = ""
        while not problem:
            try:
                member = archive.next()
                problem = archive.rest() if member is None else ""
            except DAMAGED as error:
                if not (members or self.images or self.ignored):
                    raise
                problem = getattr(error, "strerror", None) or str(error) or "it ends early"
                break
            if member is None:
                break
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member
            if self.is_packed and member.offset_data + member.size > largest:
                problem = f"it would unpack to more than {largest:,} bytes"
                break
            content = _Member(member.offset, member.offset_data, member.size, member.issparse())
            if member.isreg():
                members[member.name] = content
            if not self._is_image(member):
                continue
            if member.isreg():
                self._add(f"{self.path}/{member.name}", self._opener(content))
            else:
                target = member.linkname
                if member.issym():
                    target = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), target))
                links.append((len(self.images), member.name, target))
                self._add(f"{self.path}/{member.name}", bytes)
        self._follow(links, members)
        if problem:
            damaged = BrokenImageError(f"the rest of the archive cannot be read: {problem}")
            self._add(self.path, failing(damaged))
        return Listing(tuple(self.images), self.ignored)

    def _is_image(self, member: tarfile.TarInfo) -> bool:
        """Whether a member has the name of an image; all other files are counted."""
        if member.isdir():
            return False
        *folders, name = [part for part in member.name.split("/") if part not in ("", ".", "..")] or [""]
        if any(map(is_system, folders)):
            self.ignored.files[SYSTEM, ""] += 1
        elif any(part.startswith(".") for part in (*folders, name)):
            self.ignored.files[HIDDEN, ""] += 1
        elif self.rules.excludes_below(member.name):
            self.ignored.files[EXCLUDED, ""] += 1
        elif not (member.isreg() or member.issym() or member.islnk()):
            self.ignored.files[SPECIAL, ""] += 1
        elif is_image(name):
            return True
        else:
            extension = extension_of(name)
            self.ignored.files[kind_of(extension), extension] += 1
        return False

    def _follow(self, links: list[tuple[int, str, str]], members: Mapping[str, _Member]) -> None:
        """Let the images that are links read the members they lead to."""
        targets = {name: target for _, name, target in links}
        for place, _, target in links:
            for _ in range(MOST_LINKS):
                target = targets.get(target, target)
            member = members.get(target)
            read: Callable[[], bytes]
            if member is None:
                read = failing(ImageError(f"a link to {target}, which is no file of the archive"))
            else:
                read = self._opener(member)
            self.images[place] = SourceImage(self.images[place].id, read, self.path)

    def _add(self, name: str, read: Callable[[], bytes]) -> None:
        self.images.append(SourceImage(unique_id(self.ids, name), read, self.path))

    def _opener(self, member: _Member) -> Callable[[], bytes]:
        if member.size > LARGEST:
            return failing(ImageTooLargeError(f"{member.size:,} bytes are too many for an image"))
        if member.is_sparse:
            return failing(ImageError("a sparse member of an archive, which is not read"))
        if self.is_packed:
            return partial(self._read_packed, self.wanted.setdefault(member.header, len(self.wanted)))
        return partial(self._read, member)

    def _read(self, member: _Member) -> bytes:
        with Path(self.path).open("rb") as file:
            check_unchanged(file.fileno(), self.state, "archive")  # the members of another one are elsewhere
            file.seek(member.content)
            data = file.read(member.size)
        return _whole(data, member.size)

    def _read_packed(self, number: int) -> bytes:
        check_unchanged(self.path, self.state, "archive")
        return self.reader.get(number)


def _unpacked(path: str, wanted: Mapping[int, int]) -> Iterator[tuple[int, bytes]]:
    """The contents of the wanted members of a compressed archive, with their numbers."""
    try:
        with _Archive.open(path, "r:*") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]
                number = wanted.get(member.offset)
                if number is not None and (file := archive.extractfile(member)) is not None:
                    yield number, _whole(file.read(), member.size)
    except DAMAGED as error:
        if isinstance(error, ImageError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise BrokenImageError("cut off: the archive ends within it, or is damaged before it") from error


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise BrokenImageError("cut off: the archive ends within it")
    return data
