"""What ends a verb early: Ctrl-C, kill and a closed terminal, also where they are ignored."""

import os
import signal

import numpy as np
import pytest
from helpers.terminal import Terminal, start

from mlx_aimv2.cli import interrupts
from mlx_aimv2.cli.app import app
from mlx_aimv2.cli.screen import Screen
from mlx_aimv2.events import Notice, Progress, StepDone


def test_ignored_signals_stay_ignored(pair, many, tmp_path):
    terminal, target = Terminal(), tmp_path / "x.npz"
    arguments = ["embed", many("many", 120), "--model", pair, "-o", target]
    with start(arguments, terminal, ("HUP", "INT", "TERM")) as process:
        terminal.wait_for(r"[1-9]\d*/120")
        for number in interrupts.ENDING:
            process.send_signal(number)
        assert process.wait(120) == 0
    terminal.close()
    with np.load(target) as data:
        assert len(data["paths"]) == 120


def test_a_closed_terminal_does_not_end_what_ignores_it(pair, many, tmp_path):
    terminal, target = Terminal(), tmp_path / "x.npz"
    with start(["embed", many("many", 120), "--model", pair, "-o", target], terminal, ("HUP",)) as process:
        terminal.wait_for(r"[1-9]\d*/120")
        terminal.hang_up()
        process.send_signal(signal.SIGHUP)
        assert process.wait(120) == 0
    terminal.close()
    with np.load(target) as data:
        assert len(data["paths"]) == 120


def test_only_what_is_not_ignored_gets_a_handler():
    former = {number: signal.getsignal(number) for number in interrupts.ENDING}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with interrupts.interrupting():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
            assert interrupts.handled_signals() == [signal.SIGINT, signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is former[signal.SIGTERM]
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def test_a_second_signal_leaves_the_tidying_up_in_peace():
    tidied = False
    with pytest.raises(interrupts.Interrupted) as caught, interrupts.interrupting():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            raise AssertionError("not interrupted")
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            tidied = True
            raise
    assert tidied and interrupts.status_of(caught.value) == 129


@pytest.fixture
def interrupt(monkeypatch):
    """Runs a verb in this process that gets a signal with its first event of some kind; its exit status."""

    def run(arguments, number, kind=Progress):
        show, sent = Screen.__call__, []

        def show_and_send(self, event):
            show(self, event)
            if isinstance(event, kind) and not sent:
                sent.append(event)
                os.kill(os.getpid(), number)

        def end(status):
            raise SystemExit(status)

        monkeypatch.setattr(Screen, "__call__", show_and_send)
        monkeypatch.setattr(os, "_exit", end)
        with pytest.raises(SystemExit) as caught:
            app(list(map(str, arguments)), standalone_mode=False)
        assert sent
        return caught.value.code

    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "--hf-path", "PAIR", "--mlx-path", "out"],
        ["convert", "--hf-path", "PAIR", "--mlx-path", "out", "-q", "--q-group-size", "32", "--report"],
        ["export", "PAIR", "out"],
        ["demo", "out", "--model", "PAIR", "--count", "4"],
        ["fuse", "--model", "PAIR", "--adapter-path", "ADAPTER", "--save-path", "out"],
        [
            "finetune",
            "--data",
            "SHADES",
            "--model",
            "PAIR",
            "--adapter-path",
            "out",
            "--fine-tune-type",
            "lora",
        ],
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[-1:]),
)
def test_nothing_half_written_stays(
    interrupt, capsys, tmp_path, monkeypatch, pair, shades, lora, arguments, number
):
    monkeypatch.chdir(tmp_path)
    names = {"PAIR": pair, "SHADES": shades, "ADAPTER": lora}
    kind = Notice if arguments[0] == "demo" else Progress
    assert interrupt([names.get(name, name) for name in arguments], number, kind) == 128 + number
    assert capsys.readouterr().err.splitlines()[-1] == "mlx-aimv2: interrupted"
    assert list(tmp_path.rglob("*.partial")) == []
    assert not (tmp_path / "out").exists() or arguments[0] == "finetune"


@pytest.fixture(scope="module")
def lora(with_adapter, pair, tmp_path_factory):
    """An adapter of the pair."""
    folder = tmp_path_factory.mktemp("adapters") / "a"
    with_adapter(pair, folder)
    return folder


def test_training_is_gone_on_with_after_kill(interrupt, capsys, tmp_path, pair, shades):
    arguments = ["finetune", "--data", shades, "--model", pair, "--adapter-path", tmp_path / "a"]
    arguments += ["--fine-tune-type", "lora", "--epochs", "2", "--save-every", "1"]
    assert interrupt(arguments, signal.SIGTERM, StepDone) == 143
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.rglob("*.partial")) == []
