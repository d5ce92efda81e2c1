"""`kit doctor`: check this machine, the credentials and the data, and say how to fix what is wrong.

It calls the functions that training and downloading call (`kit.core.backend`, `kit.data.source`,
`kit.kaggle.credentials`), so its answers are the ones that they will get. A check that fails
becomes a finding, and the other checks still run.
"""

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.core import (
    ambient,
    backend,
    installation,
    locks,
    os_errors,
    provenance,
    storage,
    system,
)
from kit.core.errors import KitError
from kit.data import source as sources
from kit.data.competition import Competition
from kit.data.source import DataFolder
from kit.kaggle.credentials import SETTINGS_PAGE, check_credential, find_credential
from kit.training import executors

OK, NOTE, BAD = "ok", "note", "bad"
PYTHONS = ((3, 11), (3, 13))  # TensorFlow's wheels, see kit.core.backend
MEMORY_GB = 3.0  # held by two training processes and their parent, with all 60,000 rows, on 2 cores
DISK_GB = 2.0  # data with its cache: 0.3 GB; a run of 5 folds: some 0.1 GB; the rest: more runs


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    state: str  # ok; note: good to know; bad: something will not work
    found: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        line = f"{self.state:<5}{self.name:<13}{self.found}"
        return f"{line}\n{'':<18}fix: {self.fix}" if self.fix else line


def examine(competition: Competition, data_dir: Path) -> list[Finding]:
    """The findings of all checks. Imports the training library, which takes seconds."""
    return run(checks(competition, data_dir))


def checks(competition: Competition, data_dir: Path) -> dict[str, Callable[[], Finding]]:
    """What is checked on any machine, by the names of the findings."""
    return {"kit": _kit, "Python": _python, "backend": _backend, "environment": _environment,
            "GPU": _gpu, "precision": _precision, "processes": _processes, "memory": _memory,
            "disk": lambda: _disk(Path(data_dir)), "credentials": _credentials,
            "data": lambda: _data(competition, Path(data_dir)), "Kaggle image": _kaggle_image}


def run(checks: dict[str, Callable[[], Finding]]) -> list[Finding]:
    """The findings of `checks`; one that fails is a finding as well."""
    findings = []
    for name, check in checks.items():
        try:
            findings.append(check())
        except KitError as error:
            findings.append(Finding(name, BAD, error.message, error.fix))
        except Exception as error:  # a broken driver or installation can raise anything
            findings.append(Finding(
                name, BAD, f"cannot be examined: {type(error).__name__}: {error}",
                f"repair the installation: {installation.how_to_install()}"))
    return findings


# -- what trains -----------------------------------------------------------------------------------


def _kit() -> Finding:
    return Finding("kit", OK, f"{installation.describe().removeprefix('kit ')}, in "
                   f"{installation.KIT.parent}")


def _python() -> Finding:
    first, last = (".".join(map(str, version)) for version in PYTHONS)
    found = (f"{platform.python_version()} on {platform.system()} {platform.machine()}, "
             f"{len(system.cores())} cores")
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Finding("Python", OK, found)
    return Finding("Python", BAD, found,
                   f"use Python {first} to {last}: TensorFlow has wheels for no other")


def _backend() -> Finding:
    name = backend.load()
    keras, version = (provenance.installed_version(package) or "(version unknown)"
                      for package in ("keras", name))
    return Finding("backend", OK, f"Keras {keras} on {name} {version}")


def _environment() -> Finding:
    """The user's settings, in variables or keras.json, that affect what is computed."""
    overridden, left, late = ambient.findings(backend.load())
    if late:
        return Finding("environment", BAD,
                       f"read before the kit could override it: {'; '.join(late)}",
                       "restart Python (the notebook's kernel), and import kit before the training "
                       "library")
    said = [f"{kind}: {'; '.join(settings)}"
            for kind, settings in (("overridden", overridden), ("in use", left)) if settings]
    if not said:
        return Finding("environment", OK, "nothing in it changes what is computed")
    return Finding("environment", NOTE, "; ".join(said),
                   "none needed" if not left else "unset what you did not mean to have")


def _processes() -> Finding:
    if why := executors.why_no_processes():
        return Finding("processes", NOTE, f"{why}: folds train one after another", executors.SHM)
    quota = ", within a quota of the container's" * system.is_throttled()
    return Finding("processes", OK,
                   f"folds can train side by side, on {len(system.cores())} cores{quota}")


def _gpu() -> Finding:
    """The GPUs that the backend can use; if there are none, those that the driver sees, and why."""
    usable, seen = backend.gpus(), seen_gpus()
    if usable:
        return Finding("GPU", OK, f"{len(usable)} usable: {', '.join(usable)}")
    if backend.has_tpu():
        return Finding("GPU", OK, "none, but a TPU")
    if not seen:
        return Finding("GPU", NOTE, "none: folds train on the CPU",
                       "none needed; for longer recipes, train on Kaggle's: kit kernel build "
                       "--accelerator t4x2")
    name = backend.load()
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return Finding("GPU", BAD, f"{len(seen)} seen, hidden by CUDA_VISIBLE_DEVICES",
                       "unset CUDA_VISIBLE_DEVICES")
    if name == "jax" and os.environ.get("JAX_PLATFORMS"):
        return Finding("GPU", BAD,
                       f"{len(seen)} seen, hidden by JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}",
                       "unset JAX_PLATFORMS")
    return Finding("GPU", BAD, f"{len(seen)} seen, none usable by {name}: {', '.join(seen)}",
                   f"install the CUDA libraries that it needs: pip install -U '{CUDA[name]}'")


CUDA = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda12]"}


def seen_gpus(driver: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Names of the NVIDIA GPUs that the driver sees, whether or not the backend can use them."""
    return [line.split(":", 1)[1].strip() for path in sorted(driver.glob("*/information"))
            for line in path.read_text("utf-8", "replace").splitlines()
            if line.startswith("Model:")]


def _precision() -> Finding:
    precision, why = backend.resolve_precision("auto")
    return Finding("precision", OK, f"{precision}: {why}")


# -- memory and disk -------------------------------------------------------------------------------


def _memory() -> Finding:
    free = system.free_memory()
    if free is None:
        return Finding("memory", NOTE, "this system does not say how much is free")
    found = f"{free / 1e9:.1f} GB free"
    if free >= MEMORY_GB * 1e9:
        return Finding("memory", OK, found)
    return Finding("memory", NOTE, f"{found}; two folds at once take {MEMORY_GB:g} GB",
                   "close other programs, or train one fold at a time: --executor local")


def _disk(data_dir: Path) -> Finding:
    absolute = data_dir.absolute()
    place = next(path for path in (absolute, *absolute.parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free for {data_dir}"
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
        if not locks.supports_locks(place):
            found += (", without file locks: a run that is killed there on another machine stays "
                      "locked until kit cv --break-lock")
    except OSError as error:
        refused = os_errors.explain_os_error(error, place, "write into")
        return Finding("disk", BAD, refused.message, refused.fix)
    if free >= DISK_GB * 1e9:
        return Finding("disk", OK, found)
    return Finding("disk", BAD, f"{found}; {DISK_GB:g} GB are wanted",
                   "free some, or choose another --data-dir")


# -- what comes in ---------------------------------------------------------------------------------


def _credentials() -> Finding:
    """What kind of credential there is and where; its value is never shown."""
    found = find_credential()
    if not found.present:
        passed_over = f" ({found.note})" if found.note else ""
        return Finding("credentials", NOTE,
                       "none: the kit works on the drawn sample, or on files that you have"
                       + passed_over,
                       f"make an access token at {SETTINGS_PAGE} and save it as "
                       "~/.kaggle/access_token (chmod 600)")
    check_credential(found)
    what = f"{found.kind}, in {found.where}" + (f" ({found.note})" if found.note else "")
    if not found.readable_by_others:
        return Finding("credentials", OK, what)
    return Finding("credentials", BAD, f"{what}: other users of this machine can read it",
                   f"chmod 600 {found.where}")


def _data(competition: Competition, data_dir: Path) -> Finding:
    try:
        data = sources.find_data(competition, data_dir)
    except KitError as error:
        return Finding("data", NOTE, error.message, error.fix)
    check_data(data)
    rows = ", ".join(f"{name} {count:,}" for name, count in data_rows(data).items())
    if data.is_sample:
        return Finding("data", NOTE,
                       f"{data.path}: intact, the drawn sample, whose scores say nothing ({rows})",
                       "get the real data: "
                       + sources.download_command(competition, data_dir, "--from", "kaggle"))
    return Finding("data", OK, f"{data.path}: intact, {data.source_in_words} ({rows})")


def check_data(data: DataFolder) -> None:
    """KitError unless every file has the SHA-256 that the manifest says."""
    for name, digest in data.manifest.get("sha256", {}).items():
        path = data.path / name
        if not path.is_file():
            raise KitError(f"{path} is missing", data.download_again)
        if storage.sha256_file(path) != digest:
            raise KitError(f"{path} is corrupt: it is not the file that came in",
                           data.download_again)


def data_rows(data: DataFolder) -> dict[str, int]:
    """The number of rows of each table, by file name. Reads the tables; KitError if one is bad."""
    tables = [table for table in (data.train(), data.test(), data.extra()) if table is not None]
    return {table.path.name: len(table) for table in tables}


def _kaggle_image() -> Finding:
    """Packages that are newer here than on Kaggle: what works here may not work in a kernel."""
    newer = []
    for package, there in provenance.KAGGLE_IMAGE.items():
        here = provenance.installed_version(package)
        if here and _release(here) > _release(there):
            newer.append(f"{package} {here} (there {there})")
    looked = f"Kaggle's image of {provenance.KAGGLE_IMAGE_DATE}"
    if not newer:
        return Finding("Kaggle image", OK, f"nothing here is newer than in {looked}")
    return Finding("Kaggle image", NOTE, f"newer here than in {looked}: {', '.join(newer)}",
                   "none needed: the kit is tested with those versions, too (scripts/test.sh "
                   "--kaggle-image); for what Kaggle has today, push a kernel: its report.json "
                   "names the versions that it ran with")


def _release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version: `2.20.0rc1` → (2, 20); the third seldom matters."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
