"""Load Keras with its backend, set threads and GPU memory growth, and choose the precision.

`configure_devices` must run before the first tensor is made, because TensorFlow then fixes its
threads. Apart from the training loops and the layers, all code that calls TensorFlow directly is
here.
"""

import contextlib
import functools
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kit.core import ambient, installation, system
from kit.core.errors import KitError


def load() -> str:
    """Import Keras without its log messages, set Keras' defaults, and return the backend's name.

    KitError if the backend is missing, or is one that the kit cannot train on.
    """
    name = _import_keras()
    ambient.set_defaults()
    return name


@functools.cache
def _import_keras() -> str:
    earlier = "keras" in sys.modules
    ambient.override_environment()
    asked, source = ambient.requested_backend()
    if asked not in ambient.BACKENDS and not earlier:
        raise KitError(
            f"the kit trains on TensorFlow or JAX, not on {asked}, which {source} asks for",
            "unset KERAS_BACKEND, or set it to jax")
    with _quiet_stderr():
        try:
            import keras

            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                tf.config.list_physical_devices("GPU")  # complains of a missing CUDA the first time
        except ImportError as error:
            if asked == "jax":
                other = "unset KERAS_BACKEND" if source == "KERAS_BACKEND" \
                    else "set KERAS_BACKEND=tensorflow"
                raise KitError(f"JAX cannot be loaded, which {source} asks for: {error}",
                               f"install the JAX that fits this machine, or {other} for "
                               "TensorFlow") from error
            if refused := re.search(r"DLL load failed.*", str(error)):
                raise KitError(f"Windows cannot load the training library: {refused[0]}",
                               "install Microsoft's Visual C++ Redistributable (x64), and see that "
                               "Python is a 64-bit one; TensorFlow also needs a processor with AVX"
                               ) from error
            raise KitError(f"the training library is missing: {error}",
                           f"{installation.how_to_install()}; TensorFlow has wheels for Python "
                           "3.11 to 3.13 on Linux, macOS (Apple silicon) and Windows (x86-64)"
                           ) from error
    name = str(keras.backend.backend())
    if name not in ambient.BACKENDS:
        raise KitError(f"Keras was loaded {'before the kit ' * earlier}with the backend {name}, on "
                       "which the kit does not train",
                       "restart Python (the notebook's kernel), with KERAS_BACKEND=tensorflow")
    return name


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr, and show it only if the block fails.

    Setting TensorFlow's log level is not enough: it logs before it reads the level.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def configure_devices(threads: int | None = None) -> None:
    """Set the CPU threads of this process and GPU memory growth.

    Calling it again with the same threads is fine.
    """
    if load() != "tensorflow":
        return
    import tensorflow as tf

    if threads and tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError as error:
            raise KitError("TensorFlow has started in this process with another number of threads "
                           f"than {threads}",
                           "restart Python (the notebook's kernel), or use --executor "
                           "processes") from error
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):
            # The GPU is in use already, and its memory setting fixed
            tf.config.experimental.set_memory_growth(gpu, True)


def gpus() -> list[str]:
    """Names of the GPUs that the backend can use."""
    if load() == "jax":
        platform_name, kinds = _jax_devices()
        return kinds if platform_name == "gpu" else []
    import tensorflow as tf

    return [_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")]


def has_tpu() -> bool:
    """Whether JAX runs on a TPU, which only one process may use at a time."""
    return load() == "jax" and _jax_devices()[0] == "tpu"


ASK_JAX = """
import json, jax
print(json.dumps([jax.default_backend(), [device.device_kind for device in jax.devices()]]))
"""


@functools.cache
def _jax_devices() -> tuple[str, list[str]]:
    """JAX's platform (cpu, gpu or tpu) and the names of its devices. KitError if JAX cannot start.

    A process that lists JAX's devices takes three quarters of each GPU's memory and keeps it, which
    would leave none for the workers: so a short-lived child process lists them. On a TPU, which
    allows one process at a time, this process will train, so it lists them itself.
    """
    if importlib.util.find_spec("libtpu"):
        import jax

        return jax.default_backend(), [device.device_kind for device in jax.devices()]
    done = subprocess.run([sys.executable, "-P", "-c", ASK_JAX], capture_output=True, text=True,
                          env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"})
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        name = next((name for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "XLA_FLAGS")
                     if name in os.environ), "")
        where = f" with {name}={os.environ[name]}" if name else ""
        cause = f"unset {name}" if name else "see that JAX and the GPU's driver fit"
        raise KitError(f"JAX finds no device to train on{where}: {why}",
                       f"{cause}; or train on TensorFlow: KERAS_BACKEND=tensorflow")
    platform_name, kinds = json.loads(done.stdout.splitlines()[-1])
    return platform_name, kinds


def compiles_per_step_count() -> bool:
    """Whether each number of steps compiles the training loop again: JAX's scan, but on a CPU."""
    if load() != "jax":
        return False
    import jax

    return str(jax.default_backend()) != "cpu"


def resolve_precision(asked: str) -> tuple[str, str]:
    """`(precision, reason)` for the option `--precision`; `auto` is the fastest in hardware here.

    bfloat16 was 3–4 times as fast as float32 on CPUs with AMX or AVX512-BF16; on other CPUs it is
    emulated.
    """
    if asked == "float16" and load() == "jax":
        raise KitError("--precision float16 needs loss scaling, which the kit has on TensorFlow "
                       "only", "use --precision bfloat16 on JAX")
    if asked != "auto":
        speed, why = precision_support(asked)
        if speed == NONE:
            raise KitError(f"--precision {asked} cannot be had here: {why}", "use --precision auto")
        return asked, "asked for"
    if gpus():
        return _gpu_precision()
    if has_tpu():
        return "bfloat16", "what TPUs compute in"
    if cpu_flags() & {"amx_bf16", "avx512_bf16"}:
        return "bfloat16", "this CPU multiplies bfloat16 in hardware"
    return "float32", "this CPU has no fast bfloat16"


FAST, SLOW, NONE = "fast", "slow", "not at all"


def precision_support(precision: str) -> tuple[str, str]:
    """How this machine computes in `precision`: FAST, SLOW (emulated) or NONE; and why not FAST."""
    if precision == "float32":
        return FAST, ""
    if names := gpus():
        if load() == "jax":
            return (FAST, "") if precision == "bfloat16" \
                else (SLOW, "JAX computes in bfloat16 on a GPU")
        capability = _least_capability()
        if precision == "bfloat16" and capability < (8, 0):
            return NONE, f"TensorFlow cannot convolve bfloat16 on {names[0]}"
        return (FAST, "") if capability >= (7, 0) else (SLOW, f"{names[0]} has no tensor cores")
    if has_tpu():
        return (FAST, "") if precision == "bfloat16" else (SLOW, "TPUs compute in bfloat16")
    if precision == "bfloat16" and cpu_flags() & {"amx_bf16", "avx512_bf16"}:
        return FAST, ""
    return SLOW, f"this CPU emulates {precision}"


def prediction_precision(trained: str) -> tuple[str, str]:
    """`(precision, reason)` for predicting here with a model that was trained in `trained`.

    If the machine supports that precision at all, it is used, and the reason is empty: emulated,
    predicting takes 0 to 30 % longer (cnn and strong on two cores without bfloat16). Otherwise it
    is float32, whose probs differ a little, and the reason says so: TensorFlow has no bfloat16
    convolution for Kaggle's T4, where a model may predict that was trained in bfloat16 on a CPU.
    """
    speed, why = precision_support(trained)
    if speed == NONE:
        return "float32", f"it was trained in {trained}, and {why}"
    return trained, ""


def _gpu_precision() -> tuple[str, str]:
    if load() == "jax":
        return "bfloat16", "the GPU's tensor cores"
    capability = _least_capability()
    if capability >= (8, 0):
        return "bfloat16", "the GPU's tensor cores take bfloat16"
    if capability >= (7, 0):
        return "float16", "the GPU's tensor cores take float16 only"
    return "float32", "the GPU has no tensor cores"


def _least_capability() -> tuple[int, int]:
    """The CUDA compute capability of the weakest GPU."""
    import tensorflow as tf

    return min(_details(gpu).get("compute_capability", (0, 0))
               for gpu in tf.config.list_physical_devices("GPU"))


def _details(gpu: object) -> dict:
    import tensorflow as tf

    return tf.config.experimental.get_device_details(gpu)


def dtype_policy(precision: str) -> str:
    """The Keras dtype policy for a precision. Variables are float32 in each of them."""
    return {"float32": "float32", "bfloat16": "mixed_bfloat16",
            "float16": "mixed_float16"}[precision]


def cpu_flags() -> set[str]:
    """The instruction-set flags of the CPU; empty where /proc/cpuinfo does not exist."""
    return set(_cpuinfo("flags").split())


def _cpuinfo(field: str) -> str:
    """A field of the first core in /proc/cpuinfo, such as "model name"; "" without it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def device() -> str:
    """The name of what this process trains on: its first GPU, a TPU, or the CPU.

    Call it after training: on JAX it takes the memory that training takes.
    """
    if load() == "jax":
        import jax

        first = jax.devices()[0]
        name = "" if first.platform == "cpu" else first.device_kind
    else:
        name = next(iter(gpus()), "")
    return name or _cpuinfo("model name") or platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions of the training library and of what it stands on."""
    backend = load()
    import keras
    import numpy

    return {"keras": keras.__version__, "numpy": numpy.__version__,
            backend: sys.modules[backend].__version__}


def describe() -> dict[str, object]:
    """The machine and the versions of its software, for report.json."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu_cores": len(system.cores()),
        "cpu_bfloat16": bool(cpu_flags() & {"amx_bf16", "avx512_bf16"}),
        "gpus": gpus(),
        "backend": load(),
        "versions": versions(),
    }
