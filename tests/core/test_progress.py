import io
import json

import pytest

from kit.core import progress
from kit.core.progress import JsonProgress, LiveProgress, PlainProgress, Progress, choose_progress

COSTS = {"mlp/seed_0/fold_0": 1.0, "cnn/seed_0/fold_0": 99.0}


def step(job, done, **more):
    return {"event": "step", "job": job, "done": done, "epoch": 1, "epochs": 2, "loss": 0.5, "accuracy": 0.9,
            "images_per_second": 1234.5, **more}


def finished(job):
    return {"event": "done", "job": job, "val_accuracy": 0.97654, "seconds": 12.3}


@pytest.fixture
def clock(monkeypatch):
    """The time, in seconds, as a list of one that tests set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_say_what_is_left_once_that_is_known(capsys, clock):
    plain = PlainProgress()
    plain.start(COSTS)
    for job in COSTS:
        plain.handle(step(job, 0.0, epoch=0))
    clock[0] = 105.0
    plain.handle(step("mlp/seed_0/fold_0", 0.5))
    clock[0] = 110.0
    plain.handle(finished("mlp/seed_0/fold_0"))  # a hundredth of the work, and the slow start of it
    clock[0] = 160.0
    plain.handle(step("cnn/seed_0/fold_0", 0.5))
    *_, first, second = capsys.readouterr().err.splitlines()
    assert first == "mlp/seed_0/fold_0: done, val accuracy 0.9765 (12 s)"
    assert second.startswith("cnn/seed_0/fold_0: epoch 1/2, loss 0.500, accuracy 0.9000, 1,234 images/s")
    assert second.endswith(", 59 s left")


def test_plain_lines_do_not_flood(capsys, clock):
    plain = PlainProgress(pause=10.0)
    plain.start(COSTS)
    for second in range(30):
        clock[0] = 100.0 + second
        plain.handle(step("cnn/seed_0/fold_0", second / 30, epoch=second))
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_what_a_resumed_run_had_done_before_does_not_count_as_quick(clock):
    share = progress._Workload({"a": 50.0, "b": 50.0})
    share.update(finished("a"))
    assert share.done() == 0.5 and share.seconds_left() == 0.0
    share.update(step("b", 0.2))
    clock[0] = 110.0
    share.update(step("b", 0.6))
    assert share.seconds_left() == pytest.approx(10.0)


def test_of_five_folds_two_at_a_time_the_last_one_trains_alone(clock):
    """Each takes 60 s: after a minute two minutes are left, not one and a half."""
    share = progress._Workload(dict.fromkeys("abcde", 7.0), at_once=2)
    clock[0] = 160.0
    for job in "ab":
        share.update(step(job, 0.0))
        share.update(finished(job))
    assert share.seconds_left() == pytest.approx(120.0)
    clock[0] = 190.0
    for job in "cd":
        share.update(step(job, 0.0))
        share.update(step(job, 0.5))
    assert share.seconds_left() == pytest.approx(90.0)


def test_json_is_one_object_a_line(capsys):
    out = JsonProgress()
    out.say("reading")
    out.handle(step("cnn/seed_0/fold_0", 0.5))
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert said[0] == {"event": "say", "text": "reading"} and said[1]["job"] == "cnn/seed_0/fold_0"


@pytest.mark.parametrize(("colours", "escape"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_sees_bars_and_no_colour_where_none_is_wanted(monkeypatch, colours, escape):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name in ("NO_COLOR", "TERM", "FORCE_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **colours}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    live = choose_progress()
    assert isinstance(live, LiveProgress)
    live.start(COSTS)
    live.handle(step("mlp/seed_0/fold_0", 0.5))
    live.handle(finished("mlp/seed_0/fold_0"))
    live.stop()
    shown = terminal.getvalue()
    assert "all 2 trainings" in shown and "mlp/seed_0/fold_0: val accuracy 0.9765 (12 s)" in shown
    assert ("\x1b[3" in shown) is escape  # a colour


def test_quiet_says_nothing_and_a_pipe_gets_plain_lines(capsys):
    quiet = choose_progress(quiet=True)
    assert type(quiet) is Progress and type(choose_progress()) is PlainProgress
    assert type(choose_progress(as_json=True)) is JsonProgress
    quiet.say("reading")
    quiet.start(COSTS)
    quiet.handle(finished("mlp/seed_0/fold_0"))
    quiet.stop()
    assert capsys.readouterr() == ("", "")
