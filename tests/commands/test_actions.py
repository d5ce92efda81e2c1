"""The commands as functions: the same numbers, shown in words and pictures; loaded only when asked for."""

import dataclasses
import html.parser
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

import kit
from kit.commands import actions, find_runs
from kit.commands.command import Result
from kit.core import storage
from kit.core.errors import KitError
from kit.data import competition as competitions
from kit.data.competition import DIGIT_RECOGNIZER
from kit.data.source import DataFolder
from kit.ensembling import submission
from kit.pipeline import TrainedRun
from tests.data.tiny import TINY, write_folder
from tests.reporting.conftest import build, make_results

ROOT = Path(__file__).resolve().parents[2]
MNIST = dataclasses.replace(DIGIT_RECOGNIZER, shape=(2, 3))


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty current folder; a tiny competition beside the others, and MNIST of six pixels."""
    monkeypatch.setitem(competitions.COMPETITIONS, "tiny", TINY)
    monkeypatch.setitem(competitions.COMPETITIONS, "digit-recognizer", MNIST)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Page(html.parser.HTMLParser):
    """Words of a piece of HTML; every tag that is opened must be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags = [], "", []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data + " "


def python(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout


# -- the package's top level ----------------------------------------------------------------------------------------


def test_import_kit_loads_nothing_else():
    loaded = python("import sys; before = set(sys.modules); import kit; print(*(set(sys.modules) - before))").split()
    assert "kit" in loaded and not [name for name in loaded if name.startswith("kit.") or name in ("numpy", "pandas")]


def test_every_command_is_there_and_knows_what_it_does():
    for name in set(kit.__all__) - {"Augment", "recipe"}:  # which a file of one's own uses
        function = getattr(kit, name)
        assert function is getattr(actions, name) and function.__doc__
    assert kit.recipe.__doc__ and kit.Augment(shift=0.1).shift == 0.1
    assert set(kit.__all__) <= set(dir(kit))
    with pytest.raises(AttributeError, match="no attribute 'subnit'"):
        kit.subnit  # noqa: B018


def test_neither_tensorflow_nor_typer_is_needed_to_look_at_data():
    """Kaggle's image has no Typer; and who looks at a digit need not wait for TensorFlow."""
    python("import sys, kit; kit.download, kit.cv\n"
           "assert not {'tensorflow', 'keras', 'typer', 'matplotlib'} & set(sys.modules)")


# -- results --------------------------------------------------------------------------------------------------------


def test_a_result_is_a_dict_that_prints_its_lines_and_shows_itself():
    answer = Result({"a": 1}, ["a < b", "c"], banners=["Beware"], table=[["", "accuracy"], ["x", "1 %"]])
    assert answer == {"a": 1} and answer["a"] == 1 and str(answer) == repr(answer) == "Beware\na < b\nc"
    page = Page(answer._repr_html_())
    assert "a < b" in page.words and page.tags.count("td") == 2 and "1 %" in page.words
    assert "a &lt; b" in answer._repr_html_()


def test_download_and_show(workplace, capsys):
    write_folder(workplace / "given")
    data = kit.download("tiny", "given")
    assert isinstance(data, DataFolder) and len(data.train()) == 200 and "tiny is ready" in capsys.readouterr().out
    page = Page(data._repr_html_())
    assert page.tags.count("image") == 10 and page.tags.count("rect") == 10
    assert "200 training and 5 test digits" in page.words
    digit = kit.show(np.int64(13), "tiny")
    assert digit == {"row": 13, "label": 3} and str(digit).endswith("row 13: 3") and set(str(digit)) & set("▀▄█")
    assert Page(digit._repr_html_()).tags.count("image") == 1 and not set(digit._repr_html_()) & set("▀▄█")


def test_the_sample_is_called_one(workplace, monkeypatch):
    monkeypatch.setattr("kit.data.sample.draw_sample", lambda folder, competition: write_folder(folder, n_train=40))
    assert "Drawn sample" in Page(kit.download("tiny", "sample")._repr_html_()).words


def test_validate_and_score(workplace):
    rng = np.random.default_rng(0)
    np.savez("mnist.npz", x_train=rng.integers(0, 256, (20, 2, 3), np.uint8), y_train=np.arange(20) % 10,
             x_test=rng.integers(0, 256, (30, 2, 3), np.uint8), y_test=np.arange(30) % 10)
    data = kit.download("digit-recognizer", "mnist.npz")
    submission.write_submission(Path("submission.csv"), data.test().ids, np.eye(10)[np.zeros(30, int)], MNIST)
    assert kit.validate("submission.csv", "digit-recognizer") == {"ok": True, "problems": [], "notes": []}
    result = kit.score("submission.csv", "digit-recognizer")
    assert result["accuracy"] == 0.1 and Page(result._repr_html_()).tags.count("image") == 20
    Path("submission.csv").write_text("ImageId,Label\n1,0\n")
    answer = kit.validate("submission.csv", "digit-recognizer")
    assert not answer["ok"] and answer.lines == answer["problems"]


def test_expected_failures_are_two_lines_in_a_notebook():
    with pytest.raises(KitError) as caught:
        kit.show(0, "tiny")
    assert caught.value._render_traceback_() == str(caught.value).splitlines()
    assert [line.split(":")[0] for line in caught.value._render_traceback_()] == ["error", "fix"]


@pytest.fixture
def trained(monkeypatch):
    """cv and submit that have just trained: they leave the report of a run that never was."""
    results = make_results(n_writers=4, rows=20)
    asked = []

    def cv(config, data, run, progress, resume, force=False, time_target=None, against=None):
        asked.append(config)
        report = build(results)
        storage.write_json(run.path / "report.json", report)
        return TrainedRun(run, results, report)

    def submit(trained, submissions):
        return submissions / trained.run.name

    monkeypatch.setattr("kit.pipeline.cv", cv)
    monkeypatch.setattr("kit.pipeline.submit", submit)
    monkeypatch.setattr("kit.data.source.find_data", lambda competition, root: results.data)
    return asked


def test_cv_takes_the_commands_options_and_shows_the_report(trained, workplace):
    answer = kit.cv(model="cnn,mlp", folds=3, seeds=2, epochs=1, run="first", quiet=True)
    assert (trained[0].models, trained[0].n_folds, trained[0].n_seeds, trained[0].epochs) == (("cnn", "mlp"), 3, 2, 1)
    assert answer == storage.read_json(workplace / "runs" / "first" / "report.json")
    page = Page(answer._repr_html_())
    assert page.tags.count("tr") == 5 and page.tags.count("image") == min(12, len(answer["mistakes"])) + 36
    for words in ("held out", "baseline mlp", "leaderboard estimate", "Dig-MNIST.csv", *answer["verdict"]["points"]):
        assert words in page.words
    assert str(workplace / "runs") not in page.words and "runs/first/report.html" in str(answer)


def test_submit_says_where_the_submission_is(trained):
    answer = kit.submit(model="cnn", run="second", quiet=True)
    assert "submission: submissions/second/submission.csv" in str(answer)
    assert answer.folder == Path("submissions/second")


def test_runs_are_named_by_what_cv_returned(trained, monkeypatch):
    answer = kit.cv(model="cnn", run="first", quiet=True)
    monkeypatch.setattr(find_runs, "find_scored_folder", lambda name, *_: Path(name))
    monkeypatch.setattr("kit.reporting.compare.compare", lambda a, b: {"a": str(a), "b": str(b)})
    monkeypatch.setattr("kit.reporting.compare.lines", lambda result: [f"{result['a']} against {result['b']}"])
    assert str(kit.compare(answer, "second")) == "runs/first against second"


def test_numpy_s_integers_are_integers(trained):
    kit.cv(model="cnn", folds=np.int64(4), seeds=None, run="third", quiet=True)
    assert trained[0].n_folds == 4


def test_a_wrong_option_is_no_default(trained):
    with pytest.raises(TypeError, match="flods"):
        kit.cv(model="cnn", flods=3)


@pytest.mark.parametrize("call", [
    lambda: kit.cv(model="mlp", folds="5"), lambda: kit.cv(model="mlp", folds=2.5), lambda: kit.cv(model=5),
    lambda: kit.cv(model="mlp", epochs=1.5), lambda: kit.cv(model="mlp", limit=[]), lambda: kit.cv(run=5),
    lambda: kit.cv(force="no"), lambda: kit.cv(resume=np.array([1, 2])), lambda: kit.submit(fetch="yes"),
    lambda: kit.cv(data_dir=None), lambda: kit.cv(time_budget=[]), lambda: kit.cv(competition=None),
    lambda: kit.show("3"), lambda: kit.show(None), lambda: kit.validate(b"x.csv"), lambda: kit.validate("x", test=5),
    lambda: kit.score([]), lambda: kit.report({}), lambda: kit.compare("a", None), lambda: kit.predict("a", None, "b"),
    lambda: kit.download(source=5)])
def test_values_of_the_wrong_kind_are_two_lines(call):
    with pytest.raises(KitError, match=r"is not a whole number|is of the wrong kind"):
        call()


def test_a_number_in_quotes_is_shown_without_them(trained):
    for options, fix in (({"folds": "5"}, "write folds=5"), ({"epochs": "3"}, "write epochs=3"),
                         ({"seeds": []}, "write seeds=5")):
        with pytest.raises(KitError) as caught:
            kit.cv(model="mlp", **options)
        assert caught.value.fix == fix


def test_what_the_system_refuses_is_two_lines_in_a_notebook_as_well():
    with pytest.raises(KitError, match="File name too long"):
        kit.report("x" * 5000)


# -- the example ----------------------------------------------------------------------------------------------------


def test_the_example_is_committed_without_what_it_printed():
    cells = nbformat.read(ROOT / "docs" / "example.ipynb", as_version=4).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")


@pytest.mark.slow
def test_the_example_runs(workplace, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    example = nbformat.read(ROOT / "docs" / "example.ipynb", as_version=4)
    NotebookClient(example, timeout=1200, resources={"metadata": {"path": str(workplace)}}).execute()
    shown = ["".join(output["data"].get("text/html", "") for output in cell.outputs if "data" in output)
             for cell in example.cells if cell.cell_type == "code"]
    data, digit, first, _, second, valid, compared, examined = (Page(text) for text in shown)
    assert data.tags.count("image") == 10 and digit.tags.count("image") == 1
    for score in (first, second):
        assert "Drawn sample" in score.words and "held out" in score.words and score.tags.count("image") >= 36
    assert "acceptable" in valid.words and "over rows" in compared.words and "Python" in examined.words
    assert (workplace / "submissions" / "notebook-2" / "submission.csv").is_file()
