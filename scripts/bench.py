"""Measure the kit beside its yardsticks: python scripts/bench.py [--only read,train/cnn] [--quick]

Measures the rows below into docs/benchmarks.json, and makes the tables of docs/benchmarks.md of
them. Machines are shared and noisy, so the rows of a group take turns, round after round, each in a
process of its own (bench_rows.py); quoted are medians, spreads, and the ratios to the group's first
row within the same round.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

# The checkout that this script is in, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kit.core import system
from kit.core.errors import KitError
from kit.data import source
from kit.data.competition import KANNADA
from kit.training import models
from kit.training.workers import KEEP_MEMORY

ROOT = Path(__file__).resolve().parent.parent
JSON = ROOT / "docs" / "benchmarks.json"
PAGE = ROOT / "docs" / "benchmarks.md"
ROUNDS = 5
QUICK = {"rows": 600, "epochs": 1, "folds": 2, "size": 256}  # at most, with --quick
PER_CORE = 0  # copies: a process for each core


@dataclass(frozen=True)
class Row:
    """One thing to measure. The first row of a group is the yardstick of the others."""

    id: str  # group/name
    what: str
    measure: str  # a function of bench_rows.py
    unit: str  # images/s, TFLOP/s: more is better, and copies add up; s, %: less is better
    options: dict[str, Any] = field(default_factory=dict)
    copies: int = 1  # so many processes at once, each on its share of the cores
    needs: str = ""  # a package without which there is nothing to measure
    rounds: int = ROUNDS  # at most
    asked: bool = False  # too long for a run that does not name it with --only

    @property
    def group(self) -> str:
        return self.id.split("/")[0]


GROUPS = {
    "peak": "What the hardware can do: a square matrix product",
    "read": "Reading train.csv, 60,000 rows",
    "train": "Training, steps alone",
    "overhead": "What is done beside the network's own work, in % of the time",
    "race": "From data in memory to the tutorial network's accuracy on writers held out",
    "predict": "From pixels to probs",
    "cv": "kit cv, per executor: five folds of cnn and of the baseline, two epochs",
    "rows": "Growth with rows: one epoch of cnn",
    "folds": "Growth with folds: kit cv, one epoch of cnn, 20,000 rows",
    "workers": "Growth with workers of one thread: cnn",
    "whole": "The whole job",
}


def _training() -> list[Row]:
    size = {"rows": 12_800, "epochs": 3}
    rows = [Row("train/tutorial", "the tutorial as written: Keras fit, float32, batch 32",
                "keras_fit", "images/s", size),
            Row("train/torch", "PyTorch, its layers, bfloat16, channels last, batch 256",
                "torch_fit", "images/s", size, needs="torch"),
            Row("train/torch-per-core", "the same, a process per core",
                "torch_fit", "images/s", size, PER_CORE, "torch")]
    for model in models.RECIPES:
        fast, slow = ({**size, "model": model, "precision": precision}
                      for precision in ("bfloat16", "float32"))
        rows += [Row(f"train/{model}", f"{model}, bfloat16, one process",
                     "kit_fit", "images/s", fast),
                 Row(f"train/{model}-per-core", f"{model}, bfloat16, a process per core",
                     "kit_fit", "images/s", fast, PER_CORE),
                 Row(f"train/{model}-float32", f"{model}, float32, a process per core",
                     "kit_fit", "images/s", slow, PER_CORE, rounds=2)]
    return rows


ROWS = [
    *(Row(f"peak/{precision}", precision, "matmul", "TFLOP/s",
          {"precision": precision, "size": 2048}) for precision in ("float32", "bfloat16")),
    *(Row(f"read/{how}", what, "read", "s", {"how": how},
          needs="pyarrow" if how == "pyarrow" else "") for how, what in (
        ("pandas", "pandas.read_csv"), ("pyarrow", "pandas.read_csv, pyarrow"),
        ("kit", "kit, first time: every cell checked"), ("cached", "kit, from its cache"))),
    *_training(),
    *(Row(f"overhead/{model}", f"{model}: what augmentation adds to a step", "augmentation", "%",
          {"model": model, "rows": 2_560, "epochs": 20}) for model in ("cnn_aug", "strong")),
    Row("overhead/bookkeeping", "cnn_aug: display, logs and checkpoints", "bookkeeping", "%",
        {"model": "cnn_aug", "rows": 20_000, "epochs": 3}),
    *(Row(f"race/{model}-{epochs}", f"{model}, {epochs} epochs", "race", "s",
          {"model": model, "epochs": epochs, "rows": 60_000}, rounds=3) for model, epochs in (
        ("tutorial", 6), ("cnn", 4), ("cnn", 6), ("cnn_aug", 4), ("light", 2), ("light", 3),
        ("strong", 2), ("strong", 3))),
    *(Row(f"predict/{name}", what, "inference", "images/s", {"views": views, "rows": 10_000})
      for name, what, views in (
        ("tutorial", "Keras predict, float32, as the tutorial wrote it", 0),
        ("cnn-1", "cnn, the image alone", 1),
        ("cnn-3", "cnn, three test-time views", 3), ("cnn-7", "cnn, seven", 7))),
    *(Row(f"cv/{executor}", f"--executor {executor}", "cv", "s",
          {"executor": executor, "model": "cnn", "folds": 5, "epochs": 2, "rows": 20_000},
          rounds=3, needs="ray" if executor == "ray" else "")
      for executor in ("local", "processes", "ray", "auto")),
    *(Row(f"rows/{n}", f"{n:,} rows", "kit_fit", "images/s",
          {"model": "cnn", "rows": n, "epochs": 1}, rounds=rounds, asked=n > 60_000)
      for n, rounds in ((5_000, ROUNDS), (20_000, ROUNDS), (59_500, ROUNDS), (600_000, 1))),
    *(Row(f"folds/{n}", f"{n} folds", "cv", "s",
          {"executor": "auto", "model": "cnn", "folds": n, "epochs": 1, "rows": 20_000}, rounds=2)
      for n in (2, 5, 10, 20)),
    *(Row(f"workers/{n}", f"{n} process{'es' if n > 1 else ''}", "kit_fit", "images/s",
          {"model": "cnn", "rows": 20_000, "epochs": 3, "threads": 1}, n) for n in (1, 2, 4)),
    *(Row(f"whole/{model}", f"kit cv --model {model}: five folds with baseline and report",
          "cv", "s", {"executor": "auto", "model": model, "folds": 5, "rows": 60_000},
          rounds=1, asked=True) for model in ("cnn", "cnn_aug", "light", "strong")),
]


def chosen(only: str | None) -> list[Row]:
    """The rows of `--only`: groups, ids or patterns, with commas between.

    KitError for one that fits none.
    """
    if only is None:
        return [row for row in ROWS if not row.asked]
    patterns = only.split(",")
    for pattern in patterns:
        if not any(fits(row, pattern) for row in ROWS):
            raise KitError(f"no row of the benchmark is called {pattern!r}",
                           f"choose from: {', '.join(GROUPS)}; --list names their rows")
    return [row for row in ROWS if any(fits(row, pattern) for pattern in patterns)]


def fits(row: Row, pattern: str) -> bool:
    return fnmatch(row.id, pattern) or (row.group == pattern and not row.asked)


# -- measuring -------------------------------------------------------------------------------------


def measure_all(rows: list[Row], data: Path, rounds: int, quick: bool, results: dict[str, Any],
                out: Path) -> None:
    """Take turns within each group; `out` is written after every measurement."""
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    for group in dict.fromkeys(row.group for row in rows):
        turns = [row for row in rows if row.group == group]
        for row in turns:
            results["rows"][row.id] = {"unit": row.unit, "rounds": []}
        for turn in range(rounds):
            # Back and forth, so that a slow drift favours nobody
            for row in turns if turn % 2 == 0 else reversed(turns):
                if turn < row.rounds and "not measured" not in results["rows"][row.id]:
                    measure(row, f"{began}, {turn + 1}", data, quick, results["rows"][row.id])
                    _write(out, results)


def _write(out: Path, results: dict[str, Any]) -> None:
    whole = out.with_suffix(".tmp")
    whole.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    whole.replace(out)


def measure(row: Row, turn: str, data: Path, quick: bool, entry: dict[str, Any]) -> None:
    """Measure a row once, into its entry: a number, or why there is none.

    turn: when this script was called, and the round.
    """
    if row.needs and importlib.util.find_spec(row.needs) is None:
        entry["not measured"] = f"not measured: {row.needs} is not installed"
        return
    options = {key: min(value, QUICK[key]) if quick and key in QUICK else value
               for key, value in row.options.items()}
    load = os.getloadavg()[0]
    try:
        found = run_copies(row.measure, {"data": str(data), **options}, row.copies)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        entry["not measured"] = f"not measured: it failed ({error})"
        print(f"{row.id}: {error}", file=sys.stderr, flush=True)
        return
    values = [result["value"] for result in found]
    value = max(values) if row.unit == "s" else sum(values)
    about = {key: found[0][key] for key in ("flops", "precision", "accuracy") if key in found[0]}
    entry["rounds"].append({"value": value, "peak_mib": sum(result["peak_mib"] for result in found),
                            "load_before": load, "round": turn, **about})
    print(f"{row.id}: {value:,.4g} {row.unit}", file=sys.stderr, flush=True)


def run_copies(measure: str, options: dict[str, Any], copies: int) -> list[dict[str, Any]]:
    """So many processes that measure at once; ValueError with the last words of one that failed."""
    cores = system.cores()
    copies = copies or len(cores)
    share = options.get("threads") or max(1, len(cores) // copies)
    pinned = copies > 1 or "threads" in options
    children: list[Child] = []
    try:
        for i in range(copies):
            own = {"cores": [cores[(i * share + j) % len(cores)] for j in range(share)],
                   "threads": share}
            children.append(Child(measure, {**options, **(own if pinned else {})}))
        for child in children:
            child.line()  # ready
        for child in children:
            child.go()
        return [json.loads(child.line()) for child in children]
    finally:
        for child in children:
            child.close()


class Child:
    """A process of bench_rows.py; with cores of its own, and the memory settings of the kit."""

    def __init__(self, measure: str, options: dict[str, Any]) -> None:
        self.errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - as long as the process
        memory = KEEP_MEMORY if "cores" in options else {}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "bench_rows.py"), measure, json.dumps(options)],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            env={**os.environ, **memory})

    def go(self) -> None:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def line(self) -> str:
        """Its next line; ValueError with the last words of one that has died."""
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            last = [text for text in self.errors.read().splitlines() if text.strip()][-1:]
            raise ValueError("; ".join(last) or "the process ended without a word")
        return line

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


# -- from the command line -------------------------------------------------------------------------


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", help="groups or rows, with commas between: read,train/cnn*")
    add("--rounds", type=int, default=ROUNDS, help="how often each row takes its turn")
    add("--quick", action="store_true", help="tiny sizes: whether it works, not how fast it is")
    add("--data-dir", type=Path, default=ROOT / "data", help="where the data is (kit download)")
    add("--out", type=Path,
        help="the numbers, else docs/benchmarks.json; other rows stay as they are")
    add("--page", type=Path,
        help="the page whose tables to make of them, else docs/benchmarks.md")
    add("--list", action="store_true", help="name the rows, and measure none")
    add("--tables", action="store_true", help="make the page's tables again, and measure none")
    asked = parser.parse_args()
    # What tiny sizes measure need not be kept
    folder = Path(tempfile.mkdtemp(prefix="bench-")) if asked.quick else PAGE.parent
    asked.out, asked.page = asked.out or folder / JSON.name, asked.page or folder / PAGE.name
    return asked


def earlier(out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The results in `out`, to go on with. KitError if they are another machine's."""
    if not out.is_file():
        return {"machine": about, "rows": {}}
    results = json.loads(out.read_text("utf-8"))
    if results["machine"] != about:
        raise KitError(f"{out} was measured on another machine, with other versions or on other "
                       "data", "give the new numbers a file and a page of their own with --out and "
                       "--page, or delete the old")
    return dict(results)


def main() -> None:
    import bench_page

    asked = options()
    rows = chosen(asked.only)
    if asked.list:
        for row in rows:
            print(f"{row.id:<24}{row.what}{'  (only if asked for)' if row.asked else ''}")
        return
    if not asked.tables:
        data = source.find_data(KANNADA, asked.data_dir)
        about = run_copies("machine", {"data": str(data.path)}, 1)[0]["machine"]
        results = earlier(asked.out, {**about, "quick": asked.quick})
        results["measured"] = time.strftime("%Y-%m-%d")
        measure_all(rows, data.path, asked.rounds, asked.quick, results, asked.out)
    results = json.loads(asked.out.read_text("utf-8")) if asked.out.is_file() \
        else {"machine": {}, "rows": {}}
    print(bench_page.tables(ROWS, GROUPS, results))
    bench_page.put(asked.page, bench_page.tables(ROWS, GROUPS, results))


if __name__ == "__main__":
    try:
        main()
    except KitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
