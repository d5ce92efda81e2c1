"""Whatever happens to the training, the kernel ends well, in time, with a valid submission, and says what it is."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.data.competition import KANNADA
from kit.ensembling.submission import validate
from kit.runtime import main, mounts, supervisor
from kit.runtime.current_probs import read_current_probs
from tests.rehearsal.kernels import write_data

SETTINGS = {"competition": "kannada-mnist", "mode": "train", "models": ["cnn"], "folds": 3, "seeds": 1, "epochs": 1,
            "self_train": 0, "seed": 0, "class_prior": "auto", "minutes": 1}
MLP, CNN = "mlp/seed_0/fold_", "cnn/seed_0/fold_"
CHILD = Path(__file__).with_name("child.py")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_KAGGLE_ROOT", str(tmp_path / "kaggle"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    write_data(tmp_path / "kaggle" / "input" / "competitions" / "kannada-mnist", test_rows=23)
    (tmp_path / "kaggle" / "working").mkdir()
    return tmp_path / "kaggle"


def run(root, behaviour=None, **settings):
    """Run the kernel with the stand-in for a child: exit code, labels, report, seconds."""
    began = time.monotonic()
    code = main.main(SETTINGS | settings, lambda args: [
        sys.executable, str(CHILD), json.dumps(behaviour or {}), json.dumps(asdict(args))])
    working = root / "working"
    lines = (working / "submission.csv").read_text().split()[1:]
    return code, [int(line.split(",")[1]) for line in lines], json.loads((working / "report.json").read_text()), \
        time.monotonic() - began


def check_valid(root, ids=None):
    assert validate(root / "working" / "submission.csv", KANNADA,
                    np.arange(23) if ids is None else ids).problems == []


def test_a_submission_that_could_not_be_written_is_tried_again_with_the_next_fold(root, monkeypatch):
    submit, refused = main.KernelRun.write_submission, []

    def disk_full_once(kernel, probs):
        if kernel.outcome.starts == 0 and kernel.run.path.is_dir() and not refused:
            refused.append(len(probs))
            raise OSError(28, "No space left on device")
        submit(kernel, probs)

    monkeypatch.setattr(main.KernelRun, "write_submission", disk_full_once)
    _, _, report, _ = run(root, folds=1)
    log = (root / "working" / "kernel.log").read_text()
    assert refused == [23] and report["complete"] and "could not update the submission" in log
    assert "the submission is now the ensemble's" in log
    check_valid(root)


def test_every_seed_is_planned_and_counts(root):
    _, _, report, _ = run(root, seeds=2)
    assert not report["complete"]  # the stand-in for a child trains the first seed alone
    assert sorted(report["kernel"]["missing_folds"]) == [f"cnn/seed_1/fold_{k}" for k in (0, 1, 2)]


def test_labels_are_chosen_under_the_class_prior(root, monkeypatch):
    monkeypatch.setattr("kit.ensembling.prior.LEAST_ROWS", 10)
    monkeypatch.setattr("kit.ensembling.prior.ClassPrior.apply",
                        lambda prior, probs: probs if prior.spread is None
                        else np.roll(probs, 1, axis=1))
    assert run(root, class_prior="equal")[1] == [3] * 23
    assert run(root, class_prior="none")[1] == [2] * 23
    assert run(root)[1] == [2] * 23  # 23 rows that all read as twos: no random part of a pool with equal classes


def test_all_folds_done_is_complete(root, capsys):
    code, labels, report, _ = run(root, {"slow": 0.7})
    check_valid(root)
    assert code == 0
    assert labels == [2] * 23
    assert (report["complete"], report["used"]) == (True, "ensemble")
    assert sorted(report["kernel"]["folds"]) == [CNN + "0", CNN + "1", CNN + "2"]
    assert report["kernel"]["missing_folds"] == {}
    log = (root / "working" / "kernel.log").read_text()
    places = [log.index(words) for words in ("first submission for 23 ids", "now the baseline's", "now the ensemble's")]
    assert places == sorted(places)
    assert "ensemble, 3 folds, complete" in log and " 1 folds" not in log
    assert capsys.readouterr().out == log


def test_each_finished_round_of_self_training_is_handed_in(root):
    _, labels, report, _ = run(root, {"slow": 0.6}, self_train=2, folds=2)
    check_valid(root)
    assert labels == [4] * 23
    assert (report["complete"], report["kernel"]["rounds"], report["kernel"]["missing_rounds"]) == (True, 2, {})
    log = (root / "working" / "kernel.log").read_text()
    places = [log.index(f"now the ensemble's, of 2 folds{after};") for after in (
        "", " after 1 round of self-training", " after 2 rounds of self-training")]
    assert places == sorted(places)
    assert "2 folds after 2 rounds of self-training, complete" in log.splitlines()[-1]


@pytest.mark.parametrize(("behaviour", "minutes", "label", "missing"), [
    ({f"{CNN}1/guesses_2": "raise"}, 1, 3, {"2": "failed"}),
    ({f"{CNN}1/guesses_1": "die"}, 1, 2, {"1": "failed", "2": "failed"}),
    ({f"{CNN}1/guesses_2": "hang"}, 12 / 60, 3, {"2": "no time"}),
    ({f"{CNN}0/guesses_1": "hang"}, 12 / 60, 2, {"1": "no time", "2": "no time"}),
    ({f"{CNN}0/guesses_2": "garbage"}, 1, 3, {"2": "damaged"}),
    ({f"{CNN}0/guesses_2": "wrong"}, 1, 3, {"2": "has not learnt"}),
    ({f"{CNN}0": "raise"}, 1, 2, {"1": "folds are missing", "2": "folds are missing"})])
def test_a_round_that_goes_wrong_leaves_what_was_there_before_it(root, behaviour, minutes, label, missing):
    code, labels, report, seconds = run(root, behaviour, self_train=2, folds=2, minutes=minutes)
    check_valid(root)
    assert (code, labels) == (0, [label] * 23)
    assert not report["complete"] and seconds < 60 * minutes
    told = report["kernel"]["missing_rounds"]
    assert list(told) == list(missing) and all(why in told[n] for n, why in missing.items())
    assert report["kernel"]["rounds"] == 2 - len(missing)
    assert sorted(report["kernel"]["missing_folds"]) == ([CNN + "0"] if behaviour.get(CNN + "0") else [])


@pytest.mark.parametrize("how", ["die", "raise"])
def test_a_fold_that_takes_its_child_down_is_left_out_and_the_others_are_trained(root, how):
    code, labels, report, _ = run(root, {CNN + "1": how})
    check_valid(root)
    assert code == 0
    assert labels == [2] * 23
    assert (report["complete"], report["used"]) == (False, "ensemble")
    assert sorted(report["kernel"]["folds"]) == [CNN + "0", CNN + "2"]
    assert report["kernel"]["missing_folds"] == {CNN + "1": "failed"}
    assert report["kernel"]["children"] == 2
    assert ("signal 9" if how == "die" else "exit code 1") in " ".join(report["kernel"]["events"])


@pytest.mark.parametrize("innocent, culprit", [("0", "1"), ("1", "0")])
def test_of_two_folds_under_way_only_the_one_that_took_the_child_down_is_left_out(root, innocent, culprit):
    _, labels, report, _ = run(root, {"n_parallel": 2, CNN + culprit: "die"}, minutes=5)
    check_valid(root)
    assert labels == [2] * 23
    assert report["kernel"]["missing_folds"] == {CNN + culprit: "failed"}
    assert sorted(report["kernel"]["folds"]) == [CNN + innocent, CNN + "2"]
    assert report["kernel"]["children"] == 3


def test_where_neither_of_two_folds_does_it_again_several_are_trained_at_a_time_again(root):
    _, _, report, _ = run(root, {"n_parallel": 2, CNN + "1": "die in company", CNN + "2": "hang alone"}, minutes=5)
    check_valid(root)
    assert (report["complete"], report["kernel"]["missing_folds"]) == (True, {})
    assert report["kernel"]["events"] == [
        "the child was killed by signal 9", f"one of {CNN}0, {CNN}1 did it: now one at a time",
        "none of them did it again: now several at a time"]


def test_a_child_that_dies_from_outside_in_the_second_fold(root):
    def kill():
        for _ in range(2000):  # a hundred seconds: the kernel reads its data first
            time.sleep(0.05)
            with contextlib.suppress(OSError, ValueError):  # not there yet, or looked at while it was being written
                heart = json.loads((root / "working" / "run" / supervisor.HEARTBEAT).read_text())
                if heart["jobs"] == [CNN + "1"]:
                    os.kill(child_pids()[0], signal.SIGKILL)
                    return

    thread = threading.Thread(target=kill)
    thread.start()
    code, labels, report, _ = run(root, {CNN + "1": "hang"}, minutes=2)
    thread.join()
    check_valid(root)
    assert (code, report["complete"], report["used"]) == (0, False, "ensemble")
    assert labels == [2] * 23
    assert report["kernel"]["missing_folds"] == {CNN + "1": "failed"}
    assert "the child was killed by signal 9" in report["kernel"]["events"]


def child_pids():
    """Training children of this process; it may have others, such as multiprocessing's resource tracker."""
    me = str(os.getpid())
    return [int(entry.parent.name) for entry in Path("/proc").glob("[0-9]*/stat")
            if entry.read_text().rpartition(")")[2].split()[1] == me
            and b"child.py" in (entry.parent / "cmdline").read_bytes()]


def test_the_budget_ends_after_the_first_fold(root):
    code, labels, report, seconds = run(root, {CNN + "1": "hang"}, minutes=12 / 60)
    check_valid(root)
    assert seconds < 12
    assert (code, report["complete"], report["used"], labels) == (0, False, "ensemble", [2] * 23)
    assert list(report["kernel"]["folds"]) == [CNN + "0"]
    assert report["kernel"]["missing_folds"] == {CNN + "1": "no time", CNN + "2": "no time"}


def test_the_budget_ends_within_the_baseline(root):
    code, labels, report, seconds = run(root, {MLP + "1": "hang"}, minutes=12 / 60)
    check_valid(root)
    assert seconds < 12
    assert (code, report["used"], labels) == (0, "baseline", [1] * 23)
    assert "the time is over" in " ".join(report["kernel"]["events"])


def test_a_child_that_hangs_is_replaced(root, monkeypatch):
    monkeypatch.setattr(main, "STALL_SECONDS", (4.0, 4.0))
    _, _, report, _ = run(root, {CNN + "1": "hang"})
    check_valid(root)
    assert sorted(report["kernel"]["folds"]) == [CNN + "0", CNN + "2"]
    assert "the child hung" in report["kernel"]["events"][0]


def test_a_child_that_takes_too_much_memory_is_replaced(root, monkeypatch):
    monkeypatch.setattr(main.system, "memory_limit", lambda: 1 << 20)
    _, _, report, _ = run(root, {"slow": 1.0})
    check_valid(root)
    assert "GiB of memory" in report["kernel"]["events"][0]
    assert report["kernel"]["children"] >= 2


def test_a_short_limit_of_the_surroundings_shortens_the_budget(root, monkeypatch):
    monkeypatch.setenv("KIT_TIME_LIMIT", "30")
    assert run(root)[2]["kernel"]["budget_seconds"] == pytest.approx(27.6)


def test_a_fold_that_has_not_learnt_does_not_vote(root):
    _, _, report, _ = run(root, {CNN + "2": "wrong"})
    assert sorted(report["kernel"]["folds"]) == [CNN + "0", CNN + "1"]
    assert "has not learnt" in report["kernel"]["missing_folds"][CNN + "2"]
    log = (root / "working" / "kernel.log").read_text()
    assert log.count(f"{CNN}2 is left out: has not learnt") == 1  # not at each update again
    assert report["complete"] is False


def test_a_fold_that_cannot_be_read_does_not_vote(root):
    _, _, report, _ = run(root, {CNN + "0": "garbage"})
    check_valid(root)
    assert sorted(report["kernel"]["folds"]) == [CNN + "1", CNN + "2"]
    assert "damaged" in report["kernel"]["missing_folds"][CNN + "0"]


def test_where_nothing_trains_the_nearest_class_mean_is_handed_in(root):
    code, labels, report, _ = run(root, {key + str(k): "raise" for key in (MLP, CNN) for k in range(3)})
    check_valid(root)
    assert code == 0
    assert (report["used"], report["complete"]) == ("fallback", False)
    assert labels == [i % 10 for i in range(23)]  # the data is that easy


def test_a_child_that_cannot_even_start_is_given_up(root):
    began = time.monotonic()
    code = main.main(SETTINGS, lambda args: [sys.executable, "-c", "raise SystemExit(7)"])
    report = json.loads((root / "working" / "report.json").read_text())
    check_valid(root)
    assert (code, report["used"], report["kernel"]["children"]) == (0, "fallback", supervisor.IDLE_FAILURES)
    assert time.monotonic() - began < 30


def test_a_command_that_does_not_exist_still_leaves_a_submission(root):
    assert main.main(SETTINGS, lambda args: ["/no/such/python"]) == 0
    check_valid(root)
    assert "work failed" in (root / "working" / "kernel.log").read_text()


def test_a_training_file_that_cannot_be_read(root):
    (root / "input" / "competitions" / "kannada-mnist" / "train.csv").write_text("label,pixel0\nseven,0\n")
    code, _, report, _ = run(root, {MLP + "0": "raise"}, models=[])
    check_valid(root)
    assert code == 0
    assert any("train.csv" in event for event in report["kernel"]["events"])


def test_a_test_file_that_cannot_be_read_still_gives_its_ids(root):
    test = root / "input" / "competitions" / "kannada-mnist" / "test.csv"
    test.write_text(test.read_text().replace(",", ",x", 790).replace("id,x", "id,"))
    assert main.main(SETTINGS, lambda args: [sys.executable, "-c", "raise SystemExit(1)"]) == 0
    assert len((root / "working" / "submission.csv").read_text().split()) == 24


def test_no_data_at_all_is_said_and_ends_well(root, capsys):
    for path in (root / "input" / "competitions" / "kannada-mnist").iterdir():
        path.unlink()
    assert main.main(SETTINGS, lambda args: ["/no/such/python"]) == 0
    assert not (root / "working" / "submission.csv").exists()
    assert "kannada-mnist has no test.csv; in it there is nothing; remove the competition" in capsys.readouterr().out
    assert json.loads((root / "working" / "report.json").read_text())["used"] == "fallback"


def test_sigterm_ends_it_early_and_well(root):
    code = ("import sys; from kit.runtime import main; "
            f"main.main({SETTINGS!r}, lambda args: [sys.executable, '-c', 'import time; time.sleep(600)'])")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL,
                               env={**os.environ, "PYTHONPATH": str(Path(main.__file__).parents[2])})
    for _ in range(300):
        time.sleep(0.1)
        if (root / "working" / "submission.csv").exists():
            break
    time.sleep(1)
    process.terminate()
    assert process.wait(20) == 0
    check_valid(root)
    report = json.loads((root / "working" / "report.json").read_text())
    assert "asked to stop by SIGTERM" in report["kernel"]["events"]


# -- what it is made of ---------------------------------------------------------------------------------------------


def lay(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(f"{folder}/{name}")
    return folder


@pytest.mark.parametrize("place", ["competitions/kannada-mnist", "competitions/Kannada-MNIST", "kannada-mnist",
                                   "Kannada-MNIST", "somewhere/new/Kannada-MNIST"])
def test_the_data_is_found_wherever_kaggle_mounts_it(tmp_path, place):
    for other in ("another-dataset", "competitions/a-competition", "datasets/me/kannada-mnist", "zz"):
        lay(tmp_path / other, "test.csv")
    folder = lay(tmp_path / place, "test.csv")
    assert mounts.find_data(tmp_path, KANNADA) == folder


def test_of_two_mounts_the_layout_of_today_goes_first(tmp_path):
    lay(tmp_path / "Kannada-MNIST", "test.csv")
    assert mounts.find_data(tmp_path, KANNADA) == tmp_path / "Kannada-MNIST"
    lay(tmp_path / "competitions" / "Kannada-MNIST", "test.csv")
    assert mounts.find_data(tmp_path, KANNADA) == tmp_path / "competitions" / "Kannada-MNIST"


@pytest.mark.parametrize("other", ["competitions/digit-recognizer", "digit-recognizer", "datasets/me/kannada-mnist"])
def test_the_test_file_of_another_one_is_not_taken(tmp_path, other):
    lay(tmp_path / other, "test.csv", "train.csv")
    with pytest.raises(KitError, match=f"no folder kannada-mnist .* mounted there is {other}\n") as caught:
        mounts.find_data(tmp_path, KANNADA)
    assert "add the competition as an input" in caught.value.fix


def test_each_way_to_lack_the_data_is_said(tmp_path):
    with pytest.raises(KitError, match=r"there is no folder .*nothing, which is where Kaggle mounts data"):
        mounts.find_data(tmp_path / "nothing", KANNADA)
    (tmp_path / "input").mkdir()
    with pytest.raises(KitError, match="mounted there is nothing\n"):
        mounts.find_data(tmp_path / "input", KANNADA)
    lay(tmp_path / "input" / "Kannada-MNIST", "train.csv")
    with pytest.raises(KitError, match=r"Kannada-MNIST has no test.csv; in it there is train.csv"):
        mounts.find_data(tmp_path / "input", KANNADA)


WEIGHTS = "someone/a-kernel-weights"


@pytest.mark.parametrize("place", ["datasets/someone/a-kernel-weights", "someone/a-kernel-weights", "a-kernel-weights",
                                   "datasets/Someone/a-kernel-weights", "somewhere/new"])
def test_the_weights_are_found_in_every_layout(tmp_path, place):
    for other in ("a-sample", "datasets/other/a-kernel-weights"):
        lay(tmp_path / other, "manifest.json")
    folder = lay(tmp_path / place, "manifest.json")
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert mounts.find_weights(tmp_path, WEIGHTS, digest) == folder


def test_weights_of_another_version_or_of_others_are_named(tmp_path):
    lay(tmp_path / "datasets" / "other" / "some-weights", "manifest.json")
    with pytest.raises(KitError, match=f"no dataset {WEIGHTS}; mounted there is datasets/other/some-weights\n"):
        mounts.find_weights(tmp_path, WEIGHTS, "0" * 64)
    lay(tmp_path / "datasets" / "someone" / "a-kernel-weights", "manifest.json")
    with pytest.raises(KitError, match=r"a-kernel-weights/manifest.json is not the one that this kernel was built"):
        mounts.find_weights(tmp_path, WEIGHTS, "0" * 64)


def test_the_report_names_versions_and_machine_even_where_no_child_starts(root):
    assert main.main(SETTINGS, lambda args: [sys.executable, "-c", "raise SystemExit(7)"]) == 0
    report = json.loads((root / "working" / "report.json").read_text())
    assert report["kernel"]["versions"]["numpy"] == np.__version__
    assert report["environment"]["python"] == report["kernel"]["versions"]["python"]


def test_votes_are_averaged_within_a_model_first(tmp_path):
    ids = np.arange(4)
    values = {"cnn/seed_0/fold_0": 0.2, "cnn/seed_0/fold_1": 0.4, "wide/seed_0/fold_0": 0.9}
    for key, value in values.items():
        (tmp_path / key).mkdir(parents=True)
        np.savez(tmp_path / key / "test.npz", id=ids[::-1], probs=np.full((4, 10), value, "float32"))
        (tmp_path / key / "done.json").write_text('{"val_accuracy": 0.9}')
    current = read_current_probs(RunFolder(tmp_path), list(values), ids, 10)
    np.testing.assert_allclose(current.probs, (0.3 + 0.9) / 2)
    assert current.complete
    assert not read_current_probs(RunFolder(tmp_path), [*values, "wide/seed_0/fold_1"], ids, 10).complete


def test_a_fold_of_another_shape_does_not_vote(tmp_path):
    ids = np.arange(4)
    for fold, width in enumerate((10, 7)):
        folder = tmp_path / "cnn" / "seed_0" / f"fold_{fold}"
        folder.mkdir(parents=True)
        np.savez(folder / "test.npz", id=ids, probs=np.full((4, width), 0.1, "float32"))
        (folder / "done.json").write_text('{"val_accuracy": 0.9}')
    current = read_current_probs(RunFolder(tmp_path), ["cnn/seed_0/fold_0", "cnn/seed_0/fold_1"], ids, 10)
    assert current.folds == ["cnn/seed_0/fold_0"] and "10 classes" in current.left_out["cnn/seed_0/fold_1"]


def test_the_runtime_imports_nothing_that_trains():
    code = ("import sys, kit.runtime.main; "
            "print([name for name in ('tensorflow', 'keras', 'typer', 'kaggle') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(Path(main.__file__).parents[2])})
    assert done.stdout.strip() == "[]"
