"""Text for messages: sizes, durations, counts and lists of names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

FEW = 5  # names in a message


def size(nbytes: float) -> str:
    """Bytes as text, such as `1.24 GB` or `618 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if nbytes < 999.5:
            return f"{nbytes:.0f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.2f} GB"


def duration(seconds: float) -> str:
    """Seconds as text, such as `1 h 05 min`, `3 min 20 s` or `4.2 s`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(count: int, noun: str) -> str:
    """A count and its noun, such as `1 vector`, `2 vectors` or `3 classes`; `noun` is the singular."""
    return f"{count} {noun if count == 1 else noun + ('es' if noun.endswith(('s', 'x')) else 's')}"


def listed(texts: Sequence[str], most: int = FEW) -> str:
    """The first few texts, and the number of the others: `a, b and 3 more`."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def quoted(names: Iterable[str]) -> str:
    """The first few names in quotation marks, and the number of the others: `'a' and 3 more`; or `none`."""
    return listed([repr(name) for name in names]) or "none"
