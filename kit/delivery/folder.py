"""A built kernel folder, and what has been done with it so far.

In goes the folder that `kit kernel build` wrote; out come its metadata, the digest of what would be pushed, and
`push.json`. The one idea: `push.json` is written before each step that Kaggle must not see twice and again after it, so
that whoever comes next knows what was done, and where to ask Kaggle instead.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit import storage
from kit.delivery import weights
from kit.delivery.kernel import METADATA, PLACEHOLDER_USER
from kit.errors import KitError

STATE = "push.json"


@dataclass(frozen=True)
class KernelFolder:
    """`ref` is owner/slug; `digest` the SHA-256 of the code, its metadata and the weights."""

    path: Path
    metadata: dict[str, Any]
    digest: str
    weights: Path | None

    @property
    def ref(self) -> str:
        return str(self.metadata["id"])

    @property
    def code(self) -> str:
        return (self.path / self.metadata["code_file"]).read_text("utf-8")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one process; KitError where another one is pushing it."""
        import filelock

        try:
            with filelock.FileLock(self.path / ".push.lock", timeout=0):
                yield
        except filelock.Timeout:
            raise KitError(f"{self.path} is being pushed by another process",
                           "wait until it has ended; kit kernel status shows where it is") from None


def read(path: Path) -> KernelFolder:
    """The kernel folder at `path`. KitError where it is none, or was built without an account."""
    path = Path(path)
    build = "make it again: kit kernel build --user NAME"
    try:
        metadata = json.loads((path / METADATA).read_text("utf-8"))
        owner, slug = metadata["id"].split("/")
        code = path / metadata["code_file"]
    except FileNotFoundError:
        raise KitError(f"{path} is no kernel folder: it has no {METADATA}", "make one: kit kernel build") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KitError(f"{path / METADATA} is damaged: {error}", build) from error
    if owner == PLACEHOLDER_USER or not slug:
        raise KitError(f"{path} was built without a Kaggle account", build)
    if not code.is_file():
        raise KitError(f"{code} is missing", build)
    dataset = path / weights.FOLDER
    has_weights = dataset.is_dir()
    return KernelFolder(path, metadata, _digest([path / METADATA, code, *(_files(dataset) if has_weights else [])]),
                        dataset if has_weights else None)


def digest_of(folder: Path) -> str:
    """SHA-256 of all files in `folder`, with their names."""
    return _digest(_files(folder))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _digest(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name} {storage.sha256_file(path)}\n".encode())
    return total.hexdigest()


# -- what has been done ---------------------------------------------------------------------------------------------


@dataclass
class State:
    """`push.json`. `pushing` and `submitting` are set while Kaggle's answer is not known yet."""

    digest: str = ""  # of what was pushed as `version`
    pushing: str = ""  # the digest of what is being pushed
    kernel: str = ""  # owner/slug, as Kaggle calls it
    version: int = 0
    url: str = ""
    ended: str = ""  # the status with which `version` ended
    weights: dict[str, Any] = field(default_factory=dict)  # digest, before (versions), done
    submitting: bool = False
    submission: str = ""  # Kaggle's reference of the hand-in of `version`
    submitted_as: str = ""  # its description

    @classmethod
    def load(cls, folder: KernelFolder) -> "State":
        path = folder.path / STATE
        if not path.is_file():
            return cls()
        try:
            return cls(**storage.read_json(path))
        except TypeError as error:
            raise storage.damaged(path, str(error)) from error

    def save(self, folder: KernelFolder) -> None:
        storage.write_json(folder.path / STATE, dataclasses.asdict(self))
