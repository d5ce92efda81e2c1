"""Run a kernel folder here as Kaggle would, on a hidden test file: would it be a submission?

Kaggle's rule decides: a kernel that ends in an error or over its time is no submission, whatever
file it wrote; only then is the file looked at. Where this machine differs from Kaggle, the
verdict's notes say so.
"""

import contextlib
import errno
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from kit.core import storage, system
from kit.core.errors import KitError
from kit.data import competition as competitions
from kit.data.competition import Competition
from kit.kaggle import transfer
from kit.kernel import weights
from kit.kernel.folder import METADATA, read_metadata, read_report
from kit.rehearsal import preflight, sandbox, sources
from kit.rehearsal.hidden import HiddenTest, write_with_hidden_test
from kit.rehearsal.sources import Source

TIME_LIMIT = 2 * 3600.0  # seconds, this competition's limit on a GPU
MEMORY_LIMIT = 29 << 30  # bytes, of a T4 x 2 session
POLL_SECONDS = 0.2
TAIL = 40  # lines of the kernel's output that a failed verdict quotes
SUBMISSION = "submission.csv"
STAGE_PREFIX = "kit-rehearsal-"


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
    sandbox: str = ""  # namespaces, or python where those are not permitted
    report: dict[str, Any] | None = None  # the kernel's own report.json
    log_tail: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The verdict for a person, after a failed kernel's last lines of output."""
        took = (f"{self.seconds:.0f} s, {self.peak_memory / 2**30:.1f} GiB at most, "
                f"sandbox: {self.sandbox}")
        score = "" if self.accuracy is None else f", accuracy {self.accuracy:.4f} on {self.hidden_rows:,} hidden rows"
        quoted = [f"  | {line}" for line in self.log_tail]
        answer = "yes: this would be a submission" if self.ok else "no: this would be no submission"
        return [*quoted, answer + score, *(f"why: {reason}" for reason in self.reasons),
                *(f"note: {note}" for note in self.notes), took]


@dataclass(frozen=True)
class Inputs:
    """What is mounted in `/kaggle/input`: the competition's files, and other folders."""

    competition: Competition
    folders: dict[Source, Path]  # on this machine
    mount_points: dict[Source, str]  # below /kaggle/input; the competition's as well

    @property
    def data(self) -> str:
        """Where the competition's files go, below `/kaggle/input`."""
        return next(point for source, point in self.mount_points.items()
                    if source not in self.folders)


def rehearse(folder: Path, data: Path, hidden: Path | None = None, time_limit: float = TIME_LIMIT,
             memory_limit: int = MEMORY_LIMIT, out: Path | None = None,
             say: Callable[[str], None] = lambda line: None, mounts: Sequence[str] = (),
             layout: str = "new") -> Verdict:
    """Run the kernel in `folder` on the files in `data` with a hidden test file; the verdict.

    hidden: a test file of your own (with a label column it is scored), else made of the last
    training writers. time_limit in seconds, memory_limit in bytes. out: a folder for what the
    kernel wrote. say: gets each line of its output as it comes. mounts: folders that stand for its
    other inputs; layout: where Kaggle mounts them; both as in `sources`. KitError for a folder that
    is no kernel or not in Python, missing data, an input that no folder stands for, or a notebook
    whose packages are missing.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    inputs = find_inputs(folder, mounts, layout)
    reasons, notes = preflight.check(folder, metadata)
    with transfer.scratch_folder(Path(tempfile.gettempdir()).resolve(), STAGE_PREFIX) as stage:
        verdict = Verdict(sandbox="namespaces" if sandbox.namespaces() else "python",
                          reasons=reasons, notes=notes)
        with _layout_errors(stage):
            test = _lay_out(stage, folder / metadata["code_file"], inputs, data, hidden)
        verdict.hidden_rows = len(test.ids)
        _run(stage, folder / metadata["code_file"], inputs.competition, verdict, time_limit, memory_limit, say)
        working = stage / "kaggle" / "working"
        _judge(working / SUBMISSION, inputs.competition, test, verdict)
        _check_report(working / "report.json", verdict)
        if inputs.folders and test.held_out:
            verdict.notes.append("its weights may have been trained on these rows: the accuracy flatters")
        if out:
            shutil.copytree(working, out, dirs_exist_ok=True)
    verdict.ok = not verdict.reasons
    return verdict


def find_inputs(folder: Path, mounts: Sequence[str] = (), layout: str = "new") -> Inputs:
    """The inputs of the kernel in `folder`: `weights/` and `mounts`. KitError if one is missing."""
    metadata = read_metadata(folder)
    named = sources.named_in(metadata)
    folders = sources.match_folders(mounts, named, folder / METADATA)
    packed = folder / weights.FOLDER
    own = Source("dataset", sources.id_of(packed / weights.METADATA))
    if own in named:
        folders.setdefault(own, packed)
    left = [source for source in named if source not in folders]
    scored = [source for source in left if source.kind == "competition"]
    for source in folders:
        if source.kind == "competition" and not scored:
            raise KitError(f"{folders[source]} stands for {source}, whose files the rehearsal lays out itself",
                           "leave that --mount out; --data-dir says where those files are")
    if not scored:
        raise KitError(f"{folder} names no competition as its data; a rehearsal needs one",
                       f'put it into {folder / METADATA}, as "competition_sources": ["SLUG"]')
    if len(scored) > 1:
        raise KitError(f"{folder} names {len(scored)} competitions as its data; the rehearsal swaps one's test file",
                       "lay the others in as they are: "
                       + " ".join(f"--mount {source.ref}=FOLDER" for source in scored[1:]))
    competition = competitions.get(scored[0].ref)
    others = [source for source in left if source not in scored]
    if others:
        trained = Source("dataset", weights.dataset_slug(str(metadata.get("id", ""))))  # by kit kernel build's name
        if trained in others:
            raise KitError(f"{folder} needs its weights ({trained.ref}), and has no folder {weights.FOLDER}/",
                           "build it again: kit kernel build --mode predict --run RUN")
        raise sources.missing_error(others, folder)
    wanted = [Source("competition", competition.kaggle_slug) if source in scored else source for source in named]
    return Inputs(competition, folders, sources.mount_points(wanted, layout))


# -- the stage ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _layout_errors(stage: Path) -> Iterator[None]:
    """Turn an OSError while the stage is made (an unreadable file, no room) into a KitError."""
    try:
        yield
    except OSError as error:
        elsewhere = "use a folder on another disk: TMPDIR=FOLDER kit kernel rehearse"
        place = Path(os.fsdecode(error.filename)) if error.filename else stage
        why = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise KitError(f"no room for the rehearsal in {stage.parent}: {why}",
                           f"free some space there, or {elsewhere}") from error
        if place.is_relative_to(stage):
            raise KitError(f"cannot write {place}: {why}", elsewhere) from error
        fix = f"make it readable: chmod u+r {place}" if isinstance(error, PermissionError) else "check that it is there"
        raise KitError(f"cannot read {place}: {why}", fix) from error


def _lay_out(stage: Path, code: Path, inputs: Inputs, data: Path,
             hidden: Path | None) -> HiddenTest:
    """Make Kaggle's folders in `stage`, the input read-only; returns the hidden test in it."""
    kaggle = stage / "kaggle"
    for name in ("input", "working", "src"):
        (kaggle / name).mkdir(parents=True)
    test = write_with_hidden_test(Path(data), kaggle / "input" / inputs.data, inputs.competition,
                                  hidden)
    needed = sum(path.stat().st_size for folder in inputs.folders.values()
                 for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(stage).free
    if needed > free:
        raise KitError(f"the kernel's inputs take {needed / 1e6:,.0f} MB, and {stage.parent} has only "
                       f"{free / 1e6:,.0f} MB free",
                       "free some space there, or use a folder on another disk: TMPDIR=FOLDER kit kernel rehearse")
    for source, folder in inputs.folders.items():  # copies: what a kernel does to them must not reach the originals
        try:
            storage.copy_tree(folder, kaggle / "input" / inputs.mount_points[source])
        except (PermissionError, FileNotFoundError) as error:  # the latter: a link that leads nowhere
            raise KitError(f"cannot copy {error.filename or folder}: {error.strerror}",
                           f"make it readable, or take it out of {folder}") from error
    shutil.copyfile(code, kaggle / "src" / code.name)
    for path in (kaggle / "input").rglob("*"):
        with contextlib.suppress(OSError):  # some mounts have no modes
            path.chmod(0o555 if path.is_dir() else 0o444)
    return test


def _run(stage: Path, code: Path, competition: Competition, verdict: Verdict, time_limit: float, memory_limit: int,
         say: Callable[[str], None]) -> None:
    """Run the kernel to its end or a limit; fill in the verdict's time, memory and reasons."""
    log = stage / "output.log"
    begin = time.monotonic()
    process = sandbox.start(stage, code.name, log, time_limit, competition.code_only)
    with log.open("rb") as output:
        try:
            why = _watch(process, begin, time_limit, memory_limit, verdict, lambda: _relay(output, say))
        finally:
            system.kill_tree(process.pid)
            process.wait()
        _relay(output, say, ended=True)
    verdict.seconds = round(time.monotonic() - begin, 2)
    lines = log.read_text("utf-8", "replace").splitlines()
    if why or process.returncode != 0:
        verdict.log_tail = lines[-TAIL:]
        verdict.reasons.append(why or f"it ended with exit code {process.returncode}: {_last_error(lines)}")
        verdict.reasons.extend(_blocked(stage / "blocked.jsonl", "\n".join(lines)))
        verdict.reasons.extend(_missing_here(lines))
        if (stage / "kaggle" / "working" / SUBMISSION).is_file():
            verdict.reasons.append(f"the {SUBMISSION} that it left does not count: Kaggle rejects a kernel that fails")


def _relay(output: BinaryIO, say: Callable[[str], None], ended: bool = False) -> None:
    """Pass the new lines to `say`; an unfinished line only once the kernel has `ended`."""
    while line := output.readline():
        if not (ended or line.endswith(b"\n")):
            output.seek(-len(line), os.SEEK_CUR)
            return
        say(line.decode("utf-8", "replace").rstrip("\r\n"))


def _watch(process: subprocess.Popen, begin: float, time_limit: float, memory_limit: int, verdict: Verdict,
           tick: Callable[[], None]) -> str:
    """Wait for the end; the reason where a limit came first, else empty."""
    while process.poll() is None:
        tick()
        verdict.peak_memory = max(verdict.peak_memory, system.tree_memory(process.pid))
        if verdict.peak_memory > memory_limit:
            return f"it took {verdict.peak_memory / 2**30:.1f} GiB of memory; the limit is {memory_limit / 2**30:.1f}"
        if time.monotonic() - begin > time_limit:
            return f"it ran over its time: stopped after {time_limit:.0f} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
    return ""


def _last_error(lines: list[str]) -> str:
    """The last line that looks like an exception, else the last line."""
    errors = [line for line in lines if re.match(r"\w[\w.]*(Error|Exception|Interrupt|Exit|Warning)\b", line)]
    return (errors or lines or ["it said nothing"])[-1].strip()


def _blocked(log: Path, output: str) -> list[str]:
    """What the sandbox refused; imports only if the output names them, as libraries try many."""
    if not log.is_file():
        return []
    words = {"import": "it imports {}, which Kaggle's image is not known to have",
             "network": "it needs the network: {}"}
    events: dict[tuple[str, str], None] = {}
    for line in log.read_text("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # half a line, of a kernel that was killed
            kind, what = json.loads(line)
            events[kind, what] = None
    return [words[kind].format(what) for kind, what in events
            if kind == "network" or (kind == "import" and repr(what) in output and what not in sandbox.INSTALLERS)]


def _missing_here(lines: list[str]) -> list[str]:
    """The module that is missing on this machine, and would be there on Kaggle."""
    found = re.fullmatch(r"ModuleNotFoundError: No module named '(\w+)[\w.]*'", _last_error(lines))
    name = found[1] if found else ""
    if name in sandbox.KAGGLES_OWN:
        return [f"{name} is there on Kaggle alone: whether this kernel would be a submission only Kaggle can tell"]
    if name in sandbox.IMAGE and importlib.util.find_spec(name) is None:
        return [f"{name} is in Kaggle's image and not on this machine: install it here to rehearse this kernel "
                f"(.venv/bin/python -m pip install {sandbox.IMAGE[name]})"]
    return []


# -- its submission and report ---------------------------------------------------------------------


def _judge(path: Path, competition: Competition, test: HiddenTest, verdict: Verdict) -> None:
    """Add the file's problems to the verdict, and its accuracy where the labels are known."""
    from kit.ensembling.submission import read_labels, validate

    if not path.is_file():
        verdict.reasons.append(f"it left no {SUBMISSION} in /kaggle/working")
        return
    try:
        problems = validate(path, competition, test.ids).problems
    except KitError as error:
        verdict.reasons.append(error.message)
        return
    rows = max(0, sum(bool(line.strip()) for line in path.read_bytes().split(b"\n")) - 1)
    if rows != len(test.ids):
        verdict.reasons.append(f"{SUBMISSION} has {rows:,} rows and the hidden test file "
                               f"{len(test.ids):,}: the kernel must take its ids from the test "
                               "file that is there")
    verdict.reasons.extend(f"{SUBMISSION}: {problem}" for problem in problems)
    if not problems and test.labels is not None:
        verdict.accuracy = float((read_labels(path, competition, test.ids) == test.labels).mean())


def _check_report(path: Path, verdict: Verdict) -> None:
    """Add what the kernel's report.json says: a fallback, a partial ensemble, a shorter time."""
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
