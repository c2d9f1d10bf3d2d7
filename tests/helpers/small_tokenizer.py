"""A small byte-level vocabulary, and its files in every layout of checkpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from mlx_aimv2.processing.tokenizer import Tokenizer

WORDS = re.findall(
    r"\w+",
    "cat photo dog the of on in with and is are this that picture image drawing sketch painting person "
    "people woman man child street tree water ocean beach mountain forest flower grass yellow green orange "
    "purple black white brown large small young little running sitting standing holding looking wearing "
    "playing riding train airplane bicycle motorcycle elephant giraffe zebra horse sheep bird table chair "
    "kitchen bathroom window quiz",
)


BOS, EOS = "<start_of_text>", "<end_of_text>"


def _build() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte symbols 0 to 255, their word ends 256 to 511, one token per merge, then BOS and EOS."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*symbols, *(symbol + "</w>" for symbol in symbols)])}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        left = parts[0]
        for right in parts[1:]:
            if (left, right) not in merges:
                merges.append((left, right))
                vocab.setdefault(left + right, len(vocab))
            left += right
    for token in (BOS, EOS):
        vocab[token] = len(vocab)
    return vocab, merges


VOCAB, MERGES = _build()


BOS_ID, EOS_ID = VOCAB[BOS], VOCAB[EOS]


STRINGS = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS, "model_max_length": 77}


def flags(normalized: bool, **more: Any) -> dict[str, Any]:
    return {"lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False, **more}


def decoder(normalized: bool = False) -> dict[str, Any]:
    return {str(VOCAB[token]): {"content": token, **flags(normalized, special=True)} for token in (BOS, EOS)}


def make_pipeline() -> dict[str, Any]:
    """A tokenizer.json as transformers 4 wrote it, with state in it that must not show."""
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    ends = {"type": "RobertaProcessing", "sep": [EOS, EOS_ID], "cls": [BOS, BOS_ID]}
    return {
        "version": "1.0",
        "truncation": {"direction": "Left", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 9},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "!",
        },
        "added_tokens": [{"id": int(key), **value} for key, value in decoder().items()],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, spaces, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": {**ends, "trim_offsets": False, "add_prefix_space": False},
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": 0.9,
            "unk_token": EOS,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "vocab": VOCAB,
            "merges": MERGES,
        },
    }


PLAIN = {"vocab.json": VOCAB, "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, MERGES), ""])}


OLD_MAP = {
    "bos_token": {"content": BOS, **flags(True)},
    "eos_token": {"content": EOS, **flags(True)},
    "unk_token": EOS,
    "pad_token": EOS,
}


LAYOUTS: dict[str, dict[str, Any]] = {
    "tokenizer.json only": {"tokenizer.json": make_pipeline()},
    "tokenizer.json and config": {"tokenizer.json": make_pipeline(), "tokenizer_config.json": STRINGS},
    "tokenizer.json without ends": {"tokenizer.json": {**make_pipeline(), "post_processor": None}},
    "tokenizer.json before the others": {
        "tokenizer.json": make_pipeline(),
        "vocab.json": {},
        "merges.txt": "x",
    },
    "vocab and merges only": PLAIN,
    "strings": {**PLAIN, "tokenizer_config.json": STRINGS},
    "decoder": {**PLAIN, "tokenizer_config.json": {**STRINGS, "added_tokens_decoder": decoder()}},
    "old map": {
        **PLAIN,
        "tokenizer_config.json": {"model_max_length": 77},
        "special_tokens_map.json": OLD_MAP,
    },
    "old config": {
        **PLAIN,
        "tokenizer_config.json": {
            **STRINGS,
            **{key: {"__type": "AddedToken", "content": STRINGS[key], **flags(True)} for key in OLD_MAP},
        },
    },
    "added_tokens.json": {
        **PLAIN,
        "vocab.json": {token: index for token, index in VOCAB.items() if token not in (BOS, EOS)},
        "added_tokens.json": {EOS: EOS_ID, BOS: BOS_ID},
        "special_tokens_map.json": {"bos_token": BOS, "eos_token": EOS},
    },
}


def write_files(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids between BOS and EOS."""
    row: list[int] = tokenizer(text).input_ids[0].tolist()
    assert row[0] == BOS_ID and row[-1] == EOS_ID
    return row[1:-1]


def tokens_of(*tokens: str) -> list[int]:
    return [VOCAB[token] for token in tokens]
