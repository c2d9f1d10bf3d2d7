"""The tokenizer on a small byte-level vocabulary, in every file layout that checkpoints have had."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_tokenizer import (
    BOS,
    BOS_ID,
    EOS,
    EOS_ID,
    LAYOUTS,
    VOCAB,
    WORDS,
    ids_of,
    make_pipeline,
    tokens_of,
    write_files,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlx_aimv2.errors import InputError, TokenizerError
from mlx_aimv2.processing.tokenizer import Tokenizer

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
    assert ids_of(tokenizer, text) == [int(number) for number in FROZEN[text].split()]


def test_batches_are_padded_on_the_right(tokenizer: Tokenizer) -> None:
    encoding = tokenizer(["", "a cat", "cat"])
    a, cat = tokens_of("a</w>", "cat</w>")
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
    assert short.input_ids.tolist()[0] == [BOS_ID, *tokens_of("cat</w>", "dog</w>"), EOS_ID]
    assert short.truncated == (0,)
    assert tokenizer("cat", max_length=2).input_ids.tolist() == [[BOS_ID, EOS_ID]]


def test_surrogates_are_paired_up_or_replaced(tokenizer: Tokenizer) -> None:
    assert ids_of(tokenizer, "cat\ud83d\ude00") == ids_of(tokenizer, "cat\U0001f600")
    assert ids_of(tokenizer, "a\ud800b \udcff") == ids_of(tokenizer, "a\ufffdb \ufffd")


def test_decode(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer(["A Photo of  CATS!", "a " * 40]).input_ids[0]) == "a photo of cats !"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(tokens_of("\u00c3")) == "\ufffd"


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


def test_a_text_that_the_vocabulary_cannot_express(tmp_path: Path) -> None:
    model = {"type": "WordLevel", "vocab": {BOS: 0, EOS: 1}, "unk_token": "<none>"}
    pipeline = {**make_pipeline(), "model": model, "added_tokens": [], "post_processor": None}
    tokenizer = Tokenizer.from_folder(write_files(tmp_path, {"tokenizer.json": pipeline}))
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
    folder = write_files(tmp_path, LAYOUTS["strings"])
    command = [sys.executable, "-c", program, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "TOKENIZERS_PARALLELISM" not in result.stderr
