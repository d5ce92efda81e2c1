"""kit cv --against RUN trains in RUN's folds, and stops as soon as it is decided."""

import errno
import json
import shutil

import numpy as np
import pytest

from kit import pipeline
from kit.commands import cli
from kit.core import storage
from kit.data.folds import load_folds
from kit.reporting.against import Against
from kit.training.executors import Executor, rounds_of_folds
from tests.end_to_end.test_reliability import kit, refuse, two_lines

OPTIONS = ["--model", "mlp", "--limit", "60", "--executor", "local", "--tta", "1"]
BETTER = [*OPTIONS, "--epochs", "8", "--run", "after", "--against", "before"]


def report_of(run):
    return json.loads((run / "report.json").read_text())


def trained(run):
    return sorted(int(path.parent.name[-1]) for path in run.glob("mlp/seed_*/fold_*/done.json"))


@pytest.fixture(scope="module")
def trained_before(sample_data, tmp_path_factory):
    runs = tmp_path_factory.mktemp("before")
    assert cli.run(["cv", *OPTIONS, "--epochs", "1", "--seed", "5", "--run", "before", "--runs-dir",
                    str(runs), "--data-dir", str(sample_data)]) == 0
    return runs / "before"


@pytest.fixture
def before(trained_before, workplace):
    """A weak run; its folds are not those that a seed of 0 would make."""
    return shutil.copytree(trained_before, workplace / "runs" / "before")


@pytest.fixture
def kill(capsys, monkeypatch):
    """Interrupts a command in the first call of `owner.name` that is `when`; its stderr."""
    def interrupted(owner, name, *words, when=lambda *_: True):
        real = getattr(owner, name)

        def call(*arguments, **named):
            if when(*arguments):
                raise KeyboardInterrupt
            return real(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, call)
            code, _, err = kit(capsys, "cv", *words)
        assert code == 130, err
        return err

    return interrupted


def a_second_round(executor, plan, jobs, *_):
    return jobs and trained(plan.run)


@pytest.fixture
def begun(before, kill):
    """A run that is better than `before`, killed in its second round."""
    kill(Executor, "train", *BETTER, when=a_second_round)
    return before.with_name("after")


def test_a_better_run_stops_early_and_resume_trains_the_rest(before, capsys, kill):
    after = before.with_name("after")

    # Killed in its second round, it goes on with the comparison.
    err = kill(Executor, "train", *BETTER, when=a_second_round)
    assert "after 1 of 5 folds: after against before +" in err
    assert json.loads((after / "against.json").read_text())["rounds"] == [[0]]
    assert trained(after) == [0]
    code, out, err = kit(capsys, "cv", "--resume", "--run", "after")
    assert code == 0, err
    found = report_of(after)
    folds = found["against"]["folds"]
    assert found["against"]["run"] == "before" and found["against"]["outcome"] == "better"
    assert trained(after) == list(range(folds)) and folds < 5 and not found["complete"]
    assert f"decided after {folds} of 5 folds" in err and "decided after" in out
    assert "kit cv --resume --run after" in err
    assert [look["folds"] for look in found["against"]["looks"]] == list(range(1, folds + 1))
    assert "compared with before, and trained no further" in (after / "report.html").read_text()
    theirs, ours = load_folds(before / "folds.csv"), load_folds(after / "folds.csv")
    for name in ("rows", "fold", "writers"):
        assert np.array_equal(getattr(theirs, name), getattr(ours, name))

    assert kit(capsys, "cv", "--resume", "--run", "after")[0] == 0
    finished = report_of(after)
    assert finished["complete"] and trained(after) == [0, 1, 2, 3, 4]
    assert finished["against"] == found["against"]
    code, out, err = kit(capsys, "compare", "after", "before")
    assert code == 0 and f"decided after {folds} of 5 folds" in out, err


def test_the_same_once_more_differs_in_nothing_and_takes_one_fold(before, capsys):
    code, out, err = kit(capsys, "cv", *OPTIONS, "--epochs", "1", "--seed", "5", "--run", "same",
                         "--against", "before", "--json")
    assert code == 0, err
    found = json.loads(out)["against"]
    assert found["outcome"] == "none" and found["looks"][0]["chance"] == 0
    assert trained(before.with_name("same")) == [0]

    code, _, err = kit(capsys, "cv", *OPTIONS, "--run", "next", "--against", "same")
    assert code == 2 and two_lines(err) and "same has scored 1 of 5 folds" in err
    for options, problem in (
            (["--folds", "3", "--against", "before"], "--folds 3, but before has --folds 5"),
            (["--limit", "80", "--against", "before"], "--limit 80, but before has --limit 60"),
            (["--difference", "0.01"], "--difference says what matters"),
            (["--against", "before", "--difference", "2"], "--difference 2 is no difference"),
            (["--against", "before", "--self-train", "1"], "self-training begins when all"),
            (["--against", "before", "--split", "harder"], "--split harder, but before has"),
            (["--against", "before", "--run", "same", "--resume", "--difference", "0.01"],
             "was begun with --difference 0.001, not 0.01"),
            (["--against", "same", "--run", "same", "--resume"], "not with same"),
            (["--against", "same", "--run", "before", "--resume"], "begun without a comparison"),
            (["--against", "before", "--run", "before", "--force"], "compared with itself"),
            (["--against", "nothing"], "no run or submission 'nothing'")):
        code, _, err = kit(capsys, "cv", "--model", "mlp", *options)
        assert code == 2 and two_lines(err) and problem in err
    assert sorted(path.name for path in before.parent.iterdir()) == ["before", "same"]


def test_the_same_command_with_resume_goes_on_with_the_comparison(begun, capsys):
    code, _, err = kit(capsys, "cv", *BETTER, "--difference", "0.001", "--resume")
    assert code == 0, err
    assert report_of(begun)["against"]["outcome"] == "better" and len(trained(begun)) < 5


def test_self_training_is_refused_before_it_is_stored(begun, capsys):
    code, _, err = kit(capsys, "cv", "--resume", "--run", "after", "--self-train", "1")
    assert code == 2 and two_lines(err) and "self-training needs all" in err
    assert json.loads((begun / "config.json").read_text())["config"]["self_train"] == 0
    assert json.loads((begun / "against.json").read_text())["judgement"]["folds"] == 1


def test_no_submission_is_made_before_the_comparison_has_ended(begun, capsys):
    """A part of the folds would be handed in, where the comparison stops it."""
    code, _, err = kit(capsys, "submit", "--resume", "--run", begun.name)
    assert code == 2 and two_lines(err) and "with before is not finished" in err
    assert f"finish that first: kit cv --resume --run {begun.name}" in err
    assert not begun.parent.with_name("submissions").exists()


def test_what_is_there_is_looked_at_before_more_is_trained(before, capsys, kill):
    after, words = before.with_name("after"), ["--resume", "--run", "after"]
    kill(Against, "look", *BETTER)
    assert trained(after) == [0]
    assert json.loads((after / "against.json").read_text())["judgement"] is None
    err = kill(Executor, "train", *words, when=a_second_round)
    assert trained(after) == [0] and "after 1 of 5 folds: after against before +" in err
    looked = json.loads((after / "against.json").read_text())
    assert looked["rounds"] == [[0]] and looked["judgement"]["folds"] == 1
    kill(Executor, "train", *words, when=a_second_round)
    assert json.loads((after / "against.json").read_text()) == looked  # nothing new was seen


def test_a_last_fold_that_was_not_looked_at_is_looked_at(before, capsys):
    """Killed between its done.json and the look: no fold is left that a look could follow."""
    after = before.with_name("after")
    assert kit(capsys, "cv", *BETTER)[0] == 0 and kit(capsys, "cv", "--resume", "--run",
                                                      "after")[0] == 0
    stored = json.loads((after / "against.json").read_text())
    storage.write_json(after / "against.json", {**stored, "rounds": [], "judgement": None})
    code, _, err = kit(capsys, "cv", "--resume", "--run", "after")
    assert code == 0, err
    assert report_of(after)["against"]["folds"] == 5


def test_a_decided_run_that_was_killed_before_its_report_gets_it_first(before, capsys, kill):
    after = before.with_name("after")
    kill(pipeline, "_report", *BETTER)
    folds = trained(after)
    assert len(folds) < 5 and not (after / "report.json").exists()
    code, _, err = kit(capsys, "cv", "--resume", "--run", "after")
    assert code == 0 and "still to do" not in err, err
    assert trained(after) == folds and report_of(after)["against"]["outcome"] == "better"
    assert kit(capsys, "cv", "--resume", "--run", "after")[0] == 0
    assert report_of(after)["complete"]


def test_a_run_that_is_gone_or_made_again_is_named_with_two_ways_on(before, begun, capsys):
    words = ["--resume", "--run", "after"]
    before.rename(before.with_name("elsewhere"))
    code, _, err = kit(capsys, "cv", *BETTER, "--resume")
    assert code == 2 and two_lines(err) and "put before back into" in err
    assert f"remove {begun.relative_to(before.parents[1])}/against.json" in err

    # Made again: in as many folds, and in fewer
    for options, problem in (([], "made again since, with other folds"),
                             (["--folds", "3"], "--folds 5, but before has --folds 3")):
        assert kit(capsys, "cv", *OPTIONS, "--epochs", "1", "--seed", "6", "--run", "before",
                   "--force", *options)[0] == 0
        code, _, err = kit(capsys, "cv", *words)
        assert code == 2 and two_lines(err) and problem in err
    (begun / "against.json").unlink()
    assert kit(capsys, "cv", *words)[0] == 0
    assert report_of(begun)["complete"] and report_of(begun)["against"] is None


@pytest.mark.parametrize("name", ["folds.csv", *(pytest.param(name, marks=pytest.mark.slow) for name
                                                 in ("against.json", "config.json",
                                                     "schedule.json"))])
def test_a_run_that_a_full_disk_ended_still_has_the_other_runs_folds(before, capsys, monkeypatch,
                                                                     workplace, name):
    after = before.with_name("after")
    with monkeypatch.context() as patch:
        refuse(patch, workplace, f"runs/after/{name}", errno.ENOSPC)
        code, _, err = kit(capsys, "cv", *BETTER)
    assert code == 2 and two_lines(err), err
    resume = ["--resume"] if (after / "config.json").is_file() else []
    assert kit(capsys, "cv", *BETTER, *resume)[0] == 0
    assert np.array_equal(load_folds(before / "folds.csv").fold,
                          load_folds(after / "folds.csv").fold)
    assert report_of(after)["against"]["outcome"] == "better"


def test_a_comparison_that_could_not_begin_is_no_later_runs(before, capsys, monkeypatch, workplace):
    with monkeypatch.context() as patch:
        refuse(patch, workplace, "runs/after/config.json", errno.ENOSPC)
        assert kit(capsys, "cv", *BETTER)[0] == 2
    assert kit(capsys, "cv", *OPTIONS, "--epochs", "1", "--run", "after")[0] == 0
    assert not (before.with_name("after") / "against.json").exists()


def test_the_other_run_is_looked_for_where_the_runs_are(before, capsys, workplace):
    before.parent.rename(workplace / "elsewhere")
    words = ["--runs-dir", "elsewhere", "--model", "mlp"]
    code, _, err = kit(capsys, "cv", *OPTIONS, "--epochs", "1", "--seed", "5", "--run", "same",
                       "--against", "before", *words)
    assert code == 0, err
    code, _, err = kit(capsys, "cv", "--against", "same", *words)
    assert code == 2 and two_lines(err) and "kit cv --resume --run same --runs-dir elsewhere" in err

    # A submission, and a blend, which has none
    folder = workplace / "submissions" / "both"
    shutil.copytree(workplace / "elsewhere" / "same", folder)
    arrays = storage.read_npz(folder / "oof.npz")
    folds = load_folds(folder / "folds.csv")
    storage.write_npz(folder / "oof.npz", **arrays, label=folds.labels, fold=folds.fold)
    (folder / "folds.csv").unlink()
    code, _, err = kit(capsys, "cv", "--against", "both", *words)
    assert code == 2 and two_lines(err) and "kit submit --resume --run both" in err
    about = json.loads((folder / "config.json").read_text())
    storage.write_json(folder / "config.json", {**about, "blend": {"runs": [{"name": "one"},
                                                                            {"name": "two"}]}})
    code, _, err = kit(capsys, "cv", "--against", "both", *words)
    assert code == 2 and two_lines(err) and "is a blend" in err and "one, two" in err


def test_a_run_of_other_data_and_one_of_unlike_folds_are_refused(before, capsys):
    config = json.loads((before / "config.json").read_text())
    (before / "checksums.json").unlink(missing_ok=True)
    config["config"]["split"] = "harder"
    (before / "config.json").write_text(json.dumps(config))
    code, _, err = kit(capsys, "cv", *OPTIONS, "--against", "before")
    assert code == 2 and two_lines(err) and "before has the split harder" in err
    config["data"]["sha256"]["train.csv"] = "0" * 64
    (before / "config.json").write_text(json.dumps(config))
    code, _, err = kit(capsys, "cv", *OPTIONS, "--against", "before")
    assert code == 2 and two_lines(err) and "before was trained on another file, not on" in err
    config["data"]["is_sample"] = False
    (before / "config.json").write_text(json.dumps(config))
    code, _, err = kit(capsys, "cv", *OPTIONS, "--against", "before")
    assert code == 2 and two_lines(err) and "before was trained on real data, not on" in err
    assert "get the real data first: kit download --from kaggle" in err


def test_a_round_is_as_many_whole_folds_as_train_at_once():
    from kit.core.config import RunConfig
    from kit.training.jobs import Plan, make_jobs

    config = RunConfig(models=("cnn", "light"))
    plan = Plan(config, None, None, None, make_jobs(config, "float32"))
    rounds = rounds_of_folds(plan, list(plan.jobs), 4)
    assert [{job.fold for job in jobs} for jobs in rounds] == [{0, 1}, {2, 3}, {4}]
    assert sum(map(len, rounds)) == len(plan.jobs)
    rounds = rounds_of_folds(plan, list(plan.jobs), 1)
    assert [{job.fold for job in jobs} for jobs in rounds] == [{0}, {1}, {2}, {3}, {4}]
    assert rounds_of_folds(plan, [], 1) == []
