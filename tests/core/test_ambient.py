"""Settings of the user's that are not the kit's: overridden, or named with their true source."""

import json
import os
import subprocess
import sys

import pytest

from kit.core import ambient
from kit.core.errors import KitError
from tests.test_docs import ROOT

# A network whose shapes, dtypes and numbers depend on every one of keras.json's settings, if they are not overridden.
PREDICT = """
import hashlib, numpy as np
from kit.core import backend
from kit.data.competition import KANNADA
from kit.training import models
from kit.training.jobs import FoldJob
from kit.training.augment import N_NUMBERS
from kit.training.trainer import trainer_for
backend.configure_devices(1)
trainer = trainer_for(models.get("cnn"), KANNADA, "float32", 32)
job = FoldJob("cnn", 0, 0, 1, 32, "float32", 1)
trainer.reset(job)
trainer.seed_dropout(job, 0)
images = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1)).astype("uint8")
labels, order = np.arange(64, dtype="int32") % 10, np.arange(64, dtype="int32").reshape(2, 32)
trainer.train(images, labels, order, np.zeros((2, 0, N_NUMBERS), "float32"), np.full(2, .001, "float32"))
print(trainer.model.input_shape, hashlib.sha256(trainer.predict_batch(images, None).tobytes()).hexdigest())
"""
STRANGE = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1, "backend": "torch"}
STRANGE_VARIABLES = {"TF_ENABLE_ONEDNN_OPTS": "0", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "TF_XLA_FLAGS":
                     "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit", "TF_FUNCTION_JIT_COMPILE_DEFAULT": "1"}


def run(home, *command, settings=None, keras_home=False, **variables):
    """A command in a home folder that holds `keras.json`."""
    folder = home / "elsewhere" if keras_home else home / ".keras"
    if settings is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "keras.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KERAS_", "TF_", "JAX_"))}
    if keras_home:
        variables["KERAS_HOME"] = str(folder)
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run([sys.executable, *command], cwd=home, env=environment, capture_output=True, text=True,
                          timeout=300, check=False)


@pytest.mark.slow
def test_the_same_numbers_whatever_the_home_folder_and_the_environment_say(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "strange").mkdir()
    plain = run(tmp_path / "plain", "-c", PREDICT)
    strange = run(tmp_path / "strange", "-c", PREDICT, settings=STRANGE, **STRANGE_VARIABLES)
    assert plain.stdout.startswith("(None, 28, 28, 1) "), plain.stderr
    assert strange.stdout == plain.stdout, strange.stderr


@pytest.mark.slow
def test_a_run_is_the_same_run_with_a_strange_keras_json(tmp_path):
    """The whole command, as a user types it."""
    labels = {}
    for name, settings in (("plain", None), ("strange", STRANGE)):
        home = tmp_path / name
        home.mkdir()
        for command in (("download", "--from", "sample"),
                        ("submit", "--model", "cnn", "--limit", "20", "--epochs", "1", "--folds", "2", "--run", "a",
                         "--precision", "float32", "--threads", "1")):
            done = run(home, "-m", "kit", *command, settings=settings, keras_home=True)
            assert done.returncode == 0, done.stderr
        labels[name] = (home / "submissions" / "a" / "submission.csv").read_bytes()
    assert labels["plain"] == labels["strange"]


def examined(home, **options):
    done = run(home, "-m", "kit", "doctor", "--json", **options)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)["findings"]}


def test_the_doctor_shows_what_is_overridden_and_what_stays(tmp_path):
    found = examined(tmp_path, settings=STRANGE, TF_ENABLE_ONEDNN_OPTS="0", TF_DETERMINISTIC_OPS="1")
    assert found["backend"]["state"] == "ok" and "on tensorflow" in found["backend"]["found"]
    said = found["environment"]["found"]
    assert found["environment"]["state"] == "note"
    path = tmp_path / ".keras" / "keras.json"
    for part in ("overridden: ", f"image_data_format: channels_first in {path}", "floatx: float16", "epsilon: 0.1",
                 f"backend: torch in {path}", "TF_ENABLE_ONEDNN_OPTS=0", "in use: TF_DETERMINISTIC_OPS=1"):
        assert part in said


@pytest.mark.parametrize(("options", "message", "fix"), [
    ({"KERAS_BACKEND": "torch"}, "not on torch, which KERAS_BACKEND asks for", "unset KERAS_BACKEND"),
    ({"KERAS_BACKEND": "jax"}, "which KERAS_BACKEND asks for: ", "unset KERAS_BACKEND"),
    ({"settings": {"backend": "jax"}}, "which {0} asks for: ", "set KERAS_BACKEND=tensorflow"),
    ({"settings": {"floatx": "bfloat16"}}, "{0} have floatx: 'bfloat16', which Keras refuses",
     "correct it, or delete it"),
    ({"settings": {"epsilon": 1}}, "{0} have epsilon: 1", "correct it, or delete it"),
    ({"settings": "[]"}, "{0} are not a JSON object", "correct it, or delete it")])
def test_what_stands_in_the_way_is_named_with_its_true_source(tmp_path, options, message, fix):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise ImportError('its libraries do not fit')")  # -m puts it first
    found = examined(tmp_path, **options)["backend"]
    assert found["state"] == "bad" and fix in found["fix"]
    assert message.format(tmp_path / ".keras" / "keras.json") in found["found"]


def test_a_keras_json_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "keras.json").write_text("{}")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(ambient.Path, "read_bytes", lambda self: (_ for _ in ()).throw(PermissionError(13, "no")))
    with pytest.raises(KitError, match=r"cannot read its settings .*keras\.json: no"):
        ambient._check_keras_json()


def test_a_notebook_that_loaded_tensorflow_first_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    ambient.override_environment()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert [line.partition(" ")[0] for line in ambient.findings("tensorflow")[2]] == ["TF_ENABLE_ONEDNN_OPTS=0"]
