"""Run a kernel in a sandbox that is as much like Kaggle as this machine permits.

With Linux namespaces the kernel sees a file system with Kaggle's folders, `/kaggle/input`
read-only, and no network but the loopback. Without them the same folders lie in a staging folder
(`stage`), an environment variable tells the kit's runtime where, and only Python's own imports and
connections are refused (`guard`); `differences` lists what is then not as on Kaggle.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

from kit.core import provenance, system
from kit.rehearsal import guard

# Modules that are in Kaggle's image (its Dockerfile, and Colab's list of packages on which it is built; November 2026)
# and that kernels are known to import, each with the package that brings it. What those packages need is there as well.
IMAGE = {
    **{name: name for name in (
        "IPython", "ipykernel", "ipywidgets", "nbclient", "nbconvert", "nbformat", "papermill",
        "tensorflow", "keras", "jax", "flax", "optax", "tensorboard", "tensorflow_datasets", "tensorflow_hub",
        "tensorflow_probability", "keras_tuner", "torch", "torchvision", "torchaudio", "torchmetrics", "torchinfo",
        "pytorch_lightning", "timm", "kornia", "fastai", "transformers", "datasets", "accelerate", "sentencepiece",
        "tokenizers", "safetensors", "xgboost", "lightgbm", "catboost", "optuna", "hyperopt", "shap", "numpy", "scipy",
        "pandas", "polars", "pyarrow", "matplotlib", "seaborn", "plotly", "bokeh", "altair", "statsmodels", "sympy",
        "numba", "joblib", "dask", "networkx", "albumentations", "imageio", "imgaug", "nltk", "spacy", "gensim", "h5py",
        "jinja2", "filelock", "tqdm", "rich", "typer", "click", "pyparsing", "psutil", "requests", "openpyxl", "lxml",
        "missingno", "mlxtend", "wordcloud", "kaggle", "pytest", "cloudpickle")},
    "PIL": "pillow", "cv2": "opencv-python-headless", "sklearn": "scikit-learn", "skimage": "scikit-image",
    "yaml": "pyyaml", "bs4": "beautifulsoup4", "imblearn": "imbalanced-learn",
    "category_encoders": "category-encoders", "dateutil": "python-dateutil"}
KAGGLES_OWN = {"kaggle_secrets", "kaggle_datasets", "kaggle_session", "kaggle_gcp"}  # nobody else has these modules
INSTALLERS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "wheel")
NAMESPACES = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")  # no credentials, no proxies, no kit on the path
KEPT_PREFIXES = ("CUDA", "NVIDIA", "TF_", "XLA_", "OMP_", "KERAS_")


def start(stage: Path, code: str, log: Path, time_limit: float, is_rerun: bool = True) -> subprocess.Popen:
    """Start `kaggle/src/<code>`, script or notebook, in the sandbox of `stage`; it writes to `log`.

    time_limit: in seconds, for the kit's own kernels to plan by. is_rerun: tell the kernel, as a
    code competition does, that it runs on the hidden test file. A notebook needs the packages of
    the extra `rehearse`.
    """
    unshare = namespaces()
    root = "/kaggle" if unshare else str(stage / "kaggle")
    environment = _environment(stage, time_limit, None if unshare else root)
    environment |= {"KAGGLE_IS_COMPETITION_RERUN": "1"} if is_rerun else {}
    setpriv = shutil.which("setpriv")
    die_with_parent = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    command = [*die_with_parent, sys.executable, "-u", f"{root}/src/{code}"]
    if code.endswith(".ipynb"):
        runner = stage / "run_notebook.py"
        shutil.copyfile(Path(__file__).with_name(runner.name), runner)
        command.insert(-1, str(runner))
        environment |= _jupyter(stage, die_with_parent)
    else:
        environment["MPLBACKEND"] = "Agg"  # a notebook's is ipykernel's choice
    with log.open("wb") as output:
        if not unshare:
            return subprocess.Popen(command, cwd=f"{root}/working", env=environment, stdin=subprocess.DEVNULL,
                                    stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        arguments = {"stage": str(stage), "command": command, "environment": environment}
        entry = [*die_with_parent, *unshare, sys.executable, "-c",
                 f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
                 "from kit.rehearsal.sandbox import enter; enter(sys.argv[1])",
                 json.dumps(arguments)]
        return subprocess.Popen(entry, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                start_new_session=True)


def namespaces() -> tuple[str, ...]:
    """The `unshare` command that works here, or nothing where namespaces are not permitted."""
    return _try_namespaces()[0]


@functools.lru_cache(maxsize=1)
def _try_namespaces() -> tuple[tuple[str, ...], str]:
    """The command of `namespaces`, and why there is none."""
    if sys.platform != "linux":
        return (), f"{sys.platform} has none"
    unshare = shutil.which("unshare")
    if not unshare or not shutil.which("mount"):
        return (), f"the program {'mount' if unshare else 'unshare'} (util-linux) is missing"
    command = (unshare, *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), *NAMESPACES)
    try:
        tried = subprocess.run([*command, "mount", "-t", "tmpfs", "kit", "/mnt"], capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return (), str(error)
    if tried.returncode:
        return (), (tried.stderr.decode(errors="replace").strip().splitlines() or ["unshare fails"])[-1]
    return command, ""


def differences() -> list[str]:
    """How the sandbox on this machine differs from Kaggle, in words for the verdict's notes."""
    unmeasured = [] if system.PROC.is_dir() else ["not as on Kaggle: memory is neither measured nor limited here"]
    if namespaces():
        return unmeasured
    return [*unmeasured,
            f"not as on Kaggle: there are no Linux namespaces here ({_try_namespaces()[1] or 'switched off'})",
            "not as on Kaggle: /kaggle does not exist here; only a kernel that reads KIT_KAGGLE_ROOT, as the kit's own "
            "do, finds its files",
            "not as on Kaggle: only Python's connections are refused; other programs, such as !curl, reach the network",
            "not as on Kaggle: pip is refused here, so that no kernel changes what is installed",
            "not as on Kaggle: the input is protected by the modes of its files alone"
            + (", which do not bind root" if getattr(os, "geteuid", lambda: 1)() == 0 else "")]


def _jupyter(stage: Path, die_with_parent: list[str]) -> dict[str, str]:
    """Define the Jupyter kernel python3 as this Python; the variables with which Jupyter finds it.

    ipykernel's process begins a session of its own; `die_with_parent` ends it with the one that
    runs the notebook.
    """
    spec = stage / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    # Its log would only warn that the connection over the loopback is not encrypted.
    command = [*die_with_parent, sys.executable, "-m", "ipykernel_launcher",
               "-f", "{connection_file}", "--log-level=40"]
    (spec / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    return {"JUPYTER_PATH": str(stage / "jupyter"), "JUPYTER_PLATFORM_DIRS": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def _environment(stage: Path, time_limit: float, root: str | None) -> dict[str, str]:
    """The kernel's environment variables: Kaggle's, this machine's paths, nothing private."""
    site, rules = stage / "site", stage / "rules.json"
    site.mkdir(exist_ok=True)
    shutil.copyfile(guard.__file__, site / "sitecustomize.py")
    rules.write_text(json.dumps({"packages": image_packages(), "log": str(stage / "blocked.jsonl"),
                                 "own_folders": [f"{stage.resolve()}/", "/kaggle/"],
                                 "stdlib": sysconfig.get_path("stdlib")}), "utf-8")
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    for folder in ("home", "tmp", "installed"):
        (stage / folder).mkdir(exist_ok=True)
    return kept | {"HOME": str(stage / "home"), "TMPDIR": str(stage / "tmp"),
                   "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
                   "PYTHONPATH": os.pathsep.join([str(site), str(stage / "installed")]),
                   "PIP_TARGET": str(stage / "installed"), "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                   "PYTHONDONTWRITEBYTECODE": "1", "KIT_REHEARSAL": str(rules),
                   "KAGGLE_KERNEL_RUN_TYPE": "Batch", "KIT_TIME_LIMIT": str(time_limit),
                   **({"KIT_KAGGLE_ROOT": root} if root else {})}


@functools.lru_cache(maxsize=1)
def image_packages() -> list[str]:
    """Top-level names that a kernel can import in Kaggle's image, dependencies included."""
    wanted = [name for package in IMAGE.values() for name in provenance.distribution_names(package)]
    names = set(IMAGE)
    for package in wanted:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for requirement in importlib.metadata.requires(package) or ():
                name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
                if "extra ==" not in requirement and _norm(name) not in map(_norm, wanted):
                    wanted.append(name)
    known = set(map(_norm, wanted))
    for module, packages in importlib.metadata.packages_distributions().items():
        if known & set(map(_norm, packages)):
            names.add(module)
    return sorted(names - {"kit"})


def _norm(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# -- inside the namespaces ------------------------------------------------------------------------------------------


def enter(arguments: str) -> None:
    """Build the file system, run the command in it, and exit with its code; `arguments` are JSON.

    The command runs as a child, since process 1 of a namespace ignores signals.
    """
    given = json.loads(arguments)
    stage = Path(given["stage"])
    root = stage / "root"
    root.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "kit", str(root))
    _mount("--make-unbindable", str(root))
    for entry in sorted(Path("/").iterdir()):
        _mirror(entry, root / entry.name)
    if _make_python_read_only(root):
        rules = stage / "rules.json"
        facts = json.loads(rules.read_text("utf-8"))
        rules.write_text(json.dumps(facts | {"packages": [*facts["packages"], *INSTALLERS]}), "utf-8")
    for name, options in (("input", "remount,bind,ro"), ("working", ""), ("src", "remount,bind,ro")):
        place = root / "kaggle" / name
        place.mkdir(parents=True)
        _mount("--bind", str(stage / "kaggle" / name), str(place))
        if options:
            with contextlib.suppress(subprocess.CalledProcessError):  # the files are read-only as well
                _mount("-o", options, str(place))
    loopback_up()
    os.chroot(root)
    os.chdir("/kaggle/working")
    code = subprocess.run(given["command"], env=given["environment"]).returncode
    sys.exit(code if code >= 0 else 128 - code)


def _make_python_read_only(root: Path) -> bool:
    """Make this Python's folders read-only in the file system at `root`; whether that worked.

    Then pip may run: what a kernel installs (from wheels among its inputs, as there is no network)
    goes to a folder of the stage, and what it tries to uninstall stays.
    """
    try:
        for prefix in {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}:
            place = str(root) + str(prefix)
            _mount("--rbind", place, place)
            _mount("-o", "remount,bind,ro", place)
    except subprocess.CalledProcessError:  # as in a container whose mounts may not be changed
        return False
    return True


def _mirror(entry: Path, place: Path) -> None:
    """Bind a folder of the real root, or repeat a symlink, at `place` in the new one."""
    if entry.name in ("kaggle", "lost+found"):
        return
    if entry.is_symlink():
        place.symlink_to(entry.readlink())
    elif entry.is_dir():
        place.mkdir()
        _mount("--rbind", str(entry), str(place))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)  # noqa: S607  looked up by `namespaces`


def loopback_up() -> None:
    """A new network namespace has a loopback that is down: set IFF_UP | IFF_RUNNING with SIOCSIFFLAGS, netdevice(7)."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
