"""Labels that a user names: every form of a file, what data makes of them, what is refused."""

from __future__ import annotations

import json

import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.inference.label_files import Label, choose, lines_of, read_label_file, read_labels, texts_of

PAIRS = {"n01440764": "tench", "n01443537": "gold fish"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "n01440764\ttench\nn01443537\tgold fish\n"),
        ("a.tsv", "id\tname\nn01440764\ttench\nn01443537\tgold fish\n"),
        ("a.txt", "n01440764=tench\r\n\r\nn01443537 = gold fish"),
        ("a.csv", "n01440764,tench\nn01443537,gold fish\n"),
        ("a.csv", "id,name\nn01440764,tench\nn01443537,gold fish\n"),
        ("a.csv", '"n01440764";"tench"\n"n01443537";"gold fish"\n'),
        ("a.txt", "n01440764 tench\nn01443537 gold fish\n"),
        ("a.json", json.dumps(PAIRS)),
        ("no ending", json.dumps(PAIRS, indent=2)),
        ("a.json", json.dumps({str(k): pair for k, pair in enumerate(PAIRS.items())})),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_of_names_for_ids(tmp_path, name, content, mark):
    path = tmp_path / name
    path.write_text(mark + content, encoding="utf-8", newline="")
    assert read_label_file(path) == [Label(*pair) for pair in PAIRS.items()]


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ("a dog\n\n a cat \n", ["a dog", "a cat"]),
        ("tench, Tinca tinca\ngoldfish, Carassius auratus\n", ["tench, Tinca tinca", "goldfish, Carassius auratus"]),
        ("label\nduck\n", ["label", "duck"]),
        ('["a dog", " a cat"]', ["a dog", "a cat"]),
        ("[red] ring\n[blue] ring\n", ["[red] ring", "[blue] ring"]),
        ("a\x0cb\n\u2028c\n", ["a\x0cb", "c"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_labels(tmp_path, content, labels, encoding):
    (tmp_path / "labels").write_text(content, encoding=encoding)
    assert read_label_file(tmp_path / "labels") == [Label(name) for name in labels]


def test_a_word_is_no_file_of_that_name_unless_it_stands_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dog").write_text("an owl\na jay\n")
    assert read_labels(["dog", "cat"]) == [Label("dog"), Label("cat")]
    assert read_labels(["dog,cat"]) == [Label("dog"), Label("cat")]
    assert read_labels(["dog"]) == read_labels(["./dog"]) == [Label("an owl"), Label("a jay")]


def test_a_comma_parts_names_from_ids_that_the_data_has(tmp_path):
    (tmp_path / "a.txt").write_text("left,a red ring\nright,a blue ring\nup,none\n")
    assert read_label_file(tmp_path / "a.txt")[0] == Label("left,a red ring")
    assert read_label_file(tmp_path / "a.txt", {"right"})[0] == Label("left", "a red ring")


def test_the_names_of_a_configuration(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"x": 3, "id2label": {"0": "duck", "1": "owl"}}))
    assert read_label_file(tmp_path / "config.json") == [Label("0", "duck"), Label("1", "owl")]


@pytest.mark.parametrize("label", ["word " * 200, "~nobody/x", "a\0b", "."])
def test_a_label_that_is_no_name_of_a_file(label):
    assert read_labels([label]) == [Label(label.strip())]


def test_an_option_names_labels_or_files(tmp_path):
    (tmp_path / "more.txt").write_text("an owl\n")
    (tmp_path / "bare").write_text("a jay\n")
    given = ["a dog, a cat,", "n1=a red ring,n2 = b", str(tmp_path / "more.txt"), str(tmp_path / "bare")]
    expected = [
        Label("a dog"), Label("a cat"), Label("n1", "a red ring"), Label("n2", "b"), Label("an owl"), Label("a jay"),
    ]  # fmt: skip
    assert read_labels(given) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", r"a\.json is no JSON: "),
        ("a.json", "[1]", "a label must be a text, not 1; a list of labels, or"),
        ("a.json", '{"duck": 0}', "the name of 'duck' is 0, not a text; a list of labels, or"),
        ("a.json", '{"": "x"}', "the name of '' is 'x', not a text"),
        ("a.json", "3", "a label must be a text, not 3"),
        ("a.txt", " \n", r"a\.txt is empty: one entry per line is expected"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_label_file(tmp_path / name)


def test_a_file_that_is_missing_is_named(tmp_path):
    for read in (lambda path: read_labels([str(path)]), read_label_file, lines_of):
        with pytest.raises(
            InputError, match=r"no\.txt cannot be read: No such file or directory; a file with one"
        ):
            read(tmp_path / "no.txt")


def test_texts_are_those_given_or_the_words_of_the_names():
    labels = [Label("BlackRing"), Label("n01855672", "duck"), Label("sea_lion")]
    assert texts_of(labels) == {"BlackRing": "Black Ring", "n01855672": "duck", "sea_lion": "sea lion"}
    with pytest.raises(InputError, match="the label 'a' is given twice"):
        texts_of([Label("a"), Label("b"), Label("a", "x")])


def test_a_key_of_json_that_comes_twice_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"a": "x", "b": "y", "a": "z"}')
    with pytest.raises(InputError, match="the label 'a' is given twice"):
        texts_of(read_label_file(tmp_path / "a.json"))


# What is chosen from, for images of some classes.


def test_names_for_ids_are_of_the_classes_of_the_data():
    choice = choose([Label("n2", "owl"), Label("n9", "jay"), Label("n1", "duck")], ["n1", "BlackRing", "n2"])
    assert list(choice.texts.items()) == [("n1", "duck"), ("BlackRing", "Black Ring"), ("n2", "owl")]
    assert choice.numbers == [0, 1, 2]
    assert [notice.message for notice in choice.notices] == [
        "names are read as words: 'BlackRing' as 'Black Ring'",
        "1 of 3 names of --labels are for classes that the data lacks",
    ]


def test_labels_are_those_of_classes_by_name_or_by_words():
    choice = choose(
        [Label("jay"), Label("black ring"), Label("a_b"), Label("a b", "x")], ["a_b", "BlackRing", "other"]
    )
    assert list(choice.texts) == ["jay", "black ring", "a_b", "a b"]
    assert choice.numbers == [2, 1, None]


def test_names_keep_classes_apart_that_are_the_same_words():
    choice = choose(
        [Label("BlackRing", "a ring"), Label("black_ring", "a coil")], ["BlackRing", "black_ring"]
    )
    assert choice.texts == {"BlackRing": "a ring", "black_ring": "a coil"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [Label("n8", "x"), Label("n9", "y")],
            "--labels names 'n8', 'n9', and the data has 'dog', 'cat': the part",
        ),
        ([Label("dog"), Label("dog")], "--labels names 'dog' twice: keep one of them"),
        ([Label("grey ish"), Label("grey_ish")], "--labels names 'grey_ish' twice: keep one of them"),
    ],
)
def test_labels_that_do_not_fit_the_data(labels, message):
    with pytest.raises(InputError, match=message):
        choose(labels, ["dog", "cat"])
