"""Where a run keeps its artifacts, and the lock that lets one process at a time write there.

The process that gets the lock removes the temporary files that a killed process left.
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
from kit.core.os_errors import disk_errors


def check_run_name(name: str, option: str = "--runs-dir") -> str:
    """`name` unchanged. KitError unless it is a plain folder name on every system.

    option: says in which folder those of this kind lie.
    """
    if "/" in name or "\\" in name:
        raise KitError(f"{name!r} is a path, not the name of a run",
                       "give the name alone with --run, and the folder that it lies in with "
                       f"{option}")
    bad = re.search(r'[/\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff:*?"<>|]', name)
    # Windows has no folder of these names, and cannot clone a repository that has one
    device = re.fullmatch(r"(con|prn|aux|nul|(com|lpt)\d)(\..*)?", name, re.IGNORECASE)
    if bad or device or not name.strip() or name != name.strip() or name.endswith(".") \
            or name.startswith((".", "-")) or len(name.encode()) > 200:
        raise KitError(f"{name!r} cannot be the name of a run",
                       "use letters, digits, spaces, '-' and '_'; no leading '.' or '-', no '.' at "
                       "the end, no name that Windows keeps for a device, such as aux; 200 bytes "
                       "at most")
    return name


def resume_submission_command(name: str, submissions: Path, *options: str) -> str:
    """The command that trains the missing folds of the run `name` and hands in to `submissions`."""
    words = ["kit", "submit", "--resume", "--run", name, *options]
    return shlex.join([*words, "--submissions", str(submissions)]
                      if submissions != Path("submissions") else words)


LOCK = ".lock"  # in a run's folder


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, or of a submission, which may keep its run's weights.

    Users' scripts rely on the names of the files in it.

    break_lock: take over a lock that is held on another machine, on which the user knows that no
    process trains any more.
    """

    path: Path
    break_lock: bool = False

    @property
    def name(self) -> str:
        # "." and ".." get the folder's own name, and a link keeps its name.
        return Path(os.path.abspath(self.path)).name  # noqa: PTH100

    @property
    def resume_command(self) -> str:
        """The command that trains the missing folds, with the options in the run's config."""
        if self.keeps_weights:
            return resume_submission_command(self.name, self.path.parent, "--keep-weights")
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

    @property
    def against(self) -> Path:
        """What a run of `kit cv --against` is compared with, and what was found."""
        return self.path / "against.json"

    @property
    def weights(self) -> Path:
        """Where a submission keeps the weights of its run (kit.training.kept_weights)."""
        return self.path / "weights"

    @property
    def kept_folds(self) -> Path:
        """Which folds' weights are kept, and each one's done.json; written last."""
        return self.weights / "folds.json"

    @property
    def keeps_weights(self) -> bool:
        return self.kept_folds.is_file()

    def guesses(self, n: int) -> Path:
        """The labels that round `n` of self-training learns from."""
        return self.path / f"guesses_{n}.npz"

    @property
    def is_in_use(self) -> bool:
        """Whether a process of this machine holds the lock."""
        holder = locks.read_holder(self.path / LOCK)
        return holder is not None and holder.is_here and not holder.is_dead

    def clear(self) -> None:
        """Empty the folder. Call it only while holding the lock.

        KitError if the folder holds no run, or cannot be emptied.
        """
        others = [path.name for path in self.path.iterdir() if not path.name.startswith(".lock")]
        if others and not (self.config.is_file() or self.against.is_file()
                           or finished_folds(self.path)):
            raise KitError(f"{self.path} is not a run: it has {sorted(others)[0]!r}, but no "
                           "config.json",
                           "choose another name with --run, or empty the folder yourself")
        with disk_errors(self.path, "empty"):
            for path in self.path.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif not path.name.startswith(".lock"):
                    path.unlink()

    def remove(self) -> None:
        """Remove the folder. KitError if a process holds its lock, or it holds no run."""
        with self.lock(fix="wait until it has ended, or end it"):
            self.clear()
            with contextlib.suppress(OSError):  # Windows keeps the lock file, which is open
                for file in self.path.glob(f"{LOCK}*"):
                    file.unlink()
                if self.path.is_symlink():
                    self.path.unlink()
                else:
                    self.path.rmdir()

    def fold(self, model: str, seed: int, fold: int) -> Path:
        return self.path / model / f"seed_{seed}" / f"fold_{fold}"

    @contextlib.contextmanager
    def lock(self, fix: str = "wait until it has ended, or choose another name with --run"
             ) -> Iterator[None]:
        """Lock the folder during the with block.

        KitError, naming the holder and with this `fix`, if another process has it.
        """
        with contextlib.ExitStack() as held:
            with disk_errors(self.path, "write into"):
                self.path.mkdir(parents=True, exist_ok=True)
                try:
                    held.enter_context(locks.acquire(self.path / LOCK, break_lock=self.break_lock))
                except locks.AlreadyLocked as other:
                    raise other.error(self.path, fix,
                                      option=" (kit cv and kit submit: --break-lock)") from None
            remove_leftovers(self.path)
            yield


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a killed process. Call it only while holding the lock."""
    for leftover in list(Path(folder).rglob(".*.tmp")):
        with contextlib.suppress(OSError):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def finished_folds(run: Path) -> frozenset[str]:
    """The keys of the folds whose training is done."""
    return frozenset(fold_keys(run))


def finished_jobs(run: Path) -> frozenset[str]:
    """Those, and the keys of their finished rounds of self-training."""
    done = Path(run).glob("*/seed_*/fold_*/guesses_*/done.json")
    return finished_folds(run) | {path.parent.relative_to(run).as_posix() for path in done}


def round_key(fold: str, n: int) -> str:
    """The key of a fold's round `n` of self-training."""
    return f"{fold}/guesses_{n}"


def fold_keys(run: Path, marker: str = "done.json") -> list[str]:
    """The keys `<model>/seed_<s>/fold_<k>` of the folds with a file `marker`, sorted by number."""
    keys = [path.parent.relative_to(run).as_posix()
            for path in Path(run).glob(f"*/seed_*/fold_*/{marker}")]
    return sorted(keys, key=lambda key: [int(part) if part.isdigit() else part
                                         for part in re.split(r"(\d+)", key)])
