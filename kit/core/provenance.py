"""Which versions of the packages that the kit needs are installed here, and which are in Kaggle's image.

Nothing is imported to find out, so this works in a process that must not load TensorFlow, and where an
import fails.
"""

import importlib.metadata
import platform

# Kaggle's image v170, for CPU and GPU; `constraints-kaggle.txt` installs the same. What a kernel really
# ran with is in its report.json.
KAGGLE_IMAGE = {
    "python": "3.12", "tensorflow": "2.20.0", "keras": "3.13.2", "jax": "0.7.2", "numpy": "2.0.2",
    "pandas": "2.2.2", "pyarrow": "18.1.0", "scikit-learn": "1.6.1", "scipy": "1.16.3",
    "matplotlib": "3.10.0", "jinja2": "3.1.6", "filelock": "3.29.0", "tqdm": "4.67.3", "rich": "13.9.4"}
KAGGLE_IMAGE_DATE = "August 2026"  # when its versions were last looked up; the image's base is of May

# Packages that install the module `tensorflow` under another name: Kaggle's TPU image has tensorflow-cpu.
ALSO_KNOWN_AS = {"tensorflow": ("tensorflow-cpu", "tensorflow-macos", "tensorflow-intel",
                                "tensorflow-rocm", "tf-nightly")}


def names(package: str) -> tuple[str, ...]:
    """The names under which `package` may be installed, the usual one first."""
    return (package, *ALSO_KNOWN_AS.get(package, ()))


def installed(package: str) -> str | None:
    """The version of `package` that is installed here; None if it is not. `python` is Python itself."""
    if package == "python":
        return platform.python_version()
    for name in names(package):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def all_installed() -> dict[str, str]:
    """The version of each package of `KAGGLE_IMAGE` that is installed here."""
    return {package: version for package in KAGGLE_IMAGE if (version := installed(package))}
