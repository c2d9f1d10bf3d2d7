"""The tokenizer on a small byte-level vocabulary, in every file layout that checkpoints have had."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from mlx_aimv2.errors import InputError, TokenizerError
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


def _flags(normalized: bool, **more: Any) -> dict[str, Any]:
    return {"lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False, **more}


def _decoder(normalized: bool = False) -> dict[str, Any]:
    return {str(VOCAB[token]): {"content": token, **_flags(normalized, special=True)} for token in (BOS, EOS)}


def _pipeline() -> dict[str, Any]:
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
        "added_tokens": [{"id": int(key), **value} for key, value in _decoder().items()],
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
    "bos_token": {"content": BOS, **_flags(True)},
    "eos_token": {"content": EOS, **_flags(True)},
    "unk_token": EOS,
    "pad_token": EOS,
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "tokenizer.json only": {"tokenizer.json": _pipeline()},
    "tokenizer.json and config": {"tokenizer.json": _pipeline(), "tokenizer_config.json": STRINGS},
    "tokenizer.json without ends": {"tokenizer.json": {**_pipeline(), "post_processor": None}},
    "tokenizer.json before the others": {"tokenizer.json": _pipeline(), "vocab.json": {}, "merges.txt": "x"},
    "vocab and merges only": PLAIN,
    "strings": {**PLAIN, "tokenizer_config.json": STRINGS},
    "decoder": {**PLAIN, "tokenizer_config.json": {**STRINGS, "added_tokens_decoder": _decoder()}},
    "old map": {
        **PLAIN,
        "tokenizer_config.json": {"model_max_length": 77},
        "special_tokens_map.json": OLD_MAP,
    },
    "old config": {
        **PLAIN,
        "tokenizer_config.json": {
            **STRINGS,
            **{key: {"__type": "AddedToken", "content": STRINGS[key], **_flags(True)} for key in OLD_MAP},
        },
    },
    "added_tokens.json": {
        **PLAIN,
        "vocab.json": {token: index for token, index in VOCAB.items() if token not in (BOS, EOS)},
        "added_tokens.json": {EOS: EOS_ID, BOS: BOS_ID},
        "special_tokens_map.json": {"bos_token": BOS, "eos_token": EOS},
    },
}


def _write(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_folder(_write(tmp_path_factory.mktemp("tokenizer"), LAYOUTS["strings"]))


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids between BOS and EOS."""
    row: list[int] = tokenizer(text).input_ids[0].tolist()
    assert row[0] == BOS_ID and row[-1] == EOS_ID
    return row[1:-1]


def _tokens(*tokens: str) -> list[int]:
    return [VOCAB[token] for token in tokens]


BY_HAND = {
    "": [],
    " \t\n\u3000": [],
    "A  Photo of\tCAT": _tokens("a</w>", "photo</w>", "of</w>", "cat</w>"),
    "cat's": _tokens("cat</w>", "'", "s</w>"),
    "q7!?": _tokens("q</w>", "7</w>", "!", "?</w>"),
    "12": _tokens("1</w>", "2</w>"),
    "\u00e9": _tokens("\u00c3", "\u00a9</w>"),  # the bytes C3 A9, as their stand-ins
    "e\u0301": _tokens("\u00c3", "\u00a9</w>"),  # composed first
    "\U0001f600": _tokens("\u00f0", "\u0141", "\u013a", "\u0122</w>"),
    "\x00": _tokens("\u0100</w>"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_tokenizer(layout: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(_write(tmp_path, LAYOUTS[layout]))
    assert Tokenizer.exists(tmp_path)
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert special == (BOS_ID, EOS_ID, EOS_ID)
    assert (tokenizer.vocab_size, tokenizer.model_max_length) == (len(VOCAB), 77)
    for text, expected in BY_HAND.items():
        assert _ids(tokenizer, text) == expected, ascii(text)
    assert _ids(tokenizer, f"cat{EOS}{BOS}") == [*_tokens("cat</w>"), EOS_ID, BOS_ID]


# As transformers 5.23 gave them for this vocabulary.
FROZEN = {
    "The photographer's 1,234 CATS weren't running!!": (
        "521 516 78 622 514 68 337 6 338 272 267 273 274 275 512 83 338 702 81 68 333 6 339 677 0 256"
    ),
    "<|startoftext|>'s, <START_OF_TEXT>": (
        "27 347 584 531 83 78 69 83 68 87 339 91 285 6 338 267 283 584 531 339 318 522 318 83 68 87 339 285"
    ),
    "\ufb01anc\xe9e \u2014 na\xefve \u0130stanbul \xdf \u03a3\u0391\u03a3": (
        "171 105 223 528 66 127 102 324 158 222 498 77 64 127 107 85 324 328 136 485 584 528 65 84 331 127 "
        "509 139 225 138 109 139 481"
    ),
    "\u0633\u0644\u0627\u0645 \u05d3\u05d2 \u732b \U0001f469\u200d\U0001f469\u200d\U0001f467": (
        "148 111 149 226 148 100 149 483 147 241 147 496 163 234 360 172 253 239 102 158 222 235 172 253 239 "
        "102 158 222 235 172 253 239 356"
    ),
    "a\u00a0b\u2028c\x85d\x1fe": "320 321 322 323 475 324",
}


@pytest.mark.parametrize("text", FROZEN, ids=ascii)
def test_frozen_ids(tokenizer: Tokenizer, text: str) -> None:
    assert _ids(tokenizer, text) == [int(number) for number in FROZEN[text].split()]


@pytest.mark.parametrize("normalized", [True, False])
def test_special_tokens_in_a_text_match_as_their_flags_say(tmp_path: Path, normalized: bool) -> None:
    config = {**STRINGS, "added_tokens_decoder": _decoder(normalized)}
    tokenizer = Tokenizer.from_folder(_write(tmp_path, {**PLAIN, "tokenizer_config.json": config}))
    assert _ids(tokenizer, "cat<end_of_text>cat") == [VOCAB["cat</w>"], EOS_ID, VOCAB["cat</w>"]]
    assert (_ids(tokenizer, "<END_OF_TEXT>") == [EOS_ID]) is normalized


def test_a_tokenizer_json_keeps_its_own_split(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = Tokenizer.from_folder(_write(tmp_path, LAYOUTS["tokenizer.json only"]))
    assert _ids(tokenizer, "<|endoftext|>!")[-3:] == _tokens("|", "></w>", "!</w>")
    assert _ids(theirs, "<|endoftext|>!")[-3:] == _tokens("|", ">", "!</w>")


MERGE_LINES = list(map(" ".join, MERGES))


@pytest.mark.parametrize(
    "merges",
    [
        "\n".join(MERGE_LINES),
        "\n".join(["#version: 0.2", *MERGE_LINES, "", "", ""]),
        "\n\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *MERGE_LINES]),
        "\r\n".join(["#version: 0.2", *MERGE_LINES, ""]),
    ],
    ids=["no version", "version", "file name and version", "CRLF"],
)
def test_merges_files_of_every_kind(tmp_path: Path, merges: str) -> None:
    folder = _write(tmp_path, {**PLAIN, "tokenizer_config.json": STRINGS})
    (folder / "merges.txt").write_bytes(merges.encode())
    tokenizer = Tokenizer.from_folder(folder)
    for text, expected in BY_HAND.items():
        assert _ids(tokenizer, text) == expected
    assert _ids(tokenizer, "quiz") == _tokens("quiz</w>")  # the last merge


@pytest.mark.parametrize(("stated", "expected"), [(None, 77), (10**30, 77), (1e30, 77), (16, 16), (16.0, 16)])
def test_model_max_length(tmp_path: Path, stated: object, expected: int) -> None:
    config = {**STRINGS, "model_max_length": stated}
    assert (
        Tokenizer.from_folder(_write(tmp_path, {**PLAIN, "tokenizer_config.json": config})).model_max_length
        == expected
    )


def test_other_usual_names_and_bytes_that_the_vocabulary_lacks(tmp_path: Path) -> None:
    names = {BOS: "<|startoftext|>", EOS: "<|endoftext|>"}
    vocab = {names.get(token, token): index for token, index in VOCAB.items() if token != "q</w>"}
    tokenizer = Tokenizer.from_folder(_write(tmp_path, {**PLAIN, "vocab.json": vocab}))
    assert tokenizer("q cat").input_ids.tolist() == [[BOS_ID, EOS_ID, VOCAB["cat</w>"], EOS_ID]]


def test_batches_are_padded_on_the_right(tokenizer: Tokenizer) -> None:
    encoding = tokenizer(["", "a cat", "cat"])
    a, cat = _tokens("a</w>", "cat</w>")
    assert encoding.input_ids.tolist() == [
        [BOS_ID, EOS_ID, EOS_ID, EOS_ID],
        [BOS_ID, a, cat, EOS_ID],
        [BOS_ID, cat, EOS_ID, EOS_ID],
    ]
    assert encoding.attention_mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]]
    assert encoding.input_ids.dtype == encoding.attention_mask.dtype == np.int32
    assert encoding.truncated == ()


def test_truncation_keeps_both_ends_and_is_reported(tokenizer: Tokenizer) -> None:
    encoding = tokenizer(["cat " * 76, "dog " * 75, "a", "cat " * 5000])
    assert encoding.truncated == (0, 3)
    assert encoding.input_ids.shape == (4, 77)
    for row, word in ((0, "cat</w>"), (1, "dog</w>"), (3, "cat</w>")):
        assert encoding.input_ids[row].tolist() == [BOS_ID, *[VOCAB[word]] * 75, EOS_ID]
    short = tokenizer(["cat dog the", "cat"], max_length=4)
    assert short.input_ids.tolist()[0] == [BOS_ID, *_tokens("cat</w>", "dog</w>"), EOS_ID]
    assert short.truncated == (0,)
    assert tokenizer("cat", max_length=2).input_ids.tolist() == [[BOS_ID, EOS_ID]]


def test_surrogates_are_paired_up_or_replaced(tokenizer: Tokenizer) -> None:
    assert _ids(tokenizer, "cat\ud83d\ude00") == _ids(tokenizer, "cat\U0001f600")
    assert _ids(tokenizer, "a\ud800b \udcff") == _ids(tokenizer, "a\ufffdb \ufffd")


def test_decode(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer(["A Photo of  CATS!", "a " * 40]).input_ids[0]) == "a photo of cats !"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(_tokens("\u00c3")) == "\ufffd"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2]], "ids must be one row of whole numbers, not shape (1, 2) of int64"),
        (["a"], "ids must be one row of whole numbers, not shape (1,) of <U1"),
        ([0.5], "ids must be one row of whole numbers, not shape (1,) of float64"),
        ([3, -1], f"ids must lie in 0 to {len(VOCAB) - 1}, not -1 to 3"),
        ([len(VOCAB)], f"ids must lie in 0 to {len(VOCAB) - 1}, not {len(VOCAB)} to {len(VOCAB)}"),
    ],
)
def test_ids_that_cannot_be_decoded(tokenizer: Tokenizer, ids: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t([]), "texts is empty; give at least one text (an empty str is allowed)"),
        (lambda t: t(["a", None]), "texts[1] must be a str, not NoneType"),
        (lambda t: t(["a", b"b"]), "texts[1] must be a str, not bytes"),
        (lambda t: t(b"cat"), "texts must be a str or a list of str, not bytes"),
        (lambda t: t(None), "texts must be a str or a list of str, not NoneType"),
        (lambda t: t(x for x in "ab"), "texts must be a str or a list of str, not generator"),
        (lambda t: t("a", 1), "max_length must be 2 (BOS and EOS) to 77 (the model's), not 1"),
        (lambda t: t("a", 78), "max_length must be 2 (BOS and EOS) to 77 (the model's), not 78"),
        (lambda t: t("a", "9"), "max_length must be a whole number, not '9'"),
        (lambda t: t("a", True), "max_length must be a whole number, not True"),
    ],
)
def test_refused_calls(tokenizer: Tokenizer, call: Callable[[Any], object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        call(tokenizer)


def _config(**changes: Any) -> dict[str, Any]:
    return {**PLAIN, "tokenizer_config.json": {**STRINGS, **changes}}


def _merges(line: str) -> dict[str, Any]:
    return {**PLAIN, "merges.txt": f"#version: 0.2\nc a\n{line}\n"}


TOKEN = 'tokenizer_config.json: a token must be a text or an object with "content", not '
ID = f"not a whole number from 0 to {2**31 - 1}"
NEITHER = ": no tokenizer; looked for tokenizer.json, or vocab.json with merges.txt; found "
MIXED = "; take all tokenizer files from one checkpoint"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, NEITHER + "none of them"),
    ({"vocab.json": VOCAB}, NEITHER + "only vocab.json"),
    ({"merges.txt": ""}, NEITHER + "only merges.txt"),
    ({**PLAIN, "vocab.json": "{"}, "vocab.json is not valid JSON: Expecting property name"),
    ({**PLAIN, "vocab.json": "[" * 100_000}, "vocab.json is not valid JSON: maximum recursion depth"),
    ({**PLAIN, "vocab.json": "[]"}, "vocab.json must hold a JSON object, not list"),
    ({**PLAIN, "vocab.json": "{}"}, "the vocabulary is empty"),
    ({**PLAIN, "vocab.json": {"a": "1"}}, f"vocab.json: the id of 'a' is '1', {ID}"),
    ({**PLAIN, "vocab.json": {"a": True}}, f"vocab.json: the id of 'a' is True, {ID}"),
    ({**PLAIN, "vocab.json": {"a": -1}}, f"vocab.json: the id of 'a' is -1, {ID}"),
    ({**PLAIN, "vocab.json": {"a": 2**31}}, f"vocab.json: the id of 'a' is {2**31}, {ID}"),
    ({**PLAIN, "vocab.json": {"a": 1, "b": 1}}, "vocab.json: 'a' and 'b' have the same id 1"),
    ({**PLAIN, "vocab.json": {"\ud800": 0}, "merges.txt": ""}, "refused by the tokenizers library: "),
    (_merges("cat"), "merges.txt, line 3: must be two tokens and a space, not 'cat'"),
    (_merges("a b c"), "merges.txt, line 3: must be two tokens and a space, not 'a b c'"),
    (_merges("zz a"), "merges.txt, line 3: the token 'zz' is not in vocab.json"),
    (_merges("z a"), "merges.txt, line 3: the token 'za' is not in vocab.json"),
    ({**PLAIN, "tokenizer_config.json": "nonsense"}, "tokenizer_config.json is not valid JSON: "),
    ({**PLAIN, "special_tokens_map.json": "3"}, "special_tokens_map.json must hold a JSON object, not int"),
    (_config(bos_token="<nope>"), ": bos_token is '<nope>', which is not in the vocabulary"),
    (_config(pad_token={"content": "<nope>"}), ": pad_token is '<nope>', which is not in the vocabulary"),
    (_config(bos_token=3), TOKEN + "3"),
    (_config(eos_token=""), TOKEN + "''"),
    (_config(eos_token={"content": None}), TOKEN + "{'content': None}"),
    (_config(eos_token={"content": EOS, "lstrip": 1}), f"lstrip of the token '{EOS}' must be true or false"),
    (_config(model_max_length="77"), "model_max_length must be a whole number from 2, not '77'"),
    (_config(model_max_length=1), "model_max_length must be a whole number from 2, not 1"),
    (_config(model_max_length=7.5), "model_max_length must be a whole number from 2, not 7.5"),
    (_config(added_tokens_decoder=[]), "added_tokens_decoder must be an object, not list"),
    (_config(added_tokens_decoder={"x": {}}), "added_tokens_decoder has a wrong entry 'x': {}"),
    (_config(added_tokens_decoder={"1": "x"}), "added_tokens_decoder has a wrong entry '1': 'x'"),
    (
        _config(added_tokens_decoder={"1": {"content": EOS}}),
        f": the added token '{EOS}' should have id 1 but gets {EOS_ID}{MIXED}",
    ),
    ({**PLAIN, "added_tokens.json": {"x": 1.5}}, f"added_tokens.json: the id of 'x' is 1.5, {ID}"),
    (
        {**PLAIN, "added_tokens.json": {"<new>": 9000}},
        f": the added token '<new>' should have id 9000 but gets {len(VOCAB)}{MIXED}",
    ),
    (
        {"vocab.json": {"a": 0}, "merges.txt": ""},
        ": no file names the bos_token, and the vocabulary has none of <start_of_text>, <|startoftext|>; "
        "add it to tokenizer_config.json",
    ),
    ({"tokenizer.json": "{"}, "tokenizer.json: refused by the tokenizers library: EOF while parsing"),
    ({"tokenizer.json": {"model": 3}}, "tokenizer.json: refused by the tokenizers library: "),
    (
        {"tokenizer.json": _pipeline(), "tokenizer_config.json": {**STRINGS, "bos_token": "cat</w>"}},
        f"tokenizer.json: puts [{BOS_ID}, {EOS_ID}] around a text, but BOS and EOS are "
        f"[{VOCAB['cat</w>']}, {EOS_ID}]{MIXED}",
    ),
]


@pytest.mark.parametrize(("files", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_refused_folders(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_folder(_write(tmp_path, files))
    assert str(caught.value).startswith(str(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert not Tokenizer.exists(tmp_path / "nowhere")
    with pytest.raises(TokenizerError, match=re.escape(f"{tmp_path / 'nowhere'}{NEITHER}no such folder")):
        Tokenizer.from_folder(tmp_path / "nowhere")
    _write(tmp_path, PLAIN)
    (tmp_path / "vocab.json").write_bytes(b"\xff{}")
    with pytest.raises(TokenizerError, match=r"vocab\.json, line 1, byte offset \d+: not UTF-8"):
        Tokenizer.from_folder(tmp_path)


def test_a_text_that_the_vocabulary_cannot_express(tmp_path: Path) -> None:
    model = {"type": "WordLevel", "vocab": {BOS: 0, EOS: 1}, "unk_token": "<none>"}
    pipeline = {**_pipeline(), "model": model, "added_tokens": [], "post_processor": None}
    tokenizer = Tokenizer.from_folder(_write(tmp_path, {"tokenizer.json": pipeline}))
    message = r"^the text 'cat': refused by the tokenizers library: .*\[UNK\]"
    with pytest.raises(TokenizerError, match=message):
        tokenizer("cat")


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=300) | st.builds(
    lambda parts, times: " ".join(parts) * times,
    st.lists(st.sampled_from([*WORDS, BOS, EOS, "<|endoftext|>", "'s", "\u0301", "\u200f\u05d0", "\x00"])),
    st.integers(1, 60),
)


@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
@example(["\ud800", "\udc00\ud800", "x" * 100_000])
@settings(deadline=None, max_examples=60)
def test_any_text_gives_a_valid_row(tokenizer: Tokenizer, texts: list[str]) -> None:
    encoding = tokenizer(texts)
    assert encoding.input_ids.shape[1] <= 77
    assert 0 <= encoding.input_ids.min() <= encoding.input_ids.max() < tokenizer.vocab_size
    for index, text in enumerate(texts):
        length = int(encoding.attention_mask[index].sum())
        row = encoding.input_ids[index]
        assert (row[0], row[length - 1]) == (BOS_ID, EOS_ID)
        assert (row[length:] == EOS_ID).all() and encoding.attention_mask[index, :length].all()
        alone = tokenizer(text)
        assert row[:length].tolist() == alone.input_ids[0].tolist()
        assert (index in encoding.truncated) == bool(alone.truncated)
        tokenizer.decode(row)


LAYOUT_NAMES = ["tokenizer.json and config", "decoder", "old map", "added_tokens.json"]
SPLICES = [
    "",
    '"',
    "{",
    "]",
    "0",
    "-1",
    "null",
    ",",
    "\ud800",
    '"a":5,',
    "99999999999",
    "<end_of_text>",
    "\x00",
]


@given(st.sampled_from(LAYOUT_NAMES), st.data())
@settings(deadline=None, max_examples=60)
def test_mutated_files_raise_nothing_but_tokenizer_errors(layout: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = _write(Path(name), LAYOUTS[layout])
        path = data.draw(st.sampled_from(sorted(folder.iterdir())))
        text = path.read_text(encoding="utf-8")
        start = data.draw(st.integers(0, len(text)))
        rest = text[start + data.draw(st.integers(0, 40)) :]
        splice = data.draw(st.sampled_from(SPLICES))
        path.write_bytes((text[:start] + splice + rest).encode("utf-8", "surrogatepass"))
        try:
            tokenizer = Tokenizer.from_folder(folder)
            tokenizer.decode(tokenizer("A cat <end_of_text>").input_ids[0])
        except TokenizerError as error:
            assert "\n" not in str(error)


def test_threads_share_one_tokenizer(tokenizer: Tokenizer) -> None:
    texts = [f"{word} " * (index % 90) for index, word in enumerate(WORDS * 4)]
    limits = [2 + index % 76 for index in range(len(texts))]
    alone = [tokenizer(text, limit).input_ids.tolist() for text, limit in zip(texts, limits, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        together = pool.map(lambda item: tokenizer(*item).input_ids.tolist(), zip(texts, limits, strict=True))
        assert list(together) == alone


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_after_use_gives_no_warning(tmp_path: Path) -> None:
    program = """
import os, sys
from mlx_aimv2.processing.tokenizer import Tokenizer
tokenizer = Tokenizer.from_folder(sys.argv[1])
tokenizer(["a cat"] * 100)
child = os.fork()
tokenizer(["a cat"] * 100)
if child:
    os.waitpid(child, 0)
"""
    folder = _write(tmp_path, LAYOUTS["strings"])
    command = [sys.executable, "-c", program, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "TOKENIZERS_PARALLELISM" not in result.stderr


# --- which file's special tokens count, as in transformers 5 (`tokenization_utils_base.py`)


def _pad_of(folder: Path, files: dict[str, Any]) -> str:
    tokenizer = Tokenizer.from_folder(_write(folder, files))
    return next(token for token, index in VOCAB.items() if index == tokenizer.pad_token_id)


@pytest.mark.parametrize(
    ("config", "special_map", "expected"),
    [
        ({"pad_token": "!"}, {}, "!"),
        ({}, {"pad_token": "!"}, "!"),
        (
            {"pad_token": BOS},
            {"pad_token": "!"},
            "!",
        ),  # before there was added_tokens_decoder, the map counts
        ({"pad_token": "!"}, {"pad_token": None}, "!"),
        (
            {"pad_token": "!", "added_tokens_decoder": _decoder()},
            {"pad_token": BOS},
            "!",
        ),  # since then it does not
        ({"added_tokens_decoder": {}}, {"pad_token": "!"}, EOS),
        ({"pad_token": None}, {}, EOS),  # that of the end stands in
    ],
    ids=str,
)
def test_which_file_names_a_special_token(
    tmp_path: Path, config: dict[str, Any], special_map: dict[str, Any], expected: str
) -> None:
    strings = {key: value for key, value in STRINGS.items() if key != "pad_token"}
    files = {"tokenizer_config.json": strings | config, "special_tokens_map.json": special_map}
    assert _pad_of(tmp_path, {**PLAIN, **files}) == expected
    files["tokenizer.json"] = _pipeline()
    assert _pad_of(tmp_path, {**PLAIN, **files}) == expected


def test_a_token_that_no_file_names_is_the_one_around_every_text(tmp_path: Path) -> None:
    """Before the usual names are looked for: this vocabulary has both."""
    others = {"<|startoftext|>": len(VOCAB), "<|endoftext|>": len(VOCAB) + 1}
    bos, eos = others
    pipeline = _pipeline()
    pipeline["model"]["vocab"] = {**VOCAB, **others}
    pipeline["added_tokens"] += [
        {"id": key, "content": name, "special": True, **_flags(False)} for name, key in others.items()
    ]
    pipeline["post_processor"] |= {"cls": [bos, others[bos]], "sep": [eos, others[eos]]}
    tokenizer = Tokenizer.from_folder(_write(tmp_path, {"tokenizer.json": pipeline}))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == tuple(others.values())
    assert tokenizer("a cat").input_ids[0, [0, -1]].tolist() == list(others.values())


def test_flags_of_the_decoder_go_before_those_of_the_name(tmp_path: Path) -> None:
    named = {"eos_token": {"content": EOS, **_flags(True)}, "bos_token": BOS}
    config = {**named, "added_tokens_decoder": _decoder(normalized=False)}
    tokenizer = Tokenizer.from_folder(_write(tmp_path, {**PLAIN, "tokenizer_config.json": config}))
    assert _ids(tokenizer, "<END_OF_TEXT>") != [EOS_ID]
    alone = Tokenizer.from_folder(_write(tmp_path / "alone", {**PLAIN, "tokenizer_config.json": named}))
    assert _ids(alone, "<END_OF_TEXT>") == [EOS_ID]


def test_what_processor_config_says_of_a_tokenizer_counts_for_nothing(tmp_path: Path) -> None:
    """transformers reads a tokenizer from its own files alone."""
    others = {
        "processor_config.json": {"tokenizer": {"pad_token": "!"}, "pad_token": "!", "model_max_length": 5}
    }
    files = {**PLAIN, "tokenizer_config.json": STRINGS, **others}
    assert _pad_of(tmp_path, files) == EOS
    assert Tokenizer.from_folder(tmp_path).model_max_length == 77


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json"])
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, name: str, tokenizer: Tokenizer) -> None:
    folder = _write(tmp_path, {**PLAIN, "tokenizer_config.json": STRINGS})
    if name == "tokenizer.json":
        _write(tmp_path, {name: _pipeline()})
    (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    marked = Tokenizer.from_folder(folder)
    for text in BY_HAND:
        assert _ids(marked, text) == _ids(tokenizer, text), ascii(text)
