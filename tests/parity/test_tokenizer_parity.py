"""Token ids equal to those of transformers, on generated texts, from every file that holds a vocabulary."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, trainers

from mlx_aimv2.processing.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

BOS, EOS = "<start_of_text>", "<end_of_text>"
COUNT, BATCH = 12_000, 64
# First and last code points: Latin, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai, kana, Han, Hangul.
SCRIPTS = [
    *[(0x61, 0x7A), (0x41, 0x5A), (0xC0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA)],
    *[(0x620, 0x64A), (0x900, 0x97F), (0xE01, 0xE3A), (0x3041, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)],
]
SPACES = [
    *["", " ", " ", " ", "  ", "\t", "\n", "\r\n", "\x0b", "\x1c", "\x85", "\xa0", "\u1680", "\u2003"],
    *["\u2028", "\u2029", "\u202f", "\u3000", "\u200b", "\u180e", "\ufeff"],
]
PIECES = [
    *[
        BOS,
        EOS,
        BOS.upper(),
        EOS.title(),
        "<|startoftext|>",
        "<|endoftext|>",
        "<|STARTOFTEXT|>",
        "</w>",
        "<|",
        "|>",
    ],
    *["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "\u2019s", "don't", "we'll've", "''d", "s'"],
    *["0", "2024", "3.14", "1,000", "\u0663\u0664", "\u00bd", "\u2167", "\u2460", "\u00b2", "\u0967"],
    *[
        "!",
        "...",
        "?!",
        "--",
        "#tag",
        "@",
        "(a)",
        "[b]",
        "_",
        "a_b",
        "\u2014",
        "\u3002",
        "\u00bf",
        "&amp;",
        "\\n",
    ],
    *[
        "\U0001f600",
        "\U0001f469\u200d\U0001f4bb",
        "\U0001f44d\U0001f3fd",
        "\U0001f1eb\U0001f1f7",
        "\u2764\ufe0f",
    ],
    *[
        "e\u0301",
        "\u0301",
        "a\u0323\u0302",
        "\u1e9b\u0323",
        "\ufb01",
        "\u0130",
        "\u00df",
        "\u03a3\u03a3",
        "\u1f88",
    ],
    *[
        "\u200f",
        "\u202e",
        "\x00",
        "\x07",
        "\x7f",
        "\ufffd",
        "\ufffe",
        "\U0010ffff",
        "\ue000",
        "\u01c5",
        "\u2126",
    ],
    *["a photo of", "CAT", "Cat", "cats", "photography", "the", "dog.", "un", "believable"],
]


def _words(rng: random.Random) -> str:
    low, high = rng.choice(SCRIPTS)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 8)))


def _any(rng: random.Random) -> str:
    point = rng.choice([rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000)])
    return chr(point) if not 0xD800 <= point < 0xE000 else "\ufffd"


def _piece(rng: random.Random) -> str:
    return rng.choice(PIECES)


def _text(rng: random.Random) -> str:
    length = rng.choice([0, 1, 2, 3, 5, 8, 12, 20, 20, 60])
    makers: list[Callable[[random.Random], str]] = [_words, _any, _piece, _piece]
    return "".join(rng.choice(makers)(rng) + rng.choice(SPACES) for _ in range(length))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(20260)
    return [*PIECES, *SPACES, *(_text(rng) for _ in range(COUNT))]


@pytest.fixture(scope="module")
def vocabulary(texts: list[str]) -> tuple[dict[str, int], list[str]]:
    """Trained on some of the texts, so that merges of every script occur; symbols first, BOS and EOS last."""
    backend = Backend(models.BPE(end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=1500, end_of_word_suffix="</w>", show_progress=False)
    backend.train_from_iterator(texts[:2000], trainer)
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*symbols, *(symbol + "</w>" for symbol in symbols)])
    merges = [tuple(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    tokens |= dict.fromkeys(left + right for left, right in merges)
    return {token: index for index, token in enumerate([*tokens, BOS, EOS])}, list(map(" ".join, merges))


STRINGS = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS, "model_max_length": 77}
FLAGS = {"lstrip": False, "rstrip": False, "single_word": False}


def _configs(vocab: dict[str, int], era: str) -> dict[str, Any]:
    """The small files of each era."""
    tokens = {
        key: {"content": STRINGS[key], "normalized": True, **FLAGS} for key in ("bos_token", "eos_token")
    }
    if era == "strings":
        return {"tokenizer_config.json": STRINGS}
    if era == "map":
        return {
            "tokenizer_config.json": {"model_max_length": 77},
            "special_tokens_map.json": STRINGS | tokens,
        }
    if era == "objects":
        objects = {key: {"__type": "AddedToken", **value} for key, value in tokens.items()}
        return {"tokenizer_config.json": STRINGS | objects}
    decoder = {
        str(vocab[token]): {"content": token, "normalized": era == "normalized", "special": True, **FLAGS}
        for token in (BOS, EOS)
    }
    return {"tokenizer_config.json": {**STRINGS, "added_tokens_decoder": decoder}}


@pytest.fixture(params=["strings", "map", "objects", "decoder", "normalized"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, vocabulary: tuple[dict[str, int], list[str]]
) -> Path:
    vocab, merges = vocabulary
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    for name, content in _configs(vocab, request.param).items():
        content = {
            key: value for key, value in content.items() if name[0] == "t" or key != "model_max_length"
        }
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def _check(ours: Tokenizer, theirs: Any, texts: list[str]) -> int:
    """Ids and mask in batches, and which texts were cut; gives how many were."""
    cut = 0
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        got = ours(batch)
        wanted = theirs(batch, truncation=True, max_length=77, padding=True)
        for index, text in enumerate(batch):
            assert got.input_ids[index].tolist() == wanted["input_ids"][index], ascii(text)
            assert got.attention_mask[index].tolist() == wanted["attention_mask"][index], ascii(text)
            assert index not in got.truncated or len(theirs(text)["input_ids"]) > 77, ascii(text)
        cut += len(got.truncated)
    return cut


def test_both_routes_give_the_ids_of_transformers(
    folder: Path, request: pytest.FixtureRequest, tmp_path: Path, texts: list[str]
) -> None:
    """From vocab.json and merges.txt, and from the tokenizer.json that transformers saves of them."""
    if not request.node.callspec.id.startswith("strings"):
        texts = texts[:1000]  # the eras differ only in how they treat the special tokens
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    ours = Tokenizer.from_folder(folder)
    assert _check(ours, theirs, texts) > len(texts) // 50
    saved = tmp_path / "saved"
    theirs.save_pretrained(saved)
    assert (saved / "tokenizer.json").is_file()
    again = Tokenizer.from_folder(saved)
    special = (again.bos_token_id, again.eos_token_id, again.pad_token_id, again.model_max_length)
    assert special == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, 77)
    assert again.vocab_size == ours.vocab_size == len(theirs)
    assert _check(again, transformers.CLIPTokenizer.from_pretrained(saved), texts) > len(texts) // 50


def test_decoded_texts_are_those_of_transformers(folder: Path, texts: list[str]) -> None:
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    ours = Tokenizer.from_folder(folder)
    for row in ours(texts[:500]).input_ids:
        assert ours.decode(row) == theirs.decode(row.tolist(), skip_special_tokens=True)
