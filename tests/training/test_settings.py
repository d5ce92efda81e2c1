"""Which setting fits data and machine, and that what the user names goes before it."""

from pathlib import Path

import pytest

from kit.commands import request
from kit.core import backend
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.data import competition, source
from kit.training import models, settings
from tests.data.tiny import TINY, write_folder


@pytest.mark.parametrize(("is_sample", "limited", "gpus", "suitable"), [
    (True, False, ["T4"], ["sample"]), (False, True, [], ["quick"]), (False, False, [], ["cpu-45min", "quick"]),
    (False, False, ["T4"], ["t4x2-2h"])])
def test_those_that_suit_data_and_machine(monkeypatch, is_sample, limited, gpus, suitable):
    """On a CPU its pace decides, not what it is called: see test_planning."""
    monkeypatch.setattr(backend, "gpus", lambda: gpus)
    chosen, why = settings.suitable(is_sample, limited)
    assert [setting.name for setting in chosen] == suitable and why


def test_a_tpu_is_not_taken_for_a_cpu(monkeypatch):
    monkeypatch.setattr(backend, "gpus", lambda: [])
    monkeypatch.setattr(backend, "has_tpu", lambda: True)
    chosen, why = settings.suitable(False, False)
    assert [setting.name for setting in chosen] == ["t4x2-2h"] and why == "since there is a TPU"


def test_each_trains_what_the_registry_knows():
    for setting in settings.SETTINGS.values():
        assert [models.get(name).name for name in setting.models] == list(setting.models)
    assert [row["setting"] for row in settings.table()] == list(settings.SETTINGS)
    assert len(settings.lines()) == 1 + len(settings.SETTINGS)


def test_each_is_explained_where_settings_are():
    page = (Path(__file__).parents[2] / "docs" / "improve.md").read_text("utf-8")
    assert [name for name in settings.SETTINGS if f"| `{name}` |" not in page] == []


def test_the_table_says_what_a_setting_promises_and_the_least_that_it_trains():
    (row,) = [row for row in settings.table() if row["setting"] == "cpu-45min"]
    assert (row["minutes"], row["least_epochs"]) == (45, {"strong": 5})
    (line,) = [line for line in settings.lines() if line.startswith("cpu-45min")]
    assert line.split()[:5] == ["cpu-45min", "1", "own", "5", "45"]


def test_an_unknown_one_is_refused_with_the_choices():
    with pytest.raises(KitError, match="no setting 'fast'") as error:
        settings.get("fast")
    assert "cpu-45min" in error.value.fix


class Ear(Progress):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """`open_request` on tiny real data; its config and what was said."""
    monkeypatch.setitem(competition.COMPETITIONS, "tiny", TINY)
    write_folder(tmp_path / "tiny")
    source.download(TINY, tmp_path / "tiny", tmp_path)

    def asked(**options):
        ear = Ear()
        given = request.TrainingOptions(data_dir=tmp_path, runs_dir=tmp_path / "runs", **options)
        return request.open_request(TINY, given, ear).config, ear.said

    return asked


def test_what_the_user_names_goes_before_the_setting(ask):
    config, said = ask(setting="t4x2-2h", seeds=2)
    assert (config.models, config.n_seeds, config.epochs) == (("deep", "strong"), 2, None) and said == []
    config, said = ask(setting="t4x2-2h", model="cnn")
    assert (config.models, config.n_seeds, config.epochs) == (("cnn",), 4, None)
    config, said = ask(model="cnn")
    assert (config.models, config.n_seeds, config.epochs) == (("cnn",), 1, None) and said == []


def test_without_model_and_setting_the_choice_is_said(ask, monkeypatch):
    monkeypatch.setattr(backend, "gpus", lambda: ["T4"])
    config, said = ask()
    assert (config.models, config.n_seeds, config.self_train) == (("deep", "strong"), 4, 2)
    assert said == ["setting: t4x2-2h, for 2 hours on Kaggle's two T4s, not measured yet, since there is a GPU; choose "
                    "with --setting or --model"]
