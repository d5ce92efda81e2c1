"""Keep environment variables and `keras.json` from silently changing what the kit computes.

Settings that would change the numbers, or make training many times slower, are overridden: the
variables are removed before the training library is loaded (worker processes inherit that), and
Keras' defaults are set again afterwards. Settings that are the user's choice (which GPUs, how many
threads, deterministic operations) are kept. `kit doctor` shows both.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from kit.core.errors import KitError

BACKENDS = ("tensorflow", "jax")
# Keras' own, and the kit's
DEFAULTS = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}
FLOATX = ("float16", "float32", "float64")
DATA_FORMATS = ("channels_last", "channels_first")

XLA_SLOW = "compiles every step with XLA, which took 20 times as long on a CPU"
# The variables that are removed, by the module that reads them when it is imported.
OVERRIDDEN = {
    "tensorflow": {
        "TF_ENABLE_ONEDNN_OPTS": "turns off oneDNN, which multiplies bfloat16",
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
# The variables that are the user's choice.
KEPT = {
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
KEPT_FOR_BOTH = {"CUDA_VISIBLE_DEVICES": "the GPUs to use"}

_removed: dict[str, str] = {}  # the removed variables and the values that they had


def override_environment() -> None:
    """Override the settings that libraries will read when they are loaded.

    keras.json is shared by all of the user's programs, so a backend named there is ignored if the
    kit cannot train on it. A backend named in KERAS_BACKEND is never ignored. KitError if
    keras.json is damaged.
    """
    if "keras" not in sys.modules:
        _check_keras_json()
        name, _ = requested_backend()
        if not os.environ.get("KERAS_BACKEND") and (name not in BACKENDS
                                                    or not importlib.util.find_spec(name)):
            os.environ["KERAS_BACKEND"] = BACKENDS[0]
    for module, variables in OVERRIDDEN.items():
        for variable in set(variables) & set(os.environ) if module not in sys.modules else ():
            if _is_harmful(variable):
                _removed[variable] = os.environ.pop(variable)
    # HDF5 locks the model files that it opens, which fails on file systems without locks. The kit
    # has its own lock.
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")


def _is_harmful(variable: str) -> bool:
    """Whether a variable of OVERRIDDEN that is set has a value that changes what is computed."""
    return variable != "TF_ENABLE_ONEDNN_OPTS" or os.environ[variable].lower() in ("0", "false")


def set_defaults() -> None:
    """Set Keras' defaults again, whatever keras.json or a notebook has set. Imports Keras."""
    import keras

    keras.config.set_floatx(DEFAULTS["floatx"])
    keras.config.set_epsilon(DEFAULTS["epsilon"])
    keras.config.set_image_data_format(DEFAULTS["image_data_format"])


# -- keras.json ------------------------------------------------------------------------------------


def keras_json() -> Path:
    """The path from which Keras reads its settings; the file need not exist."""
    if "KERAS_HOME" in os.environ:
        folder = Path(os.environ["KERAS_HOME"])
    else:
        home = Path("~").expanduser()
        # Keras' own rule
        writable = home if os.access(home, os.W_OK) else Path("/tmp")  # noqa: S108  # nosec B108
        folder = writable / ".keras"
    return (folder / "keras.json").expanduser()


def requested_backend() -> tuple[str, str]:
    """(backend, where it is requested): KERAS_BACKEND, the path of keras.json, or ""."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name, "KERAS_BACKEND"
    if "backend" in (settings := _settings()):
        return str(settings["backend"]), str(keras_json())
    return BACKENDS[0], ""


def _settings() -> dict[str, Any]:
    """The contents of keras.json; {} if it is not JSON, which Keras ignores as well."""
    path = keras_json()
    try:
        settings = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _check_keras_json() -> None:
    """KitError for settings at which Keras would stop with a traceback."""
    path = keras_json()
    fix = f"correct it, or delete it (Keras writes a new one): {path}"
    try:
        if not path.is_file():
            return
        settings = json.loads(path.read_bytes())
    except OSError as error:
        raise KitError(f"Keras cannot read its settings {path}: {error.strerror}",
                       "make it yours (chown), or set KERAS_HOME to a folder that you can "
                       "read") from error
    except (ValueError, RecursionError):
        return
    if not isinstance(settings, dict):
        raise KitError(f"Keras' settings {path} are not a JSON object", fix)
    fine = {"floatx": settings.get("floatx", "float32") in FLOATX,
            "epsilon": isinstance(settings.get("epsilon", 1e-7), float),
            "image_data_format": settings.get("image_data_format", "channels_last") in DATA_FORMATS}
    for name, ok in fine.items():
        if not ok:
            raise KitError(f"Keras' settings {path} have {name}: {settings[name]!r:.60}, which "
                           "Keras refuses", fix)


# -- for kit doctor --------------------------------------------------------------------------------


def findings(backend: str) -> tuple[list[str], list[str], list[str]]:
    """(overridden, kept, too late to override): the settings of each kind, a line of text each.

    The last kind occurs in notebooks that imported the library before the kit.
    """
    overridden = [f"{name}={value} ({OVERRIDDEN[backend][name]})"
                  for name, value in sorted(_removed.items())
                  if name in OVERRIDDEN[backend]]
    settings = _settings()
    overridden += [f"{name}: {settings[name]} in {keras_json()}" for name, value in DEFAULTS.items()
                   if settings.get(name, value) != value]
    # Keras itself writes tensorflow into a new keras.json, so that is not the user's choice.
    if settings.get("backend", BACKENDS[0]) not in (BACKENDS[0], backend):
        overridden.append(f"backend: {settings['backend']} in {keras_json()} (the kit trains on "
                          f"{backend})")
    late = [f"{name}={os.environ[name]} ({about})" for name, about in OVERRIDDEN[backend].items()
            if name in os.environ and _is_harmful(name)]
    left = [f"{name}={os.environ[name]} ({about})"
            for name, about in {**KEPT[backend], **KEPT_FOR_BOTH}.items()
            if name in os.environ]
    return overridden, left, late
