"""What the user's environment and `keras.json` would change in what the kit computes: overridden, or named.

Overridden is what would make the same command compute other numbers, or take many times as long, without a word: such
variables are removed before the training library is loaded (workers inherit that), and Keras' defaults are set again
after it. What is a wish of the user's (which GPUs, how many threads, deterministic operations) stays. `kit doctor`
shows both.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from kit.core.errors import KitError

BACKENDS = ("tensorflow", "jax")
DEFAULTS = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}  # Keras' own, and the kit's
FLOATX = ("float16", "float32", "float64")
DATA_FORMATS = ("channels_last", "channels_first")

XLA_SLOW = "compiles every step with XLA, which took 20 times as long on a CPU"
# By the module that reads them when it is loaded.
OVERRIDDEN = {
    "tensorflow": {
        "TF_ENABLE_ONEDNN_OPTS": "turns off the library that multiplies bfloat16",
        "ONEDNN_MAX_CPU_ISA": "keeps from the CPU's instructions for bfloat16",
        "DNNL_MAX_CPU_ISA": "keeps from the CPU's instructions for bfloat16",
        "ONEDNN_DEFAULT_FPMATH_MODE": "computes float32 in a lower precision",
        "DNNL_DEFAULT_FPMATH_MODE": "computes float32 in a lower precision",
        "TF_SET_ONEDNN_FPMATH_MODE": "computes float32 in a lower precision",
        "NVIDIA_TF32_OVERRIDE": "sets the precision of float32 on GPUs",
        "TF_CONV2D_USE_FP16_ACCUMULATE": "adds up float16 in a lower precision",
        "TF_FUNCTION_JIT_COMPILE_DEFAULT": XLA_SLOW,
        "TF_XLA_FLAGS": XLA_SLOW,
    },
    "jax": {
        "NVIDIA_TF32_OVERRIDE": "sets the precision of float32 on GPUs",
        "JAX_ENABLE_X64": "computes in float64 what is to be float32",
        "JAX_DEFAULT_DTYPE_BITS": "sets other dtypes",
        "JAX_DEFAULT_MATMUL_PRECISION": "multiplies float32 in another precision",
        "JAX_DISABLE_JIT": "compiles nothing, which takes hours",
        "JAX_NUMPY_DTYPE_PROMOTION": "refuses operations of two dtypes",
        "JAX_NUMPY_RANK_PROMOTION": "refuses operations of two shapes",
        "JAX_TRANSFER_GUARD": "refuses to move arrays to the device",
        "JAX_DEBUG_NANS": "stops where the kit would try a fold once more",
        "JAX_DEBUG_INFS": "stops at every infinite number",
        "JAX_DEFAULT_PRNG_IMPL": "draws other random numbers",
        "JAX_THREEFRY_PARTITIONABLE": "draws other random numbers",
        "KERAS_NNX_ENABLED": "makes Keras need flax",
    },
}
LEFT = {
    "tensorflow": {
        "TF_DETERMINISTIC_OPS": "the same bits on a GPU, more slowly",
        "TF_CUDNN_DETERMINISTIC": "the same bits on a GPU, more slowly",
        "TF_NUM_INTRAOP_THREADS": "threads of a fold, where --threads does not say",
        "TF_NUM_INTEROP_THREADS": "threads of a fold, where --threads does not say",
        "XLA_FLAGS": "options of the compiler",
    },
    "jax": {
        "JAX_PLATFORMS": "the devices to use",
        "XLA_FLAGS": "options of the compiler",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "GPU memory",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "GPU memory",
    },
}
LEFT_TO_ALL = {"CUDA_VISIBLE_DEVICES": "the GPUs to use"}

_removed: dict[str, str] = {}  # variable → the value that it had


def override_environment() -> None:
    """Make the environment the kit's, for libraries that are not loaded yet. KitError for a keras.json that is damaged.

    A backend that keras.json names, which holds for every program of the user's, is passed over where the kit cannot
    train on it; one in KERAS_BACKEND is not.
    """
    if "keras" not in sys.modules:
        _check_keras_json()
        name, _ = requested_backend()
        if not os.environ.get("KERAS_BACKEND") and (name not in BACKENDS or not importlib.util.find_spec(name)):
            os.environ["KERAS_BACKEND"] = BACKENDS[0]
    for module, variables in OVERRIDDEN.items():
        for variable in set(variables) & set(os.environ) if module not in sys.modules else ():
            if variable != "TF_ENABLE_ONEDNN_OPTS" or os.environ[variable].lower() in ("0", "false"):
                _removed[variable] = os.environ.pop(variable)
    # Where HDF5 would lock model files, file systems without locks refuse them; the run folder's lock is the kit's own.
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")


def set_defaults() -> None:
    """Keras' settings as the kit needs them, whatever keras.json or a notebook says. Keras is loaded."""
    import keras

    keras.config.set_floatx(DEFAULTS["floatx"])
    keras.config.set_epsilon(DEFAULTS["epsilon"])
    keras.config.set_image_data_format(DEFAULTS["image_data_format"])


# -- keras.json -----------------------------------------------------------------------------------------------------


def keras_json() -> Path:
    """Where Keras reads its settings from, whether the file is there or not."""
    if "KERAS_HOME" in os.environ:
        folder = Path(os.environ["KERAS_HOME"])
    else:
        home = Path("~").expanduser()
        folder = (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras"  # noqa: S108  Keras' own rule # nosec B108
    return (folder / "keras.json").expanduser()


def requested_backend() -> tuple[str, str]:
    """The backend that Keras is to use, and who says so: KERAS_BACKEND, a keras.json, or nobody."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name, "KERAS_BACKEND"
    if "backend" in (settings := _settings()):
        return str(settings["backend"]), str(keras_json())
    return BACKENDS[0], ""


def _settings() -> dict[str, Any]:
    """What keras.json says. Keras passes over one that is no JSON, and so does this."""
    path = keras_json()
    try:
        settings = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _check_keras_json() -> None:
    """KitError for what Keras would refuse with a traceback."""
    path = keras_json()
    fix = f"mend it, or delete it (Keras writes a new one): {path}"
    try:
        if not path.is_file():
            return
        settings = json.loads(path.read_bytes())
    except OSError as error:
        raise KitError(f"Keras cannot read its settings {path}: {error.strerror}",
                       "make it yours (chown), or set KERAS_HOME to a folder that you can read") from error
    except (ValueError, RecursionError):
        return
    if not isinstance(settings, dict):
        raise KitError(f"Keras' settings {path} are no JSON object", fix)
    fine = {"floatx": settings.get("floatx", "float32") in FLOATX,
            "epsilon": isinstance(settings.get("epsilon", 1e-7), float),
            "image_data_format": settings.get("image_data_format", "channels_last") in DATA_FORMATS}
    for name, ok in fine.items():
        if not ok:
            raise KitError(f"Keras' settings {path} have {name}: {settings[name]!r:.60}, which Keras refuses", fix)


# -- what the doctor says -------------------------------------------------------------------------------------------


def findings(backend: str) -> tuple[list[str], list[str], list[str]]:
    """What was set and is overridden; what is set and stays; what could not be overridden: a line of text each.

    The last is for a notebook that loaded the library before the kit.
    """
    overridden = [f"{name}={value} ({OVERRIDDEN[backend][name]})" for name, value in sorted(_removed.items())
                  if name in OVERRIDDEN[backend]]
    settings = _settings()
    overridden += [f"{name}: {settings[name]} in {keras_json()}" for name, value in DEFAULTS.items()
                   if settings.get(name, value) != value]
    # Keras itself writes tensorflow into a new file: that is nobody's wish.
    if settings.get("backend", BACKENDS[0]) not in (BACKENDS[0], backend):
        overridden.append(f"backend: {settings['backend']} in {keras_json()} (the kit trains on {backend})")
    late = [f"{name}={os.environ[name]} ({about})" for name, about in OVERRIDDEN[backend].items()
            if name in os.environ and (name != "TF_ENABLE_ONEDNN_OPTS" or os.environ[name].lower() in ("0", "false"))]
    left = [f"{name}={os.environ[name]} ({about})" for name, about in {**LEFT[backend], **LEFT_TO_ALL}.items()
            if name in os.environ]
    return overridden, left, late
