"""A run that was interrupted goes on as it began, without its options being typed again, or says why it cannot."""

import json
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest

from kit.commands import cli
from kit.core import provenance, storage
from kit.core.run_folder import RunFolder
from kit.training import executors, job_runner, pace, settings
from kit.training.pace import Cost
from tests.end_to_end.test_reliability import CYCLE, kit, two_lines, write_data

OPTIONS = ["--model", "mlp", "--epochs", "2", "--limit", "20", "--folds", "2", "--executor", "local", "--seed", "3",
           "--batch-size", "64", "--tta", "1"]


@pytest.fixture
def interrupt(monkeypatch, capsys):
    """Run a command that is interrupted as soon as it would train; what it said on stderr."""
    def interrupted(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(executors, "run_jobs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            code, _, err = kit(capsys, *arguments)
        assert code == 130
        return err

    return interrupted


def config_of(run):
    return json.loads((run / "config.json").read_text())["config"]


@pytest.mark.parametrize("named", [["--run", "a"], []])
@pytest.mark.parametrize("command", ["cv", "submit"])
def test_a_run_is_resumed_with_the_options_that_it_began_with(workplace, capsys, interrupt, command, named):
    interrupt(command, *OPTIONS, *named)
    (run,) = (workplace / "runs").iterdir()
    before = config_of(run)
    code, _, err = kit(capsys, command, "--resume", *named)
    assert code == 0, err
    assert config_of(run) == before and (run / "report.json").is_file()
    assert [path.name for path in (workplace / "runs").iterdir()] == [run.name]
    assert (workplace / "submissions" / run.name / "submission.csv").is_file() == (command == "submit")


def test_a_run_of_a_kit_that_recorded_less_is_not_continued_and_says_why(workplace, capsys, interrupt):
    interrupt("cv", *OPTIONS, "--run", "a")
    config = workplace / "runs" / "a" / "config.json"
    about = json.loads(config.read_text())
    del about["settled"]
    storage.write_json(config, about)
    code, _, err = kit(capsys, "cv", "--resume", "--run", "a")
    assert code == 2 and two_lines(err) and "from before 2026-11-22" in err and "start a new run with --run" in err


def test_options_that_differ_are_refused_by_name_and_those_free_to_change_are_taken(workplace, capsys, interrupt):
    interrupt("cv", *OPTIONS, "--run", "a")
    before = config_of(workplace / "runs" / "a")
    code, _, err = kit(capsys, "cv", "--resume", "--run", "a", "--epochs", "3", "--model", "mlp", "--folds", "5")
    assert code == 2 and two_lines(err) and "epochs: 2 → 3" in err and "n_folds: 2 → 5" in err
    assert "leave --epochs, --folds out" in err or "leave --folds, --epochs out" in err
    assert config_of(workplace / "runs" / "a") == before
    code, _, err = kit(capsys, "cv", "--resume", "--run", "a", "--competition", "digit-recognizer")
    assert code == 2 and "competition: 'kannada-mnist' → 'digit-recognizer'" in err
    assert kit(capsys, "cv", "--resume", "--run", "a", "--epochs", "2", "--time-budget", "2h")[0] == 0
    assert config_of(workplace / "runs" / "a") == {**before, "time_budget": 7200.0}


def test_the_way_to_an_unfinished_run_that_is_said_is_one_that_works(workplace, capsys, interrupt):
    interrupt("cv", *OPTIONS)
    (run,) = (workplace / "runs").iterdir()
    said = interrupt("cv", *OPTIONS)
    advised = re.search(rf"the run {run.name} has the same options .*: continue it with (--resume --run \S+)", said)
    assert kit(capsys, "cv", *shlex.split(advised[1]))[0] == 0 and (run / "report.json").is_file()


def test_a_run_of_other_data_is_not_said_to_be_the_same(workplace, capsys, interrupt):
    """An interrupted run on the sample; then the real data comes."""
    interrupt("cv", *OPTIONS, "--run", "on-the-sample")
    write_data(workplace / "data" / "kannada-mnist", CYCLE, range(5))
    said = interrupt("cv", *OPTIONS)
    assert "on-the-sample" not in said
    for run in (workplace / "runs").iterdir():
        if run.name != "on-the-sample":
            (run / "report.json").write_text("{}")  # finished
    code, _, err = kit(capsys, "cv", "--resume")
    assert code == 2 and two_lines(err)
    assert "on-the-sample, was made differently: data: Dig-MNIST.csv, test.csv, train.csv are other files" in err
    assert kit(capsys, "cv", "--resume", "--run", "on-the-sample")[0] == 0  # on the sample, as it began
    report = json.loads((workplace / "runs" / "on-the-sample" / "report.json").read_text())
    assert report["data"]["is_sample"]


def test_a_run_of_other_code_is_not_said_to_be_the_same(workplace, capsys, interrupt, monkeypatch):
    interrupt("cv", *OPTIONS)
    monkeypatch.setattr(provenance, "code_hash", lambda: "another")
    assert "continue it" not in interrupt("cv", *OPTIONS)
    (first, *_) = sorted((workplace / "runs").iterdir(), key=lambda run: run.stat().st_mtime)
    code, _, err = kit(capsys, "cv", "--resume", "--run", first.name)
    assert code == 2 and "made differently: the training code" in err and re.search("fix: go back to the kit's c", err)


def test_a_run_that_is_being_trained_is_not_offered_to_be_continued(workplace, capsys, interrupt):
    interrupt("cv", *OPTIONS, "--run", "older")
    interrupt("cv", *OPTIONS, "--run", "running")
    with RunFolder(workplace / "runs" / "running").lock():
        assert "the run older has the same options" in interrupt("cv", *OPTIONS)
        (made,) = {path.name for path in (workplace / "runs").iterdir()} - {"older", "running"}
        (workplace / "runs" / made / "report.json").write_text("{}")  # finished
        assert kit(capsys, "cv", "--resume")[0] == 0
    assert (workplace / "runs" / "older" / "report.json").is_file()


def test_nothing_to_resume(workplace, capsys):
    code, _, err = kit(capsys, "cv", "--resume")
    assert code == 2 and two_lines(err) and "no unfinished run in runs to go on with" in err and "leave --resume" in err


def test_a_submission_that_could_not_be_written_is_written_when_the_run_is_resumed(workplace, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kit.ensembling.submission.write_submission", full)
        assert kit(capsys, "submit", *OPTIONS)[0] == 2
    (run,) = (workplace / "runs").iterdir()
    assert (run / "report.json").is_file() and not (workplace / "submissions" / run.name / "submission.csv").exists()
    assert kit(capsys, "submit", "--resume")[0] == 0
    assert (workplace / "submissions" / run.name / "submission.csv").is_file()


def test_a_real_run_is_seen_by_git_where_a_sample_s_had_its_name(workplace, capsys):
    assert kit(capsys, "submit", *OPTIONS, "--run", "a")[0] == 0
    ignored = workplace / "submissions" / "a" / ".gitignore"
    assert ignored.read_text() == "*\n"
    write_data(workplace / "data" / "kannada-mnist", CYCLE, range(5))
    assert kit(capsys, "submit", *OPTIONS, "--run", "a", "--force")[0] == 0
    assert not ignored.exists() and ".gitignore" not in json.loads((ignored.parent / storage.CHECKSUMS).read_text())
    ignored.write_text("oof.npz\n")  # the user's own
    assert cli.run(["report", "a"]) == 0
    assert ignored.read_text() == "oof.npz\n"
    assert np.load(workplace / "runs" / "a" / "test.npz")["id"].size


# -- the plan of a run that is killed -------------------------------------------------------------------------------


PLANNED = ["--model", "mlp", "--setting", "quick", "--limit", "20", "--folds", "2", "--executor", "local"]


@pytest.fixture
def killed(workplace, capsys, monkeypatch):
    """A run whose seven epochs were cut to six to fit into 13.5 minutes, and which ended with its first fold.

    The setting's own numbers change with what is measured; these are the test's, with 93 seconds to spare for a
    busy machine. Whoever measures the pace again fails.
    """
    monkeypatch.setitem(settings.SETTINGS, "quick", replace(settings.get("quick"), epochs=7, minutes=13.5))
    train_job = job_runner.train_job

    def one_fold(plan, job, *rest):
        if job.fold == 1:
            raise KeyboardInterrupt
        return train_job(plan, job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pace, "measure", lambda *_: {"mlp": Cost(55.0, 1.0, 1.0)})
        patch.setattr(job_runner, "train_job", one_fold)
        code, _, err = kit(capsys, "cv", *PLANNED, "--run", "a")
    assert code == 130 and re.search(r"2 folds of mlp, 6 of 7 epochs: about 1[1-3] min \(until ", err), err
    monkeypatch.setattr(pace, "measure", lambda *_: pytest.fail("it was measured before"))
    return workplace / "runs" / "a"


@pytest.mark.parametrize("budget", [[], ["--time-budget", "9h"]])
def test_a_run_that_was_killed_keeps_the_epochs_that_were_planned(killed, capsys, budget):
    """Folds with another schedule would be another experiment, however much time there is now."""
    plan = json.loads((killed / "schedule.json").read_text())
    assert plan["epochs"] == {"mlp": 6} and 660 < plan["predicted_seconds"] < 770
    code, _, err = kit(capsys, "cv", "--resume", "--run", "a", *budget)
    assert code == 0 and re.search(r"still to do: 1 fold of mlp, 6 epochs: about [67] min \(until ", err), err
    for k in range(2):
        history = (killed / "mlp" / "seed_0" / f"fold_{k}" / "history.csv").read_text().splitlines()
        assert len(history) == 1 + 6
    report = json.loads((killed / "report.json").read_text())
    assert report["timing"]["epochs"] == plan["epochs"] and report["complete"]
    assert report["timing"]["predicted_seconds"] == plan["predicted_seconds"]
    assert json.loads((killed / "schedule.json").read_text())["epochs"] == plan["epochs"]


def test_the_seconds_before_each_kill_count_once(killed, capsys, interrupt):
    """A run that was killed after 40 minutes once reported its last minutes as its time."""
    timing = storage.read_json(killed / "timing.json")
    assert timing["epochs"] == {"mlp": 6}
    assert set(timing["seconds"]) == {"read", "folds", "plan", "train"}
    assert all(seconds >= 0 for seconds in timing["seconds"].values()) and timing["seconds"]["train"] > 0
    before = {**timing["seconds"], "plan": 100.0, "train": 2400.0}
    storage.write_json(killed / "timing.json", {**timing, "seconds": before})
    interrupt("cv", "--resume", "--run", "a")
    assert kit(capsys, "cv", "--resume", "--run", "a")[0] == 0
    after = json.loads((killed / "report.json").read_text())["timing"]["seconds"]
    assert 2400 < after["train"] < 2500 and after["plan"] == 100 and after["read"] > before["read"]
    assert storage.read_json(killed / "timing.json")["seconds"] == after


@pytest.mark.slow
def test_of_two_models_each_keeps_its_share_of_epochs_however_the_run_is_resumed(
        workplace, capsys, monkeypatch):
    """Cut by a third, killed at the second model, resumed with too little time, then with enough."""
    costs = {"mlp": Cost(20.0, 1.0, 1.0), "cnn": Cost(100.0, 1.0, 1.0)}
    options = ["--model", "mlp,cnn", "--limit", "20", "--folds", "2", "--executor", "local"]
    # on one worker: two folds each of 10 epochs of mlp and of 6 of cnn; 0.85 of a budget is planned with
    budget = f"{int((400 + 1200) * 0.7 / 0.85)}s"
    train_job = job_runner.train_job

    def up_to_the_second_model(plan, job, *rest):
        if job.model == "cnn":
            raise KeyboardInterrupt
        return train_job(plan, job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pace, "measure", lambda *_: costs)
        patch.setattr(job_runner, "train_job", up_to_the_second_model)
        code, _, err = kit(capsys, "cv", *options, "--run", "a", "--time-budget", budget)
    assert code == 130
    assert "2 folds of mlp, 7 of 10 epochs, 2 folds of cnn, 4 of 6 epochs: about " in err
    monkeypatch.setattr(pace, "measure", lambda *_: pytest.fail("it was measured before"))
    run, seconds = workplace / "runs" / "a", storage.read_json(workplace / "runs/a/timing.json")["seconds"]

    code, _, err = kit(capsys, "cv", "--resume", "--run", "a", "--time-budget", "500s")
    assert code == 0 and "still to do: 1 fold of cnn, 4 epochs: about " in err
    partial = storage.read_json(run / "report.json")
    assert not partial["complete"]
    assert partial["timing"]["seconds"]["train"] > seconds["train"]

    assert kit(capsys, "cv", "--resume", "--run", "a", "--time-budget", "2h")[0] == 0
    report = storage.read_json(run / "report.json")
    assert report["complete"] and report["timing"]["epochs"] == {"mlp": 7, "cnn": 4}
    for model, epochs in (("mlp", 7), ("cnn", 4)):
        for fold in (0, 1):
            history = run / model / "seed_0" / f"fold_{fold}" / "history.csv"
            assert len(storage.read_csv(history)) == epochs
