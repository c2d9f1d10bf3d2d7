"""`mlx-aimv2 demo`, and `--model demo` in the other verbs."""

import json
import shlex
from pathlib import Path

import pytest
from drawn_world.world import WorldOptions, write_world

from mlx_aimv2.checkpoints.bundled import CHECKPOINT
from mlx_aimv2.cli.guard import interruption_note
from mlx_aimv2.demo.tour import TEMPLATES

LEAST_TOP1, LEAST_RECALL = 0.95, 0.5


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tables_on_stdout_and_talk_on_stderr(cli, pair, work):
    done = cli("demo", "--model", pair, "--count", "4")
    assert done.returncode == 0, done.stderr
    tables = [block.splitlines() for block in done.stdout.split("\n\n")]
    assert [rows[0].split("\t")[0] for rows in tables] == ["image", "sentence", "image"]
    assert [len(rows) for rows in tables] == [5, 4, 5]
    assert "copied 4 images into demo-output/images" in done.stderr
    assert f"mlx-aimv2 embed demo-output/images --model {pair} -o vectors.npz" in done.stderr
    assert "--labels-file demo-output/labels.txt --template '{}' --template 'a {}'" in done.stderr
    assert "with Apple's" not in done.stderr  # the advice to those who used `demo`
    assert (work / "demo-output" / "contact-sheet.png").exists()


def test_json_holds_everything(cli, pair, work):
    done = cli("demo", "out", "--model", pair, "--count", "4", "--json")
    result = json.loads(done.stdout)
    assert result["model"] == str(pair)
    assert len(result["images"]) == 4
    assert set(result["images"][0]) == {
        "path", "caption", "labels", "predictions", "right", "neighbours",
    }  # fmt: skip
    assert set(result["sentences"][0]) == {"text", "path", "rank", "images"}
    assert result["top1"] == sum(one["right"] for one in result["images"]) / 4
    assert all((work / one["path"]).exists() for one in result["images"])
    assert (work / result["contact_sheet"]).exists()
    assert sum(step["seconds"] for step in result["steps"]) > 0


def test_an_interruption_says_what_is_left(tmp_path):
    for left in (False, True):
        message = f"{tmp_path / 'out'} is incomplete: --force replaces it"
        note = interruption_note(tmp_path / "out" / "images", message)
        with pytest.raises(KeyboardInterrupt) as stop, note:
            if left:
                (tmp_path / "out" / "images").mkdir(parents=True)
            raise KeyboardInterrupt
        assert stop.value.args == ((message,) if left else ())


def test_a_folder_that_is_not_empty_is_refused_in_one_line(cli, pair, work):
    (work / "out").mkdir()
    (work / "out" / "mine.txt").touch()
    done = cli("demo", "out", "--model", pair)
    assert done.returncode == 2
    assert done.stderr == (
        "mlx-aimv2: error: out is not empty: name another folder, or write into it with --force\n"
    )
    assert cli("demo", "out", "--model", pair, "--count", "4", "--force").returncode == 0
    assert (work / "out" / "mine.txt").exists()


def test_a_wrong_count_is_wrong_usage(cli, work):
    done = cli("demo", "--count", "3")
    assert done.returncode == 2
    assert "the count is 3, but has to be from 4 to 12 images" in done.stderr
    assert list(work.iterdir()) == []


def test_the_checkpoint_inside_the_package_shows_itself(cli, work):
    done = cli("demo", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["model"] == "demo"
    assert len(result["images"]) == 12
    assert "with Apple's apple/aimv2-large-patch14-224-lit (1.75 GB to download once" in done.stderr


def test_the_commands_at_its_end_run_as_they_are_printed(cli, work):
    tour = json.loads((done := cli("demo", "--json")).stdout)
    commands = [shlex.split(line) for line in done.stderr.splitlines() if line.startswith("  mlx-aimv2 ")]
    assert [command[:2] for command in commands] == [
        ["mlx-aimv2", verb] for verb in ("embed", "embed", "classify", "embed", "embed", "classify")
    ]
    assert cli(*commands[0][1:]).returncode == 0 and (work / "vectors.npz").exists()
    assert json.loads(cli(*commands[1][1:]).stdout)["text"] == tour["sentences"][0]["text"]
    again = json.loads(cli(*commands[2][1:], "--json").stdout)
    assert [one["predictions"][0]["label"] for one in again] == [
        one["predictions"][0]["label"] for one in tour["images"]
    ]


def test_the_checkpoint_inside_the_package_is_often_right(cli, work):
    """Needs the trained weights."""
    result = json.loads(cli("demo", "--json").stdout)
    assert result["top1"] == pytest.approx(11 / 12)  # chance: 0.01
    assert all(sentence["rank"] <= 3 for sentence in result["sentences"])


def test_models_lists_it_first_with_its_size(cli):
    first = json.loads(cli("models", "--json").stdout)[0]
    assert first["name"] == "demo"
    assert first["repo"] is None
    assert first["cached"] is True
    assert first["bytes"] == (CHECKPOINT / "model.safetensors").stat().st_size
    assert cli("models").stdout.splitlines()[1].startswith("demo\t")


def test_info_knows_it_by_its_name(cli, work):
    facts = json.loads(cli("info", "demo", "--json").stdout)
    assert facts["source"] == "demo"
    assert facts["problem"] is None


def test_embed_and_classify_take_it(cli, work, photos):
    done = cli("embed", photos, "--model", "demo", "-o", "v.npz")
    assert done.returncode == 0, done.stderr
    done = cli("classify", photos, "--model", "demo", "--labels", "red circle,blue star", "--json")
    assert len(json.loads(done.stdout)) == 3


def test_convert_and_export_take_it(cli, work):
    done = cli("convert", "--hf-path", "demo", "--mlx-path", "four", "-q", "--q-bits", "4")
    assert done.returncode == 0, done.stderr
    done = cli("export", "demo", "out", "--format", "transformers")
    assert done.returncode == 0, done.stderr
    assert (work / "out" / "config.json").exists()


def test_finetune_evaluate_and_fuse_take_it(cli, work, shades):
    given = ("--model", "demo", "--adapter-path", "adapters")
    done = cli("finetune", "--data", shades, "--fine-tune-type", "lora", "--epochs", "1", *given)
    assert done.returncode == 0, done.stderr
    config = json.loads((work / "adapters" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "demo"
    assert json.loads((work / "adapters" / "task.json").read_text())["base"]["name"] == "demo"
    done = cli("evaluate", "--data", shades, "--split", "all", *given, "--json")
    found = json.loads(done.stdout)
    right, shown = sum(row[k] for k, row in enumerate(found["confusion"])), len(list(shades.glob("*/*")))
    assert found["images"] == shown > 0 and found["top1"] == pytest.approx(right / shown)
    done = cli("fuse", *given, "--save-path", "fused")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_it_can_do_with_combinations_it_has_never_seen(cli, tmp_path):
    """What it has to: see benchmarks/demo.py for all that it does."""
    world = write_world(
        tmp_path / "world", WorldOptions(train=1, close_ups=0, recolored=0, val=0, side=84), processes=1
    )
    templates = [part for template in TEMPLATES for part in ("--template", template)]
    labels = ("--labels", world / "labels.txt", *templates)
    done = cli("evaluate", "--data", world / "zeroshot", "--model", "demo", "--json", *labels)
    assert json.loads(done.stdout)["top1"] >= LEAST_TOP1
    done = cli("evaluate", "--data", world / "retrieval" / "captions.csv", "--model", "demo", "--json")
    found = json.loads(done.stdout)
    assert found["image_to_text_recall@1"] >= LEAST_RECALL
    assert found["text_to_image_recall@1"] >= LEAST_RECALL


def test_contrastive_training_retrieval_and_comparison_take_it(cli, work):
    write_world(work / "world", WorldOptions(16, 0, 0, val=8, zero_shot=0, retrieval=4, side=84), processes=1)
    captions, retrieval = "world/captions.jsonl", "world/retrieval/captions.csv"
    given = ("--model", "demo", "--adapter-path", "words")
    done = cli(
        "finetune", "--task", "contrastive", "--data", captions, "--iters", "1", "--batch-size", "8", *given
    )
    assert done.returncode == 0, done.stderr
    done = cli("evaluate", "--data", retrieval, *given, "--json")
    found = json.loads(done.stdout)
    both = [found[f"{way}_recall@1"] for way in ("image_to_text", "text_to_image")]
    assert found["recall@1"] == pytest.approx(sum(both) / 2) and found["images"] == 4
    done = cli("embed", "--text", "a red circle", "--model", "demo")
    assert len(json.loads(done.stdout)["embedding"]) == 192
    assert cli("convert", "--hf-path", "demo", "--mlx-path", "four", "-q", "--q-bits", "4").returncode == 0
    done = cli("compare", "demo", "four", "world/retrieval", "--json")
    assert done.returncode == 0, done.stderr
