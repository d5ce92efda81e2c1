"""kit cv --against RUN trains in RUN's folds, and stops as soon as it is decided."""

import json

import numpy as np
import pytest

from kit.data.folds import load_folds
from kit.training.executors import Executor, rounds_of_folds
from tests.end_to_end.test_reliability import kit, two_lines

OPTIONS = ["--model", "mlp", "--limit", "60", "--executor", "local", "--tta", "1"]


def report_of(run):
    return json.loads((run / "report.json").read_text())


def trained(run):
    return sorted(int(path.parent.name[-1]) for path in run.glob("mlp/seed_*/fold_*/done.json"))


@pytest.fixture
def before(workplace, capsys):
    """A weak run; its folds are not those that a seed of 0 would make."""
    assert kit(capsys, "cv", *OPTIONS, "--epochs", "1", "--seed", "5", "--run", "before")[0] == 0
    return workplace / "runs" / "before"


def test_a_better_run_stops_early_and_resume_trains_the_rest(before, capsys, monkeypatch):
    after = before.with_name("after")
    better = [*OPTIONS, "--epochs", "8", "--run", "after", "--against", "before"]

    # Killed in its second round, it goes on with the comparison.
    train = Executor.train

    def killed_in_the_second_round(executor, plan, jobs, *arguments):
        if jobs and trained(after):
            raise KeyboardInterrupt
        return train(executor, plan, jobs, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Executor, "train", killed_in_the_second_round)
        code, _, err = kit(capsys, "cv", *better)
        assert code == 130 and "after 1 of 5 folds: after against before +" in err
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
            (["--against", "before", "--resume"], "--resume goes on with the comparison"),
            (["--against", "before", "--run", "before", "--force"], "compared with itself"),
            (["--against", "nothing"], "no OOF probs of 'nothing'")):
        code, _, err = kit(capsys, "cv", "--model", "mlp", *options)
        assert code == 2 and two_lines(err) and problem in err
    assert sorted(path.name for path in before.parent.iterdir()) == ["before", "same"]


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
    assert code == 2 and two_lines(err) and "before was trained on the drawn sample, not on" in err


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
