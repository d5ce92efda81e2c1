"""Record what a result was made with: package versions and a hash of the code.

Versions are looked up without importing the packages, so this also works in a process that must not
load TensorFlow, and where an import fails.
"""

import ast
import hashlib
import importlib.metadata
import io
import platform
import tokenize
from pathlib import Path

from kit.core.installation import KIT

# The modules that decide a fold's numbers, as paths below kit/. Executors and schedules don't
# change them.
HASHED_MODULES = ("core/backend.py", "data/folds.py", "training/augment.py",
                  "training/checkpoints.py", "training/fit.py", "training/jobs.py",
                  "training/layers.py", "training/models.py", "training/own_models.py",
                  "training/predict.py", "training/spreading.py", "training/trainer.py")

# Kaggle's image v170, for CPU and GPU; `constraints-kaggle.txt` installs the same. What a kernel
# really ran with is in its report.json.
KAGGLE_IMAGE = {
    "python": "3.12", "tensorflow": "2.20.0", "keras": "3.13.2", "jax": "0.7.2", "numpy": "2.0.2",
    "pandas": "2.2.2", "scikit-learn": "1.6.1", "scipy": "1.16.3",
    "matplotlib": "3.10.0", "jinja2": "3.1.6", "filelock": "3.29.0", "tqdm": "4.67.3",
    "rich": "13.9.4"}
# When the versions were looked up; the image's base is of May
KAGGLE_IMAGE_DATE = "August 2026"

# Packages that install the module `tensorflow` under another name: Kaggle's TPU image has
# tensorflow-cpu.
ALSO_KNOWN_AS = {"tensorflow": ("tensorflow-cpu", "tensorflow-macos", "tensorflow-intel",
                                "tensorflow-rocm", "tf-nightly")}


def distribution_names(package: str) -> tuple[str, ...]:
    """The names under which `package` may be installed, the usual one first."""
    return (package, *ALSO_KNOWN_AS.get(package, ()))


def installed_version(package: str) -> str | None:
    """The version of `package` that is installed here; None if it is not.

    `python` is Python itself.
    """
    if package == "python":
        return platform.python_version()
    for name in distribution_names(package):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def installed_versions() -> dict[str, str]:
    """The version of each package of `KAGGLE_IMAGE` that is installed here."""
    return {package: version for package in KAGGLE_IMAGE if (version := installed_version(package))}


def other_versions() -> list[str]:
    """The packages here whose version is not that of `KAGGLE_IMAGE`, as text.

    Versions are compared by their first two numbers; the third seldom matters.
    """
    return [f"{package} {here} (there {there})" for package, there in KAGGLE_IMAGE.items()
            if (here := installed_version(package))
            and here.split(".")[:2] != there.split(".")[:2]]


def code_hash(root: Path = KIT) -> str:
    """SHA-256 of the HASHED_MODULES below `root`, without comments, docstrings and layout."""
    digest = hashlib.sha256()
    for name in HASHED_MODULES:
        source = (root / name).read_text("utf-8")
        docstrings = {node.body[0].lineno for node in ast.walk(ast.parse(source))
                      if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef
                                    | ast.AsyncFunctionDef)
                      and ast.get_docstring(node, clean=False) is not None}
        words = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline)
                 if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)
                 and not (token.type == tokenize.STRING and token.start[0] in docstrings)]
        # An indent is a token of its own, so where a block ends is part of the hash.
        digest.update("\0".join([name, *words]).encode())
    return digest.hexdigest()
