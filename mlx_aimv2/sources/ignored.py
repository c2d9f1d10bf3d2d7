"""What a search for images leaves out: files counted by reason and ending, folders by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .extensions import OTHER

HIDDEN, EXCLUDED, SPECIAL, BROKEN_LINK = "hidden", "excluded", "special file", "broken link"
OWN = "written by mlx-aimv2"
SYSTEM, REPEATED = "system", "repeated"
SHOWN_ENDINGS, SHOWN_OTHERS, SHOWN_FOLDERS = 24, 3, 4
LONGEST_ENDING = 12
_WITHOUT_ENDING = {HIDDEN: HIDDEN, EXCLUDED: EXCLUDED, OWN: OWN}
_FOLDERS = {  # reason -> what one such folder is called, and several
    SYSTEM: ("folder", "folders"),
    EXCLUDED: ("excluded folder", "excluded folders"),
    OWN: ("folder that mlx-aimv2 wrote", "folders that mlx-aimv2 wrote"),
    REPEATED: ("link to a folder that is searched anyway", "links to folders that are searched anyway"),
}


@dataclass(frozen=True)
class LeftOut:
    """An account of what a search left out.

    Attributes:
        files: how many, by reason and ending.
        folders: how many, by reason and name.
    """

    files: Mapping[tuple[str, str], int] = field(default_factory=dict)
    folders: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything was left out."""
        return bool(self.files or self.folders)

    def __add__(self, other: LeftOut) -> LeftOut:
        """Both accounts in one."""
        files, folders = Counter(self.files), Counter(self.folders)
        files.update(other.files)
        folders.update(other.folders)
        return LeftOut(dict(files), dict(folders))

    def words(self) -> str:
        """What was left out, such as `43 files: 40 .tga (no decoder), 3 hidden; 2 folders: @eaDir (2)`."""
        parts = [self._files()] if self.files else []
        return "; ".join([*parts, *(self._folders(reason) for reason in _FOLDERS if self._count(reason))])

    def _files(self) -> str:
        groups: Counter[str] = Counter()
        others: Counter[str] = Counter()
        for (reason, ending), count in self.files.items():
            if reason == OTHER:
                others[ending] += count
            elif reason in _WITHOUT_ENDING:
                groups[reason] += count
            else:
                groups[f"{ending} ({reason})" if ending else reason] += count
        shown = [f"{count:,} {name}" for name, count in _ranked(groups)]
        if len(shown) > SHOWN_ENDINGS:
            rest = sum(count for _, count in _ranked(groups)[SHOWN_ENDINGS:])
            shown[SHOWN_ENDINGS:] = [f"{rest:,} of {len(shown) - SHOWN_ENDINGS} further kinds"]
        if others:
            shown.append(f"{others.total():,} other ({_endings(others)})")
        total = sum(self.files.values())
        return f"{total:,} file{'s' * (total != 1)}: {', '.join(shown)}"

    def _count(self, reason: str) -> int:
        return sum(count for (why, _), count in self.folders.items() if why == reason)

    def _folders(self, reason: str) -> str:
        names = Counter({name: count for (why, name), count in self.folders.items() if why == reason})
        shown = [f"{name} ({count:,})" if count > 1 else name for name, count in _ranked(names)]
        if len(shown) > SHOWN_FOLDERS:
            shown[SHOWN_FOLDERS:] = [f"{len(shown) - SHOWN_FOLDERS} more"]
        total = names.total()
        return f"{total:,} {_FOLDERS[reason][total > 1]}: {', '.join(shown)}"


def _endings(others: Iterable[str]) -> str:
    """The most frequent endings; very long ones are parts of names."""
    ranked = _ranked(Counter(others))
    names = [ending if ending and len(ending) <= LONGEST_ENDING else "no ending" for ending, _ in ranked]
    names = list(dict.fromkeys(names))
    return ", ".join([*names[:SHOWN_OTHERS], *["…"][: len(names) > SHOWN_OTHERS]])


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
