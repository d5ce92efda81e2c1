"""The paths of a run's artifacts, and the lock of the run folder.

Only the process that holds the lock writes into the folder, and it removes the temporary files that
a killed process left.
"""

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.core import locks
from kit.core.errors import KitError
from kit.core.storage import disk_errors


def check_run_name(name: str) -> str:
    """`name` unchanged. KitError unless it is a plain folder name on every system."""
    if "/" in name or "\\" in name:
        raise KitError(f"{name!r} is a path, not the name of a run",
                       "give the name alone with --run, and the folder that it lies in with "
                       "--runs-dir")
    bad = re.search(r'[/\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff:*?"|]', name)
    if bad or not name.strip() or name != name.strip() or name.startswith((".", "-")) or len(name.encode()) > 200:
        raise KitError(f"{name!r} cannot be the name of a run",
                       "use letters, digits, spaces, '-' and '_'; no leading '.' or '-', 200 bytes "
                       "at most")
    return name


LOCK = ".lock"  # in a run's folder


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run's artifacts. Scripts of users rely on these names.

    break_lock: take over a lock whose holder, on another machine, is gone as the user knows.
    """

    path: Path
    break_lock: bool = False

    @property
    def name(self) -> str:
        return Path(os.path.abspath(self.path)).name  # noqa: PTH100  "." and ".." have none; links keep theirs

    @property
    def resume_command(self) -> str:
        """The command that trains the missing folds; it reads all other options from the run's
        config.
        """
        words = ["kit", "cv", "--resume", "--run", self.name]
        return shlex.join([*words, "--runs-dir", str(self.path.parent)]
                          if self.path.parent != Path("runs") else words)

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def folds(self) -> Path:
        return self.path / "folds.csv"

    @property
    def oof(self) -> Path:
        return self.path / "oof.npz"

    @property
    def test(self) -> Path:
        return self.path / "test.npz"

    def guesses(self, n: int) -> Path:
        return self.path / f"guesses_{n}.npz"

    def clear(self) -> None:
        """Empty the folder; call it only while holding the lock.

        KitError if it holds no run, or cannot be emptied.
        """
        others = [path.name for path in self.path.iterdir() if not path.name.startswith(".lock")]
        if others and not self.config.is_file() and not finished_folds(self.path):
            raise KitError(f"{self.path} is not a run: it has {sorted(others)[0]!r}, but no "
                           "config.json",
                           "choose another name with --run, or empty the folder yourself")
        with disk_errors(self.path, "empty"):
            for path in self.path.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif not path.name.startswith(".lock"):
                    path.unlink()

    def fold(self, model: str, seed: int, fold: int) -> Path:
        return self.path / model / f"seed_{seed}" / f"fold_{fold}"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder during the with block.

        KitError, naming the holder, if another process has it.
        """
        with contextlib.ExitStack() as held:
            with disk_errors(self.path, "write into"):
                self.path.mkdir(parents=True, exist_ok=True)
                try:
                    held.enter_context(locks.acquire(self.path / LOCK, break_lock=self.break_lock))
                except locks.AlreadyLocked as other:
                    raise other.error(self.path,
                                      "wait until it has ended, or choose another name with --run",
                                      option=" (kit cv and kit submit: --break-lock)") from None
            remove_leftovers(self.path)
            yield


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed process left below `folder`; call it only while holding
    the lock.
    """
    for leftover in list(Path(folder).rglob(".*.tmp")):
        with contextlib.suppress(OSError):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def finished_folds(run: Path) -> frozenset[str]:
    """The keys of the folds whose training is done."""
    return frozenset(fold_keys(run))


def fold_keys(run: Path, marker: str = "done.json") -> list[str]:
    """The keys `<model>/seed_<s>/fold_<k>` of the folds that have a file `marker`; fold_10 comes
    after fold_9.
    """
    keys = [path.parent.relative_to(run).as_posix()
            for path in Path(run).glob(f"*/seed_*/fold_*/{marker}")]
    return sorted(keys, key=lambda key: [int(part) if part.isdigit() else part
                                         for part in re.split(r"(\d+)", key)])
