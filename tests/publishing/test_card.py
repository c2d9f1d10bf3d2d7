"""The model card: its metadata, its words, and what hostile cards of sources can do to it."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
import yaml
from drawn_world.untrained import write_checkpoint
from helpers.fake_upload_hub import facts
from huggingface_hub import ModelCard
from PIL import Image

from mlx_aimv2.publishing.card import MAX_METADATA, is_ours, model_card, read_card, read_metadata, renamed

LARGE = "apple/aimv2-large-patch14-224"
APPLE = "---\nlibrary_name: transformers\nlicense: apple-amlr\ntags: [vision]\n---\n# AIMv2\n"


def head(card):
    """The metadata, read by another parser than the one under test."""
    return yaml.safe_load(card.split("---\n")[1])


@pytest.fixture(scope="session")
def fixed(variants):
    return variants["fixed"]


# ---- metadata


def test_metadata_of_a_vision_encoder(fixed):
    card = model_card(facts(fixed, repo=LARGE, revision="abc123", source_card=APPLE))
    assert head(card) == {
        "library_name": "mlx",
        "pipeline_tag": "image-feature-extraction",
        "base_model": LARGE,
        "license": "apple-amlr",
        "tags": ["mlx", "aimv2", "mlx-aimv2", "vision"],
    }
    assert is_ours(read_metadata(card))
    assert not is_ours(read_metadata(APPLE))


def test_metadata_of_a_quantized_pair(variants):
    card = model_card(facts(variants["lit"], repo=LARGE + "-lit", quantization="4-bit affine, groups of 64"))
    assert head(card) == {
        "library_name": "mlx",
        "pipeline_tag": "zero-shot-image-classification",
        "base_model": LARGE + "-lit",
        "base_model_relation": "quantized",
        "license": "apple-amlr",
        "tags": ["mlx", "aimv2", "mlx-aimv2", "vision"],
    }


def test_the_hubs_own_library_reads_it(fixed):
    data = ModelCard(model_card(facts(fixed, repo=LARGE, quantization="8-bit", source_card=APPLE))).data
    assert (data.library_name, data.base_model, data.license) == ("mlx", LARGE, "apple-amlr")
    assert data.pipeline_tag == "image-feature-extraction"
    assert data.to_dict()["base_model_relation"] == "quantized"


def test_a_licence_of_its_own(fixed):
    source = "---\nlicense: other\nlicense_name: my-terms\nlicense_link: LICENSE.txt\n---\n"
    card = model_card(facts(fixed, repo="me/x", source_card=source, license_files=("LICENSE.txt",)))
    assert (head(card)["license"], head(card)["license_name"]) == ("other", "my-terms")
    assert head(card)["license_link"] == "LICENSE.txt"
    assert card.endswith(
        "## Licence\n\nThe weights are under the licence of [me/x](https://huggingface.co/me/x): `my-terms`."
        " See [LICENSE.txt](LICENSE.txt).\n"
    )


@pytest.mark.parametrize(
    ("link", "repo", "expected"),
    [
        ("https://example.org/terms?v=2", None, "https://example.org/terms?v=2"),
        ("LICENSE", None, None),
        ("docs/TERMS.md", "me/x", "https://huggingface.co/me/x/blob/main/docs/TERMS.md"),
        ("docs/TERMS.md", None, None),
        ("../../etc/passwd", "me/x", None),
        ("javascript:alert(1)", "me/x", None),
        ("https://example.org/) [click](http://evil.example", "me/x", None),
        ("https://example.org/" + "a" * 1000, "me/x", None),
    ],
)
def test_links_to_licences(fixed, link, repo, expected):
    source = f"---\nlicense: other\nlicense_name: own\nlicense_link: '{link}'\n---\n"
    assert head(model_card(facts(fixed, repo=repo, source_card=source))).get("license_link") == expected


def test_no_licence_is_invented(fixed):
    for repo in (None, "me/x", "me/aimv2-large-patch14-224"):
        card = model_card(facts(fixed, name="large-224", repo=repo, source_card="# no metadata"))
        assert not {"license", "license_name", "license_link"} & head(card).keys()
        assert "The source states no licence, so none is named here" in card


def test_the_table_of_published_checkpoints_fills_in(fixed):
    card = model_card(facts(fixed, repo=LARGE, license_files=("LICENSE",)))
    assert head(card)["license"] == "apple-amlr"
    assert "are known to be under `apple-amlr`, which its card does not say. See [LICENSE](LICENSE)." in card


# ---- where it came from


def test_a_conversion_of_a_conversion_names_the_original(fixed):
    first = model_card(facts(fixed, repo=LARGE, source_card=APPLE))
    second = model_card(facts(fixed, source_card=first, quantization="4-bit", layout="mlx"))
    third = model_card(facts(fixed, repo="alice/aimv2-4bit", source_card=second, layout="mlx"))
    for card in (first, second, third):
        assert head(card)["base_model"] == LARGE
        assert head(card)["license"] == "apple-amlr"
        assert card.count("---\n") == 2
    assert head(second)["base_model_relation"] == "quantized"
    assert "base_model_relation" not in head(third)
    assert f"from a local folder (made from [{LARGE}](https://huggingface.co/{LARGE}))" in second


def test_somebody_elses_training_is_the_base_and_not_what_it_was_trained_from(fixed):
    source = f"---\nlicense: mit\nbase_model: {LARGE}\n---\n"
    assert head(model_card(facts(fixed, repo="me/flowers", source_card=source)))["base_model"] == "me/flowers"
    local = head(model_card(facts(fixed, source_card=source, quantization="4-bit")))
    assert local["base_model"] == LARGE
    assert "base_model_relation" not in local  # what lies in the folder may be trained further


def test_an_unknown_source_has_no_base(fixed):
    card = model_card(facts(fixed, quantization="4-bit"))
    assert not {"base_model", "base_model_relation"} & head(card).keys()
    assert "from a local folder, read in the layout `apple`" in card


# ---- cards of strangers

BOMB = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join(['*' + a] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "broken": "license: [mit",
    "tag": "license: !!python/object/apply:os.system ['touch /tmp/x']",
    "tagged-text": "license: !!python/name:os.system ''",
    "list": "- license\n- mit",
    "number": "license: 7",
    "date": "license: 2024-99-99",
    "nothing": "license: ~",
    "object": "license: {id: mit}",
    "object-key": "? [license]\n: mit",
    "mixed-list": "license: [mit, 7]",
    "newlines": 'license: "mit\\n# Owned\\n[click](http://evil.example)"',
    "markdown": "license: '[mit](http://evil.example)'",
    "control": 'license: "mit\\u001b[31m"',
    "deep": "license: " + "[" * 30000,
    "blocks": "- " * 30000,
    "bomb": BOMB + "license: *i",
    "merge-bomb": MERGE + "license: *i",
    "recursive": "license: &a [*a]",
    "many-keys": "\n".join(f"k{i}: v" for i in range(6000)) + "\nlicense: [",
    "large": "license: mit\nx: " + "a" * MAX_METADATA,
    "blank-lines": "\n" * 60000 + "license",
    "nul": "license: a\0b",
    "endless": "",
}


@pytest.mark.parametrize("block", HOSTILE.values(), ids=HOSTILE)
def test_hostile_cards_state_nothing(fixed, block):
    source = f"---\n{block}\n---\nbody" if block else "---\nlicense: mit\n"  # the last is never closed
    card = model_card(facts(fixed, repo="me/x", source_card=source))
    assert head(card).keys() == {"library_name", "pipeline_tag", "base_model", "tags"}
    assert "The source states no licence" in card
    assert "evil" not in card


def test_hostile_names_beside_a_licence(fixed):
    name = "x`\\n\\n# [Owned](http://evil.example)"
    source = f'---\nlicense: other\nlicense_name: "{name}"\nbase_model: "a/b\\n---"\n---\n'
    card = model_card(facts(fixed, source_card=source))
    assert head(card).keys() == {"library_name", "pipeline_tag", "license", "tags"}
    assert "under the terms of the source, which have no name" in card
    assert "evil" not in card


def test_windows_line_ends_and_marks_are_read():
    assert read_metadata("\ufeff---\r\nlicense: mit\r\n---\r\n") == {"license": ("mit",)}
    assert read_metadata(None) == read_metadata("") == read_metadata("---") == {}


def test_what_stands_in_place_of_a_card(tmp_path):
    assert read_card(tmp_path) is None
    (tmp_path / "README.md").mkdir()
    assert read_card(tmp_path) is None
    (tmp_path / "README.md").rmdir()
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\n---\n\xff\xfe" + b"x" * 3_000_000)
    card = read_card(tmp_path)
    assert len(card) <= 2**20
    assert read_metadata(card) == {"license": ("mit",)}


@pytest.mark.parametrize("name", ["my model", "x`; rm -rf /", 'a"b', "a\nb", "", "-x", "a/b/c", "$(x)"])
def test_odd_names_of_folders_do_not_come_into_the_lines_of_usage(fixed, name):
    card = model_card(facts(fixed, name=name))
    assert "# THIS-FOLDER\n" in card
    assert 'load("THIS-FOLDER")' in card


# ---- words


def test_the_whole_card(variants):
    card = model_card(
        facts(
            variants["lit"],
            name="lit-4bit",
            repo=LARGE + "-lit",
            revision="abc",
            source_card=APPLE,
            quantization="4-bit affine, groups of 64",
            bits_per_weight=4.8,
            kept={"norms are small and sensitive": ["a.0.norm", "a.1.norm"], "a single number": ["b"]},
            unpacked_from="8-bit affine, groups of 32",
            fidelity="## Fidelity\n\n| what | value |\n|---|---|\n| cosine | 0.999 |\n",
            license_files=("LICENSE",),
        )
    )
    assert card.partition("---\n\n")[2] == (
        "# lit-4bit\n\n"
        "An [AIMv2](https://arxiv.org/abs/2411.14402) image-text pair (LiT) in"
        " [MLX](https://github.com/ml-explore/mlx): 56 x 56 pixels, patches of 14, 2 layers of width 64,"
        " 123,456 parameters.\n\n"
        f"Converted by mlx-aimv2 0.1.0 from [{LARGE}-lit](https://huggingface.co/{LARGE}-lit) at revision `abc`,"
        " read in the layout `apple`. Weights: 4-bit affine, groups of 64, the rest float16; 4.80 bits per weight,"
        " 0.2 MB. The source's weights were 8-bit affine, groups of 32, and were unpacked.\n\n"
        "## Use\n\nInstall [mlx-aimv2](https://github.com/mlx-aimv2/mlx-aimv2), then\n\n"
        "```python\nfrom mlx_aimv2 import ZeroShotClassifier, load\n"
        'model, processor = load("lit-4bit")\n'
        'print(ZeroShotClassifier(model, processor, labels=["a dog", "a cat"])("photo.jpg"))\n```\n\n'
        "or on the command line\n\n"
        '```\nmlx-aimv2 classify photo.jpg --labels "a dog,a cat" --model lit-4bit\n```\n\n'
        "## Fidelity\n\n| what | value |\n|---|---|\n| cosine | 0.999 |\n\n"
        "## What is not quantized\n\n- norms are small and sensitive: `a.{0-1}.norm`\n- a single number: `b`\n\n"
        f"## Licence\n\nThe weights are under the licence of [{LARGE}-lit](https://huggingface.co/{LARGE}-lit):"
        " `apple-amlr`. See [LICENSE](LICENSE).\n"
    )


def test_native_resolution_and_heads_are_named(variants):
    assert ": native resolution, patches of 14" in model_card(facts(variants["native"]))
    assert ", pooling head, " in model_card(facts(variants["head"]))


def test_a_card_is_renamed_in_title_and_usage_alone(fixed):
    card = model_card(facts(fixed, name="old"))
    assert renamed(card, "alice/new") == model_card(facts(fixed, name="alice/new"))
    mine = card + "\n# old\n\nI called it old before.\n"
    assert renamed(mine, "alice/new").endswith("\n# old\n\nI called it old before.\n")
    assert renamed("# Mine\n\nload it", "alice/new") == "# Mine\n\nload it"


@pytest.mark.parametrize("variant", ["fixed", "lit"])
def test_the_lines_of_usage_run(variants, variant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((80, 60), 50).convert("RGB").save("photo.jpg")
    write_checkpoint(tmp_path / "small", variants[variant], "mlx")
    card = model_card(facts(variants[variant], name="small"))
    code = re.search(r"```python\n(.*?)```", card, re.S)[1]
    assert code.count("\n") == 3
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert ("a dog" if variant == "lit" else "[[") in printed.getvalue()
