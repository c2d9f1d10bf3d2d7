"""Files and folders that a search for images ignores: counts by reason; detection of this program's output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..storage.json_files import read_json
from .extensions import OTHER

HIDDEN, EXCLUDED, SPECIAL, BROKEN_LINK = "hidden", "excluded", "special file", "broken link"
OWN, SYSTEM, REPEATED = "written by mlx-aimv2", "system", "repeated"
MOST_GROUPS, MOST_EXTENSIONS, MOST_FOLDERS = 24, 3, 4  # in a summary
LONGEST_EXTENSION = 12  # a longer one is a part of a name
FOLDERS = {  # reason -> the nouns for one such folder, and for several
    SYSTEM: ("folder", "folders"),
    EXCLUDED: ("excluded folder", "excluded folders"),
    OWN: ("folder that mlx-aimv2 wrote", "folders that mlx-aimv2 wrote"),
    REPEATED: ("link to a folder that is searched anyway", "links to folders that are searched anyway"),
}

OWN_FOLDERS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    # a JSON file in a folder that this program wrote -> whether its content proves it
    "adapter_config.json": lambda data: "peft_type" in data,
    "task.json": lambda data: {"format", "base"} <= set(data),
    "splits.json": lambda data: {"train", "val", "files"} <= set(data),
    "manifest.json": lambda data: {"fingerprint", "shards"} <= set(data),
    "config.json": lambda data: bool({"model_type", "architectures", "architecture"} & set(data)),
}
# the suffixes without which no folder is a checkpoint
WEIGHTS = (".safetensors", ".safetensors.index.json", ".npz")
TOUR = {"contact-sheet.png", "labels.txt", "vectors.npz", "images"}
REPORT, REPORT_KEYS = "evaluation.json", {"skipped", "mistakes"}
PLOTS = frozenset({"confusion.png", "calibration.png", "curves.png"})


@dataclass(frozen=True)
class Ignored:
    """Counts of ignored files and folders.

    Attributes:
        files: by reason and extension.
        folders: by reason and name.
    """

    files: Counter[tuple[str, str]] = field(default_factory=Counter)
    folders: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self.files or self.folders)

    def __add__(self, other: Ignored) -> Ignored:
        return Ignored(self.files + other.files, self.folders + other.folders)

    def summary(self) -> str:
        """The counts in a line, such as `43 files: 40 .tga (no decoder), 3 hidden; 2 folders: @eaDir (2)`."""
        parts = [self._files()] if self.files else []
        for reason, nouns in FOLDERS.items():
            names = Counter({name: count for (why, name), count in self.folders.items() if why == reason})
            if names:
                listed = [f"{name} ({count:,})" if count > 1 else name for name, count in _ranked(names)]
                if len(listed) > MOST_FOLDERS:
                    listed[MOST_FOLDERS:] = [f"{len(listed) - MOST_FOLDERS} more"]
                total = names.total()
                parts.append(f"{total:,} {nouns[total > 1]}: {', '.join(listed)}")
        return "; ".join(parts)

    def _files(self) -> str:
        groups: Counter[str] = Counter()
        others: Counter[str] = Counter()
        for (reason, extension), count in self.files.items():
            if reason == OTHER:
                others[extension if len(extension) <= LONGEST_EXTENSION else ""] += count
            elif reason in (HIDDEN, EXCLUDED, OWN):
                groups[reason] += count
            else:
                groups[f"{extension} ({reason})" if extension else reason] += count
        listed = [f"{count:,} {name}" for name, count in _ranked(groups)]
        if len(listed) > MOST_GROUPS:
            rest = sum(count for _, count in _ranked(groups)[MOST_GROUPS:])
            listed[MOST_GROUPS:] = [f"{rest:,} of {len(listed) - MOST_GROUPS} further kinds"]
        if others:
            names = [name or "no ending" for name, _ in _ranked(others)]
            names[MOST_EXTENSIONS:] = ["…"][: len(names) > MOST_EXTENSIONS]
            listed.append(f"{others.total():,} other ({', '.join(names)})")
        total = self.files.total()
        return f"{total:,} file{'s' * (total != 1)}: {', '.join(listed)}"


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def own_files(folder: str, names: Set[str]) -> frozenset[str] | None:
    """The images in a folder that this program wrote among other images; None if it wrote the whole folder.

    Args:
        folder: the path.
        names: of everything in the folder.
    """
    if names >= TOUR:
        return None
    for mark, is_own in OWN_FOLDERS.items():
        if mark not in names or (mark == "config.json" and not any(name.endswith(WEIGHTS) for name in names)):
            continue
        if is_own(_content(folder, mark)):
            return None
    if REPORT in names and set(_content(folder, REPORT)) >= REPORT_KEYS:
        return None if names <= {REPORT, "data.json"} | PLOTS else PLOTS
    return frozenset()


def _content(folder: str, name: str) -> Mapping[str, Any]:
    try:
        return read_json(Path(folder, name))
    except ConfigError:
        return {}
