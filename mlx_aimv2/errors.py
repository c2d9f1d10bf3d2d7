"""The exceptions of this package, one tree.

```
Aimv2Error                      anything this package refuses or cannot do
├── InputError                  an argument has a wrong type, value or shape
├── BackendError                MLX has no usable backend on this machine
├── ForkedProcessError          a process was forked from one that had computed with MLX
├── MissingExtraError           an optional dependency is not installed
├── ImageError                  an image cannot be read or used
│   ├── BrokenImageError        not an image, cut off, or damaged
│   ├── ChangedFileError        the file that holds it has changed since its images were listed
│   └── ImageTooLargeError      more pixels or bytes than allowed; refused before decoding
├── TokenizerError              tokenizer files are missing or wrong, or a text cannot be used
├── CheckpointError             a checkpoint cannot be used
│   ├── NotACheckpointError     the folder holds no checkpoint
│   ├── ConfigError             config.json or preprocessor_config.json is missing or wrong
│   ├── LayoutError             the tensor names belong to no known layout
│   ├── MismatchError           tensors missing, unexpected, or of the wrong shape
│   ├── DamagedFileError        a file is cut off or not what its name says
│   └── PickleRefusedError      only pickled weights, which could run code
├── HubError                    the Hub does not deliver a checkpoint, or refuses an upload
│   ├── OfflineError            no network (or offline mode), and not in the cache
│   ├── RepositoryNotFoundError no such repository or revision
│   ├── GatedRepositoryError    the terms of the repository have to be accepted first
│   └── AccessTokenError        the access token is missing, refused, or may not write
├── NonFiniteError              a model's output holds NaN or infinity, or has no direction
│   └── TrainingError           the loss of a training is NaN or infinity; earlier epochs are kept
└── OutputError                 a result cannot be written
    └── ExistsError             it exists already, and may not be replaced
```

Every message is one line: what happened, with which value, and what to do about it. Where an option helps, that is
an `Advice`, which names the option as Python or the command line calls it.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Advice:
    """What to do about an error, with an option.

    Attributes:
        text: the advice, with `{}` for the option.
        option: the name of the option in Python.
        value: what to give for it; True for a switch, None if any value may help.
        otherwise: the advice on a command line without this option; empty for none.
    """

    text: str
    option: str
    value: str | bool | None = None
    otherwise: str = ""

    def __str__(self) -> str:
        """The advice in Python."""
        return self.text.format(self.option if self.value is None else f"{self.option}={self.value!r}")

    def for_options(self, options: Collection[str]) -> str:
        """The advice on a command line that has ``options``."""
        if self.option not in options:
            return self.otherwise
        value = f" {shlex.quote(self.value)}" if isinstance(self.value, str) else ""
        return self.text.format(f"--{self.option.replace('_', '-')}{value}")


class Aimv2Error(Exception):
    """Base of all errors of this package.

    Attributes:
        message: what happened, without place and advice.
        advice: what to do about it with an option, if an option helps.
        place: the file, image, option or key in a file that the message is about; empty if the message names it.
    """

    def __init__(self, message: str = "", advice: Advice | None = None, place: str = "") -> None:
        super().__init__(message)
        self.message, self.advice, self.place = message, advice, place

    @property
    def description(self) -> str:
        """Place and message, without the advice."""
        return f"{self.place}: {self.message}" if self.place else self.message

    def __str__(self) -> str:
        """Place, message, and the advice in Python."""
        return f"{self.description}: {self.advice}" if self.advice else self.description

    def at(self, place: object) -> Self:
        """The same error at ``place``, which its own place is a part of."""
        return type(self)(self.message, self.advice, f"{place}: {self.place}" if self.place else str(place))

    @classmethod
    def reading(cls, path: object, error: Exception) -> Aimv2Error:
        """The error for a file or folder that cannot be read, with the system's reason."""
        return cls(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")


class InputError(Aimv2Error, ValueError):
    """An argument has a wrong type, value or shape."""


class BackendError(Aimv2Error, ImportError):
    """MLX has no usable backend on this machine."""


class ForkedProcessError(Aimv2Error, RuntimeError):
    """A process was forked from one that had computed with MLX, whose threads a fork does not copy."""


class MissingExtraError(Aimv2Error, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs the package {package}: pip install 'mlx-aimv2[{extra}]'")
        self.extra = extra


class ImageError(Aimv2Error, ValueError):
    """An image cannot be read or used."""


class BrokenImageError(ImageError):
    """A file or buffer is not an image, is cut off, or is damaged."""


class ChangedFileError(ImageError):
    """The file that holds an image has changed since its images were listed."""


class ImageTooLargeError(ImageError):
    """An image has more pixels or bytes than allowed; it was refused before decoding."""


class TokenizerError(Aimv2Error, ValueError):
    """Tokenizer files are missing or wrong, or a text cannot be used."""


class CheckpointError(Aimv2Error):
    """A checkpoint cannot be used."""


class NotACheckpointError(CheckpointError):
    """A folder holds no checkpoint."""


class ConfigError(CheckpointError, ValueError):
    """A configuration file is missing, unreadable or contradicts itself."""


class LayoutError(CheckpointError):
    """The tensor names of a checkpoint belong to no known layout."""


class MismatchError(CheckpointError):
    """Tensors of a checkpoint are missing, unexpected, or of the wrong shape."""


class DamagedFileError(CheckpointError):
    """A file is cut off or is not what its name says."""


class PickleRefusedError(CheckpointError):
    """Only pickled weights were found, which could run code when opened."""


class HubError(Aimv2Error):
    """The Hugging Face Hub does not deliver a checkpoint, or refuses an upload."""


class OfflineError(HubError):
    """There is no network (or offline mode is on), and the files are not in the cache."""


class RepositoryNotFoundError(HubError):
    """There is no such repository or revision, or no right to see it."""


class GatedRepositoryError(HubError):
    """The terms of the repository have to be accepted first."""


class AccessTokenError(HubError):
    """The access token for the Hub is missing, refused, or may not write."""


class NonFiniteError(Aimv2Error, ArithmeticError):
    """A model's output holds NaN or infinity, or is a vector that cannot be normalized."""


class TrainingError(NonFiniteError):
    """The loss of a training is NaN or infinity; earlier epochs are kept."""


class OutputError(Aimv2Error, OSError):
    """A result cannot be written.

    Attributes:
        path: the file or folder that the system refused to write; None if this package did.
    """

    path: Path | None = None

    @classmethod
    def writing(cls, path: Path | str, error: BaseException) -> OutputError:
        """The error for a file, folder or stream that cannot be written, with the system's reason."""
        output_error = cls(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}")
        output_error.path = path if isinstance(path, Path) else None
        return output_error


class ExistsError(OutputError, InputError):
    """A result exists already, and may not be replaced."""
