"""What is typed or passed becomes what is meant: names, addresses, paths with `~`; and runs that are taken up again."""

import datetime
import gzip
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import kit
from kit.commands import cli, find_runs, request
from kit.commands.command import command
from kit.commands.request import TrainingOptions
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.data import competition
from tests.data.tiny import TINY, write_folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(competition.COMPETITIONS, "tiny", TINY)


@pytest.mark.parametrize("name", [
    "kannada-mnist", "Kannada-MNIST", "c/Kannada-MNIST", "/c/Kannada-MNIST/", "competitions/Kannada-MNIST",
    "https://www.kaggle.com/c/Kannada-MNIST", "kaggle.com/competitions/kannada-mnist/overview", "Kannada MNIST",
    "https://www.kaggle.com/competitions/Kannada-MNIST/data?select=train.csv", "http://kaggle.com/c/Kannada-MNIST#x"])
def test_a_competition_as_people_write_it(name):
    assert competition.get(name).slug == "kannada-mnist"


@pytest.mark.parametrize(("name", "fix"), [
    ("kanada-mnist", "did you mean kannada-mnist?"), ("imagenet", "choose one of: digit-recognizer, kannada-mnist"),
    ("c/", "choose one of"), ("https://www.kaggle.com/code/somebody/kannada-mnist", "choose one of"), ("", "choose")])
def test_what_is_no_competition_of_the_kit(name, fix):
    with pytest.raises(KitError, match="no competition") as caught:
        competition.get(name)
    assert fix in caught.value.fix


# -- `~` ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with the tiny competition's files in `given`, and another folder to be in."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_folder(tmp_path / "home" / "given")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def test_home_is_known_in_every_path_of_the_command_line(home):
    common = ["--competition", "tiny", "--data-dir=~/data", "--quiet"]
    assert cli.run(["download", "--from=~/given", *common]) == 0
    assert (home / "data" / "tiny" / "train.csv").is_file()
    assert cli.run(["validate", "~/given/sample_submission.csv", "--test=~/given/test.csv", *common]) == 0
    assert cli.run(["show", "3", "--out=~/three.svg", *common]) == 0 and (home / "three.svg").is_file()
    assert cli.run(["kernel", "build", "--out=~/kernel", "--user", "me", "--quiet"]) == 0
    assert (home / "kernel" / "kernel-metadata.json").is_file() and not list(Path().iterdir())


def test_what_kaggle_takes_is_exit_code_0_and_its_notes_are_shown(home, capsys):
    write_folder(home / "data" / "tiny")
    rows = (home / "given" / "sample_submission.csv").read_bytes().splitlines()
    Path("mine.csv.gz").write_bytes(gzip.compress(b"\r\n".join([rows[0], *rows[:0:-1]]) + b"\r\n"))
    command = ["validate", "mine.csv.gz", "--competition", "tiny", "--data-dir", str(home / "data")]
    assert cli.run(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "mine.csv.gz: acceptable" and [line[:6] for line in said[1:]] == ["note: "] * 3
    assert cli.run([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] and answer["problems"] == [] and answer["notes"] == [line[6:] for line in said[1:]]
    assert kit.validate("mine.csv.gz", "tiny", data_dir=home / "data") == answer
    Path("bom.csv").write_bytes(b"\xef\xbb\xbf" + b"\n".join(rows) + b"\n")
    assert cli.run(["validate", "bom.csv", *command[2:]]) == 1
    assert "Kaggle wants the header to match exactly" in capsys.readouterr().out


def test_home_is_known_in_every_path_option_there_will_be(home):
    """`command` does it for all of them, so no command has to remember; see test_cli.py for their kinds."""
    @command
    def some(file: str | Path, out: str | Path | None = None, text: str = "") -> list:
        return [file, out, text]

    assert some(Path("~/a.csv"), out=Path("~/b"), text="~/c") == [home / "a.csv", home / "b", "~/c"]


def test_home_is_known_in_a_notebook(home):
    data = kit.download("tiny", "~/given", data_dir="~/data")
    assert data.path == home / "data" / "tiny"
    assert kit.validate(Path("~/given/sample_submission.csv"), "tiny", test="~/given/test.csv")["ok"]
    with pytest.raises(KitError, match=f"no data of tiny in {home}/none"):
        kit.cv("tiny", model="mlp", data_dir="~/none")


def test_a_run_in_the_home_folder_is_found_and_a_name_that_begins_so_is_one(home):
    for run in (home / "runs" / "first", Path("runs/~second")):
        run.mkdir(parents=True)
        for name in ("config.json", "folds.csv", "oof.npz"):
            (run / name).write_text("")
    first = home / "runs" / "first"
    assert find_runs.find_run("~/runs/first").path == find_runs.find_scored_folder("~/runs/first") == first
    assert find_runs.find_run("~second").path == Path("runs/~second")


@pytest.mark.parametrize("name", ["handed-in", "submissions/handed-in"])
def test_a_submission_without_its_run_has_no_report_to_write_again(home, name):
    """As one that is committed; `kit runs` lists it, so people try."""
    folder = Path("submissions/handed-in")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"config": {}, "command": "kit submit --model cnn --run handed-in"}')
    (folder / "submission.csv").write_text("id,label\n")
    with pytest.raises(KitError) as caught:
        kit.report(name)
    assert "no run 'handed-in' in runs; submissions/handed-in is only its submission" in caught.value.message
    assert "submissions/handed-in/report.html" in caught.value.fix
    assert caught.value.fix.endswith("train it again: kit submit --model cnn --run handed-in")


def test_a_misspelt_name_gets_the_nearest_one(home):
    Path("submissions/strong-cpu/weights").mkdir(parents=True)
    for file in ("submissions/strong-cpu/weights/folds.json", "submissions/strong-cpu/oof.npz"):
        Path(file).write_text("{}")
    Path("runs/after").mkdir(parents=True)
    Path("runs/after/config.json").write_text("{}")
    for find, name, said in (
            (find_runs.find_trained, "strong-cp", "did you mean strong-cpu? Else choose one of: after, strong-cpu"),
            (find_runs.find_scored_folder, "strong-cp", "did you mean strong-cpu? Else choose one of: strong-cpu"),
            (find_runs.find_run, "aftre", "did you mean after? Else choose one of: after"),
            (find_runs.find_run, "zzz", "choose one of: after")):
        with pytest.raises(KitError, match=f"there is no run.*'{name}'") as caught:
            find(name)
        assert caught.value.fix == said
    with pytest.raises(KitError, match="no run 'aftr' in runs to resume") as caught:
        request.open_request(TINY, TrainingOptions(resume=True, run="aftr"), Progress())
    assert caught.value.fix.startswith("did you mean after?")


def test_a_path_given_as_a_run_s_name_is_told_where_it_goes(home, capsys):
    write_folder(home / "data" / "tiny")
    assert cli.run(["cv", "--competition", "tiny", "--data-dir=~/data", "--model", "mlp", "--run=~/runs/a"]) == 2
    assert "--runs-dir" in capsys.readouterr().err


def test_numpy_s_numbers_are_numbers_in_every_option(home, monkeypatch):
    write_folder(home / "data" / "tiny")
    given = TrainingOptions(data_dir=home / "data", model="mlp", epochs=np.int64(3), folds=np.int32(4))
    opened = request.open_request(TINY, given, Progress())
    assert opened.config.epochs == 3 and opened.config.n_folds == 4


# -- runs that nobody named -----------------------------------------------------------------------------------------


@pytest.fixture
def noon(monkeypatch):
    class Noon:
        now = staticmethod(lambda: datetime.datetime(2026, 11, 22, 12, 0, 0))

    monkeypatch.setattr(request, "datetime", Noon)


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(home, noon, monkeypatch):
    """Whoever makes the folder has the name: there is no moment between looking and taking."""
    write_folder(home / "data" / "tiny")
    together = threading.Barrier(8)
    runs = []

    def cv(config, data, run, progress, resume, force=False, time_target=None, against=None):
        assert list(run.path.iterdir()) == []
        (run.path / "config.json").write_text("{}")
        runs.append(run.name)
        return run.path

    monkeypatch.setattr("kit.pipeline.cv", cv)

    def begin(_):
        opened = request.open_request(TINY, TrainingOptions(data_dir=home / "data", model="mlp"), Progress())
        together.wait(20)
        return opened.cv(Progress())

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(begin, range(8)))
    assert sorted(runs) == sorted(path.name for path in paths) == [
        "mlp-20261122-120000", *(f"mlp-20261122-120000-{n}" for n in range(2, 9))]


def test_a_run_that_could_not_begin_leaves_no_folder(home, monkeypatch):
    write_folder(home / "data" / "tiny")

    def no(*_, **__):
        raise KitError("it cannot be", "change it")

    monkeypatch.setattr("kit.pipeline.cv", no)
    with pytest.raises(KitError, match="it cannot be"):
        request.open_request(TINY, TrainingOptions(data_dir=home / "data", model="mlp"), Progress()).cv(Progress())
    assert list(Path("runs").iterdir()) == []


def test_models_of_the_split_harder_are_not_handed_in(home):
    write_folder(home / "data" / "tiny")
    options = TrainingOptions(data_dir=home / "data", model="mlp", split="harder")
    opened = request.open_request(TINY, options, Progress())
    assert opened.config.n_folds == 3
    with pytest.raises(KitError, match="not to be handed in"):
        opened.submit(home / "submissions", False, "", Progress())
    assert not (home / "runs").exists()
