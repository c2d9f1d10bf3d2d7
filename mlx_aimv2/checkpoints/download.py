"""Download of the files of a checkpoint from the Hub, at one commit."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..errors import DamagedFileError, HubError, NotACheckpointError, PickleRefusedError
from ..events import Notice, OnEvent, Progress
from ..messages import size
from ..storage.json_files import read_json
from .file_names import CONFIG, INDEX, choose_weights, shard_names, small_files

_POLL_S = 0.2


def weights_entry(names: Collection[str], source: str, weights: str | None = None) -> str:
    """The file or index of the weights of a repository, which needs a ``config.json`` too.

    Raises:
        PickleRefusedError: there are only pickled weights.
        NotACheckpointError: there is no ``config.json``, or there are no weights.
    """
    entry = choose_weights(names, source, weights)
    if CONFIG not in names:
        raise NotACheckpointError(f"{source} is no checkpoint: it has {entry} and no {CONFIG}")
    return entry


def is_complete(folder: Path, weights: str | None = None) -> bool:
    """Whether a folder has its configuration and all its weights, unlike after an interrupted download."""
    names = {entry.name for entry in folder.iterdir() if entry.is_file()}
    try:
        entry = weights_entry(names, str(folder), weights)
        return entry != INDEX or names.issuperset(_shards(folder / INDEX))
    except (NotACheckpointError, PickleRefusedError, DamagedFileError):
        return False


def _shards(index: Path) -> list[str]:
    return shard_names(read_json(index, DamagedFileError), str(index))


@dataclass(frozen=True)
class Listing:
    """The Hub's listing of a repository at one commit."""

    repo: str  # owner/name
    commit: str  # the full hash
    sizes: Mapping[str, int]  # bytes of every file, by name
    license_notice: str  # one line that names the licence of the weights


class Download:
    """The download of files of one commit into the cache: one after the other, and the weights last."""

    def __init__(self, listing: Listing, on_event: OnEvent) -> None:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        self._listing = listing
        self._on_event = on_event
        self._announced = False
        self._cache = Path(constants.HF_HUB_CACHE).expanduser()
        self._storage = self._cache / repo_folder_name(repo_id=listing.repo, repo_type="model")

    @property
    def folder(self) -> Path:
        """The folder of this commit in the cache."""
        return self._storage / "snapshots" / self._listing.commit

    def run(self, weights: str | None = None) -> Path:
        """Download the files of a checkpoint, and return their folder.

        Raises:
            NotACheckpointError, PickleRefusedError: see ``weights_entry``.
            DamagedFileError: the index is damaged.
            HubError: the weights do not fit on the disk, or shards are missing in the repository.
            Exception: ``huggingface_hub`` raises it when a download fails.
        """
        names = self._listing.sizes
        entry = weights_entry(names, self._listing.repo, weights)
        with no_bars():
            for name in [*small_files(names), *([INDEX] if entry == INDEX else [])]:
                self._fetch(name)
            self._fetch_weights(_shards(self.folder / INDEX) if entry == INDEX else [entry])
        return self.folder

    def remember(self, revision: str) -> None:
        """Record the commit of a branch or tag, so that the cache knows it without a network."""
        commit = self._listing.commit
        reference = self._storage / "refs" / revision
        if revision == commit or (reference.is_file() and reference.read_text(encoding="utf-8") == commit):
            return
        reference.parent.mkdir(parents=True, exist_ok=True)
        partial = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
        partial.write_text(commit, encoding="utf-8")
        partial.replace(reference)

    def _announce(self) -> None:
        if not self._announced:
            self._on_event(Notice(self._listing.license_notice))
            self._announced = True

    def _fetch(self, name: str) -> None:
        from huggingface_hub import constants, hf_hub_download

        if (self.folder / name).is_file():
            return
        self._announce()
        hf_hub_download(
            self._listing.repo,
            name,
            revision=self._listing.commit,
            cache_dir=self._cache,
            endpoint=constants.ENDPOINT,
            etag_timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )

    def _fetch_weights(self, names: list[str]) -> None:
        sizes = self._listing.sizes
        absent = [name for name in names if name not in sizes]
        if absent:
            raise HubError(f"{self._listing.repo} lacks {', '.join(absent[:3])}, which its {INDEX} names")
        missing = [name for name in names if not (self.folder / name).is_file()]
        if not missing:
            return
        self._check_space(sum(sizes[name] for name in missing))
        self._announce()
        done = sum(sizes[name] for name in names if name not in missing)
        with _Meter(
            self._storage / "blobs", done, sum(sizes[name] for name in names), self._on_event
        ) as meter:
            for name in missing:
                self._fetch(name)
                meter.finished(sizes[name])

    def _check_space(self, needed: int) -> None:
        existing = next(folder for folder in (self._cache, *self._cache.parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        if free < needed:
            raise HubError(
                f"no room for {self._listing.repo} in {self._cache}: {size(needed)} needed, "
                f"{size(free)} free: free some, or set HF_HOME to a folder on another disk"
            )


class _Meter:
    """Reports bytes as they arrive: a thread watches the growing file.

    Only newer versions of ``hf_hub_download`` take a progress class; the file grows in all versions.
    """

    def __init__(self, blobs: Path, done: int, total: int, on_event: OnEvent) -> None:
        self._blobs = blobs
        self._done = done
        self._total = total
        self._on_event = on_event
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mlx-aimv2-download", daemon=True)
        self._error: BaseException | None = None
        self._before = self._partial_files()

    def __enter__(self) -> _Meter:
        self._on_event(Progress("download", self._done, self._total, unit="bytes"))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            if self._error is not None:
                raise self._error
            self._on_event(Progress("download", self._done, self._total, unit="bytes"))

    def finished(self, size: int) -> None:
        """Count a file that is complete."""
        self._done += size

    def _partial_files(self) -> dict[Path, int]:
        sizes: dict[Path, int] = {}
        for path in self._blobs.glob("*.incomplete"):
            try:
                sizes[path] = path.stat().st_size
            except FileNotFoundError:  # completed between the two calls
                continue
        return sizes

    def _watch(self) -> None:
        reported = self._done
        try:
            while not self._stop.wait(_POLL_S):
                # files that an interrupted download left do not count
                grown = [
                    size for path, size in self._partial_files().items() if size != self._before.get(path)
                ]
                done = min(self._done + sum(grown), self._total)
                if done > reported:
                    reported = done
                    self._on_event(Progress("download", done, self._total, unit="bytes"))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._error = error


@contextmanager
def no_bars() -> Iterator[None]:
    """Disable the progress bars of ``huggingface_hub``, unless the environment decides about them."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
