"""Kill runs of the kit at chosen moments, resume them, compare: python scripts/torture.py [--runs 50] [--json FILE]

In goes a number of runs; out comes a table of the moments at which they died and of what became of them. Each run is a
real `kit cv` on the drawn sample, ended by SIGKILL (every fifth one twice) and continued with --resume; its test and
OOF probs must be those of the run that nothing befell, bit for bit. The one idea: a run is aimed at a moment, but
counted for the moment that it left evidence of: half-written files, finished folds, its last news. Linux.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout that this script is in, installed or not

from kit.commands import cli
from kit.core import storage

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ["cv", "--model", "cnn_aug", "--batch-size", "32", "--limit", "60", "--epochs", "3", "--folds", "2",
           "--threads", "1", "--run", "it", "--json"]
N_JOBS = 4  # two folds of the baseline and of the model
PATIENCE = 600  # seconds, of one job
WORKERS_END = 10.0  # seconds after their parent's end
MID_EPOCH, CHECKPOINT, REPORT = "in mid-epoch", "while a checkpoint is written", "while blending or reporting"
NOTHING, BETWEEN, ARTIFACTS = "before anything is written", "between epochs or folds", "while a fold is written down"
RANDOM = "at a random moment"
WANTED = {MID_EPOCH: 10, CHECKPOINT: 5, REPORT: 5}  # of 50


def be_fine() -> None:
    """A step a chunk and checkpoints within epochs, as in runs whose epochs take minutes."""
    from kit.training import checkpoints, fit

    fit.CHUNK_ROWS, checkpoints.INTERVAL_SECONDS, checkpoints.MAX_TIME_SHARE = 1, 0.3, 0.5


@dataclass
class Row:
    """What became of one run."""

    number: int
    aim: str
    executor: str
    moments: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # from a start to its kill
    workers_ended: list[float] = field(default_factory=list)  # seconds after their parent was killed
    last_ended: float = 0.0  # and after the run that nothing befell any more: multiprocessing's own helper
    resumed: str = ""
    same_bits: bool = False
    leftovers: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        ended = max([*self.workers_ended, self.last_ended])
        return bool(self.moments) and self.same_bits and not self.leftovers and ended < WORKERS_END


class Job:
    """One `kit cv` in a process of its own, with a folder of its own for what it writes."""

    def __init__(self, folder: Path, data: Path, executor: str, resume: bool = False, fine: bool = True) -> None:
        self.folder, self.run = folder, folder / "runs" / "it"
        self.mark = f"KIT_TORTURE={folder.name}-{time.monotonic_ns()}"
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        self.news = (folder / "news.txt").open("w+")
        start = [sys.executable, __file__, "--child"] if fine else [sys.executable, "-m", "kit"]
        words = [*OPTIONS, "--executor", executor, "--data-dir", str(data), *["--resume"] * resume]
        name, value = self.mark.split("=")
        self.began = time.monotonic()
        self.process = subprocess.Popen([*start, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=self.news, env={
            **os.environ, name: value, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")})

    def events(self) -> list[dict[str, Any]]:
        with (self.folder / "news.txt").open() as file:
            return [json.loads(line) for line in file if line.startswith('{"event"') and line.endswith("}\n")]

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def finish(self) -> int:
        return self.process.wait(PATIENCE)

    def kill_when(self, moment: Callable[["Job"], bool], pause: float) -> bool:
        """SIGKILL to the parent alone once `moment` is there, looking every `pause` s; whether it was still running."""
        while self.process.poll() is None and not moment(self) and self.seconds() < PATIENCE:
            time.sleep(pause)
        self.process.kill()
        return self.process.wait() == -signal.SIGKILL

    def survivors(self) -> list[int]:
        """Ids of the processes that this one started."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
            except OSError:
                continue
        return found

    def half_written(self) -> list[str]:
        """Names of the files under way, without what makes the temporary ones unique."""
        return [path.name.strip(".").rsplit(".", 2)[0] for path in self.run.rglob(".*.tmp")]


# -- moments --------------------------------------------------------------------------------------------------------


def finished(events: list[dict[str, Any]]) -> int:
    return len({event["job"] for event in events if event["event"] == "done"})


def mid_epoch(event: dict[str, Any]) -> bool:
    return event["event"] == "step" and abs(event["done"] * event["epochs"] % 1 - 0.5) < 0.499


def evidence(job: Job) -> str:
    """The moment at which a killed job was, from what it left."""
    events, under_way = job.events(), job.half_written()
    if "checkpoint.npz" in under_way:
        return CHECKPOINT
    if not job.run.joinpath("config.json").is_file():
        return NOTHING
    if len(list(job.run.glob("*/*/*/done.json"))) == N_JOBS and finished(events) == N_JOBS:
        return REPORT
    last = {event["job"]: event for event in events if "job" in event}.values()
    if under_way or any(event["event"] == "step" and event["done"] == 1 for event in last):
        return ARTIFACTS
    return MID_EPOCH if any(map(mid_epoch, last)) else BETWEEN


def moment_of(aim: str, rng: np.random.Generator, whole: float, report: float) -> Callable[[Job], bool]:
    """When to strike: `whole` and `report` are the seconds of a whole run, and from its last fold to its end."""
    target, share = int(rng.integers(1, 30)), rng.uniform()
    seen: set[Path] = set()
    first: list[float] = []

    def at_a_step(job: Job) -> bool:
        return sum(map(mid_epoch, job.events())) >= target

    def at_a_checkpoint(job: Job) -> bool:
        folders = [path for path in job.run.glob("*/seed_*/fold_*") if not (path / "done.json").is_file()]
        seen.update(path for folder in folders for path in folder.glob(".checkpoint.npz.*.tmp"))
        return len(seen) > target % 4

    def at_the_end(job: Job) -> bool:
        if not first and finished(job.events()) == N_JOBS:
            first.append(job.seconds())
        return bool(first) and job.seconds() - first[0] > share * report

    def at_any_time(job: Job) -> bool:
        return job.seconds() > share * whole

    return {MID_EPOCH: at_a_step, CHECKPOINT: at_a_checkpoint, REPORT: at_the_end}.get(aim, at_any_time)


def plan(n_runs: int) -> list[tuple[str, str]]:
    """(aim, executor) of each run: some more than wanted of each kind, a fifth of all in several processes."""
    shares = {MID_EPOCH: 0.28, CHECKPOINT: 0.2, REPORT: 0.18}
    aims = [aim for aim, share in shares.items() for _ in range(max(1, round(share * n_runs)))][:n_runs]
    aims += [RANDOM] * (n_runs - len(aims))
    return [(aim, "processes" if i % 5 == 4 or (n_runs < 5 and i == 3) else "local") for i, aim in enumerate(aims)]


# -- one run --------------------------------------------------------------------------------------------------------


def probs(run: Path) -> list[bytes]:
    """The bytes of test and OOF probs, with what they are probs of."""
    files = [sorted(storage.read_npz(run / name).items()) for name in ("test.npz", "oof.npz")]
    return [f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes() for file in files for name, array in file]


def torture(row: Row, folder: Path, data: Path, kills: int, times: tuple[float, float], seed: int,
            expected: list[bytes]) -> Row:
    """Kill one run `kills` times, then let it end."""
    rng = np.random.default_rng([seed, row.number])
    resume, tries = False, 0
    while len(row.moments) < kills and tries < 10:
        tries += 1
        aim = row.aim if not row.moments else RANDOM
        whole, report = times[0] / (1 + len(row.moments)), times[1]  # a run that goes on is shorter
        job = Job(folder, data, row.executor, resume)
        if job.kill_when(moment_of(aim, rng, whole, report), 0.001 if aim == CHECKPOINT else 0.02):
            row.moments.append(evidence(job))
            row.seconds.append(round(job.seconds(), 2))
            row.workers_ended.append(time_to_end(job))
        else:
            shutil.rmtree(folder)  # it was quicker: once more
            row.moments.clear()
        resume = job.run.joinpath("config.json").is_file()
    row.resumed = "--resume" if resume else "started anew"
    last = Job(folder, data, row.executor, resume, fine=bool(rng.integers(2)))
    if last.finish() == 0:
        row.same_bits = probs(last.run) == expected
    else:
        row.leftovers.append((folder / "news.txt").read_text()[-500:])
    row.leftovers += [str(path.relative_to(folder)) for path in
                      [*folder.rglob(".*.tmp"), *folder.rglob("checkpoint.npz"), *(folder / "tmp").iterdir()]]
    row.last_ended = time_to_end(last)
    return row


def time_to_end(job: Job) -> float:
    """Seconds until nothing that a job started runs any more, once it is over."""
    began = time.monotonic()
    while job.survivors() and time.monotonic() - began < WORKERS_END:
        time.sleep(0.02)
    return round(time.monotonic() - began, 2)


def undisturbed(folder: Path, data: Path, fine: bool) -> tuple[list[bytes], tuple[float, float]]:
    """Probs of a run that nothing befalls; its seconds, and those from its last fold to its end."""
    job, ended = Job(folder, data, "local", fine=fine), 0.0
    while job.process.poll() is None:
        ended = ended or (job.seconds() if finished(job.events()) == N_JOBS else 0.0)
        time.sleep(0.01)
    if job.process.returncode:
        sys.exit((folder / "news.txt").read_text())
    return probs(job.run), (job.seconds(), job.seconds() - ended)


# -- all of them ----------------------------------------------------------------------------------------------------


def table(rows: list[Row]) -> list[str]:
    """Markdown: for each moment, how many kills, and how many of their runs ended as if nothing had happened."""
    moments = sorted({moment for row in rows for moment in row.moments})
    lines = ["| killed | kills | of them in several processes | same bits after `--resume` |", "|---|--:|--:|--:|"]
    for moment in moments:
        hit = [row for row in rows for found in row.moments if found == moment]
        lines.append(f"| {moment} | {len(hit)} | {sum(row.executor == 'processes' for row in hit)} | "
                     f"{sum(row.same_bits for row in hit)} of {len(hit)} |")
    twice = sum(len(row.moments) > 1 for row in rows)
    slowest = max((seconds for row in rows for seconds in row.workers_ended), default=0.0)
    return [*lines, "", f"{len(rows)} runs, {twice} of them killed twice: {sum(row.ok for row in rows)} ended with the "
            f"same bits, without a temporary file, a checkpoint or a process left over. The last process of a killed "
            f"run ended after {slowest:.1f} s."]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write what became of each run")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(asked.jobs) as pool:
        data = Path(root) / "data"
        if cli.run(["download", "--from", "sample", "--data-dir", str(data), "--quiet"]):
            sys.exit(2)
        expected, _ = undisturbed(Path(root) / "plain", data, fine=False)
        fine, times = undisturbed(Path(root) / "fine", data, fine=True)
        if fine != expected:
            sys.exit("the same run with more checkpoints has other probs")
        rows = [Row(i, aim, executor) for i, (aim, executor) in enumerate(plan(asked.runs))]
        done = []
        for row in pool.map(lambda row: torture(row, Path(root) / str(row.number), data, 1 + (row.number % 5 == 2),
                                                times, asked.seed, expected), rows):
            done.append(row)
            print(f"{row.number}: {', '.join(row.moments)} ({row.executor}): {'same' if row.ok else row}", flush=True)
    print("\n".join(table(done)))
    if asked.json:
        asked.json.write_text(json.dumps({"runs": [{**asdict(row), "ok": row.ok} for row in done]}, indent=1) + "\n")
    found = [moment for row in done for moment in row.moments]
    short = [what for what, n in WANTED.items() if asked.runs >= 50 and found.count(what) < n]
    if short:
        print(f"too few: {', '.join(short)}")
    sys.exit(bool(short) or not all(row.ok for row in done))


if __name__ == "__mp_main__":  # a worker of a run of ours
    be_fine()
if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        be_fine()
        cli.main(sys.argv[2:])
    main()
