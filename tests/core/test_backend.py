"""The machine as Keras sees it, where it does not see what it should."""

import os
import subprocess
import sys

import pytest

from kit.core import backend
from kit.core.errors import KitError
from tests.test_docs import ROOT

LOAD = """
from kit.core.errors import KitError
from kit.core import backend
try:
    backend.load()
except backend.KitError as error:
    print(error)
"""


@pytest.mark.parametrize(("asked", "said"), [
    ("theano", "theano"), ("torch", "set it to jax"), ("jax", "install the JAX")])
def test_a_backend_that_is_not_there_is_two_lines(tmp_path, asked, said):
    (tmp_path / f"{asked}.py").write_text("raise ImportError('its libraries do not fit')")
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "KERAS_BACKEND": asked})
    assert done.returncode == 0 and done.stdout.startswith("error: ") and "unset KERAS_BACKEND" in done.stdout
    assert said in done.stdout


@pytest.mark.parametrize(("why", "said", "fix"), [
    ("No module named 'tensorflow'", "error: the training library is missing: No module named",
     "TensorFlow has wheels"),
    # As TensorFlow says it on Windows, after its traceback
    ("Traceback ...\nImportError: DLL load failed while importing _x: it failed.\n\nFailed to load",
     "error: Windows cannot load the training library: DLL load failed while importing _x: it failed.\n",
     "Visual C++ Redistributable")])
def test_a_tensorflow_that_is_not_there_or_cannot_be_loaded_is_two_lines(tmp_path, why, said, fix):
    (tmp_path / "tensorflow.py").write_text(f"raise ImportError({why!r})")
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True,
                          env={**environment, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert done.returncode == 0 and done.stdout.startswith(said) and fix in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_a_tpu_is_seen_by_jax_alone():
    assert backend.has_tpu() is False


def test_the_device_is_named_by_its_gpu_or_else_its_cpu(monkeypatch):
    assert backend.device() == backend._cpuinfo("model name") or backend.gpus()
    monkeypatch.setattr(backend, "gpus", lambda: ["Tesla T4", "Tesla T4"])
    assert backend.device() == "Tesla T4"
    assert backend.describe()["versions"] == backend.versions() and set(backend.versions()) > {"keras", "numpy"}


# -- which precision a machine can compute in -----------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """A machine whose GPUs have a given compute capability, as TensorFlow sees them."""
    def of(capability, name="Tesla T4"):
        monkeypatch.setattr(backend, "load", lambda: "tensorflow")
        monkeypatch.setattr(backend, "gpus", lambda: [name])
        monkeypatch.setattr(backend, "_least_capability", lambda: capability)

    return of


@pytest.mark.parametrize(("capability", "trained", "here"), [
    ((7, 5), "bfloat16", "float32"), ((7, 5), "float16", "float16"), ((7, 5), "float32", "float32"),
    ((8, 0), "bfloat16", "bfloat16"), ((6, 0), "float16", "float16"), ((6, 0), "bfloat16", "float32")])
def test_a_model_predicts_as_it_was_trained_where_the_gpu_can(gpu, capability, trained, here):
    gpu(capability)
    precision, why = backend.prediction_precision(trained)
    assert precision == here
    assert why == ("" if here == trained else f"it was trained in {trained}, and TensorFlow cannot convolve bfloat16 "
                                              "on Tesla T4")


def test_a_cpu_without_bfloat16_emulates_it(monkeypatch):
    monkeypatch.setattr(backend, "gpus", lambda: [])
    monkeypatch.setattr(backend, "cpu_flags", lambda: {"avx2"})
    assert backend.prediction_precision("bfloat16") == ("bfloat16", "")
    assert backend.precision_support("bfloat16") == (backend.SLOW, "this CPU emulates bfloat16")
    monkeypatch.setattr(backend, "cpu_flags", lambda: {"avx512_bf16"})
    assert backend.precision_support("bfloat16") == (backend.FAST, "")


def test_a_precision_that_the_gpu_lacks_is_refused_by_name(gpu):
    gpu((7, 5))
    assert backend.resolve_precision("auto")[0] == "float16"
    with pytest.raises(KitError, match="--precision bfloat16 cannot be had here: TensorFlow cannot convolve "
                                       "bfloat16 on Tesla T4"):
        backend.resolve_precision("bfloat16")
    gpu((8, 9), "NVIDIA L4")
    assert backend.resolve_precision("bfloat16") == ("bfloat16", "asked for")


# -- JAX's devices, without JAX -------------------------------------------------------------------------------------

FAKE_JAX = """
import os
from pathlib import Path

class Device:
    device_kind = "NVIDIA L4"

def default_backend():
    Path(os.environ["SEEN"]).write_text(f"{os.getpid()} {os.environ.get('XLA_PYTHON_CLIENT_PREALLOCATE')}")
    if os.environ.get("JAX_PLATFORMS") == "rocm":
        raise RuntimeError("Unable to initialize backend 'rocm'")
    return os.environ["PLATFORM"]

def devices():
    return [Device(), Device()]
"""


@pytest.fixture
def jax(tmp_path, monkeypatch):
    """A JAX on two GPUs, whose file `seen` says which process asked for them."""
    (tmp_path / "jax.py").write_text(FAKE_JAX)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in (("PYTHONPATH", tmp_path), ("SEEN", tmp_path / "seen"), ("PLATFORM", "gpu")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    monkeypatch.setattr(backend, "load", lambda: "jax")
    backend._jax_devices.cache_clear()
    yield tmp_path
    backend._jax_devices.cache_clear()
    sys.modules.pop("jax", None)


def test_the_gpus_of_jax_are_counted_by_a_process_that_ends(jax):
    """This one would take most of their memory, and its workers would find none."""
    assert backend.gpus() == ["NVIDIA L4", "NVIDIA L4"] and not backend.has_tpu()
    process, preallocates = (jax / "seen").read_text().split()
    assert int(process) != os.getpid() and preallocates == "false"
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ and "jax" not in sys.modules


def test_a_tpu_is_asked_by_the_process_that_trains(jax, monkeypatch):
    """It admits one process at a time."""
    (jax / "libtpu.py").touch()
    monkeypatch.setenv("PLATFORM", "tpu")
    assert backend.has_tpu() and backend.gpus() == []
    assert int((jax / "seen").read_text().split()[0]) == os.getpid()


def test_jax_without_a_device_is_two_lines(jax, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "rocm")
    with pytest.raises(KitError, match="on with JAX_PLATFORMS=rocm: RuntimeError: Unable to") as caught:
        backend.gpus()
    assert caught.value.fix.startswith("unset JAX_PLATFORMS; or")


def test_a_notebooks_own_settings_of_keras_are_set_right(monkeypatch):
    import keras

    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float64")
    backend.load()
    assert (keras.config.image_data_format(), keras.config.floatx()) == ("channels_last", "float32")
