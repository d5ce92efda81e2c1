"""A kernel passes here if, and only if, it would be a submission on Kaggle; a broken one fails for its own reason."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kit.core import system
from kit.core.errors import KitError
from kit.data import source
from kit.data.competition import KANNADA
from kit.data.sample import draw_sample
from kit.data.table import read_table
from kit.kernel import builder
from kit.kernel.folder import read_metadata
from kit.rehearsal import hidden, preflight, sandbox
from kit.rehearsal import rehearse as rehearsal
from kit.rehearsal.rehearse import Verdict, rehearse
from tests.rehearsal.kernels import GOOD, write_data, write_kernel

READ = GOOD[:GOOD.index("ids =")]
WRITE = GOOD[GOOD.index("lines ="):]


def test_a_good_script_passes_and_is_scored_on_writers_it_never_saw(tmp_path, data, sandbox_kind):
    said = []
    code = GOOD + "import time\nballast = b'x' * (64 << 20)\nprint('hello')\ntime.sleep(1)\n"
    verdict = rehearse(write_kernel(tmp_path, code), data, time_limit=60, say=said.append)
    assert said == ["hello"]
    assert verdict.reasons == []
    assert verdict.ok
    assert verdict.lines()[0] == "yes: this would be a submission, accuracy 1.0000 on 25 hidden rows"
    assert verdict.accuracy == 1.0
    assert verdict.hidden_rows == 25
    assert verdict.sandbox == sandbox_kind
    assert 0 < verdict.seconds < 60
    assert verdict.peak_memory > 64 << 20


@pytest.mark.parametrize(("hours", "is_gpu", "note"), [
    (20, False, "ends it after 9 hours by"), (3, True, "ends it after 2 hours by"), (3, False, "")])
def test_more_time_than_kaggle_gives_is_no_secret(tmp_path, data, hours, is_gpu, note):
    verdict = rehearse(write_kernel(tmp_path, GOOD, enable_gpu=is_gpu), data, time_limit=hours * 3600)
    said = [text for text in verdict.notes if "ends it after" in text]
    assert verdict.ok and len(said) == bool(note) and note in "".join(said)


BROKEN = {
    "hard-codes the official rows": (
        READ + "ids, labels = range(5000), np.zeros(5000, int)\n" + WRITE,
        "has 5,000 rows and the hidden test file 25"),
    "needs the network": (
        'import urllib.request\nurllib.request.urlopen("http://example.com/weights.h5", timeout=5)\n' + GOOD,
        "needs the network: example.com"),
    "imports what Kaggle lacks": (
        "import hypothesis\n" + GOOD, "imports hypothesis, which Kaggle's image is not known to have"),
    "imports the kit that is installed here": ("import kit.pipeline\n" + GOOD, "No module named 'kit'"),
    "writes floats": (GOOD.replace("argmax(1)", "argmax(1).astype(float)"), "submission.csv: "),
    "writes a good file and then raises": (GOOD + 'raise ValueError("after the fact")\n', "ValueError: after the fact"),
    "writes a good file and then exits with 1": (GOOD + "raise SystemExit(1)\n", "exit code 1"),
    "is killed": (GOOD + "os.kill(os.getpid(), 9)\n", "exit code (137|-9)"),
    "writes nothing": ("print('hello')\n", "left no submission.csv"),
    **({"writes into the input": (READ + '(data / "x").write_text("x")\n', "Read-only file system")}
       if sandbox.unshare_command() else {}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_kernel_fails_for_its_own_reason(tmp_path, data, name):
    code, reason = BROKEN[name]
    verdict = rehearse(write_kernel(tmp_path, code), data, time_limit=60)
    assert not verdict.ok
    assert any(re.search(reason, why) for why in verdict.reasons), verdict.reasons


@pytest.mark.parametrize("code, reason", [BROKEN["needs the network"], BROKEN["imports what Kaggle lacks"]])
def test_the_sandbox_of_python_holds_where_namespaces_are_not_permitted(tmp_path, data, monkeypatch, code, reason):
    monkeypatch.setattr(sandbox, "unshare_command", tuple)
    verdict = rehearse(write_kernel(tmp_path, code), data, time_limit=60)
    assert any(reason in why for why in verdict.reasons), verdict.reasons


def test_a_good_file_does_not_count_where_the_kernel_fails(tmp_path, data):
    verdict = rehearse(write_kernel(tmp_path, BROKEN["writes a good file and then raises"][0]), data, time_limit=60)
    assert not verdict.ok
    assert any("does not count" in why for why in verdict.reasons)
    assert "no: this would be no submission, accuracy 1.0000 on 25 hidden rows" in verdict.lines()
    assert any("after the fact" in line for line in verdict.log_tail)


def test_a_kernel_over_its_time_is_stopped_with_all_its_children(tmp_path, data, sandbox_kind, monkeypatch):
    code = ("import subprocess, sys, time\n"
            f'sleep = [sys.executable, "-c", "import time; time.sleep(600)", {str(tmp_path)!r}]\n'
            "subprocess.Popen(sleep, start_new_session=True)\nprint('there', flush=True)\ntime.sleep(600)\n")
    said = []  # once the kernel is there, its time is over: how long the machine takes to start it does not matter
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000 * bool(said))
    monkeypatch.setattr(rehearsal, "time", clock)
    verdict = rehearse(write_kernel(tmp_path / "k", code), data, time_limit=900, say=said.append)
    assert said == ["there"]
    assert any("ran over its time: stopped after 900 s" in why for why in verdict.reasons)
    assert 1000 < verdict.seconds < 1500
    assert [pid for pid in running(str(tmp_path)) if b"time.sleep(600)" in command_line(pid)] == []


@pytest.mark.skipif(not shutil.which("setpriv"), reason="it is what ties the kernel to its rehearsal")
def test_a_rehearsal_that_is_killed_takes_its_kernel_along(tmp_path, data, monkeypatch):
    pid_file = tmp_path / "pid"
    sleep = f"import time\nopen({str(pid_file)!r}, 'w').write('there')\ntime.sleep(600)\n"
    folder = write_kernel(tmp_path / "k", sleep)
    code = (f"from pathlib import Path; from kit.rehearsal.rehearse import rehearse; "
            f"rehearse(Path({str(folder)!r}), Path({str(data)!r}))")
    process = subprocess.Popen([sys.executable, "-c", code], env={
        **os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(builder.__file__).parents[2])})
    try:
        wait_until(pid_file.exists)
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not list(running(str(tmp_path / rehearsal.STAGE_PREFIX))))
    assert list(tmp_path.glob(f"{rehearsal.STAGE_PREFIX}*"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rehearse(write_kernel(tmp_path / "next", "print('hello')\n"), data, time_limit=60)
    assert not list(tmp_path.glob(f"{rehearsal.STAGE_PREFIX}*"))  # the next one swept up what the killed one left


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited for a minute")


def running(stage):
    """Ids of the processes whose command line names the folder `stage`."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if stage.encode() in command_line(pid):
            yield pid


@pytest.mark.parametrize(("kind", "floats", "limit"), [
    ("script", 60_000_000, 300), ("notebook", 80_000_000, 500)])
def test_a_kernel_over_its_memory_is_stopped(tmp_path, data, sandbox_kind, kind, floats, limit):
    code = GOOD + f"import time\nwaste = np.ones({floats})\ntime.sleep(60)\n"
    folder = write_kernel(tmp_path, code, kernel_type=kind)
    verdict = rehearse(folder, data, time_limit=60, memory_limit=limit << 20)
    assert any(f"GiB of memory; the limit is 0.{limit // 100}" in why for why in verdict.reasons)


@pytest.mark.parametrize("metadata, reason", [
    ({"enable_internet": True}, "the internet is on"),
    ({"enable_internet": None}, "the internet is on"),
    ({"kernel_type": "notebook", "notebook": {}}, "no kernelspec"),
])
def test_what_kaggle_refuses_before_it_runs(tmp_path, data, metadata, reason):
    verdict = rehearse(write_kernel(tmp_path, GOOD, **metadata), data, time_limit=60)
    assert any(reason in why for why in verdict.reasons)


def test_a_submission_that_is_only_the_fallback_fails(tmp_path, data):
    code = GOOD + '(root / "working" / "report.json").write_text(\'{"used": "fallback", "complete": false}\')\n'
    verdict = rehearse(write_kernel(tmp_path, code), data, time_limit=60)
    assert any("trained nothing" in why for why in verdict.reasons)


def test_a_folder_that_is_no_kernel(tmp_path, data):
    with pytest.raises(KitError, match="is not a kernel folder"):
        rehearse(tmp_path, data)


@pytest.mark.parametrize(("metadata", "message"), [
    ({"competition_sources": None}, "names no competition"),
    ({"competition_sources": ["titanic"]}, "'titanic'"),
    ({"code_file": "../kernel.py"}, "code_file cannot be"),
    ({"code_file": "/etc/hostname"}, "code_file cannot be"), ({"code_file": "gone.py"}, "is missing")])
def test_metadata_of_another_kind_is_named(tmp_path, data, metadata, message):
    with pytest.raises(KitError, match=message):
        rehearse(write_kernel(tmp_path / "k", GOOD, **metadata), data)


def test_a_notebook_whose_metadata_is_no_table_has_no_kernelspec(tmp_path):
    folder = write_kernel(tmp_path, GOOD, kernel_type="notebook", notebook=[])
    assert any("no kernelspec" in why for why in preflight.check(folder, read_metadata(folder))[0])


def test_code_in_a_folder_of_its_own_is_run(tmp_path, data):
    folder = write_kernel(tmp_path, "", code_file="src/kernel.py")
    (folder / "src").mkdir()
    (folder / "src" / "kernel.py").write_text(GOOD)
    assert rehearse(folder, data, time_limit=60).reasons == []


def test_no_credential_reaches_a_kernel(tmp_path, data, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "planted-secret")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "planted-secret")
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle" / "kaggle.json").write_text('{"username": "ada", "key": "planted-secret"}')
    (home / ".kaggle" / "access_token").write_text("planted-secret")
    (home / "notes.txt").write_text("not a credential")
    monkeypatch.setenv("HOME", str(home))
    code = GOOD + 'assert "planted-secret" not in str(os.environ), "leaked"\n'
    if sandbox.unshare_command():  # else the rehearsal says that files can be read
        code += f"""
for file in ("kaggle.json", "access_token"):
    assert not open({str(home)!r} + "/.kaggle/" + file).read(), "leaked"
assert open({str(home)!r} + "/notes.txt").read()
"""
    verdict = rehearse(write_kernel(tmp_path, code), data, time_limit=60)
    assert verdict.ok, verdict.reasons
    assert "planted-secret" in (home / ".kaggle" / "access_token").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind, other, layout", [("script", "notebook", "new"), ("notebook", "script", "old")])
def test_built_kernels_pass_in_both_modes_and_kinds(tmp_path, kind, other, layout):
    """The real thing, small: train as one kind, then predict with its weights as both."""
    draw_sample(tmp_path / "data", n_writers=8, rows_per_writer=80, n_test_writers=1, n_extra_writers=1)
    built = builder.build(tmp_path / "train", KANNADA, kind=kind, models=("mlp",), folds=2, epochs=12)
    verdict = rehearse(built, tmp_path / "data", time_limit=900, out=tmp_path / "out", layout=layout)
    assert verdict.reasons == []
    assert (verdict.report["complete"], verdict.report["used"]) == (True, "ensemble")
    assert verdict.report["cv"]["n_folds"] == 2  # the run's own report
    assert verdict.accuracy > 0.5
    for predicting in (other, kind):
        built = builder.build(tmp_path / predicting, KANNADA, kind=predicting, mode="predict",
                             run=tmp_path / "out" / "run")
        again = rehearse(built, tmp_path / "data", time_limit=900, layout=layout)
        assert again.reasons == []
        assert again.accuracy == pytest.approx(verdict.accuracy, abs=0.02)


@pytest.mark.slow
def test_the_sample_as_it_is_drawn_passes_with_the_folds_of_the_default(tmp_path):
    data = source.download(KANNADA, "sample", tmp_path / "data")
    built = builder.build(tmp_path / "kernel", KANNADA, models=("mlp",), epochs=1)
    verdict = rehearse(built, data.path, time_limit=900)
    assert verdict.reasons == []
    assert verdict.report["data"]["is_sample"] and verdict.report["cv"]["keeps_writers_apart"]


SABOTAGE = """

_train_fold = train_fold


def train_fold(job, *arguments, **options):
    if job.fold == 1 and job.guesses == {round}:
        {deed}
    return _train_fold(job, *arguments, **options)
"""  # appended to the packed kit/training/fit.py


def sabotaged(deed: str, round: int = 0) -> bytes:
    """The packed source of a kit whose second fold does `deed`, at first or in a round of self-training."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(builder.pack_source({}))) as packed, zipfile.ZipFile(out, "w") as archive:
        for name in packed.namelist():
            more = SABOTAGE.format(deed=deed, round=round).encode() if name == "kit/training/fit.py" else b""
            archive.writestr(name, packed.read(name) + more)
    return out.getvalue()


class Killer:
    """SIGKILL for the training child, from outside, once: when its first fold is done and its second has begun."""

    def __init__(self) -> None:
        self.wanted = ["mlp/seed_0/fold_0: done", "the second fold has begun"]

    def __call__(self, line: str) -> None:
        left = [words for words in self.wanted if words not in line]
        if self.wanted and not left:
            children = [pid for pid in system.process_tree(os.getpid()) if b"kit.runtime.worker" in command_line(pid)]
            os.kill(children[0], signal.SIGKILL)
        self.wanted = left


def command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the child in /proc")
@pytest.mark.parametrize("deed, say, minutes, event", [
    ("import os, time; again = os.path.exists('begun'); os.makedirs('begun', exist_ok=True); "
     "print('the second fold has begun', flush=True); time.sleep(0 if again else 60)", Killer(), 20,
     "the child was killed by signal 9"),
    ("raise ValueError('the second fold')", lambda line: None, 20, "the child failed with exit code 1"),
    ("import time; time.sleep(3600)", lambda line: None, 2, "the time is over: the child was ended"),
], ids=["killed", "raises", "out of time"])
def test_a_built_kernel_whose_second_fold_goes_wrong_ends_well(tmp_path, monkeypatch, deed, say, minutes, event):
    draw_sample(tmp_path / "data", n_writers=8, rows_per_writer=80, n_test_writers=1, n_extra_writers=1)
    packed = sabotaged(deed)
    monkeypatch.setattr(builder, "pack_source", lambda own_files: packed)
    built = builder.build(tmp_path / "kernel", KANNADA, models=("mlp",), folds=3, epochs=10, minutes=minutes)
    verdict = rehearse(built, tmp_path / "data", time_limit=60 * minutes + 10, say=say)
    assert verdict.ok and verdict.reasons == []  # exit 0, in time, and the validator likes its submission.csv
    facts = verdict.report["kernel"]
    assert any(event in said for said in facts["events"])
    assert (verdict.report["complete"], verdict.report["used"]) == (not facts["missing_folds"], "ensemble"), facts
    assert "mlp/seed_0/fold_0" in facts["folds"]
    if "killed" not in event:  # from outside: left out only where no other fold was under way beside it
        assert "mlp/seed_0/fold_1" in facts["missing_folds"]


@pytest.mark.slow
@pytest.mark.parametrize(("deed", "rounds", "missing", "said"), [
    ("pass", 2, {}, "after 2 rounds of self-training, complete"),
    ("raise ValueError('the second round')", 1, {"2": "failed"}, "cannot train mlp/seed_0/fold_1/guesses_2"),
    # The clock then shows that the first round took hours, so a second one cannot fit.
    ("return _train_fold(job, *arguments, **options) | {'train_seconds': 9_999.0}", 1, {"2": "no time"},
     "round 2 of self-training is left out: it would take about"),
], ids=["done", "raises", "no time"])
def test_a_built_kernel_trains_itself_further_as_at_home(tmp_path, monkeypatch, deed, rounds, missing, said):
    draw_sample(tmp_path / "data", n_writers=8, rows_per_writer=80, n_test_writers=1, n_extra_writers=1)
    packed = sabotaged(deed, round=1 if "no time" in missing.values() else 2)
    monkeypatch.setattr(builder, "pack_source", lambda own_files: packed)
    built = builder.build(tmp_path / "kernel", KANNADA, models=("mlp",), folds=2, epochs=8, self_train=2, minutes=20)
    verdict = rehearse(built, tmp_path / "data", time_limit=1_210, out=tmp_path / "out")
    assert verdict.ok and verdict.reasons == []
    report, out = verdict.report, tmp_path / "out"
    assert (report["used"], report["complete"], report["kernel"]["missing_folds"]) == ("ensemble", not missing, {})
    assert (report["kernel"]["rounds"], report["kernel"]["missing_rounds"]) == (rounds, missing)
    log = (out / "kernel.log").read_text()
    assert said in log
    # Two rounds may end within one look at the run, so not each of them need be written on the way.
    used = [int(n or 0) for n in re.findall(r"the ensemble's, of 2 folds(?: after (\d) rounds?)?", log)]
    assert used == sorted(used) and used[-1] == rounds
    assert any(f"Self-training, {rounds} round" in note for note in report["notes"])  # the run's own report
    # What is handed in is what the folds read after the last round, and those learnt what the ensemble had read.
    run = out / "run" / "mlp" / "seed_0"

    def votes(part):
        return np.mean([np.load(run / f"fold_{k}" / part / "test.npz")["probs"] for k in (0, 1)], 0).argmax(1)

    np.testing.assert_array_equal(np.load(out / "run" / "guesses_1.npz")["label"], votes(""))
    labels = np.loadtxt(out / "submission.csv", int, delimiter=",", skiprows=1)[:, 1]
    np.testing.assert_array_equal(labels, votes(f"guesses_{rounds}"))


# -- what a kernel left, whatever it is ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[1]", "no json", '{"kernel": {"budget_seconds": "long"}}'])
def test_a_report_of_another_kind_is_no_reason(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    verdict = Verdict()
    rehearsal._check_report(tmp_path / "report.json", verdict)
    assert (verdict.reasons, verdict.notes) == ([], [])


def test_what_a_killed_kernel_was_writing_is_passed_over(tmp_path):
    log = tmp_path / "blocked.jsonl"
    log.write_text('["network", "example.com"]\n["import", "typer"]\n5\n["import", ["x"]]\n["walk", "x"]\n["netw')
    assert rehearsal._blocked(log, "No module named 'typer'") == [
        "it needs the network: example.com", "it imports typer, which Kaggle's image is not known to have"]


def judged(path, ids, labels=None):
    verdict = Verdict()
    rehearsal._judge(path, KANNADA, hidden.HiddenTest(np.array(ids), labels, 0, held_out=False), verdict)
    return verdict


def test_ids_with_spaces_and_commas_in_them_are_read(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text('id,label\nimg 1,3\n"img 2, again",4\n')
    verdict = judged(path, ["img 1", "img 2, again"], [3, 5])
    assert (verdict.reasons, verdict.accuracy) == ([], 0.5)


@pytest.mark.parametrize("text, rows", [("", 0), ("id,label\n1,2\n\n", 1), ("id,label\n1,2\n2,3\n3,4", 3)])
def test_too_few_or_too_many_rows_are_counted(tmp_path, text, rows):
    (tmp_path / "submission.csv").write_text(text)
    assert judged(tmp_path / "submission.csv", [1, 2]).reasons[0].startswith(f"submission.csv has {rows} rows and")


# -- the hidden test file -------------------------------------------------------------------------------------------


def test_the_hidden_rows_are_the_last_writers_who_are_gone_from_training(tmp_path, data):
    swapped = hidden.write_with_hidden_test(data, tmp_path, KANNADA)
    train = (tmp_path / "train.csv").read_text().splitlines()
    original = (data / "train.csv").read_text().splitlines()
    assert train == original[:-50]
    assert swapped.train_rows == 150
    test = np.loadtxt(tmp_path / "test.csv", dtype=int, delimiter=",", skiprows=1)
    rows = {tuple(map(int, row.split(","))) for row in original[-50:]}
    drawn = {(label, *row[1:]) for label, row in zip(swapped.labels, test.tolist(), strict=True)}
    assert len(drawn) == 25 and drawn.issubset(rows)
    assert list(test[:, 0]) == list(swapped.ids)
    submission = np.loadtxt(tmp_path / "sample_submission.csv", dtype=int, delimiter=",", skiprows=1)
    assert list(submission[:, 0]) == list(swapped.ids)


def test_its_ids_are_unique_out_of_order_and_far_from_0(tmp_path, data):
    ids = hidden.write_with_hidden_test(data, tmp_path, KANNADA).ids
    assert len(set(ids)) == len(ids)
    assert min(ids) >= hidden.FIRST_ID
    assert list(ids) != sorted(ids)


def test_it_never_has_as_many_rows_as_the_public_file(tmp_path):
    source = write_data(tmp_path / "same", train_rows=80, test_rows=10)
    assert len(hidden.write_with_hidden_test(source, tmp_path / "out", KANNADA).ids) == 9


def test_a_writer_is_held_out_whole(tmp_path):
    source = write_data(tmp_path / "blocks", train_rows=200)
    manifest = {"competition": KANNADA.slug, "sha256": {}, "writer_block": 40}
    (source / "manifest.json").write_text(json.dumps(manifest))
    swapped = hidden.write_with_hidden_test(source, tmp_path / "out", KANNADA)
    assert (swapped.train_rows, len(swapped.ids)) == (160, 20)


def test_the_real_file_s_hidden_rows_are_a_random_half_of_its_last_eight_writers():
    """As test.csv is a random half of eight writers' rows: each digit 500 ± 15 times, not equally often."""
    keep, rows = hidden._last_writers(60_000, 1280, 5_000, np.random.default_rng(0))
    assert (keep, len(rows)) == (39 * 1280, 5_040)  # the last writer wrote less
    assert len(np.unique(rows)) == len(rows) and rows.min() >= keep and rows.max() < 60_000
    writers, digits = np.bincount((rows - keep) // 1280), np.bincount(rows % 10)
    assert len(writers) == 8 and writers.min() > 550 and writers[:7].max() < 730
    assert 450 < digits.min() < digits.max() < 560
    assert (np.diff(rows) < 0).any()


def test_a_hidden_file_of_ones_own_is_scored_if_it_has_labels(tmp_path, data):
    own = tmp_path / "own.csv"
    own.write_text("".join((data / "train.csv").read_text().splitlines(keepends=True)[:12]))
    verdict = rehearse(write_kernel(tmp_path / "k", GOOD), data, hidden=own, time_limit=60)
    assert (verdict.ok, verdict.hidden_rows, verdict.accuracy) == (True, 11, 1.0)


def test_a_hidden_file_without_labels_keeps_its_ids(tmp_path, data):
    swapped = hidden.write_with_hidden_test(data, tmp_path, KANNADA, hidden=data / "test.csv")
    assert swapped.labels is None
    assert list(swapped.ids) == list(range(30))
    assert swapped.train_rows == 200


def test_text_ids_of_a_hidden_file_are_those_of_the_sample_submission(tmp_path, data):
    header, first, second, *_ = (data / "test.csv").read_text().splitlines()
    rows = [first.replace("0,", '"img 1, a",', 1), second.replace("1,", f"{10**20},", 1)]
    (tmp_path / "own.csv").write_text("\n".join([header, *rows]))
    swapped = hidden.write_with_hidden_test(data, tmp_path / "out", KANNADA, hidden=tmp_path / "own.csv")
    assert list(swapped.ids) == ["img 1, a", str(10**20)]
    assert list(read_table(tmp_path / "out" / "test.csv", KANNADA, labelled=False).ids) == list(swapped.ids)
    verdict = judged(tmp_path / "out" / "sample_submission.csv", swapped.ids)
    assert verdict.reasons == []


PIXELS = ",".join(KANNADA.pixel_columns)
ZEROS = ",".join(["0"] * KANNADA.n_pixels)


@pytest.mark.parametrize("text, message", [
    (b"", "is empty"), (b"id,pixel0\n1,2\n", "columns missing"), (b"\xff", "not UTF-8"),
    (f"label,{PIXELS}\nx,{ZEROS}\n".encode(), "line 2, column 'label'"),
    (f"label,{PIXELS}\n1,{ZEROS}\n1,0\n".encode(), "line 3: 2 cells"),
    (f"id,{PIXELS}\n1,{ZEROS}\xff\n".encode("latin-1"), "line 2, column 'pixel783'"),
    (f"id,{PIXELS}\n1,{ZEROS}\n1,{ZEROS}\n".encode(), "line 3: the id '1' is there already"),
    (f"id,{PIXELS}\n".encode(), "no rows")])
def test_a_hidden_file_that_is_none_is_named_with_the_place(tmp_path, data, text, message):
    (tmp_path / "odd.csv").write_bytes(text)
    with pytest.raises(KitError, match=message) as caught:
        hidden.write_with_hidden_test(data, tmp_path / "out", KANNADA, hidden=tmp_path / "odd.csv")
    assert "odd.csv" in caught.value.message


@pytest.mark.parametrize("name, text, message", [
    ("manifest.json", b"{", "manifest.json is damaged"), ("manifest.json", b"[1]", "manifest.json is damaged"),
    ("train.csv", b"\xff\n", "train.csv, line 1"), ("train.csv", b"", "train.csv is empty"),
    ("test.csv", b"id\n1\n", "test.csv, line 1")])
def test_a_damaged_data_folder_is_named(tmp_path, data, name, text, message):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / name).write_bytes(text)
    with pytest.raises(KitError, match=message):
        hidden.write_with_hidden_test(tmp_path / "data", tmp_path / "out", KANNADA)
