"""`kit blend`: from two runs to a submission that every command takes; then what it refuses."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import kit
from kit.commands import cli
from kit.core import storage
from kit.core.errors import KitError
from kit.data.competition import KANNADA
from kit.ensembling.prior import class_prior

QUICK = ["--model", "mlp", "--epochs", "1", "--limit", "20", "--executor", "local", "--quiet"]


@pytest.fixture(scope="module")
def trained(sample_data, tmp_path_factory):
    """A folder with two runs of other seeds and folds, and a third of fewer rows."""
    folder = tmp_path_factory.mktemp("trained")
    places = ["--data-dir", str(sample_data), "--runs-dir", str(folder / "runs")]
    for name, more in (("a", ["--folds", "2"]), ("b", ["--folds", "3", "--seed", "7"]),
                       ("few", ["--folds", "2", "--limit", "8"])):
        assert cli.run(["submit", *QUICK, *more, *places, "--run", name,
                        "--submissions", str(folder / "submissions")]) == 0
    return folder


@pytest.fixture
def workplace(trained, sample_data, tmp_path, monkeypatch):
    for name in ("runs", "submissions"):
        shutil.copytree(trained / name, tmp_path / name)
    (tmp_path / "data").symlink_to(sample_data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_two_runs_become_a_submission_that_every_command_takes(workplace, capsys):
    code, out, err = run(capsys, "blend", "a", "b", "--run", "both")
    assert code == 0 and "Drawn sample" in out and "submissions/both/submission.csv" in out
    assert "weights: a 0.5, b 0.5" in err
    folder = workplace / "submissions" / "both"
    assert sorted(path.name for path in folder.iterdir()) == [
        ".gitignore", "checksums.json", "config.json", "oof.npz", "report.html", "report.json",
        "submission.csv", "test.npz"]
    parts = [storage.read_npz(workplace / "runs" / name / "test.npz") for name in "ab"]
    mean = (parts[0]["probs"] + parts[1]["probs"]) / 2
    labels = class_prior("auto", KANNADA, mean).apply(mean).argmax(1)
    handed_in = pd.read_csv(folder / "submission.csv")
    assert handed_in["id"].tolist() == parts[0]["id"].tolist()
    np.testing.assert_array_equal(handed_in["label"], labels)
    about = storage.read_json(folder / "config.json")
    assert about["command"] == "kit blend a b --run both" and about["config"]["models"] == ["mlp"]
    assert [part["weight"] for part in about["blend"]["runs"]] == [0.5, 0.5]
    report = storage.read_json(folder / "report.json")
    assert [part["name"] for part in report["blend"]["runs"]] == ["a", "b"]
    assert report["dig_mnist"]["rows"] > 0 and report["cv"]["keeps_writers_apart"]

    assert run(capsys, "validate", folder / "submission.csv")[0] == 0
    code, out, _ = run(capsys, "compare", "both", "a")
    assert code == 0 and "both is" in out
    shutil.copytree("runs/b", "elsewhere/old-b")
    code, out, _ = run(capsys, "compare", "both", "old-b", "--runs-dir", "elsewhere")
    assert code == 0 and "both is" in out and "old-b" in out
    code, out, _ = run(capsys, "report", "both")
    assert code == 0 and "Drawn sample" in out
    again = storage.read_json(folder / "report.json")
    assert again.pop("timing") and report.pop("timing") and again == report
    assert run(capsys, "ledger", "show")[0] == 0
    again = ["blend", "both", "a", "--run", "again", "--weights", "oof", "--json", "--quiet"]
    code, out, _ = run(capsys, *again)
    said = json.loads(out)
    assert code == 0 and said["blend"]["how"] == "oof" and len(said["blend"]["fit"]["weights"]) == 5
    assert said["dig_mnist"] is None  # a blend's folder has no probs of it
    assert run(capsys, "report", "again")[0] == 0


def test_submissions_are_blended_where_their_runs_are_gone(workplace, capsys):
    shutil.rmtree("runs")
    assert run(capsys, "blend", "a", "submissions/b", "--run", "both", "--quiet")[0] == 0
    notes = storage.read_json(workplace / "submissions/both/report.json")["notes"]
    assert any("Dig-MNIST.csv is left out" in note for note in notes)
    assert run(capsys, "report", "both")[0] == 0


def test_a_run_from_before_dig_mnist_was_there_is_blended_without_it(workplace, capsys):
    about = storage.read_json(workplace / "runs/a/config.json")
    del about["data"]["sha256"]["Dig-MNIST.csv"]
    storage.write_json(workplace / "runs/a/config.json", about)
    for extra in workplace.glob("runs/a/*/seed_*/fold_*/extra.npz"):
        extra.unlink()
    shutil.copytree("submissions/b", "submissions/c")
    for name, runs in (("ab", ["a", "b"]), ("bac", ["b", "a", "c"])):
        code, _, err = run(capsys, "blend", *runs, "--run", name, "--quiet")
        assert code == 0, err
        report = storage.read_json(workplace / "submissions" / name / "report.json")
        note, = [note for note in report["notes"] if "Dig-MNIST.csv is left out" in note]
        assert "it was not in the data folder when a began" in note and not report["dig_mnist"]
        assert ("submission has no probs of it (c)" in note) == (name == "bac")


def test_a_damaged_submission_of_a_run_is_still_written_anew(workplace, capsys):
    (workplace / "submissions/a/config.json").write_text("{}")
    assert run(capsys, "report", "a")[0] == 0
    assert storage.read_json(workplace / "submissions/a/config.json")["config"]["models"] == ["mlp"]


def test_a_notebook_blends_what_its_runs_returned(workplace):
    one = kit.report("a")
    both = kit.blend([one, "b"], run="both", weights=[3, 1], quiet=True)
    assert [part["weight"] for part in both["blend"]["runs"]] == [0.75, 0.25]
    assert "held out" in both._repr_html_() and both.folder.name == "both"
    words = kit.blend(["a", "b"], run="words", weights=["3", "1"], quiet=True)
    assert [part["weight"] for part in words["blend"]["runs"]] == [0.75, 0.25]
    assert storage.read_json(words.folder / "config.json")["blend"]["weights"] == "3,1"
    assert str(kit.compare(both, one))
    for call in (lambda: kit.blend("a", run="x"), lambda: kit.blend(["a", "b"], weights=0.5),
                 lambda: kit.blend(["a", 5])):
        with pytest.raises(KitError):
            call()


@pytest.mark.parametrize(("arguments", "said"), [
    (["a", "bb"], ["there is no run or submission 'bb'", "did you mean b? Else choose one of: a, b, few"]),
    (["a", "b", "--run", "c/d"], ["is a path, not the name of a run", "--submissions"]),
    (["a"], ["at least two runs"]),
    (["a", "few"], ["few has scored 80 training rows, and not the same 200 as a", "--limit"]),
    (["a", "b", "--run", "b"], ["'b'", "choose another name with --run"]),
    (["a", "b", "--run", "few"], ["the run 'few' exists in runs", "choose another name"]),
    (["a", "b", "--run", "few", "--force"], ["the run 'few' exists in runs"]),
    (["a", "b", "--weights", "0.9"], ["1 numbers for 2 runs", "--weights 2,1"]),
    (["a", "b", "--class-prior", "same"], ["--class-prior 'same' is unknown"]),
    (["a", "b", "--upload"], ["takes notebooks, not files", "kit submit --model mlp"]),
    (["a", "b", "--data-dir", "elsewhere"], ["the drawn data that a was trained on is not in elsewhere",
                                           "kit download --from sample --data-dir elsewhere;"]),
    (["a", "submissions/a"], ["'a' is given twice"]),
])
def test_what_is_wrong_is_said_in_two_lines(workplace, capsys, arguments, said):
    before = sorted(workplace.glob("submissions/*"))
    code, out, err = run(capsys, "blend", *arguments)
    lines = [line for line in err.splitlines() if line.startswith(("error: ", "fix: "))]
    assert code == 2 and out == "" and len(lines) == 2
    for words in said:
        assert words in err
    assert sorted(workplace.glob("submissions/*")) == before


def test_a_blend_is_replaced_only_with_force_and_has_no_models(workplace, capsys):
    blend = ["blend", "a", "b", "--run", "both", "--quiet"]
    assert run(capsys, *blend)[0] == 0
    code, _, err = run(capsys, *blend)
    assert code == 2 and "the blend 'both' exists in submissions" in err and "--force" in err
    assert run(capsys, *blend, "--force", "--weights", "3,1")[0] == 0
    for arguments in (["predict", "both", "--test", "x.csv", "--out", "y.csv"],
                      ["kernel", "build", "--run", "both", "--mode", "predict", "--user", "ada"]):
        code, _, err = run(capsys, *arguments)
        assert code == 2 and "'both' is a blend" in err and "a, b" in err
    shutil.rmtree("runs/b")
    shutil.rmtree("submissions/b")
    code, _, err = run(capsys, "report", "both")
    assert code == 2 and "the run b, of which both was blended, is no longer in runs/b" in err
    assert "put its folder back" in err and "other probs" not in err
    shutil.copytree("runs/a", "runs/b")
    code, _, err = run(capsys, "report", "both")
    assert code == 2 and "was made again since, in runs/b" in err and "--force" in err


def test_where_a_submission_alone_is_left_its_run_was_not_made_again(workplace, capsys):
    assert run(capsys, "blend", "a", "b", "--run", "both", "--quiet")[0] == 0
    shutil.rmtree("runs/b")
    code, _, err = run(capsys, "report", "both")
    assert code == 2 and "is no longer in runs/b, and submissions/b has other probs" in err
    assert "put its folder back, or blend again" in err


def test_runs_from_elsewhere_are_found_again(workplace, tmp_path_factory, monkeypatch, capsys):
    shutil.copytree("runs/b", "attic/old/b2")
    outside = tmp_path_factory.mktemp("outside")
    shutil.copytree("runs/b", outside / "b3")
    assert run(capsys, "blend", "a", "attic/old/b2", "--run", "both", "--quiet")[0] == 0
    assert run(capsys, "blend", "both", outside / "b3", "--run", "more", "--quiet")[0] == 0
    for name, places in (("both", ["runs/a", "attic/old/b2"]), ("more", ["submissions/both", None])):
        text = (workplace / "submissions" / name / "config.json").read_text()
        assert [part["folder"] for part in json.loads(text)["blend"]["runs"]] == places
        assert str(outside) not in text and str(workplace) not in text
    assert run(capsys, "report", "both")[0] == 0
    code, _, err = run(capsys, "report", "more")
    assert code == 2 and "the run b3, of which more was blended, is neither in runs nor in submissions" in err
    assert run(capsys, "report", "more", "--runs-dir", outside)[0] == 0
    # The project may be moved, and the command given in another folder.
    moved = workplace.rename(workplace.with_name("moved"))
    monkeypatch.chdir(moved.parent)
    code, _, err = run(capsys, "report", "both", "--submissions", moved / "submissions",
                       "--data-dir", moved / "data")
    assert code == 0, err


def test_a_run_does_not_take_the_name_of_a_blend_unless_forced(workplace, capsys):
    assert run(capsys, "blend", "a", "b", "--run", "both", "--quiet")[0] == 0
    submit = ["submit", *QUICK, "--folds", "2", "--run", "both"]
    before = storage.read_json("submissions/both/config.json")
    code, _, err = run(capsys, *submit)
    assert code == 2 and "submissions/both is a blend" in err and "--force" in err
    for words in ([], ["--force"]):  # which would not replace the blend: kit cv writes no submission
        code, _, err = run(capsys, "cv", *QUICK, "--folds", "2", "--run", "both", *words)
        assert code == 2 and "'both' is a blend" in err and "kit runs remove submissions/both" in err
    assert not (workplace / "runs/both").exists()
    # A run of that name that is there already leaves the blend alone, too.
    shutil.copytree("runs/a", "runs/both")
    code, _, err = run(capsys, "submit", "--resume", "--run", "both")
    assert code == 2 and "kit runs remove submissions/both" in err
    assert run(capsys, "report", "runs/both")[0] == 0
    assert storage.read_json("submissions/both/config.json") == before
    assert run(capsys, *submit, "--force")[0] == 0
    assert "blend" not in storage.read_json("submissions/both/config.json")
