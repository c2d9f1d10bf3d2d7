"""Image formats that another package reads: the extensions of file names, the package, and the extra."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass

from ..errors import MissingExtraError


@dataclass(frozen=True)
class OptionalFormat:
    """A format that is read if a package is installed.

    Attributes:
        name: in messages.
        extensions: of file names, in lower case.
        package: to install.
        module: of the package.
        extra: of this package, which installs it.
    """

    name: str
    extensions: frozenset[str]
    package: str
    module: str
    extra: str

    def is_readable(self) -> bool:
        """Whether the package is installed."""
        return _is_installed(self.module)

    def missing(self) -> MissingExtraError:
        """The error for an image without the package."""
        return MissingExtraError(f"Reading {self.name} images", self.package, self.extra)


@functools.cache
def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


RAW = OptionalFormat(
    "camera raw",
    frozenset(
        """
        .3fr .ari .arw .bay .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .k25 .kdc .mdc .mef .mos .mrw .nef .nrw .orf .ori
        .pef .ptx .raf .rw2 .rwl .rwz .sr2 .srf .srw .x3f""".split()
    ),
    "rawpy",
    "rawpy",
    "raw",
)
JPEG_XL = OptionalFormat("JPEG XL", frozenset({".jxl"}), "pillow-jxl-plugin", "pillow_jxl", "jxl")
OPTIONAL_FORMATS = (RAW, JPEG_XL)
