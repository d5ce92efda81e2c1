"""Check a kernel folder before its rehearsal: what Kaggle would refuse, and what differs here."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from kit.core import installation, os_errors, provenance
from kit.core.errors import KitError
from kit.kernel.builder import METADATA
from kit.kernel.folder import accelerators
from kit.rehearsal import sandbox


def check(folder: Path, metadata: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Reasons against the kernel that need no run, and notes on what differs from Kaggle here.

    KitError for a kernel that cannot be run here.
    """
    code = folder / metadata["code_file"]
    language = metadata.get("language")
    if isinstance(language, str) and language.lower() in ("r", "rmarkdown"):
        raise _not_python(code, {"r": "R", "rmarkdown": "R Markdown"}[language.lower()])
    reasons, notes = [], sandbox.differences()
    if language != "python":
        reasons.append(f"its language is {language!r:.40}: Kaggle's client takes python, r or "
                       "rmarkdown")
    if str(metadata.get("enable_internet", True)).lower() != "false":
        reasons.append("the internet is on (it is unless enable_internet is false), and the "
                       "competition forbids that")
    if metadata["kernel_type"] == "notebook":
        facts = read_notebook(code).get("metadata")
        spec = facts.get("kernelspec") if isinstance(facts, dict) else None
        spec = spec if isinstance(spec, dict) else {}
        name, spoken = spec.get("name"), spec.get("language")
        if name == "ir" or str(spoken).lower() == "r":
            raise _not_python(code, "R")
        if not name:
            reasons.append("the notebook has no kernelspec: Kaggle does not run it")
        elif name != "python3":
            notes.append(f"its kernelspec is named {name!r:.40}, which Kaggle's image may not "
                         "have: python3 is safe")
        lacking = [package for package in ("nbclient", "ipykernel", "nbformat")
                   if importlib.util.find_spec(package) is None]
        if lacking:
            raise KitError(f"{code} is a notebook, and {' and '.join(lacking)}, with which Kaggle "
                           f"runs one, {'is' if len(lacking) == 1 else 'are'} not installed here",
                           installation.how_to_install("rehearse"))
    elif code.suffix == ".ipynb":
        raise KitError(f"{folder / METADATA} calls {code.name} a script, and it is a notebook",
                       'write there "kernel_type": "notebook"')
    if not sandbox.unshare_command() and b"/kaggle/" in code.read_bytes():
        notes.append("it names /kaggle itself, which is not on this machine: a no for files that "
                     "it does not find says nothing about Kaggle")
    image = f"its image of {provenance.KAGGLE_IMAGE_DATE}"
    if others := provenance.other_versions():
        notes.append(f"not as on Kaggle ({image}): {', '.join(others)}")
    if pinned := metadata.get("docker_image") or metadata.get("docker_image_pinning_type"):
        notes.append(f"it asks for the image {pinned!s:.120}; a rehearsal knows the packages of "
                     f"{image} only")
    if "GPU" in accelerators(metadata) and not has_gpu():
        notes.append("not as on Kaggle: it asks for a GPU, and there is none here, so its time "
                     "here is a CPU's")
    return reasons, notes


def has_gpu() -> bool:
    """Whether this machine has a GPU of NVIDIA's; `/dev/dxg` is that of Windows' Linux."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def _not_python(code: Path, language: str) -> KitError:
    return KitError(f"{code} is written in {language}; a rehearsal runs Python alone",
                    "kit kernel push takes it to Kaggle without a rehearsal")


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook as parsed JSON. KitError where the file is none."""
    again = "save it again as .ipynb, or make one: kit kernel build --kind notebook"
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise KitError(f"{path} is no notebook: byte {error.start + 1} "
                       f"(0x{error.object[error.start]:02x}) is not UTF-8",
                       "save it again as UTF-8") from error
    except OSError as error:
        raise os_errors.explain_os_error(error, path, "read") from error
    if text.startswith("\ufeff"):
        raise KitError(f"{path} is no notebook: it begins with a byte order mark, at which Jupyter "
                       "stops",
                       "save it as UTF-8 without one (an editor may call it UTF-8 with BOM)")
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        is_code = "import " in text and text.lstrip()[:1] != "{"
        raise KitError(f"{path} is no notebook: {error}", "rename it to .py and call it a script"
                       if is_code else again) from error
    if isinstance(notebook, dict) and isinstance(notebook.get("worksheets"), list):
        raise KitError(f"{path} is a notebook in the format {notebook.get('nbformat', 3)} of "
                       "before 2015", f"jupyter nbconvert --to notebook --inplace {path}")
    if not isinstance(notebook, dict) or "cells" not in notebook:
        raise KitError(f"{path} is no notebook: it has no cells", again)
    if not isinstance(notebook["cells"], list):
        raise KitError(f"{path} is no notebook: its cells are no list", again)
    return notebook
