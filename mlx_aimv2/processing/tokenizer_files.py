"""Read and check the tokenizer files of a checkpoint folder, in the formats of transformers 4 and 5.

A folder has either ``tokenizer.json``, whose pipeline is used without its truncation, padding and dropout, or
``vocab.json`` and ``merges.txt``, from which CLIP's pipeline is built: NFC, white space collapsed, lower case, words,
bytes, merges. ``tokenizer_config.json`` names the special tokens; without ``added_tokens_decoder`` in it,
``special_tokens_map.json`` does. Precedence and flags follow transformers 5 (``tokenization_utils_base.py``,
``models/clip/tokenization_clip.py``), except that special tokens without a name are searched in the vocabulary, and
no special token gets a new id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from ..errors import TokenizerError
from ..storage.json_files import MAX_JSON, read_json
from ..storage.text_files import read_text

# with the two CLIP names for every vocabulary, as in transformers 5
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# Tokens are added in this order; of two that differ only in their flags, the later one wins.
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
_USUAL_NAMES = {
    "bos_token": ("<start_of_text>", "<|startoftext|>"),
    "eos_token": ("<end_of_text>", "<|endoftext|>"),
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_DEFAULT_MAX_LENGTH = 77
_STATED_AT_MOST = 1_000_000  # transformers writes 1e30 for an unknown length
_ID_LIMIT = 2**31
_MIXED = "take all tokenizer files from one checkpoint"


@dataclass(frozen=True)
class LoadedTokenizer:
    """The tokenizer of a folder.

    Attributes:
        backend: The pipeline; the caller adds BOS and EOS.
        special_ids: Ids under "bos_token", "eos_token", "unk_token" and "pad_token".
        vocab_size: One more than the highest id.
        max_length: The most tokens of a text, including BOS and EOS.
    """

    backend: tokenizers.Tokenizer
    special_ids: Mapping[str, int]
    vocab_size: int
    max_length: int


@dataclass(frozen=True)
class _Declared:
    """The contents of the small files: named tokens in the order of ``_NAMED``, added tokens in order of ids."""

    named: Mapping[str, AddedToken]
    added: list[tuple[int, AddedToken]]
    max_length: int


def find(folder: Path) -> tuple[Path, ...]:
    """The files of the vocabulary: one, two, or none if the folder has no tokenizer."""
    for names in (("tokenizer.json",), ("vocab.json", "merges.txt")):
        files = tuple(folder / name for name in names)
        if all(file.is_file() for file in files):
            return files
    return ()


def read(folder: Path) -> LoadedTokenizer:
    """Read the pipeline and special tokens of a folder.

    Raises:
        TokenizerError: A file is missing, damaged, or contradicts another.
    """
    files = find(folder)
    if not files:
        raise TokenizerError(_missing(folder))
    with as_tokenizer_error(folder):
        declared = _read_declared(folder)
        backend = _read_pipeline(files[0]) if len(files) == 1 else _build_pipeline(*files)
        framing = backend.encode("").ids
        special_ids = _add_tokens(backend, declared, framing, folder)
        ends = [special_ids["bos_token"], special_ids["eos_token"]]
        if framing not in ([], ends):
            wrong = f"puts {framing} around a text, but BOS and EOS are {ends}"
            raise TokenizerError(f"{files[0]}: {wrong}; {_MIXED}")
        if isinstance(backend.model, models.BPE) and backend.model.unk_token is None:
            backend.model.unk_token = backend.id_to_token(special_ids["unk_token"])
        highest = max(backend.get_vocab().items(), key=lambda item: item[1])
        _check_id(*highest, files[0])
        return LoadedTokenizer(backend, special_ids, highest[1] + 1, declared.max_length)


@contextmanager
def as_tokenizer_error(where: object) -> Iterator[None]:
    """Turn exceptions of the tokenizers library into a TokenizerError that begins with ``where``."""
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        # a panic in Rust is a BaseException whose class cannot be imported
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{where}: refused by the tokenizers library: {reason}") from error


def _missing(folder: Path) -> str:
    present = [name for name in ("vocab.json", "merges.txt") if (folder / name).is_file()]
    found = f"only {present[0]}" if present else "none of them" if folder.is_dir() else "no such folder"
    return f"{folder}: no tokenizer; looked for tokenizer.json, or vocab.json with merges.txt; found {found}"


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if there is no file."""
    return read_json(path, TokenizerError) if path.exists() else {}


def _read_declared(folder: Path) -> _Declared:
    config_path = folder / "tokenizer_config.json"
    config = _read_object(config_path)
    values = {key: (config[key], config_path) for key in _NAMED if config.get(key) is not None}
    if "added_tokens_decoder" not in config:
        map_path = folder / "special_tokens_map.json"
        special = _read_object(map_path)
        values |= {key: (special[key], map_path) for key in _NAMED if special.get(key) is not None}
    named = {key: _added_token(*values[key]) for key in _NAMED if key in values}
    names = {token.content for token in named.values()}
    if "added_tokens_decoder" in config:
        added = _decoder_tokens(config["added_tokens_decoder"], names, config_path)
    else:
        added = _legacy_tokens(folder / "added_tokens.json", names)
    return _Declared(named, added, _max_length(config.get("model_max_length"), config_path))


def _decoder_tokens(entries: object, names: set[str], path: Path) -> list[tuple[int, AddedToken]]:
    if not isinstance(entries, dict):
        raise TokenizerError(f"{path}: added_tokens_decoder must be an object, not {type(entries).__name__}")
    added: list[tuple[int, AddedToken]] = []
    for key, value in entries.items():
        if not key.isdecimal() or not isinstance(value, dict):
            wrong = f"a wrong entry {key[:40]!r}: {value!r:.80}"
            raise TokenizerError(f"{path}: added_tokens_decoder has {wrong}")
        token = _added_token({"special": False, **value}, path)
        token.special = token.special or token.content in names
        added.append((int(key), token))
    return sorted(added, key=lambda entry: entry[0])


def _legacy_tokens(path: Path, names: set[str]) -> list[tuple[int, AddedToken]]:
    added: list[tuple[int, AddedToken]] = []
    for content, token_id in _read_object(path).items():
        _check_id(content, token_id, path)
        special = content in names
        added.append((token_id, AddedToken(content, special=special, normalized=not special)))
    return sorted(added, key=lambda entry: entry[0])


def _added_token(value: object, path: Path) -> AddedToken:
    """A token in either format: its text, or an object with its text and flags."""
    fields = {"content": value} if isinstance(value, str) else value
    if not isinstance(fields, dict) or not isinstance(fields.get("content"), str) or not fields["content"]:
        raise TokenizerError(f'{path}: a token must be a text or an object with "content", not {value!r:.80}')
    flags = {"special": True, **{name: fields[name] for name in _FLAGS if name in fields}}
    wrong = [name for name, flag in flags.items() if not isinstance(flag, bool)]
    if wrong:
        raise TokenizerError(f"{path}: {wrong[0]} of the token {fields['content']!r} must be true or false")
    return AddedToken(fields["content"], **flags)


def _max_length(value: object, path: Path) -> int:
    if value is None:
        return _DEFAULT_MAX_LENGTH
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 or value < 2:
        raise TokenizerError(f"{path}: model_max_length must be a whole number from 2, not {value!r:.40}")
    return int(value) if value <= _STATED_AT_MOST else _DEFAULT_MAX_LENGTH


def _check_id(token: str, token_id: object, path: Path) -> None:
    if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < _ID_LIMIT:
        wrong = f"the id of {token!r} is {token_id!r:.40}"
        raise TokenizerError(f"{path}: {wrong}, not a whole number from 0 to {_ID_LIMIT - 1}")


def _read_pipeline(path: Path) -> tokenizers.Tokenizer:
    with as_tokenizer_error(path):
        backend = tokenizers.Tokenizer.from_str(read_text(path, TokenizerError, MAX_JSON))
    backend.no_truncation()
    backend.no_padding()
    if isinstance(backend.model, models.BPE):
        backend.model.dropout = None
    return backend


def _build_pipeline(vocab_path: Path, merges_path: Path) -> tokenizers.Tokenizer:
    vocab = _read_vocab(vocab_path)
    merges = _read_merges(merges_path, vocab)
    model = models.BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False)
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    return backend


def _read_vocab(path: Path) -> dict[str, int]:
    vocab = _read_object(path)
    tokens: dict[int, str] = {}
    for token, token_id in vocab.items():
        _check_id(token, token_id, path)
        if token_id in tokens:
            raise TokenizerError(f"{path}: {tokens[token_id]!r} and {token!r} have the same id {token_id}")
        tokens[token_id] = token
    if not vocab:
        raise TokenizerError(f"{path}: the vocabulary is empty")
    return vocab


def _read_merges(path: Path, vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    text = read_text(path, TokenizerError, MAX_JSON).replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(text.split("\n"), start=1):
        # OpenAI's file has its name before "#version"
        if not line.strip() or line.startswith("#version") or (number == 1 and "#version:" in line):
            continue
        pair = line.rstrip(" ").split(" ")
        if len(pair) != 2:
            raise TokenizerError(f"{path}, line {number}: must be two tokens and a space, not {line[:80]!r}")
        missing = [token for token in (*pair, "".join(pair)) if token not in vocab]
        if missing:
            raise TokenizerError(f"{path}, line {number}: the token {missing[0]!r} is not in vocab.json")
        merges.append((pair[0], pair[1]))
    return merges


def _add_tokens(
    backend: tokenizers.Tokenizer, declared: _Declared, framing: list[int], folder: Path
) -> dict[str, int]:
    """Add the declared tokens to the pipeline; return the ids of the special tokens by name."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token_id, token in declared.added:
        if token.content not in known:
            backend.add_tokens([token])
        actual = backend.token_to_id(token.content)
        if actual != token_id:
            wrong = f"the added token {token.content!r} should have id {token_id} but gets {actual}"
            raise TokenizerError(f"{folder}: {wrong}; {_MIXED}")
    known |= {token.content for _, token in declared.added}
    ids: dict[str, int] = {}
    for name, token in _special_tokens(backend, declared.named, framing, folder).items():
        known_id = backend.token_to_id(token.content)
        if known_id is None:
            raise TokenizerError(f"{folder}: {name} is {token.content!r}, which is not in the vocabulary")
        ids[name] = known_id
        if token.content not in known:
            backend.add_tokens([token])
    return ids


def _special_tokens(
    backend: tokenizers.Tokenizer, named: Mapping[str, AddedToken], framing: list[int], folder: Path
) -> dict[str, AddedToken]:
    """All four special tokens: as named, else as the pipeline adds them to a text, else by their usual names."""
    tokens: dict[str, AddedToken] = {}
    for index, (key, usual) in enumerate(_USUAL_NAMES.items()):
        framed = backend.id_to_token(framing[index]) if len(framing) == 2 else None
        names = [name for name in (framed, *usual) if name and backend.token_to_id(name) is not None]
        if key not in named and not names:
            wrong = f"no file names the {key}, and the vocabulary has none of {', '.join(usual)}"
            raise TokenizerError(f"{folder}: {wrong}; add it to tokenizer_config.json")
        tokens[key] = named.get(key) or AddedToken(names[0], special=True)
    return {key: named.get(key, tokens.get(key, tokens["eos_token"])) for key in _NAMED}
