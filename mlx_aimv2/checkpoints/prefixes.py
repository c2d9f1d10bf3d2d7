"""Prefixes of tensor names: finding the encoder in a file, and the tensors beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ..errors import LayoutError
from ..messages import counted, listed

SHOWN = 8  # prefixes in a message
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})  # of PyTorch


def unwrapped(name: str) -> str:
    """A tensor's name without PyTorch's wrappers inside it; wrappers at the start are a prefix, and stay."""
    parts = name.split(".")
    start = next((at for at, part in enumerate(parts) if part not in WRAPPERS | {"module"}), 0)
    return ".".join(parts[:start] + [part for part in parts[start:] if part not in WRAPPERS])


def roots(names: Iterable[str], mark: str, parts: Sequence[str]) -> list[str]:
    """The prefixes of models of a layout.

    Args:
        names: of all tensors.
        mark: the end of a name that every model of the layout has once.
        parts: prefixes of the layout itself before the mark, such as `vision_model.`; the longest first.
    """
    prefixes = []
    for name in names:
        if name != mark and not name.endswith(f".{mark}"):
            continue
        prefix = name[: -len(mark)]
        part = next((part for part in parts if prefix == part or prefix.endswith(f".{part}")), "")
        prefixes.append(prefix[: len(prefix) - len(part)])
    return prefixes


def only_root(prefixes: Sequence[str], names: Iterable[str]) -> str:
    """The only prefix; raise LayoutError if there are several, and so several models in a file."""
    prefixes = sorted(set(prefixes))
    if len(prefixes) < 2:
        return prefixes[0]
    names = list(names)
    counts = [
        f"{prefix or 'no prefix'} ({sum(name.startswith(prefix) for name in names)})" for prefix in prefixes
    ]
    raise LayoutError(
        f"{len(prefixes)} encoders in one file, below {', '.join(counts)}: write the tensors of one of"
        " them to a file of their own, and load that"
    )


def beside(names: Iterable[str], prefix: str, is_known: Callable[[str], bool]) -> list[str]:
    """The tensors that do not belong to the model below ``prefix``.

    Below the prefix, the first part of a name belongs to the model if any tensor with it is known; an unknown tensor
    with such a part is an error then, and not left out.
    """
    inside = [name[len(prefix) :] for name in names if name.startswith(prefix)]
    own = {_first(name) for name in inside if is_known(name)}
    return [name for name in names if not name.startswith(prefix) or _first(name[len(prefix) :]) not in own]


def prefix_notices(prefix: str, names: Iterable[str], left_out: Sequence[str]) -> list[str]:
    """Messages about wrappers, the prefix, and tensors that are left out."""
    wrapped, lines = sum(unwrapped(name) != name for name in names), []
    if wrapped:
        lines.append(f"the names of {counted(wrapped, 'tensor')} are read without the wrappers in them")
    if prefix:
        lines.append(f"the model is taken from below {prefix} of the names of its tensors")
    if left_out:
        lines.append(f"left out, no part of the model: {grouped(left_out)}")
    return lines


def grouped(names: Iterable[str]) -> str:
    """Names by their first part, such as `classifier (2 tensors), decoder (1 tensor)`."""
    counts = Counter(_first(name) for name in names)
    return listed([f"{first} ({counted(count, 'tensor')})" for first, count in sorted(counts.items())], SHOWN)


def _first(name: str) -> str:
    return name.split(".", 1)[0]
