"""Tokenize texts to ids: the byte-level BPE of CLIP, with BOS and EOS around every text.

The ids equal those of ``CLIPTokenizer`` in transformers 5, also for special tokens inside a text. The one exception:
a ``tokenizer.json`` by transformers 4 keeps its own split, which ends no word behind ``<|startoftext|>`` and
``<|endoftext|>`` if these are ordinary text, as in LiT. ``tokenizer_files`` reads the vocabulary from a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import tokenizer_files
from .tokenizer_files import LoadedTokenizer, as_tokenizer_error


@dataclass(frozen=True, eq=False)
class Encoding:
    """A batch of texts as arrays, padded on the right.

    Attributes:
        input_ids: (B, T) int32, each row BOS, the text, EOS, then padding.
        attention_mask: (B, T) int32, 1 for BOS, text and EOS, 0 for padding.
        truncated: Indices of the texts that were too long and lost tokens before EOS.
    """

    input_ids: NDArray[np.int32]
    attention_mask: NDArray[np.int32]
    truncated: tuple[int, ...] = ()


class Tokenizer:
    """Converts texts to token ids. A call changes no state, so threads can share a tokenizer.

    Args:
        loaded: The result of ``tokenizer_files.read``; see ``from_folder``.
    """

    def __init__(self, loaded: LoadedTokenizer) -> None:
        self._backend = loaded.backend
        self._special_ids = dict(loaded.special_ids)
        self._model_max_length = loaded.max_length
        self._vocab_size = loaded.vocab_size
        self._suffix: str = getattr(loaded.backend.model, "end_of_word_suffix", None) or ""

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder has the files that ``from_folder`` needs."""
        return bool(tokenizer_files.find(Path(folder)))

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read the tokenizer of a checkpoint folder.

        Reads ``tokenizer.json``, else ``vocab.json`` and ``merges.txt``; and, if present,
        ``tokenizer_config.json``, ``special_tokens_map.json`` and ``added_tokens.json``.

        Raises:
            TokenizerError: A file is missing, damaged, or contradicts another.
        """
        return cls(tokenizer_files.read(Path(folder)))

    @property
    def bos_token_id(self) -> int:
        """The id before every text."""
        return self._special_ids["bos_token"]

    @property
    def eos_token_id(self) -> int:
        """The id after every text; the text tower pools at its first position."""
        return self._special_ids["eos_token"]

    @property
    def pad_token_id(self) -> int:
        """The id that pads rows; in LiT it equals the EOS id, so only the mask distinguishes them."""
        return self._special_ids["pad_token"]

    @property
    def vocab_size(self) -> int:
        """One more than the highest id: the number of rows of a token embedding."""
        return self._vocab_size

    @property
    def model_max_length(self) -> int:
        """The most tokens of a row, including BOS and EOS (77 if no file states it)."""
        return self._model_max_length

    def __call__(self, texts: Sequence[str] | str, max_length: int | None = None) -> Encoding:
        """Tokenize B texts, truncate them to ``max_length`` and pad them on the right to the longest.

        Surrogates are joined to pairs if possible, and otherwise become U+FFFD.

        Args:
            texts: One text or B of them; an empty text is BOS EOS.
            max_length: The most tokens of a row, including BOS and EOS; default ``model_max_length``.

        Raises:
            InputError: There is no text, a text is not a str, or ``max_length`` is out of range.
            TokenizerError: The vocabulary cannot express a text.
        """
        checked = _check_texts(texts)
        limit = self._check_max_length(max_length)
        # one by one: a parallel batch gains little, and the library would warn in processes that are forked later
        rows = [self._encode(text) for text in checked]
        room = limit - 2
        truncated = tuple(index for index, row in enumerate(rows) if len(row) > room)
        length = 2 + min(room, max(len(row) for row in rows))
        input_ids = np.full((len(rows), length), self.pad_token_id, dtype=np.int32)  # (B, T)
        attention_mask = np.zeros((len(rows), length), dtype=np.int32)
        for index, row in enumerate(rows):
            ids = [self.bos_token_id, *row[:room], self.eos_token_id]
            input_ids[index, : len(ids)] = ids
            attention_mask[index, : len(ids)] = 1
        return Encoding(input_ids, attention_mask, truncated)

    def decode(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> str:
        """The text of one row of ids, without special tokens: lower case, single spaces between words.

        Raises:
            InputError: ``ids`` is not one row of whole numbers in the vocabulary.
        """
        row = np.asarray(ids)
        if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
            raise InputError(f"ids must be one row of whole numbers, not shape {row.shape} of {row.dtype}")
        if row.size and not 0 <= int(row.min()) <= int(row.max()) < self._vocab_size:
            raise InputError(f"ids must lie in 0 to {self._vocab_size - 1}, not {row.min()} to {row.max()}")
        with as_tokenizer_error("the ids"):
            text = self._backend.decode(row.tolist(), skip_special_tokens=True)
        return (text.replace(self._suffix, " ") if self._suffix else text).strip()

    def _encode(self, text: str) -> list[int]:
        """The ids of a text without BOS and EOS, not truncated."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        with as_tokenizer_error(f"the text {text[:40]!r}"):
            return self._backend.encode(text, add_special_tokens=False).ids

    def _check_max_length(self, max_length: int | None) -> int:
        if max_length is None:
            return self._model_max_length
        if isinstance(max_length, bool) or not isinstance(max_length, (int, np.integer)):
            raise InputError(f"max_length must be a whole number, not {max_length!r}")
        if not 2 <= max_length <= self._model_max_length:
            most = f"{self._model_max_length} (the model's)"
            raise InputError(f"max_length must be 2 (BOS and EOS) to {most}, not {max_length}")
        return int(max_length)


def _check_texts(texts: Sequence[str] | str) -> list[str]:
    if isinstance(texts, str):
        return [str(texts)]
    if not isinstance(texts, Sequence) or isinstance(texts, (bytes, bytearray, memoryview)):
        raise InputError(f"texts must be a str or a list of str, not {type(texts).__name__}")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"texts[{index}] must be a str, not {type(text).__name__}")
    if not texts:
        raise InputError("texts is empty; give at least one text (an empty str is allowed)")
    return [str(text) for text in texts]
