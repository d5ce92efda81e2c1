"""Fill a real disk at every kind of write of a run, make space, resume: python scripts/full_disk.py [--json FILE]

In goes nothing; out comes a table: for each file that `kit submit` writes, what the kit said when the disk was full at
that very moment, whether every earlier artifact was intact, and whether the resumed run ended with the same bits. Then
the same command in a folder that is mounted read-only. The disk is a tmpfs of 64 MiB in a mount namespace of its own
(`unshare`, as root or where users may have namespaces); ballast fills it up to the byte. Linux.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout that this script is in, installed or not

from kit.commands import cli
from kit.core import storage
from kit.core.errors import KitError
from kit.training import fit

OPTIONS = ["submit", "--model", "mlp", "--epochs", "2", "--limit", "20", "--folds", "2", "--executor", "local",
           "--run", "it", "--quiet"]
PAGE = 4096
KERAS = "fold/.model.*.tmp/model.keras, Keras' own"


class Disk:
    """A mounted tmpfs, which can be filled until it holds no more byte."""

    def __init__(self, path: Path) -> None:
        self.path, self.ballast = path, path / ".ballast"
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], check=True)  # noqa: S607

    def fill(self) -> None:
        with self.ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(PAGE)):
                pass

    def empty(self) -> None:
        self.ballast.unlink(missing_ok=True)
        for path in self.path.iterdir():
            shutil.rmtree(path)


def kit(*words: str) -> tuple[int, str]:
    """A command's exit code and what it says on stderr."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = cli.run(list(words))
    return code, said.getvalue()


@contextlib.contextmanager
def watched(disk: Disk, full_at: str | None, seen: list[str]) -> Iterator[None]:
    """Note every artifact about to be written; at `full_at` the disk is full."""
    def noted(write: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            name = name_of(*arguments)
            if name == full_at and name not in seen:
                disk.fill()
            seen.append(name)
            return write(*arguments)

        return noting

    with mock.patch.object(storage, "replace", noted(storage.replace, kind)), \
            mock.patch.object(fit, "_model_bytes", noted(fit._model_bytes, lambda *_: KERAS)):
        yield


def kind(path: Path, _: bytes) -> str:
    """`fold/model.keras`, `submission/report.json`: what the folder is of, and the file's name."""
    role = {"runs": "run", "submissions": "submission"}.get(Path(path).parent.parent.name, "fold")
    return f"{role}/{Path(path).name}"


def intact(folder: Path) -> bool:
    """Whether every file in `folder` with a recorded SHA-256 has it, and no temporary file lies about."""
    for sums in folder.rglob(storage.CHECKSUMS):
        for name in json.loads(sums.read_text()):
            try:
                if (sums.parent / name).is_file():
                    storage.read_bytes(sums.parent / name)
            except KitError:
                return False
    return not any(folder.rglob(".*.tmp"))


def outcome(folder: Path) -> list[bytes]:
    arrays = storage.read_npz(folder / "runs/it/test.npz")
    submission = storage.read_bytes(folder / "submissions/it/submission.csv")
    return [arrays["id"].tobytes(), arrays["probs"].tobytes(), submission]


def at_a_full_disk(disk: Disk, name: str, options: list[str], expected: list[bytes]) -> dict[str, Any]:
    disk.empty()
    with watched(disk, name, []):
        code, said = kit(*options)
    row = {"write": name, "exit": code, "said": said.strip().splitlines(), "intact": intact(disk.path)}
    disk.ballast.unlink(missing_ok=True)
    resume = ["--resume"] if (disk.path / "runs/it/config.json").is_file() else []
    row["resumed"] = kit(*options, *resume)[0] == 0 and outcome(disk.path) == expected
    lines = row["said"][-2:]
    row["ok"] = code == 2 and row["intact"] and row["resumed"] and lines[0].startswith("error: ") and \
        lines[1].startswith("fix: ") and "No space left" in lines[0]
    return row


def read_only(disk: Disk, options: list[str]) -> dict[str, Any]:
    disk.empty()
    subprocess.run(["mount", "-o", "remount,ro", disk.path], check=True)  # noqa: S607
    code, said = kit(*options)
    lines = said.strip().splitlines()
    return {"write": "into a read-only folder", "exit": code, "said": lines, "intact": True, "resumed": True,
            "ok": code == 2 and len(lines) == 2 and "Read-only" in lines[0]}


def measure(root: Path, only: str) -> list[dict[str, Any]]:
    os.chdir(root)
    kit("download", "--from", "sample", "--quiet")
    disk = Disk(root / "disk")
    options = [*OPTIONS, "--runs-dir", str(disk.path / "runs"), "--submissions", str(disk.path / "submissions")]
    seen: list[str] = []
    with watched(disk, None, seen):
        code, said = kit(*options)
    if code:
        sys.exit(said)
    expected = outcome(disk.path)
    rows = [at_a_full_disk(disk, name, options, expected) for name in dict.fromkeys(seen) if fnmatch(name, only)]
    return [*rows, read_only(disk, options)]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown."""
    lines = ["| at the write of | exit | what the kit says | earlier files intact | resumed: same bits |",
             "|---|--:|---|---|---|"]
    for row in rows:
        said = re.sub(r"cannot (\w+) \S*/", r"cannot \1 …/", row["said"][-2]).removeprefix("error: ")
        lines.append(f"| {row['write']} | {row['exit']} | {said} | {'yes' if row['intact'] else 'NO'} | "
                     f"{'yes' if row['resumed'] else 'NO'} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write what became of each write")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="some of the writes")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.inside:
        how = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        os.execvp(how[0], [*how, sys.executable, __file__, *sys.argv[1:], "--inside"])  # noqa: S606
    out = asked.json.resolve() if asked.json else None
    with tempfile.TemporaryDirectory() as name:
        try:
            rows = measure(Path(name), asked.only)
        finally:
            os.chdir("/")
            subprocess.run(["umount", Path(name) / "disk"], check=False)  # noqa: S607
    print("\n".join(table(rows)))
    if out:
        out.write_text(json.dumps({"writes": rows}, indent=1) + "\n")
    sys.exit(not all(row["ok"] for row in rows))


if __name__ == "__main__":
    main()
