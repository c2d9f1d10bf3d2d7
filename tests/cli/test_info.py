"""The verb info."""

import json
import os


def test_info_describes_a_checkpoint(cli, pair):
    facts = json.loads(cli("info", pair, "--json").stdout)
    assert facts["layout"] == "apple"
    assert facts["kind"] == "image-text pair"
    assert facts["problem"] is None
    assert facts["config"]["vision_config"]["use_head"] is True


def test_info_describes_the_machine(cli):
    facts = json.loads(cli("info", "--system", "--json").stdout)
    assert facts["matmul_gflops"] > 0
    assert facts["device"] in ("cpu", "gpu")
    assert facts["streams"] >= 1


def test_info_wants_one_of_its_two_things(cli):
    done = cli("info")
    assert done.returncode == 2
    assert "name a checkpoint, or ask for --system" in done.stderr
    done = cli("info", "demo", "--system")
    assert done.returncode == 2
    assert "--system describes this machine: leave it out, or the checkpoint" in done.stderr


def test_info_names_what_load_would_refuse(cli, pair, tmp_path):
    for path in pair.iterdir():
        if path.name != "vocab.json":
            os.link(path, tmp_path / path.name)
    done = cli("info", tmp_path, "--json")
    assert done.returncode == 1
    assert "no tokenizer" in json.loads(done.stdout)["problem"]
