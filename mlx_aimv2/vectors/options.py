"""`WriterOptions`: how to write vectors."""

from __future__ import annotations

from dataclasses import dataclass

from ..options.fields import option


@dataclass(frozen=True)
class WriterOptions:
    """How to write vectors."""

    force: bool = option(False, "Replace what -o names.")
    prune: bool = option(False, "Remove vectors from -o FOLDER/ if their images no longer exist.")
    text: bool = option(False, "The arguments are texts, not images.")
