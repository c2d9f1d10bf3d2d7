"""Learn the vocabulary of CLIP's byte-level BPE from captions, and write the tokenizer files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import pre_tokenizers, trainers

from mlx_aimv2.errors import InputError
from mlx_aimv2.processing import tokenizer_files
from mlx_aimv2.storage.json_files import write_json

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
SYMBOLS = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))  # one for each byte
LEAST = 2 * len(SYMBOLS) + 2  # every byte, inside a word and at its end, and two special tokens


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer.

    Attributes:
        merges: pairs of tokens that are joined, in order.
        bos: the token before every text.
        eos: the token after every text, with the highest id; also the padding.
    """

    merges: tuple[tuple[str, str], ...] = ()
    bos: str = BOS
    eos: str = EOS

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens in the order of their ids: bytes, bytes at the end of a word, merged and special tokens."""
        ends = (f"{symbol}{END_OF_WORD}" for symbol in SYMBOLS)
        return (*SYMBOLS, *ends, *map("".join, self.merges), self.bos, self.eos)


def learn_vocabulary(texts: Iterable[str], most: int = 1024) -> Vocabulary:
    """Learn a vocabulary from texts with byte pair encoding; the same texts give the same vocabulary.

    It encodes any text, because every byte is a token.

    Args:
        texts: such as captions.
        most: maximum number of tokens, including 514 for bytes and ends. There are fewer if every word of the texts
            becomes a token.

    Raises:
        InputError: ``most`` is less than the number of byte tokens.
    """
    if most < LEAST:
        raise InputError(f"a vocabulary of {most} tokens has no room for every byte: allow {LEAST} or more")
    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary(Path(folder), Vocabulary())
        backend = tokenizer_files.read(
            Path(folder)
        ).backend  # with the split into words of the final tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=most - len(SYMBOLS) - 2,  # the trainer does not add bytes that end no word
        initial_alphabet=list(SYMBOLS),
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    merges = json.loads(backend.to_str())["model"]["merges"]
    return Vocabulary(tuple((first, second) for first, second in merges))


def write_vocabulary(folder: Path, vocabulary: Vocabulary, max_length: int = 77) -> None:
    """Write vocab.json, merges.txt, special_tokens_map.json and tokenizer_config.json.

    Args:
        folder: an existing folder.
        vocabulary: the vocabulary.
        max_length: the most tokens of a text, including BOS and EOS: the number of positions of the text tower.
    """
    end = vocabulary.eos
    special = {"bos_token": vocabulary.bos, "eos_token": end, "unk_token": end, "pad_token": end}
    ids = {token: number for number, token in enumerate(vocabulary.tokens)}
    merges = "".join(f"{first} {second}\n" for first, second in vocabulary.merges)
    write_json(folder / "vocab.json", ids)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    write_json(folder / "special_tokens_map.json", special)
    tokenizer = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_length,
        "errors": "replace",
    }
    write_json(folder / "tokenizer_config.json", tokenizer)
