import pytest
from helpers.fake_upload_hub import REPO, TOKEN, FakeUploadHub, converted


@pytest.fixture(scope="module")
def own(tmp_path_factory, variants):
    return converted(tmp_path_factory.mktemp("cli-upload") / "own", variants["fixed"])


def test_upload_prints_the_address_alone(cli, own, tmp_path):
    with FakeUploadHub().running() as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path)}
        done = cli("upload", own, REPO, "--private", HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1", **settings)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{hub.url}/{REPO}\n", "")
        assert hub.repos[REPO].private
        assert hub.repos[REPO].files["model.safetensors"] == (own / "model.safetensors").read_bytes()


def test_a_dry_run_names_what_would_go_and_what_stays(cli, variants, tmp_path):
    folder = converted(tmp_path / "own", variants["fixed"])
    (folder / "photo.jpg").write_bytes(b"private")
    done = cli("upload", folder, REPO, "--dry-run")  # offline, and without a token
    assert done.returncode == 0
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0] == ["file", "size", "note"]
    assert {row[0] for row in rows[1:] if not row[2]} == {
        "LICENSE",
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    assert ["photo.jpg", "", "stays behind"] in rows
    assert f"would go to {REPO}; nothing was uploaded" in done.stderr


def test_no_token_is_one_line(cli, own, tmp_path):
    done = cli("upload", own, REPO, HF_HUB_OFFLINE="0", HF_TOKEN="", HF_HOME=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"mlx-aimv2: error: no access token to upload to {REPO}: `hf auth login` once, or set HF_TOKEN"
        " (https://huggingface.co/settings/tokens)\n"
    )


def test_offline_mode_is_named(cli_process, own):
    done = cli_process("upload", own, REPO)
    assert done.returncode == 1
    assert "offline mode is on (HF_HUB_OFFLINE): unset it to upload" in done.stderr


def test_help(cli):
    done = cli("upload", "--help")
    assert done.returncode == 0
    assert "--private" in done.stdout


def test_wrong_usage_is_status_2(cli, own, pair):
    done = cli("upload", own, "aimv2", "--dry-run")
    assert done.returncode == 2
    assert "'aimv2' is not the name of a repository" in done.stderr
    done = cli("upload", pair, REPO, "--dry-run")
    assert done.returncode == 2
    assert "is in the layout apple" in done.stderr


def test_upload_of_several_weight_files(cli, pair, tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes((pair / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_bytes((pair / "config.json").read_bytes())
    done = cli("upload", tmp_path, "somebody/model", "--dry-run")
    assert done.returncode == 1
    assert "--weights" not in done.stderr and "keep the one that is meant" in done.stderr
