"""The files of a tokenizer in every layout, and which of them counts."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers.small_tokenizer import (
    BOS,
    BOS_ID,
    EOS,
    EOS_ID,
    LAYOUTS,
    MERGES,
    PLAIN,
    STRINGS,
    VOCAB,
    decoder,
    flags,
    ids_of,
    make_pipeline,
    tokens_of,
    write_files,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_aimv2.errors import TokenizerError
from mlx_aimv2.processing.tokenizer import Tokenizer

BY_HAND = {
    "": [],
    " \t\n\u3000": [],
    "A  Photo of\tCAT": tokens_of("a</w>", "photo</w>", "of</w>", "cat</w>"),
    "cat's": tokens_of("cat</w>", "'", "s</w>"),
    "q7!?": tokens_of("q</w>", "7</w>", "!", "?</w>"),
    "12": tokens_of("1</w>", "2</w>"),
    "\u00e9": tokens_of("\u00c3", "\u00a9</w>"),  # the bytes C3 A9, as their stand-ins
    "e\u0301": tokens_of("\u00c3", "\u00a9</w>"),  # composed first
    "\U0001f600": tokens_of("\u00f0", "\u0141", "\u013a", "\u0122</w>"),
    "\x00": tokens_of("\u0100</w>"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_tokenizer(layout: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(write_files(tmp_path, LAYOUTS[layout]))
    assert Tokenizer.exists(tmp_path)
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert special == (BOS_ID, EOS_ID, EOS_ID)
    assert (tokenizer.vocab_size, tokenizer.model_max_length) == (len(VOCAB), 77)
    for text, expected in BY_HAND.items():
        assert ids_of(tokenizer, text) == expected, ascii(text)
    assert ids_of(tokenizer, f"cat{EOS}{BOS}") == [*tokens_of("cat</w>"), EOS_ID, BOS_ID]


@pytest.mark.parametrize("normalized", [True, False])
def test_special_tokens_in_a_text_match_as_their_flags_say(tmp_path: Path, normalized: bool) -> None:
    config = {**STRINGS, "added_tokens_decoder": decoder(normalized)}
    tokenizer = Tokenizer.from_folder(write_files(tmp_path, {**PLAIN, "tokenizer_config.json": config}))
    assert ids_of(tokenizer, "cat<end_of_text>cat") == [VOCAB["cat</w>"], EOS_ID, VOCAB["cat</w>"]]
    assert (ids_of(tokenizer, "<END_OF_TEXT>") == [EOS_ID]) is normalized


def test_a_tokenizer_json_keeps_its_own_split(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = Tokenizer.from_folder(write_files(tmp_path, LAYOUTS["tokenizer.json only"]))
    assert ids_of(tokenizer, "<|endoftext|>!")[-3:] == tokens_of("|", "></w>", "!</w>")
    assert ids_of(theirs, "<|endoftext|>!")[-3:] == tokens_of("|", ">", "!</w>")


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
    folder = write_files(tmp_path, {**PLAIN, "tokenizer_config.json": STRINGS})
    (folder / "merges.txt").write_bytes(merges.encode())
    tokenizer = Tokenizer.from_folder(folder)
    for text, expected in BY_HAND.items():
        assert ids_of(tokenizer, text) == expected
    assert ids_of(tokenizer, "quiz") == tokens_of("quiz</w>")  # the last merge


@pytest.mark.parametrize(("stated", "expected"), [(None, 77), (10**30, 77), (1e30, 77), (16, 16), (16.0, 16)])
def test_model_max_length(tmp_path: Path, stated: object, expected: int) -> None:
    config = {**STRINGS, "model_max_length": stated}
    assert (
        Tokenizer.from_folder(
            write_files(tmp_path, {**PLAIN, "tokenizer_config.json": config})
        ).model_max_length
        == expected
    )


def test_other_usual_names_and_bytes_that_the_vocabulary_lacks(tmp_path: Path) -> None:
    names = {BOS: "<|startoftext|>", EOS: "<|endoftext|>"}
    vocab = {names.get(token, token): index for token, index in VOCAB.items() if token != "q</w>"}
    tokenizer = Tokenizer.from_folder(write_files(tmp_path, {**PLAIN, "vocab.json": vocab}))
    assert tokenizer("q cat").input_ids.tolist() == [[BOS_ID, EOS_ID, VOCAB["cat</w>"], EOS_ID]]


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
        {"tokenizer.json": make_pipeline(), "tokenizer_config.json": {**STRINGS, "bos_token": "cat</w>"}},
        f"tokenizer.json: puts [{BOS_ID}, {EOS_ID}] around a text, but BOS and EOS are "
        f"[{VOCAB['cat</w>']}, {EOS_ID}]{MIXED}",
    ),
]


@pytest.mark.parametrize(("files", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_refused_folders(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_folder(write_files(tmp_path, files))
    assert str(caught.value).startswith(str(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert not Tokenizer.exists(tmp_path / "nowhere")
    with pytest.raises(TokenizerError, match=re.escape(f"{tmp_path / 'nowhere'}{NEITHER}no such folder")):
        Tokenizer.from_folder(tmp_path / "nowhere")
    write_files(tmp_path, PLAIN)
    (tmp_path / "vocab.json").write_bytes(b"\xff{}")
    with pytest.raises(TokenizerError, match=r"vocab\.json, line 1, byte offset \d+: not UTF-8"):
        Tokenizer.from_folder(tmp_path)


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
        folder = write_files(Path(name), LAYOUTS[layout])
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


def _pad_of(folder: Path, files: dict[str, Any]) -> str:
    tokenizer = Tokenizer.from_folder(write_files(folder, files))
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
            {"pad_token": "!", "added_tokens_decoder": decoder()},
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
    files["tokenizer.json"] = make_pipeline()
    assert _pad_of(tmp_path, {**PLAIN, **files}) == expected


def test_a_token_that_no_file_names_is_the_one_around_every_text(tmp_path: Path) -> None:
    """Before the usual names are looked for: this vocabulary has both."""
    others = {"<|startoftext|>": len(VOCAB), "<|endoftext|>": len(VOCAB) + 1}
    bos, eos = others
    pipeline = make_pipeline()
    pipeline["model"]["vocab"] = {**VOCAB, **others}
    pipeline["added_tokens"] += [
        {"id": key, "content": name, "special": True, **flags(False)} for name, key in others.items()
    ]
    pipeline["post_processor"] |= {"cls": [bos, others[bos]], "sep": [eos, others[eos]]}
    tokenizer = Tokenizer.from_folder(write_files(tmp_path, {"tokenizer.json": pipeline}))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == tuple(others.values())
    assert tokenizer("a cat").input_ids[0, [0, -1]].tolist() == list(others.values())


def test_flags_of_the_decoder_go_before_those_of_the_name(tmp_path: Path) -> None:
    named = {"eos_token": {"content": EOS, **flags(True)}, "bos_token": BOS}
    config = {**named, "added_tokens_decoder": decoder(normalized=False)}
    tokenizer = Tokenizer.from_folder(write_files(tmp_path, {**PLAIN, "tokenizer_config.json": config}))
    assert ids_of(tokenizer, "<END_OF_TEXT>") != [EOS_ID]
    alone = Tokenizer.from_folder(write_files(tmp_path / "alone", {**PLAIN, "tokenizer_config.json": named}))
    assert ids_of(alone, "<END_OF_TEXT>") == [EOS_ID]


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
    folder = write_files(tmp_path, {**PLAIN, "tokenizer_config.json": STRINGS})
    if name == "tokenizer.json":
        write_files(tmp_path, {name: make_pipeline()})
    (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    marked = Tokenizer.from_folder(folder)
    for text in BY_HAND:
        assert ids_of(marked, text) == ids_of(tokenizer, text), ascii(text)
