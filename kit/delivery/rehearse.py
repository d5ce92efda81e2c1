"""Run a kernel folder here as Kaggle would, on a hidden test file, and say whether it would be a submission.

In goes a folder that `kaggle kernels push` would take; out comes a verdict with its reasons. Kaggle's rule decides: a
kernel that ends in an error or over its time is no submission, whatever file it wrote; only then is the file looked at.
"""

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from kit import storage, transfer
from kit.data import competition as competitions
from kit.data.competition import Competition
from kit.delivery import jail, processes, weights
from kit.delivery.folder import read_metadata, read_report
from kit.delivery.hidden import Hidden, swap_in
from kit.errors import KitError

TIME_LIMIT = 2 * 3600.0  # seconds, this competition's limit on a GPU
MEMORY_LIMIT = 29 << 30  # bytes, of a T4 x 2 session
POLL_SECONDS = 0.2
TAIL = 40  # lines of the kernel's output that a failed verdict quotes
SUBMISSION = "submission.csv"
STAGE = "kit-rehearsal-"


@dataclass
class Verdict:
    """Would this be a submission? `reasons` say why not; `notes` what else is worth knowing."""

    ok: bool = False
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    accuracy: float | None = None  # on the hidden rows; None where their labels are unknown or the file is unusable
    hidden_rows: int = 0
    seconds: float = 0.0
    peak_memory: int = 0  # bytes, of all its processes together
    walls: str = ""  # namespaces, or python where those are not permitted
    report: dict[str, Any] | None = None  # the kernel's own report.json
    log_tail: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The verdict for a person; a failed kernel's last words before it."""
        took = f"{self.seconds:.0f} s, {self.peak_memory / 2**30:.1f} GiB at most, walls: {self.walls}"
        score = "" if self.accuracy is None else f", accuracy {self.accuracy:.4f} on {self.hidden_rows:,} hidden rows"
        quoted = [f"  | {line}" for line in self.log_tail]
        answer = "yes: this would be a submission" if self.ok else "no: this would be no submission"
        return [*quoted, answer + score, *(f"why: {reason}" for reason in self.reasons),
                *(f"note: {note}" for note in self.notes), took]


def rehearse(folder: Path, data: Path, hidden: Path | None = None, time_limit: float = TIME_LIMIT,
             memory_limit: int = MEMORY_LIMIT, out: Path | None = None,
             say: Callable[[str], None] = lambda line: None) -> Verdict:
    """The verdict on the kernel in `folder`, run on the competition files in `data` with a hidden test file swapped in.

    `hidden`: a test file of your own (with a label column it is scored), else made of the last training writers.
    `time_limit` in seconds, `memory_limit` in bytes. `out`: where what the kernel wrote is kept. `say` gets each
    line of its output as it comes. KitError for a folder that is no kernel, or missing data.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    competition = _competition(folder, metadata)
    with transfer.scratch(Path(tempfile.gettempdir()).resolve(), STAGE) as stage:
        verdict = Verdict(walls="namespaces" if jail.namespaces() else "python", reasons=_refusals(folder, metadata))
        with storage.disk_errors(stage, "lay the kernel out in"):
            swapped = _lay_out(stage, folder, metadata, data, competition, hidden)
        verdict.hidden_rows = len(swapped.ids)
        _run(stage, folder / metadata["code_file"], verdict, time_limit, memory_limit, say)
        working = stage / "kaggle" / "working"
        _judge(working / SUBMISSION, competition, swapped, verdict)
        _look_at_report(working / "report.json", verdict)
        if metadata["dataset_sources"] and swapped.held_out:
            verdict.notes.append("its weights may have been trained on these rows: the accuracy flatters")
        if out:
            shutil.copytree(working, out, dirs_exist_ok=True)
    verdict.ok = not verdict.reasons
    return verdict


# -- what Kaggle would refuse before anything runs ------------------------------------------------------------------


def _competition(folder: Path, metadata: dict[str, Any]) -> Competition:
    sources = metadata["competition_sources"]
    if len(sources) != 1:
        raise KitError(f"{folder} names {len(sources)} competitions as its data; a rehearsal needs exactly one",
                       'put it into kernel-metadata.json, as "competition_sources": ["SLUG"]')
    return competitions.get(sources[0])


def _refusals(folder: Path, metadata: dict[str, Any]) -> list[str]:
    reasons = []
    if str(metadata.get("enable_internet", True)).lower() != "false":
        reasons.append("the internet is on (it is unless enable_internet is false), and the competition forbids that")
    if metadata["kernel_type"] == "notebook":
        facts = _notebook(folder / metadata["code_file"]).get("metadata")
        if not isinstance(facts, dict) or not facts.get("kernelspec"):
            reasons.append("the notebook has no kernelspec: Kaggle does not run it")
    return reasons


def _notebook(path: Path) -> dict[str, Any]:
    """What the file holds. KitError where that is no notebook."""
    try:
        notebook = json.loads(path.read_text("utf-8"))
        if not isinstance(notebook["cells"], list):
            raise TypeError("its cells are no list")
        return dict(notebook)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise KitError(f"{path} is no notebook: {error}",
                       "save it again as .ipynb, or make one: kit kernel build --kind notebook") from error


# -- the stage ------------------------------------------------------------------------------------------------------


def _lay_out(stage: Path, folder: Path, metadata: dict[str, Any], data: Path, competition: Competition,
             hidden: Path | None) -> Hidden:
    """Kaggle's folders as they are today, the input read-only."""
    kaggle = stage / "kaggle"
    for name in ("input", "working", "src"):
        (kaggle / name).mkdir(parents=True)
    swapped = swap_in(Path(data), kaggle / "input" / "competitions" / competition.slug, competition, hidden)
    for ref in set(metadata["dataset_sources"]):
        if not (folder / weights.FOLDER).is_dir():
            raise KitError(f"{folder} needs the dataset {ref}, but has no folder weights/", "build it again: --run")
        shutil.copytree(folder / weights.FOLDER, kaggle / "input" / "datasets" / ref)
    code = folder / metadata["code_file"]
    shutil.copyfile(code, kaggle / "src" / code.name)
    for path in (kaggle / "input").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return swapped


NOTEBOOK = """
import json, sys
sys.argv = sys.argv[1:]
__name__ = "__main__"
for _number, _cell in enumerate(json.load(open(sys.argv[0], encoding="utf-8"))["cells"], 1):
    if _cell["cell_type"] == "code":
        try:
            exec(compile("".join(_cell["source"]), f"<cell {_number}>", "exec"))
        except SystemExit as error:
            raise RuntimeError(f"cell {_number} ends the interpreter, which fails a notebook") from error
"""  # as nbconvert would: the code cells in order, in one process; IPython's magics are a syntax error here


def _run(stage: Path, code: Path, verdict: Verdict, time_limit: float, memory_limit: int,
         say: Callable[[str], None]) -> None:
    """Run the kernel to its end or to a limit; fill in time, memory, and the reasons that Kaggle would have."""
    source = f"{'/kaggle' if jail.namespaces() else stage / 'kaggle'}/src/{code.name}"
    log = stage / "output.log"
    begin = time.monotonic()
    process = jail.start(stage, ["-c", NOTEBOOK, source] if code.suffix == ".ipynb" else [source], log, time_limit)
    with log.open(encoding="utf-8", errors="replace") as output:
        try:
            why = _watch(process, begin, time_limit, memory_limit, verdict, lambda: _relay(output, say))
        finally:
            processes.kill(process.pid)
            process.wait()
        _relay(output, say, ended=True)
    verdict.seconds = round(time.monotonic() - begin, 2)
    lines = log.read_text("utf-8", "replace").splitlines()
    if why or process.returncode != 0:
        verdict.log_tail = lines[-TAIL:]
        verdict.reasons.append(why or f"it ended with exit code {process.returncode}: {_last_error(lines)}")
        verdict.reasons.extend(_blocked(stage / "blocked.jsonl", "\n".join(lines)))
        if (stage / "kaggle" / "working" / SUBMISSION).is_file():
            verdict.reasons.append(f"the {SUBMISSION} that it left does not count: Kaggle rejects a kernel that fails")


def _relay(output: TextIO, say: Callable[[str], None], ended: bool = False) -> None:
    """Say the lines that are new; half a line only once the kernel has `ended`."""
    while line := output.readline():
        if not (ended or line.endswith("\n")):
            output.seek(output.tell() - len(line.encode()))
            return
        say(line.rstrip("\n"))


def _watch(process: subprocess.Popen, begin: float, time_limit: float, memory_limit: int, verdict: Verdict,
           tick: Callable[[], None]) -> str:
    """Wait for the end; a reason where a limit came first."""
    while process.poll() is None:
        tick()
        verdict.peak_memory = max(verdict.peak_memory, processes.memory(process.pid))
        if verdict.peak_memory > memory_limit:
            return f"it took {verdict.peak_memory / 2**30:.1f} GiB of memory; the limit is {memory_limit / 2**30:.1f}"
        if time.monotonic() - begin > time_limit:
            return f"it ran over its time: stopped after {time_limit:.0f} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
    return ""


def _last_error(lines: list[str]) -> str:
    """The last line that reads like an exception, else the last line at all."""
    errors = [line for line in lines if re.match(r"\w[\w.]*(Error|Exception|Interrupt|Exit|Warning)\b", line)]
    return (errors or lines or ["it said nothing"])[-1].strip()


def _blocked(log: Path, output: str) -> list[str]:
    """What the walls refused, once each; imports only where the output speaks of them, as libraries try many."""
    if not log.is_file():
        return []
    words = {"import": "it imports {}, which Kaggle's image lacks", "network": "it needs the network: {}"}
    events: dict[tuple[str, str], None] = {}
    for line in log.read_text("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # half a line, of a kernel that was killed
            kind, what = json.loads(line)
            events[kind, what] = None
    return [words[kind].format(what) for kind, what in events
            if kind == "network" or (kind == "import" and repr(what) in output)]


# -- what it left ---------------------------------------------------------------------------------------------------


def _judge(path: Path, competition: Competition, swapped: Hidden, verdict: Verdict) -> None:
    """The validator's word on the file, and its accuracy where the labels are known."""
    from kit.ensembling.submission import read_labels, validate

    if not path.is_file():
        verdict.reasons.append(f"it left no {SUBMISSION} in /kaggle/working")
        return
    try:
        problems = validate(path, competition, swapped.ids)
    except KitError as error:
        verdict.reasons.append(error.message)
        return
    rows = max(0, sum(bool(line.strip()) for line in path.read_bytes().split(b"\n")) - 1)
    if rows != len(swapped.ids):
        verdict.reasons.append(f"{SUBMISSION} has {rows:,} rows and the hidden test file {len(swapped.ids):,}: "
                               "the kernel must take its ids from the test file that is there")
    verdict.reasons.extend(f"{SUBMISSION}: {problem}" for problem in problems)
    if not problems and swapped.labels is not None:
        verdict.accuracy = float((read_labels(path, competition, swapped.ids) == swapped.labels).mean())


def _look_at_report(path: Path, verdict: Verdict) -> None:
    verdict.report = read_report(path) or None
    if verdict.report and verdict.report.get("used") == "fallback":
        verdict.reasons.append("it trained nothing: its submission is only the fallback (see its kernel.log)")
    elif verdict.report and verdict.report.get("complete") is False:
        verdict.notes.append("its ensemble is partial (complete: false): see missing_folds in its report.json")
    with contextlib.suppress(KeyError, TypeError, OverflowError):  # another kernel's report may look like anything
        kernel = (verdict.report or {})["kernel"]
        had, wanted = kernel["budget_seconds"] / 60, kernel["settings"]["minutes"]
        if had < wanted:
            verdict.notes.append(f"it had {had:.1f} minutes here, to fit the time limit; on Kaggle it has {wanted:g}")
