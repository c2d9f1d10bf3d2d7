"""A vocabulary learnt from captions is an ordinary checkpoint's, and encodes any text."""

from __future__ import annotations

import json

import pytest
from drawn_world.captions import caption
from drawn_world.examples import training_examples
from drawn_world.vocabulary import BOS, EOS, LEAST, Vocabulary, learn_vocabulary, write_vocabulary
from hypothesis import given
from hypothesis import strategies as st

from mlx_aimv2.errors import InputError
from mlx_aimv2.processing.tokenizer import Tokenizer

EXAMPLES = list(training_examples(2000))


@pytest.fixture(scope="module")
def vocabulary():
    return learn_vocabulary(example.caption for example in EXAMPLES)


@pytest.fixture(scope="module")
def tokenizer(vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_vocabulary(folder, vocabulary, max_length=32)
    return Tokenizer.from_folder(folder)


def test_words_of_captions_are_one_token_each(vocabulary, tokenizer):
    assert LEAST < len(vocabulary.tokens) == len(set(vocabulary.tokens)) <= 1024
    for example in EXAMPLES[:200]:
        text = caption(example.scene)
        ids = tokenizer(text).input_ids[0]
        assert len(ids) == len(text.split()) + 2
        assert tokenizer.decode(ids) == text


def test_special_tokens_and_length_are_those_of_clip(vocabulary, tokenizer):
    assert (vocabulary.bos, vocabulary.eos) == (BOS, EOS) == ("<|startoftext|>", "<|endoftext|>")
    assert tokenizer.vocab_size == len(vocabulary.tokens)
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == tokenizer.vocab_size - 1
    assert tokenizer.bos_token_id == tokenizer.vocab_size - 2
    assert tokenizer.model_max_length == 32


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_any_text_is_encoded_without_unknown_tokens(tokenizer, text):
    encoding = tokenizer(text, max_length=None)
    ids = encoding.input_ids[0].tolist()
    inner = ids[1:-1]
    if BOS not in text and EOS not in text:
        assert tokenizer.eos_token_id not in inner and tokenizer.bos_token_id not in inner


def test_words_and_digits_it_never_saw_come_back(tokenizer):
    text = "zebra 42 ünïcode 日本"
    assert tokenizer.decode(tokenizer(text).input_ids[0]) == "zebra 4 2 ünïcode 日本"


def test_the_same_texts_give_the_same_vocabulary(vocabulary):
    assert learn_vocabulary(example.caption for example in EXAMPLES) == vocabulary


def test_the_number_of_tokens_is_limited():
    assert len(learn_vocabulary(["a red star", "a red heart"] * 9, most=LEAST + 8).tokens) <= LEAST + 8
    assert learn_vocabulary([]) == Vocabulary()


def test_refuses_a_vocabulary_without_room_for_bytes():
    with pytest.raises(
        InputError, match="a vocabulary of 513 tokens has no room for every byte: allow 514 or more"
    ):
        learn_vocabulary(["a"], most=513)


def test_files_are_those_of_a_checkpoint(vocabulary, tmp_path):
    write_vocabulary(tmp_path, vocabulary)
    names = ["merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 77 and config["tokenizer_class"] == "CLIPTokenizer"
