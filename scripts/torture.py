"""Kill runs of the kit at chosen moments, resume them, compare: scripts/torture.py [--runs 50]

Each run is a real `kit cv` on the drawn sample, ended by SIGKILL (every fifth one twice) and
continued with --resume. Its test and OOF probs must be those of the run that nothing befell, bit
for bit, and no temporary file, checkpoint or process may be left over; else the exit code is 1.
Prints a table of the moments. Linux.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout that this script is in, installed or not

from kit.commands import cli  # noqa: E402
from kit.core import storage  # noqa: E402

OPTIONS = ["cv", "--model", "cnn_aug", "--batch-size", "32", "--limit", "60", "--epochs", "3",
           "--folds", "2", "--threads", "1", "--run", "it", "--quiet"]
PATIENCE = 600  # seconds, of one run
WORKERS_END = 10.0  # seconds after their parent's end
STEP, RANDOM = "a training step", "at a random moment"
# What is under way when the run is killed: a step, or the rename of a file (as a pattern of its
# path); of how many of them one is drawn, and the share of the runs.
MOMENTS = {
    "while it trains": (STEP, 30, 0.28),
    "while a checkpoint is written": ("checkpoint.npz$", 4, 0.2),
    "while a fold is written down": (r"fold_\d/(val|test|extra|history|model|done)\.", 16, 0.12),
    "while blending or reporting": (r"it/(oof|test|report)\.", 4, 0.18),
    "before anything is written": (r"it/config\.json$", 1, 0.06),
}


def die_at(what: str, count: int, process: int) -> None:
    """From here on SIGKILL `process` at the `count`-th of what this process does.

    A step a chunk and checkpoints within epochs, as in runs whose epochs take minutes.
    """
    from kit.training import checkpoints, fit
    from kit.training.trainer import Trainer

    fit.CHUNK_ROWS, checkpoints.INTERVAL_SECONDS, checkpoints.MAX_TIME_SHARE = 1, 0.3, 0.5
    left = [count]

    def counted(fits: bool) -> None:
        left[0] -= fits
        if fits and left[0] == 0:
            with suppress(ProcessLookupError):  # another worker was quicker
                os.kill(process, signal.SIGKILL)

    def seed_dropout(self: Trainer, *arguments: Any) -> None:  # called before each step
        counted(what == STEP)
        seed_inside(self, *arguments)

    def replace(self: Path, target: Path) -> Path:
        counted(what != STEP and re.search(what, str(target)) is not None)
        return replace_inside(self, target)

    seed_inside, Trainer.seed_dropout = Trainer.seed_dropout, seed_dropout
    replace_inside, Path.replace = Path.replace, replace


class Job:
    """One `kit cv` in a process of its own, with a folder of its own for what it writes.

    `what`, `count`: when it dies (see `die_at`); without them it is the kit as users have it.
    """

    def __init__(self, folder: Path, data: Path, executor: str, what: str = "",
                 count: int = 0) -> None:
        self.folder, self.run = folder, folder / "runs" / "it"
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        start = [sys.executable, __file__, "--child"] if what else [sys.executable, "-m", "kit"]
        resume = ["--resume"] * self.run.joinpath("config.json").is_file()
        words = [*OPTIONS, "--executor", executor, "--data-dir", str(data), *resume]
        # in the environment of all processes of this job, also of those that outlive it
        self.mark = f"KIT_TORTURE={folder.name}-{time.monotonic_ns()}"
        environment = {**os.environ, "KIT_TORTURE": self.mark.partition("=")[2],
                       "KIT_DIE_AT": what, "KIT_DIE_COUNT": str(count),
                       "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
        with (folder / "said.txt").open("w") as said:
            self.process = subprocess.Popen([*start, *words], cwd=folder, env=environment,
                                            stdout=subprocess.DEVNULL, stderr=said)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code; it is killed after so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        self.process.kill()
        return self.process.wait()

    def time_to_end(self) -> float:
        """Seconds until nothing that this job started runs any more."""
        began = time.monotonic()
        while self.is_running() and time.monotonic() - began < WORKERS_END:
            time.sleep(0.02)
        return time.monotonic() - began

    def is_running(self) -> bool:
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if self.mark.encode() in environ.read_bytes().split(b"\0"):
                    return True
        return False


@dataclass
class Row:
    """What became of one run."""

    number: int
    moments: list[str]
    executor: str
    ended: list[float] = field(default_factory=list)  # seconds from each end to the last process'
    same_bits: bool = False
    leftovers: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.same_bits and not self.leftovers and max(self.ended) < WORKERS_END


def plan(n_runs: int) -> list[Row]:
    """So many runs of each kind, the rest at random; a fifth of all in several processes."""
    moments = [moment for moment, (_, _, share) in MOMENTS.items()
               for _ in range(max(1, round(share * n_runs)))][:n_runs]
    moments += [RANDOM] * (n_runs - len(moments))
    return [Row(i, [moment, RANDOM] if i % 5 == 2 else [moment],
                "processes" if i % 5 == 4 or (n_runs < 5 and i == 1) else "local")
            for i, moment in enumerate(moments)]


def probs(run: Path) -> list[bytes]:
    """The bytes of test and OOF probs, with what they are probs of."""
    files = [storage.read_npz(run / name) for name in ("test.npz", "oof.npz")]
    return [f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes()
            for file in files for name, array in sorted(file.items())]


def torture(row: Row, folder: Path, data: Path, seconds: float, seed: int,
            expected: list[bytes]) -> Row:
    """Kill one run as often as it has moments, then let it end; `seconds` is what a run takes."""
    rng = np.random.default_rng([seed, row.number])
    done, tries = 0, 0
    while done < len(row.moments) and tries < 10:
        what, most, _ = MOMENTS.get(row.moments[done], ("nothing", 1, 0.0))
        patience = PATIENCE if what != "nothing" else rng.uniform() * seconds / (1 + done)
        job = Job(folder, data, row.executor, what, int(rng.integers(1, most + 1)))
        if job.wait(patience) == -signal.SIGKILL:
            row.ended.append(job.time_to_end())
            done += 1
        else:  # it was quicker: once more
            shutil.rmtree(folder)
            done, tries = 0, tries + 1
    last = Job(folder, data, row.executor, *(["nothing"] * int(rng.integers(2))))
    if done < len(row.moments) or last.wait() != 0:
        row.leftovers.append((folder / "said.txt").read_text()[-500:])
    else:
        row.same_bits = probs(last.run) == expected
    row.ended.append(last.time_to_end())
    left = [*folder.rglob(".*.tmp"), *folder.rglob("checkpoint.npz"), *(folder / "tmp").iterdir()]
    row.leftovers += [str(path.relative_to(folder)) for path in left]
    return row


def undisturbed(folder: Path, data: Path, what: str) -> tuple[list[bytes], float]:
    """Probs of a run that nothing befalls, and its seconds."""
    began, job = time.monotonic(), Job(folder, data, "local", what)
    if job.wait() != 0:
        sys.exit((folder / "said.txt").read_text())
    return probs(job.run), time.monotonic() - began


def table(rows: list[Row]) -> str:
    """Markdown: for each moment, how many kills, and how many of their runs ended the same."""
    lines = ["| killed | kills | of them in several processes | same bits after `--resume` |",
             "|---|--:|--:|--:|"]
    for moment in [*MOMENTS, RANDOM]:
        hit = [row for row in rows for each in row.moments if each == moment]
        in_several = sum(row.executor == "processes" for row in hit)
        same = sum(row.same_bits for row in hit)
        lines.append(f"| {moment} | {len(hit)} | {in_several} | {same} of {len(hit)} |")
    twice, ok = sum(len(row.moments) > 1 for row in rows), sum(row.ok for row in rows)
    slowest = max(seconds for row in rows for seconds in row.ended)
    return "\n".join([
        *lines, "", f"{len(rows)} runs, {twice} of them killed twice: {ok} ended with the same "
        "bits, without a temporary file, a checkpoint or a process left over. The last process of "
        f"a run ended after {slowest:.1f} s."])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(asked.jobs) as pool:
        data = Path(root) / "data"
        if cli.run(["download", "--from", "sample", "--data-dir", str(data), "--quiet"]):
            sys.exit(2)
        expected, _ = undisturbed(Path(root) / "plain", data, "")
        fine, seconds = undisturbed(Path(root) / "fine", data, "nothing")
        if fine != expected:
            sys.exit("the same run with more checkpoints has other probs")

        def one(row: Row) -> Row:
            folder = Path(root) / str(row.number)
            return torture(row, folder, data, seconds, asked.seed, expected)

        rows = []
        for row in pool.map(one, plan(asked.runs)):
            rows.append(row)
            print(f"{row.number}: {', '.join(row.moments)} ({row.executor}): "
                  f"{'same' if row.ok else row}", flush=True)
    print(table(rows))
    sys.exit(not all(row.ok for row in rows))


if __name__ == "__mp_main__":  # a worker of a run of ours: its parent alone is killed
    die_at(os.environ["KIT_DIE_AT"], int(os.environ["KIT_DIE_COUNT"]), os.getppid())
if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        die_at(os.environ["KIT_DIE_AT"], int(os.environ["KIT_DIE_COUNT"]), os.getpid())
        cli.main(sys.argv[2:])
    main()
