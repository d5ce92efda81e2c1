"""Read a kernel folder, built by `kit kernel build` or by hand, and store its push state.

`push.json` in the folder is written before and after each request that must not be sent twice. So
after an interruption the next command knows what was done, and what it has to ask Kaggle about.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from kit.core import locks, os_errors, storage
from kit.core.config import matches_type
from kit.core.errors import KitError
from kit.kernel import template, weights
from kit.kernel.builder import KINDS, METADATA, PINNED, PLACEHOLDER_USER

STATE = "push.json"
REF = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # owner/slug; no "..", as folders are named after it
SOURCES = {"competition_sources": (re.compile(r"[\w-][\w.-]*"), "SLUG"),
           "dataset_sources": (REF, "OWNER/SLUG"), "kernel_sources": (REF, "OWNER/SLUG"),
           "model_sources": (re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*){3}/\d+"),
                             "OWNER/MODEL/FRAMEWORK/VARIATION/VERSION")}
UPLOADED = {"digest": str, "before": int, "done": bool}  # the types in `PushState.weights`


@dataclass(frozen=True)
class KernelFolder:
    """A kernel folder. `digest`: the SHA-256 over the code, the metadata and the weights."""

    path: Path
    metadata: dict[str, Any]
    code: str
    digest: str
    weights: Path | None

    @property
    def ref(self) -> str:
        return str(self.metadata["id"])

    @property
    def owner(self) -> str:
        return self.ref.split("/")[0]

    @property
    def minutes(self) -> float:
        """The minutes that a kernel of the kit plans with; 0 for any other."""
        minutes = template.parse_settings(self.code).get("minutes")
        return minutes if isinstance(minutes, int | float) else 0

    @property
    def accelerators(self) -> tuple[str, ...]:
        """What it asks Kaggle for: GPU, TPU, or nothing."""
        return accelerators(self.metadata)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder during the with block. KitError if another process is pushing it."""
        with contextlib.ExitStack() as held:
            with os_errors.disk_errors(self.path, "write into"):
                try:
                    held.enter_context(locks.acquire(self.path / ".push.lock"))
                except locks.AlreadyLocked as other:
                    raise other.error(self.path, "wait until it has ended; kit kernel status shows "
                                                 "where it is",
                                      "is being pushed by") from None
            yield


def read_kernel(path: Path) -> KernelFolder:
    """Read the kernel folder `path`.

    KitError if it is not a valid one, or was built without --user.
    """
    path = Path(path)
    metadata = read_metadata(path)
    ref = metadata.get("id")
    if not isinstance(ref, str) or not REF.fullmatch(ref):
        raise KitError(f"{path / METADATA} is damaged: id {ref!r:.60} is not OWNER/SLUG",
                       _build_again(path))
    if ref.startswith(f"{PLACEHOLDER_USER}/"):
        raise KitError(f"{path} was built without a Kaggle account", _build_again(path))
    code, dataset = path / metadata["code_file"], path / weights.FOLDER
    with os_errors.disk_errors(code, "read"):
        data = code.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise KitError(f"{code}, line {line}: byte {error.start + 1} of the file is not UTF-8",
                       f"save it again as UTF-8; or {_build_again(path)}") from error
    has_weights = dataset.is_dir()
    digest = _digest([path / METADATA, code, *(_files(dataset) if has_weights else [])])
    return KernelFolder(path, metadata, text, digest, dataset if has_weights else None)


def read_metadata(path: Path) -> dict[str, Any]:
    """The contents of `kernel-metadata.json` in the folder `path`, with [] for missing sources.

    KitError if it is missing, a value is invalid, or its code file does not exist.
    """
    file = path / METADATA
    if not path.exists():
        raise KitError(f"there is no kernel folder {path}",
                       f"name one that is there, or make it: kit kernel build --out {path}")
    if not path.is_dir():
        raise KitError(f"{path} is a file, not a kernel folder", f"name its folder: {path.parent}")
    metadata = _read_table(file)
    metadata = {**metadata, **{name: metadata.get(name) or [] for name in SOURCES}}
    code = metadata.get("code_file")
    if not (isinstance(code, str) and code and not Path(code).is_absolute()
            and ".." not in Path(code).parts):
        raise _wrong(file, metadata, "code_file", "name a file in that folder, such as kernel.py")
    if metadata.get("kernel_type") not in tuple(KINDS):
        raise _wrong(file, metadata, "kernel_type", f"write {' or '.join(KINDS)}")
    if metadata.get("docker_image_pinning_type") not in (None, *PINNED):
        raise _wrong(file, metadata, "docker_image_pinning_type", f"write {' or '.join(PINNED)}")
    for name, (pattern, form) in SOURCES.items():
        if not matches_type(metadata[name],
                            tuple[str, ...]) or not all(map(pattern.fullmatch, metadata[name])):
            raise _wrong(file, metadata, name, f'write a list, such as ["{form}"]')
    if not (path / code).is_file():
        raise KitError(f"{path / code} is missing",
                       f"put it there, name another code_file in {file}, or {_build_again(path)}")
    return metadata


def accelerators(metadata: dict[str, Any]) -> tuple[str, ...]:
    """The accelerators that the metadata ask for: GPU, TPU, or none.

    The official client takes `true` and `"true"`, or the name of a machine.
    """
    shape = str(metadata.get("machine_shape") or "").lower()
    return tuple(name for name, maker in (("GPU", "nvidia"), ("TPU", "tpu"))
                 if str(metadata.get(f"enable_{name.lower()}", False)).lower() == "true"
                 or shape.startswith(maker))


def _build_again(folder: Path) -> str:
    """The fix for a folder that is no whole kernel; which options it was built with, only the user
    knows.
    """
    return ("make it again, with the options that it was made with: kit kernel build --user NAME "
            f"--out {shlex.quote(str(folder))}")


def _read_table(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    A byte order mark is refused here, as the official client cannot read it.
    """
    if file.exists() and not file.is_file():  # opening a pipe would wait for its writer
        raise KitError(f"{file} is no file", _build_again(file.parent))
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise KitError(f"{file.parent} is not a kernel folder: it has no {METADATA}",
                       "make one: kit kernel build") from None
    except UnicodeDecodeError as error:
        raise KitError(f"{file} is damaged: byte {error.start + 1} is not UTF-8",
                       f"save it again as UTF-8, or {_build_again(file.parent)}") from error
    except OSError as error:
        fix = (f"make it readable: chmod u+r {file}" if isinstance(error, PermissionError)
               else f"copy its folder again: {file}")
        raise KitError(f"cannot read {file}: {error.strerror or error}", fix) from error
    if text.startswith("\ufeff"):
        raise KitError(f"{file} begins with a byte order mark, at which Kaggle's own client stops",
                       "save it as UTF-8 without one (an editor may call it UTF-8 with BOM)")
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KitError(f"{file} is damaged: {error}",
                       f"correct it there, or {_build_again(file.parent)}") from error
    if not isinstance(table, dict):
        raise KitError(f"{file} is damaged: it is not a JSON object",
                       f"begin it with {{; or {_build_again(file.parent)}")
    return table


def _wrong(file: Path, metadata: dict[str, Any], name: str, fix: str) -> KitError:
    said = f"cannot be {metadata.get(name)!r:.60}" if name in metadata else "is missing"
    return KitError(f"{file} is damaged: {name} {said}", f"{fix}; or {_build_again(file.parent)}")


def read_report(path: Path) -> dict[str, Any]:
    """The report.json of a kernel or a submission; {} if it is missing or damaged."""
    try:
        report = storage.read_json(path) if path.is_file() else {}
    except KitError:
        return {}
    return report if isinstance(report, dict) else {}


def hash_folder(folder: Path) -> str:
    """The SHA-256 over the names and contents of all files in `folder`."""
    return _digest(_files(folder))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _digest(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name} {storage.sha256_file(path)}\n".encode())
    return total.hexdigest()


# -- what has been done ----------------------------------------------------------------------------


@dataclass
class PushState:
    """The contents of `push.json`.

    `pushing` and `submitting` are set until Kaggle's answer is known.
    """

    digest: str = ""  # of what was pushed as `version`
    pushing: str = ""  # the digest of what is being pushed, until Kaggle has answered
    before: int = 0  # Kaggle's newest version of that kernel before it was sent
    kernel: str = ""  # owner/slug, as Kaggle calls it
    version: int = 0
    url: str = ""
    ended: str = ""  # the status with which `version` ended
    # The upload: digest, before (number of versions), done
    weights: dict[str, Any] = field(default_factory=dict)
    submitting: bool = False
    submission: str = ""  # Kaggle's reference of the submission of `version`
    submitted_as: str = ""  # its description

    @classmethod
    def load(cls, folder: KernelFolder) -> "PushState":
        path = folder.path / STATE
        if not path.is_file():
            return cls()
        # Making it again would push and hand in what was pushed and handed in before
        fix = (f"look at https://www.kaggle.com/code/{folder.ref} (Versions) and at the "
               "competition's submissions for what was sent from here; then delete "
               f"{path} and push again, which makes a new version")
        with storage.fix_of_damage(fix):
            return cls._read(path)

    @classmethod
    def _read(cls, path: Path) -> "PushState":
        try:
            state = cls(**storage.read_json(path))
        except TypeError as error:
            raise storage.damaged(path, str(error)) from error
        wrong = [name for name, kind in get_type_hints(cls).items()
                 if not matches_type(getattr(state, name), get_origin(kind) or kind)]
        wrong = wrong or [f"weights.{name}" for name, value in state.weights.items()
                          if not matches_type(value, UPLOADED.get(name))]
        if wrong:
            raise storage.damaged(path, f"{wrong[0]} has the wrong type")
        return state

    def save(self, folder: KernelFolder) -> None:
        storage.write_json(folder.path / STATE, dataclasses.asdict(self))
