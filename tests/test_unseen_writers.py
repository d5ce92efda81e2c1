"""scripts/unseen_writers.py: its networks learn from easier writers alone, and its tables say what they answered."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.core import storage
from kit.data.competition import KANNADA
from kit.data.table import Table
from kit.training import models
from tests.reporting.conftest import FakeData, digits

ROOT = Path(__file__).resolve().parent.parent
BLOCK, EIGHT = 20, 160  # rows of a writer, and of eight


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("unseen_writers")
    monkeypatch.setattr(script, "KANNADA", replace(KANNADA, writer_block=BLOCK))
    return script


@pytest.fixture
def data():
    """47 writers of 20 digits each."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(10, dtype=np.uint8), 47 * BLOCK // 10)

    def table(name, labels):
        return Table(Path(name), digits(labels, rng), labels, None, "0" * 64, ())

    return FakeData({"train": table("train.csv", labels), "test": None,
                     "extra": table("Dig-MNIST.csv", labels[:30])})


@pytest.mark.parametrize("extra", [False, True])
def test_a_network_learns_from_easier_writers_alone_and_answers_for_an_eight(script, data, tmp_path, monkeypatch,
                                                                             extra):
    seen = {}
    real = script.train_fold

    def watched(job, recipe, competition, fold_data, folder):
        seen["rows"] = fold_data.train_rows
        return real(replace(job, epochs=1), recipe, competition, fold_data, folder)

    monkeypatch.setattr(script, "train_fold", watched)
    said = []
    network = script.Network("light", eight=1, extra=extra)
    script.ask(network, data, tmp_path, "float32", said.append)
    known = seen["rows"][seen["rows"] < 47 * BLOCK]
    assert set(known // BLOCK) == set(KANNADA.writers_by_difficulty[16:])
    assert len(seen["rows"]) - len(known) == (30 if extra else 0)
    answers = storage.read_npz(tmp_path / "answers.npz", "row", "raw", "halves", "whole", "seconds")
    assert set(answers["row"] // BLOCK) == set(KANNADA.writers_by_difficulty[8:16])
    assert answers["raw"].shape == answers["whole"].shape == (EIGHT, 10)
    assert answers["halves"].shape == (8, EIGHT // 2, 10)
    script.ask(network, data, tmp_path, "float32", said.append)  # there already
    assert len(said) == 1 and "of 160 wrong by itself" in said[0]["text"]


def test_after_an_interruption_the_trained_network_answers_not_another(script, data, tmp_path):
    network = script.Network("mlp", eight=3)
    script.ask(network, data, tmp_path, "float32", lambda event: None)
    first = (tmp_path / "answers.npz").read_bytes()
    (tmp_path / "answers.npz").unlink()
    script.ask(replace(network, seed=1), data, tmp_path.parent / "other", "float32", lambda event: None)
    script.ask(network, data, tmp_path, "float32", lambda event: None)
    assert (tmp_path / "answers.npz").read_bytes() == first


def test_another_training_file_is_refused(script):
    with pytest.raises(SystemExit, match="not the competition's own training file"):
        script.eight_of_rows(np.zeros(940, np.uint8))


@pytest.fixture
def answers(script):
    """Each network misreads every tenth row, all of one writer's, and label spreading mends half of them."""
    def of(network):
        labels = np.tile(np.arange(10, dtype=np.uint8), 1024)
        probs = np.eye(10, dtype="float32")[labels] * .9 + .01
        raw, after = probs.copy(), probs.copy()
        wrong = np.arange(0, 1024, 10) + network.seed
        raw[wrong] = .55 * np.roll(probs[wrong], 1, axis=1) + .45 * probs[wrong]
        after[wrong[::2]] = raw[wrong[::2]]
        parts = [after[rows] for rows in script.rows_of_parts(len(labels))]
        return script.Answers(raw, parts, labels, np.repeat(np.arange(8), 1280), 60.0)

    return {network: of(network) for network in (*script.COMPARED, *script.OF_EIGHTS)}


def test_the_tables_say_what_was_answered(script, answers, tmp_path):
    lines = list(script.recipe_table({network: answers[network] for network in script.COMPARED}))
    assert len(lines) == 2 + len(models.RECIPES) + 1
    light = next(line for line in lines if line.startswith("| `light` |"))
    assert "103, 103, 103: 103.0 ± 0.0 | 0.9899 ± 0.0000" in light and "0.9960" in light
    assert next(line for line in lines if "`mlp`" in line).count("|") == light.count("|")

    rows = [line.strip("| ").split(" | ") for line in script.step_table(answers)][2:]
    assert [row[0] for row in rows] == ["1–8", "9–16", "17–24", "25–32", "33–40", "all"] * 2
    whole = dict(zip(script.STEPS, rows[6][2:], strict=True))
    assert whole["raw"] == "1.01" and whole["spread"] == "0.51"
    assert float(whole["writers known"]) < 1.01 and float(whole["spread, writers known"]) < .51
    assert rows[-1][2].startswith("1.01 ± 0.00")

    labels = np.tile(np.arange(10, dtype=np.uint8), 6000)
    rows = np.arange(60_000)
    probs = np.eye(10, dtype="float32")[labels] * .9 + .01
    wrong = np.random.default_rng(0).permutation(60_000)[:600]
    probs[wrong] = np.roll(probs[wrong], 1, axis=1)
    storage.write_npz(tmp_path / "oof.npz", probs=probs, label=labels, row=rows, writer=rows // 1280)
    script.KANNADA = KANNADA
    table = list(script.estimate_table(answers, tmp_path, labels))
    assert len(table) == 2 + 5 + 1
    assert table[-1].endswith("of 40 halves.")
