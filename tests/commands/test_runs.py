"""`kit runs` lists what is there, whoever wrote it; `kit runs remove` removes that alone, and nothing in use."""

import json

import numpy as np
import pytest

import kit
from kit.commands import cli
from kit.core import storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder

REPORT = {"complete": True, "data": {"source": "kaggle", "is_sample": False},
          "cv": {"split": "writer", "oof_accuracy": 0.98765},
          "leaderboard_estimate": {"value": 0.971, "low": 0.96, "high": 0.98}}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_run(path, created="2026-11-28T10:00:00+00:00", report=REPORT, folds=0, config=None, without=()):
    """A run as far as the list looks at it; `without` keys that an older kit did not write."""
    about = {"config": config or RunConfig(models=("cnn", "light"), n_folds=3).to_dict(), "created": created,
             "git_commit": COMMIT, "data": {"source": "kaggle", "is_sample": False, "sha256": {}},
             "settled": {"precision": "float32", "executor": "local", "threads": 1, "backend": "tensorflow"}}
    storage.write_json(path / "config.json", {key: value for key, value in about.items() if key not in without})
    if report:
        storage.write_json(path / "report.json", report)
    for k in range(folds):
        storage.write_json(RunFolder(path).fold("cnn", 0, k) / "done.json", {})
    return path


def write_submission(path, **options):
    write_run(path, **options)
    (path / "submission.csv").write_text("id,label\n0,1\n")
    return path


def run(capsys, *arguments):
    code = cli.run(["runs", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# -- the list -------------------------------------------------------------------------------------------------------


def test_runs_and_submissions_with_their_scores_and_how_far_they_have_come(workplace, capsys):
    write_run(workplace / "runs" / "early", "2026-11-26T10:00:00+00:00", report=None, folds=2)
    write_run(workplace / "runs" / "short", "2026-11-27T10:00:00+00:00", {**REPORT, "complete": False})
    write_run(workplace / "runs" / "done", folds=3)
    write_submission(workplace / "submissions" / "done")
    storage.write_npz(workplace / "runs" / "done" / "oof.npz", compress=False, probs=np.zeros(500_000))
    (workplace / "runs" / "no-run").mkdir()
    entries = kit.runs()["runs"]
    assert [(entry["name"], entry["kind"], entry["state"]) for entry in entries] == [
        ("done", "run", "finished"), ("short", "run", "partial"), ("early", "run", "unfinished"),
        ("submissions/done", "submission", "finished")]
    done, _, early, _ = entries
    assert done["cv_accuracy"] == 0.98765 and (done["estimate_low"], done["estimate_high"]) == (0.96, 0.98)
    assert done["models"] == ("cnn", "light") and done["competition"] == "kannada-mnist" and not done["is_sample"]
    assert done["bytes"] == sum(path.stat().st_size for path in (workplace / "runs" / "done").rglob("*")
                                if path.is_file()) > 4e6
    assert early["cv_accuracy"] is None and early["folds"] == (2, 9)  # two models and the baseline
    code, out, _ = run(capsys)
    assert code == 0 and "unfinished, 2 of 9 folds" in out and "98.77\u00a0%" in out and "2026-11-28 10:00" in out
    assert [line.split()[0] for line in out.splitlines()[1:5]] == [entry["name"] for entry in entries]
    code, out, _ = run(capsys, "--json", "--runs-dir", "elsewhere")
    assert code == 0 and [entry["name"] for entry in json.loads(out)["runs"]] == ["submissions/done"]
    assert "<pre" in kit.runs()._repr_html_()


def test_an_empty_list_says_what_makes_a_run(capsys):
    assert run(capsys)[1] == "no runs yet: kit cv, or kit submit, makes one\n"


def test_a_run_that_trains_is_listed_as_such_even_with_an_old_report(workplace):
    folder = RunFolder(write_run(workplace / "runs" / "busy"))
    with folder.lock():
        assert kit.runs()["runs"][0]["state"] == "training"
    assert kit.runs()["runs"][0]["state"] == "finished"


def test_what_other_versions_of_the_kit_wrote_is_read_or_refused_by_name(workplace, capsys):
    old = RunConfig().to_dict()
    del old["class_prior"]
    write_run(workplace / "runs" / "balanced", "2026-11-24", config={**old, "balanced": True})
    write_run(workplace / "runs" / "oldest", "2026-11-21", config=old, without=["settled"])
    write_run(workplace / "runs" / "newer", "2027-01-01", config={**RunConfig().to_dict(), "colour": 3})
    (workplace / "runs" / "damaged").mkdir()
    (workplace / "runs" / "damaged" / "config.json").write_text("{")
    found = {entry["name"]: entry for entry in kit.runs()["runs"]}
    assert found["balanced"]["state"] == "finished" and found["balanced"]["notes"] == []
    assert found["oldest"]["state"] == "finished" and "from before 2026-11-22" in found["oldest"]["notes"][0]
    assert found["newer"]["state"] == found["damaged"]["state"] == "unreadable"
    assert "unknown keys: colour (written by the kit's commit 0123456789ab)" in found["newer"]["notes"][0]
    assert found["newer"]["cv_accuracy"] == 0.98765  # its report is there all the same
    out = run(capsys)[1]
    assert all(f"{name}: " in out for name in ("oldest", "newer", "damaged"))
    assert run(capsys, "remove", "newer", "damaged", "oldest", "--yes")[0] == 0
    assert [entry["name"] for entry in kit.runs()["runs"]] == ["balanced"]


@pytest.mark.parametrize("content", ["[]", "3", '{"config": [], "created": 5, "data": []}'])
def test_a_config_that_is_no_config_keeps_nothing_else_from_being_listed(workplace, content):
    write_run(workplace / "runs" / "good")
    (workplace / "runs" / "odd").mkdir()
    (workplace / "runs" / "odd" / "config.json").write_text(content)
    states = {entry["name"]: entry["state"] for entry in kit.runs()["runs"]}
    assert states == {"good": "finished", "odd": "unreadable"}


# -- removing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 1), ("no\n", 1)])
def test_it_asks_first_and_names_what_would_go(workplace, capsys, monkeypatch, answer, code):
    write_run(workplace / "runs" / "a", folds=2)
    monkeypatch.setattr("builtins.input", lambda: answer.strip())
    said = run(capsys, "remove", "a", "--json")
    assert said[0] == code and "runs/a: run, finished" in said[2] and "remove? [y/N]" in said[2]
    assert json.loads(said[1])["removed"] == ["runs/a"] * (code == 0)
    assert (workplace / "runs" / "a").exists() == (code == 1)


def test_where_nobody_answers_nothing_goes(workplace, capsys, monkeypatch):
    def nobody():
        raise EOFError

    write_run(workplace / "runs" / "a")
    monkeypatch.setattr("builtins.input", nobody)
    code, _, err = run(capsys, "remove", "a")
    assert code == 2 and err.endswith("fix: give --yes (in a notebook yes=True)\n")
    assert (workplace / "runs" / "a" / "config.json").is_file()


def test_a_run_goes_with_all_that_lies_in_it_and_its_submission_stays(workplace, capsys):
    for name in ("a", "b", "c"):
        write_run(workplace / "runs" / name, folds=3)
        write_submission(workplace / "submissions" / name)
    (workplace / "runs" / "a" / ".lock").write_text("")
    code, out, _ = run(capsys, "remove", "a", "runs/b", "a", "--yes")
    assert code == 0 and out.splitlines() == ["removed runs/a", "removed runs/b", "0.0 MB freed"]
    assert [path.name for path in (workplace / "runs").iterdir()] == ["c"]
    assert sorted(path.name for path in (workplace / "submissions").iterdir()) == ["a", "b", "c"]
    assert kit.remove_runs("c", yes=True)["removed"] == ["runs/c"] and not list((workplace / "runs").iterdir())


def test_a_submission_goes_only_by_its_path(workplace, capsys):
    write_submission(workplace / "submissions" / "a")
    code, _, err = run(capsys, "remove", "a", "--yes")
    assert code == 2 and "fix: to remove that, name it so: kit runs remove submissions/a" in err
    assert (workplace / "submissions" / "a" / "submission.csv").is_file()
    assert run(capsys, "remove", "submissions/a", "--yes")[0] == 0
    assert not (workplace / "submissions" / "a").exists()


def test_a_run_that_trains_stays_and_so_do_the_others_that_were_named(workplace):
    busy, idle = (RunFolder(write_run(workplace / "runs" / name)) for name in ("busy", "idle"))
    with busy.lock():
        with pytest.raises(KitError, match="runs/busy is training"):
            kit.remove_runs(["idle", "busy"], yes=True)
        with pytest.raises(KitError, match="is in use by process") as caught:  # one that began after the look
            busy.remove()
        assert "ended" in caught.value.fix and "--run" not in caught.value.fix
    assert busy.config.is_file() and idle.config.is_file()


@pytest.mark.parametrize("name", ["nothing", "..", ".", "/", "~", "runs", "runs/..", "../runs/a/..", "elsewhere/a",
                                  "submissions", "submissions/notes", "no-run", ""])
def test_nothing_else_can_be_removed(workplace, name):
    for folder in ("runs/a", "elsewhere/a"):
        write_run(workplace / folder)
    for file in ("submissions/notes/diary.txt", "runs/no-run/diary.txt"):
        (workplace / file).parent.mkdir(parents=True)
        (workplace / file).write_text("mine")
    before = sorted(workplace.rglob("*"))
    with pytest.raises(KitError):
        kit.remove_runs(name, yes=True)
    assert [path for path in sorted(workplace.rglob("*")) if not path.name.startswith(".lock")] == before


def test_a_misspelt_name_gets_the_nearest_one(workplace):
    write_run(workplace / "runs" / "before")
    for name, said in (("befor", "did you mean before?"), ("elsewhere/before", "name it as kit runs does")):
        with pytest.raises(KitError) as caught:
            kit.remove_runs(name, yes=True)
        assert caught.value.fix.startswith(said)


def test_a_link_is_removed_with_what_it_leads_to(workplace):
    target = write_run(workplace / "big-disk" / "a", folds=1)
    (workplace / "runs").mkdir()
    (workplace / "runs" / "a").symlink_to(target)
    kit.remove_runs("a", yes=True)
    assert not list((workplace / "runs").iterdir()) and not list(target.iterdir())


def test_an_option_before_remove_is_refused(workplace, capsys):
    write_run(workplace / "elsewhere" / "a")
    code, _, err = run(capsys, "--runs-dir", "elsewhere", "remove", "a", "--yes")
    assert code == 2 and "fix: write it at the end: kit runs remove … --runs-dir" in err
    assert run(capsys, "remove", "a", "--yes", "--runs-dir", "elsewhere")[0] == 0
