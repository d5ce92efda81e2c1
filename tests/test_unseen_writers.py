"""scripts/unseen_writers.py: its networks know easier writers alone, and its tables say what they answered."""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.data.competition import KANNADA
from kit.data.source import DataFolder
from kit.data.table import Table
from kit.training import models
from tests.reporting.conftest import FakeData, digits, make_results

ROOT = Path(__file__).resolve().parent.parent
BLOCK, EIGHT = 20, 160  # rows of a writer, and of eight
HARD, EASY = KANNADA.writers_by_difficulty[:8], KANNADA.writers_by_difficulty[8:]


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
def test_a_network_learns_from_easier_writers_alone_and_answers_for_the_hardest(script, data, tmp_path, monkeypatch,
                                                                                extra):
    seen, said, real = {}, [], script.train_fold

    def watched(job, recipe, competition, fold_data, folder):
        seen["rows"] = fold_data.train_rows
        return real(job, recipe, competition, fold_data, folder)

    monkeypatch.setattr(script, "train_fold", watched)
    network = script.Network("light", 1, 0, extra)
    script.train_and_ask(network, data, tmp_path, "float32", said.append)
    known = seen["rows"][seen["rows"] < 47 * BLOCK]
    assert set(known // BLOCK) == set(EASY)
    assert len(seen["rows"]) - len(known) == (30 if extra else 0)
    answers = script.read_answers(tmp_path / "answers.npz", data, 0)
    assert set(answers.writers) == set(HARD) and answers.labels.tolist() == [*range(10)] * 16
    assert answers.raw.shape == answers.parts[8].shape == (1, EIGHT, 10)
    assert [part.shape for part in answers.parts[:8]] == [(1, EIGHT // 2, 10)] * 8
    script.train_and_ask(network, data, tmp_path, "float32", said.append)  # there already
    assert len(said) == 1 and "of 160 wrong by itself" in said[0]["text"]


def test_after_an_interruption_the_trained_network_answers_not_another(script, data, tmp_path):
    network = script.Network("mlp", 2, 0)
    script.train_and_ask(network, data, tmp_path / "a", "float32", lambda event: None)
    first = (tmp_path / "a" / "answers.npz").read_bytes()
    (tmp_path / "a" / "answers.npz").unlink()
    script.train_and_ask(replace(network, seed=1), data, tmp_path / "b", "float32", lambda event: None)
    script.train_and_ask(network, data, tmp_path / "a", "float32", lambda event: None)
    assert (tmp_path / "a" / "answers.npz").read_bytes() == first


def test_the_runs_of_an_eight_know_easier_writers_and_are_asked_about_a_half_of_it(script, data, tmp_path,
                                                                                   monkeypatch):
    """The last eight's know all others; nobody knows the file's last writer, whose block is short."""
    folder, words = tmp_path / KANNADA.slug, []
    folder.mkdir()
    labels, pixels = data.train().labels, np.arange(47 * BLOCK) // BLOCK  # a writer's own pixel
    (folder / "train.csv").write_text("label,pixel0\n" + "".join(
        f"{label},{pixel}\n" for label, pixel in zip(labels, pixels, strict=True)))
    (folder / "Dig-MNIST.csv").write_text("label,pixel0\n1,7\n")
    source = DataFolder(folder, KANNADA)
    monkeypatch.setattr(DataFolder, "train", lambda self: data.train())
    made = {}

    def kit(*of_command):
        words.append(list(map(str, of_command)))
        if of_command[0] == "download":
            made.update({path.name: path.read_text() for path in of_command[2].iterdir()})

    monkeypatch.setattr(script, "kit", kit)
    for eight, expected in ((0, set(EASY)), (3, set(KANNADA.writers_by_difficulty[32:])),
                            (4, set(KANNADA.writers_by_difficulty) - set(KANNADA.writers_by_difficulty[32:40]))):
        script.train_folds(eight, source, tmp_path / str(eight))
        known = [line.split(",") for line in made["train.csv"].splitlines()]
        assert known[0] == ["label", "pixel0"] and {int(pixel) for _, pixel in known[1:]} == expected - {46}
        asked = [line.split(",") for line in made["test.csv"].splitlines()]
        assert asked[0] == ["id", "pixel0"] and [row[0] for row in asked[1:]] == list(map(str, range(EIGHT // 2)))
        assert {int(pixel) for _, pixel in asked[1:]} <= set(KANNADA.writers_by_difficulty[8 * eight:8 * eight + 8])
    assert [line[0] for line in words] == ["download", "cv"] * 3
    assert "--train-extra" in words[1] and words[1][words[1].index("--epochs") + 1] == "6"


def test_another_training_file_is_refused(script):
    with pytest.raises(KitError, match="not the competition's own training file"):
        script.eight_of_rows(np.zeros(940, np.uint8))


def answers_of(script, networks=1):
    """104 rows of one writer misread, unsurely; label spreading mends every second one."""
    labels = np.tile(np.arange(10, dtype=np.uint8), 1024)
    probs = np.eye(10, dtype="float32")[labels] * .9 + .01
    raw, after, wrong = probs.copy(), probs.copy(), np.arange(0, 1035, 10)
    raw[wrong] = .55 * np.roll(probs[wrong], 1, axis=1) + .45 * probs[wrong]
    after[wrong[::2]] = raw[wrong[::2]]
    parts = [np.stack([after[rows]] * networks) for rows in script.rows_of_parts(len(labels))]
    return script.Answers(np.stack([raw] * networks), parts, labels, np.repeat(np.arange(8), 1280))


def test_a_line_of_the_recipes_has_the_errors_of_each_seed(script):
    answers = {network: answers_of(script) for network in script.COMPARED}
    lines = list(script.recipe_table(answers, {network: 60.0 + network.seed for network in answers}))
    assert len(lines) == 2 + len(models.RECIPES) + 1
    assert {line.count("|") for line in lines} == {9}
    light = next(line for line in lines if line.startswith("| `light` |"))
    assert "| 12 | 61 |" in light and "104, 104, 104: 104.0 ± 0.0 | 0.9898 ± 0.0000" in light
    assert light.endswith(f"| {models.get('light').accuracy:.4f} |")
    halves = [np.sum(rows < 1035) for rows in script.rows_of_parts(10_240)[:8]]
    assert 23 < float(light.split(":")[2].split()[0]) < 29 and len(set(halves)) > 1  # 52 of all, about 26 of a half
    mlp = next(line for line in lines if line.startswith("| `mlp` |"))
    assert mlp.split(" | ")[5] == ""  # nothing is spread


def test_a_pair_is_compared_seed_by_seed(script):
    answers = {network: answers_of(script) for network in script.COMPARED}
    light = next(network for network in script.COMPARED if network.name == "`light`" and network.seed == 1)
    worse = [part.copy() for part in answers[light].parts]
    for k, rows in enumerate(script.rows_of_parts(10_240)):
        worse[k][:, rows >= 10_220] = 0.1  # all ten are best, so the first class is read: 18 of 20 are wrong
    answers[light] = replace(answers[light], parts=worse)
    lines = list(script.pair_table(answers))
    assert len(lines) == 2 + len(script.PAIRS)
    line = next(line for line in lines if line.startswith("| `strong` | `light` |"))
    assert re.search(r"\| a half of the hardest eight, spread \| [+-]0, -(7|8|9|10|11), [+-]0: -", line)
    assert line.endswith(f"| {models.get('strong').accuracy:.4f}, {models.get('light').accuracy:.4f} |")
    assert "each row by itself | +0, +0, +0: +0.0 ± 0.0 |" in lines[2]


def test_the_steps_are_those_of_the_ensemble(script):
    one = answers_of(script, networks=2)
    raw, prior, after, after_prior, known, after_known = one.probs_of_steps(8)
    np.testing.assert_allclose(raw, one.raw[0], rtol=1e-6)
    assert [one.errors(8, probs) for probs in (raw, after)] == [104, 52]
    assert one.errors(8, known) < 104 and one.errors(8, after_known) < 52  # of each writer 128 of a class
    assert prior.argmax(1).tolist() != raw.argmax(1).tolist() and len(after_prior) == 10_240
    assert np.bincount(known.argmax(1), minlength=10) == pytest.approx([1024] * 10, abs=3)

    rows = [line.strip("| ").split(" | ") for line in script.step_table([one] * 5)][2:]
    assert [row[0] for row in rows] == ["1–8", "9–16", "17–24", "25–32", "33–40", "all eights"] * 2
    assert rows[6][2] == "1.02" and rows[6][4] == "0.51" and rows[-1][2] == "1.02 ± 0.00"
    assert "±" in rows[0][2]


@pytest.mark.parametrize(("n", "pool", "variance"), [(5_120, 10_240, 256.025), (640, 1_280, 32.025), (1_280, 1_280, 0)])
def test_a_half_leaves_the_class_counts_open_and_a_whole_does_not(script, n, pool, variance):
    """Hypergeometric: n/k · (N − n)/(N − 1)."""
    assert script.count_variance(n, 10, pool) == pytest.approx(variance, rel=1e-4)


def test_an_interval_holds_where_the_truth_is_in_it(script):
    inside, above, below = [.99, .985, .995, .99], [.99, .985, .995, .996], [.99, .985, .995, .98]
    lines = list(script.estimate_table([np.array([inside] * 8), np.array([inside] * 6 + [above, below])]))
    assert [line.strip("| ").split(" | ")[-2:] for line in lines[2:4]] == [["8", "0.0100"], ["6", "0.0100"]]
    assert lines[-1].strip() == "It held for 14 of 16 halves, and for all halves of 1 of 2 eights."


def test_the_report_s_estimate_is_asked_about_each_half(script, monkeypatch):
    """Of the ensemble that answered it, and compared with the labels that it would hand in."""
    one, asked = answers_of(script, networks=2), []

    def estimate(results):
        asked.append(results)
        return {"value": .99, "low": .98, "high": 1.0}

    monkeypatch.setattr(script, "gather", lambda run, data, timing: make_results())
    monkeypatch.setattr(script, "estimate", estimate)
    found = script.estimates(Path("run"), None, one)
    assert found[:, :3].tolist() == [[.99, .98, 1.0]] * 8
    for k, results in enumerate(asked):
        np.testing.assert_array_equal(results.members[0].test, one.parts[k])
        np.testing.assert_allclose(results.test, one.parts[k][0], rtol=1e-6)
        assert found[k, 3] == 1 - one.errors(k, results.submitted) / 5_120
    assert len(asked) == 8
