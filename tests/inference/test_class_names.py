"""Names of classes as words: what is split, what stays, what looks like an id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_aimv2.errors import InputError
from mlx_aimv2.inference.class_names import id_notices, label_text, label_texts, looks_like_id, same_notices

TEXTS = {
    "black ring": "black ring",
    "black_ring": "black ring",
    "black-ring": "black ring",
    "black+ring": "black ring",
    "black.ring": "black ring",
    "black%20ring": "black ring",
    "BlackRing": "Black Ring",
    "blackRing": "black Ring",
    "_BlackRing_": "Black Ring",
    "blackRING": "black RING",
    "Black--Ring": "Black Ring",
    "black~ring": "black ring",
    "black—ring": "black ring",
    "black:ring": "black ring",
    "Ring2Black": "Ring 2 Black",
    "iOSApp": "iOS App",
    "4:3": "4:3",
    "F-16": "F-16",
    "Jack-O-Lantern": "Jack O-Lantern",
    "class_3": "class_3",
    "02084071-n": "02084071-n",
    "HTTPServer2": "HTTP Server 2",
    "XMLHttpRequest": "XML Http Request",
    "USAFlag": "USA Flag",
    "ÉcoleMaternelle": "École Maternelle",
    "Boeing747": "Boeing 747",
    "MP3Player": "MP3 Player",
    "3DPrinter": "3D Printer",
    "DVDsAndCDs": "DVDs And CDs",
    "iPhone": "iPhone",
    "McLaren": "McLaren",
    "BLACKRING": "BLACKRING",
    "ak47": "ak47",
    "F16": "F16",
    "C++": "C++",
    "t-shirt": "t-shirt",
    "x-ray": "x-ray",
    "001.Black_footed_Albatross": "Black footed Albatross",
    "200.Yellow_Throat": "Yellow Throat",
    "01-pear": "pear",
    "7-up": "7 up",
    "n01855672-duck": "duck",
    "n02085620_Shih-Tzu": "Shih Tzu",
    "duck-n01855672": "duck",
    "n01855672": "n01855672",
    "Pepper,_bell___Bacterial_spot": "Pepper, bell Bacterial spot",
    "Corn_(maize)___Common_rust_": "Corn (maize) Common rust",
    "caf%C3%A9": "café",
    "100%_wool": "100% wool",
    "%FF": "%FF",
    "%00a": "%00a",
    "a BlackRing": "a BlackRing",  # a text, which is taken as it is
    "sea lion": "sea lion",
    "St. Bernard": "St. Bernard",
    "犬": "犬",
    "___": "___",
}
IDS = [
    "n01855672", "v00001740", "0", "0042", "7", "707-320", "class_3", "Class 3", "class3", "label-7",
    "category12", "c0", "x1", "02084071-n", "cluster-4", "person 12", "id_0001",
    "d41d8cd98f00", "550e8400-e29b-41d4-a716-446655440000", "550E8400E29B41D4A716446655440000",
    "Q146", "m_01g317", "aB3dE5gH1jK2", "___",
]  # fmt: skip
NO_IDS = [
    "duck", "BlackRing", "facade", "deadbeef", "F16", "A300B4", "Boeing747", "12 dogs", "ak47", "犬", "Type2Diabetes",
    "class room", "type writer", "set of 3",
    "n01855672-duck", "001.Black_footed_Albatross", "00000_Animalia", "a", "classy", "3DPrinter",
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), TEXTS.items())
def test_a_name_as_words(name, text):
    assert label_text(name) == text


def test_a_number_in_front_is_a_numbering_where_all_have_one_and_differ_without():
    assert label_texts(["1-dog", "2-cat", "3-owl"]) == ["dog", "cat", "owl"]
    assert label_texts(["1_dog", "2_dogs", "3_dogs"]) == ["1 dog", "2 dogs", "3 dogs"]
    assert label_texts(["1 dog", "2 cats"]) == ["1 dog", "2 cats"]
    assert label_texts(["1_dog", "1_cat"]) == ["1 dog", "1 cat"]
    assert label_texts(["1_dog", "cat"]) == ["1 dog", "cat"]
    assert label_texts(["01_dog", "cat"]) == ["dog", "cat"]


@pytest.mark.parametrize(
    "names", [["BlackRing", "black_ring"], ["dog", "Dog"], ["01_dog", "dog"], ["a%20b", "a b"]]
)
def test_names_that_are_the_same_words_are_refused_by_name(names):
    with pytest.raises(InputError) as refused:
        label_texts(["cat", *names])
    for name in names:
        assert repr(name) in str(refused.value)
    assert f"--labels '{names[0]}=a name,{names[1]}=another'" in str(refused.value)


@pytest.mark.parametrize("name", IDS)
def test_what_looks_like_an_id(name):
    assert looks_like_id(name)


@pytest.mark.parametrize("name", NO_IDS)
def test_what_looks_like_none(name):
    assert not looks_like_id(name)


def test_ids_are_named_and_counted():
    (notice,) = id_notices(["duck", *(f"n0185567{k}" for k in range(7))])
    shown = ", ".join(f"'n0185567{k}'" for k in range(5))
    assert notice.message.startswith(
        f"7 of 8 labels look like ids, which say nothing to a model: {shown} and 2 more; say what they mean"
    )
    assert "--labels 'n01855670=a name'" in notice.message
    assert id_notices(["duck", "black ring"]) == []
    assert "1 of 2 labels looks like an id" in id_notices(["duck", "7"])[0].message


def test_labels_with_the_same_words_are_named():
    (notice,) = same_notices({"n02012849": "crane", "n03126707": "Crane ", "x": "duck"})
    assert notice.message == (
        "labels that are the same words, of which the first is always chosen: 'n02012849', 'n03126707': 'crane'"
    )
    assert same_notices({"a": "crane", "b": "duck"}) == []


@given(st.text(max_size=30))
def test_any_name_becomes_words_that_stay_what_they_are(name):
    text = label_text(name)
    assert bool(text) == bool(name.strip())
    assert text == " ".join(text.split()) or text == name.strip()


@given(st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=5, unique=True))
def test_any_names_become_as_many_texts_or_are_refused(names):
    try:
        texts = label_texts(names)
    except InputError as error:
        assert "in a prompt" in str(error)
    else:
        assert len({text.lower() for text in texts}) == len(names)
