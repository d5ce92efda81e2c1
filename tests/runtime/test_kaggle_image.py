"""Built kernels under the versions of Kaggle's image: `bash scripts/test.sh --kaggle-image`.

pytest runs in `.venv-kaggle`, whose Python is the one that runs the kernels, as Kaggle would: the script as it is, the
notebook by papermill, the data and the weights in both of Kaggle's mount layouts. What a user does at home (draw the
data, train, build) is done by the `.venv` beside it, in its own and newer versions. The kit is not installed in
`.venv-kaggle`, so a kernel has no kit but the one packed into it.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.rehearsal.kernels import with_doctor

pytestmark = pytest.mark.kaggle_image

ROOT = Path(__file__).resolve().parents[2]
HOME_PYTHON = os.environ.get("KIT_HOME_PYTHON") or str(ROOT / ".venv" / "bin" / "python")
WRITERS, ROWS, TEST_ROWS = 12, 100, 200  # small, and enough for folds that keep writers apart
FOLDS, MINUTES = 2, 8
LAYOUTS = {"today": ("competitions/Kannada-MNIST", "datasets/someone/kannada-mnist-kit-weights"),
           "before": ("Kannada-MNIST", "kannada-mnist-kit-weights")}
DRAW = f"""
import json, pathlib
from kit.data import sample
folder = pathlib.Path("data/kannada-mnist-sample")
sample.draw_sample(folder, 0, n_writers={WRITERS}, rows_per_writer={ROWS}, n_test_writers={TEST_ROWS // 100},
                   n_extra_writers=1)
(folder / "checksums.json").unlink()
(folder / "manifest.json").write_text(json.dumps({{
    "competition": "kannada-mnist", "source": "sample", "is_sample": True, "writer_block": {ROWS}, "sha256": {{}}}}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder as a user has it at home: drawn data, and a run of two convolutional networks."""
    folder = tmp_path_factory.mktemp("home")
    at_home(folder, "-c", DRAW)
    kit(folder, "cv", "--run", "mine", "--model", "cnn_aug,strong", "--epochs", "2", "--folds", str(FOLDS))
    return folder


def at_home(folder, *arguments):
    done = subprocess.run([HOME_PYTHON, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


def kit(folder, *words):
    at_home(folder, "-m", "kit", *words)


class Ended:
    """What a kernel left in its working folder."""

    def __init__(self, working):
        self.working, self.run = working, working / "run"
        self.log = (working / "kernel.log").read_text("utf-8")
        self.report = json.loads((working / "report.json").read_text("utf-8"))

    def check(self, home):
        """A complete ensemble in the image's versions, a label for each row, and the folds of home."""
        assert (self.report["complete"], self.report["used"]) == (True, "ensemble"), self.log
        assert self.report["kernel"]["missing_folds"] == {} and self.report["kernel"]["events"] == [], self.log
        lines = (ROOT / "constraints-kaggle.txt").read_text("utf-8").splitlines()
        pinned = dict(line.split("==") for line in lines if "==" in line)
        for package in ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "scipy"):
            assert self.report["kernel"]["versions"][package] == pinned[package]
        assert self.report["environment"]["versions"]["keras"] == pinned["keras"]
        with (self.working / "submission.csv").open() as file:
            header, *rows = csv.reader(file)
        assert header == ["id", "label"] and [int(row[0]) for row in rows] == list(range(TEST_ROWS))
        if (self.run / "folds.csv").exists():
            assert (self.run / "folds.csv").read_bytes() == (home / "runs" / "mine" / "folds.csv").read_bytes()


def run_kernel(home, folder, layout, *words):
    """Build a kernel at home, mount what it reads as Kaggle does, and run it in the image."""
    kit(home, "kernel", "build", "--out", str(folder / "built"), "--user", "someone", *words)
    competition, dataset = LAYOUTS[layout]
    shutil.copytree(home / "data" / "kannada-mnist-sample", folder / "kaggle" / "input" / competition,
                    ignore=shutil.ignore_patterns("*.npy", "cache", ".*"))
    if (folder / "built" / "weights").is_dir():
        shutil.copytree(folder / "built" / "weights", folder / "kaggle" / "input" / dataset)
    working, temporary = folder / "kaggle" / "working", folder / "tmp"
    working.mkdir()
    temporary.mkdir()
    code = folder / "built" / "kernel.py"
    command = [sys.executable, str(code)]
    if not code.exists():
        command = [sys.executable, "-m", "papermill", "--cwd", str(working), "--no-progress-bar",
                   str(code.with_suffix(".ipynb")), str(folder / "out.ipynb")]
    environment = {**os.environ, "KIT_KAGGLE_ROOT": str(folder / "kaggle"), "TMPDIR": str(temporary)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=working, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return Ended(working)


def test_a_kernel_has_no_kit_but_its_own(tmp_path):
    assert sys.version_info[:2] == (3, 12)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", "import kit"], cwd=tmp_path, env=environment, capture_output=True,
                          text=True)
    assert "No module named 'kit'" in done.stderr


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["script", "notebook"])
def test_a_kernel_that_trains(home, tmp_path, kind, layout):
    ended = run_kernel(home, tmp_path, layout, "--kind", kind, "--model", "mlp", "--folds", str(FOLDS),
                       "--time-budget", f"{MINUTES}m")
    ended.check(home)
    assert (ended.run / "folds.csv").exists()
    assert ended.report["environment"]["backend"] == "tensorflow"
    assert ended.report["kernel"]["data"] == str(tmp_path / "kaggle" / "input" / LAYOUTS[layout][0])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["script", "notebook"])
def test_a_kernel_that_predicts_with_weights_from_home(home, tmp_path, kind, layout):
    """The run's own test file gives the run's own probs, up to what other versions compute differently."""
    ended = run_kernel(home, tmp_path, layout, "--kind", kind, "--mode", "predict", "--run", "mine")
    ended.check(home)
    assert sorted(ended.report["kernel"]["folds"]) == [f"{model}/seed_0/fold_{k}" for model in ("cnn_aug", "strong")
                                                       for k in range(FOLDS)]
    for fold in ended.report["kernel"]["folds"]:
        there, here = (np.load(run / fold / "test.npz") for run in (ended.run, home / "runs" / "mine"))
        np.testing.assert_array_equal(there["id"], here["id"])
        np.testing.assert_allclose(there["probs"], here["probs"], atol=2e-3)


def test_a_convolutional_network_trains_there(home, tmp_path):
    """Augmentation, batch norm and test-time views; an epoch is too little to learn, so the folds only have to end."""
    ended = run_kernel(home, tmp_path, "today", "--model", "strong", "--folds", str(FOLDS), "--epochs", "1",
                       "--time-budget", f"{MINUTES}m")
    done = {f"{path.parent.relative_to(ended.run)}" for path in ended.run.glob("*/*/*/done.json")}
    wanted = {f"{model}/seed_0/fold_{k}" for model in ("mlp", "strong") for k in range(FOLDS)}
    assert done == wanted, ended.log
    assert ended.report["kernel"]["events"] == [] and ended.report["kernel"]["children"] == 1


def test_a_kernel_for_a_tpu_trains_on_jax(home, tmp_path):
    """Here on JAX's CPU, which is what a kernel gets where its TPU is not given."""
    ended = run_kernel(home, tmp_path, "today", "--accelerator", "tpu", "--model", "mlp", "--folds", str(FOLDS),
                       "--time-budget", f"{MINUTES}m")
    ended.check(home)
    assert ended.report["environment"]["backend"] == "jax"


def test_the_doctor_finds_the_image_s_versions(tmp_path):
    """The packed kit's own, in a session on Kaggle without an accelerator."""
    at_home(tmp_path, "-c", DRAW)
    kit(tmp_path, "kernel", "build", "--user", "someone")
    with_doctor(tmp_path / "kernel" / "kernel.py")
    place = tmp_path / "kaggle" / "input" / LAYOUTS["today"][0]
    shutil.copytree(tmp_path / "data" / "kannada-mnist-sample", place)
    (tmp_path / "kaggle" / "working").mkdir()
    environment = {**os.environ, "KIT_KAGGLE_ROOT": str(tmp_path / "kaggle"), "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([sys.executable, str(tmp_path / "kernel" / "kernel.py")], cwd=tmp_path / "kaggle" / "working",
                          env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    for line in ("ok   Kaggle ", "ok   versions ", f"ok   mounts       the competition's files are in {place}",
                 "ok   backend "):
        assert line in done.stdout, done.stdout


STEPS = """
import time
import numpy as np
from kit.data.competition import KANNADA
from kit.core import backend
from kit.training import models
from kit.training.augment import N_NUMBERS
from kit.training.trainer import trainer_for

backend.configure_devices(2)
trainer = trainer_for(models.get("cnn"), KANNADA, "float32", 64)
rng = np.random.default_rng(0)
arrays = (rng.integers(0, 255, (256, 28, 28, 1)).astype("uint8"), rng.integers(0, 10, 256).astype("int32"),
          rng.integers(0, 256, (4, 64)).astype("int32"), np.zeros((4, 0, N_NUMBERS), "float32"),
          np.full(4, 1e-3, "float32"))
trainer.train(*arrays)  # compiles
began = time.perf_counter()
loss, accuracy = trainer.train(*arrays)
assert np.isfinite(loss) and 0 <= accuracy <= 1
print(time.perf_counter() - began)
"""


def test_a_convolution_on_jax_and_a_cpu_takes_no_minutes(tmp_path):
    """Four steps of 64 images: in a scan they took 65 s where two cores were busy, one by one 1.8 s."""
    done = subprocess.run([sys.executable, "-c", STEPS], cwd=tmp_path, capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 15
