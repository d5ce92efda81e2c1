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
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from kit.core import storage, system
from kit.core.errors import KitError
from kit.data import competition as competitions
from kit.data.competition import Competition
from kit.kaggle import transfer
from kit.kernel import builder, template, weights
from kit.kernel.builder import OWN_FILES
from kit.kernel.folder import METADATA, accelerators, read_metadata, read_report
from kit.rehearsal import image, preflight, sandbox, sources
from kit.rehearsal.hidden import HiddenTest, write_with_hidden_test
from kit.rehearsal.sources import Source

TIME_LIMIT = 2 * 3600.0  # seconds, this competition's limit on a GPU
MEMORY_LIMIT = 29 << 30  # bytes, of a T4 x 2 session
POLL_SECONDS = 0.2
TAIL = 40  # lines of the kernel's output that a failed verdict quotes
SUBMISSION = "submission.csv"
STAGE_PREFIX = "kit-rehearsal-"
OTHER_DISK = "use a folder on another disk: TMPDIR=FOLDER kit kernel rehearse"


@dataclass
class Verdict:
    """Would this be a submission? `reasons` say why not; `notes` what else is worth knowing."""

    ok: bool = False
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    accuracy: float | None = None  # on the hidden rows; None without labels, or a usable file
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
        answer = "yes: this would be a submission" if self.ok else "no: this would be no submission"
        if self.accuracy is not None:
            answer += f", accuracy {self.accuracy:.4f} on {self.hidden_rows:,} hidden rows"
        return [*(f"  | {line}" for line in self.log_tail), answer,
                *(f"why: {reason}" for reason in self.reasons),
                *(f"note: {note}" for note in self.notes),
                f"{self.seconds:.0f} s, {self.peak_memory / 2**30:.1f} GiB at most, "
                f"sandbox: {self.sandbox}"]


@dataclass(frozen=True)
class Inputs:
    """What is mounted in `/kaggle/input`: the competition's files, and other folders."""

    competition: Competition
    folders: dict[Source, Path]  # on this machine
    mount_points: dict[Source, str]  # below /kaggle/input; the competition's as well

    @property
    def data_mount_point(self) -> str:
        """Where the competition's files go, below `/kaggle/input`."""
        return next(point for source, point in self.mount_points.items()
                    if source not in self.folders)


def rehearse(folder: Path, data: Path, hidden: Path | None = None, time_limit: float = TIME_LIMIT,
             memory_limit: int = MEMORY_LIMIT, out: Path | None = None,
             say: Callable[[str], None] = lambda line: None, mounts: Sequence[str] = (),
             layout: str = "new", competition: Competition = competitions.KANNADA) -> Verdict:
    """Run the kernel in `folder` on the files in `data` with a hidden test file; the verdict.

    hidden: a test file of your own (with a label column it is scored), else made of the last
    training writers. time_limit in seconds, memory_limit in bytes. out: a folder for what the
    kernel wrote. say: gets each line of its output as it comes. mounts: folders that stand for its
    other inputs; layout: where Kaggle mounts them; both as in `sources`. competition: as for
    `find_inputs`. KitError for a folder that is no kernel or not in Python, missing data, an input
    that no folder stands for, a notebook whose packages are missing, or on Windows itself.
    """
    if sys.platform == "win32":  # no symlinks without a privilege, no modes, no sessions
        raise KitError("a kernel cannot be rehearsed on Windows itself",
                       "rehearse it in WSL (wsl --install), where the kit is installed as on Linux")
    folder = Path(folder)
    metadata = read_metadata(folder)
    code = folder / metadata["code_file"]
    inputs = find_inputs(folder, mounts, layout, competition)
    reasons, notes = preflight.check(folder, metadata)
    verdict = Verdict(sandbox="namespaces" if sandbox.unshare_command() else "python",
                      reasons=reasons, notes=notes)
    machine = {("GPU",): "t4x2", (): "none"}.get(accelerators(metadata), "tpu")
    limit, whose = builder.kaggle_limit(inputs.competition, machine)
    if time_limit > limit * 60:
        verdict.notes.append(f"not as on Kaggle: it had {time_limit / 3600:.3g} hours here, and "
                             f"Kaggle ends it after {limit // 60} hours{whose}")
    with transfer.scratch_folder(Path(tempfile.gettempdir()).resolve(), STAGE_PREFIX) as stage:
        try:
            test = _lay_out(stage, code, inputs, data, hidden)
        except OSError as error:
            raise _layout_error(error, stage) from error
        verdict.hidden_rows = len(test.ids)
        kernel = sandbox.start(stage, code.name, time_limit, inputs.competition.code_only)
        stopped = _watch(kernel, stage / sandbox.LOG, time_limit, memory_limit, verdict, say)
        if stopped or kernel.returncode != 0:
            _explain_failure(stage, stopped, kernel.returncode, verdict)
        working = stage / "kaggle" / "working"
        _judge(working / SUBMISSION, inputs.competition, test, verdict)
        _check_report(working / "report.json", verdict)
        if inputs.folders and test.held_out:
            verdict.notes.append("its weights may have been trained on these rows: the accuracy "
                                 "flatters")
        if out:
            shutil.copytree(working, out, dirs_exist_ok=True)
    verdict.ok = not verdict.reasons
    return verdict


def find_inputs(folder: Path, mounts: Sequence[str] = (), layout: str = "new",
                competition: Competition = competitions.KANNADA) -> Inputs:
    """The inputs of the kernel in `folder`: `weights/` and `mounts`. KitError if one is missing.

    competition: the command's, for a kernel made by hand for a competition of the user's own; one
    that is packed in the kernel goes first.
    """
    metadata = read_metadata(folder)
    named = sources.named_in(metadata)
    folders = sources.match_folders(mounts, named, folder / METADATA)
    packed = folder / weights.FOLDER
    own = Source("dataset", sources.read_metadata_id(packed / weights.METADATA))
    if own in named:
        folders.setdefault(own, packed)
    missing = [source for source in named if source not in folders]

    # One competition has no folder: the rehearsal itself lays its files out.
    scored = [source for source in missing if source.kind == "competition"]
    for source in folders:
        if source.kind == "competition" and not scored:
            raise KitError(f"{folders[source]} stands for {source}, whose files the rehearsal lays "
                           "out itself",
                           "leave that --mount out; --data-dir says where those files are")
    if not scored:
        raise KitError(f"{folder} names no competition as its data; a rehearsal needs one",
                       f'put it into {folder / METADATA}, as "competition_sources": ["SLUG"]')
    if len(scored) > 1:
        raise KitError(f"{folder} names {len(scored)} competitions as its data; the rehearsal "
                       "swaps one's test file", "lay the others in as they are: "
                       + " ".join(f"--mount {source.ref}=FOLDER" for source in scored[1:]))
    rehearsed = _competition(folder, metadata, scored[0].ref, competition)

    if others := [source for source in missing if source not in scored]:
        # By the name that kit kernel build gives them
        trained = Source("dataset", weights.dataset_slug(str(metadata.get("id", ""))))
        if trained in others:
            raise KitError(f"{folder} needs its weights ({trained.ref}), and has no folder "
                           f"{weights.FOLDER}/",
                           "build it again: kit kernel build --mode predict --run RUN")
        raise sources.missing_error(others, folder)
    in_kaggles_spelling = [Source("competition", rehearsed.kaggle_slug) if source in scored
                           else source for source in named]
    return Inputs(rehearsed, folders, sources.mount_points(in_kaggles_spelling, layout))


def _competition(folder: Path, metadata: dict[str, Any], ref: str,
                 competition: Competition) -> Competition:
    """The competition that a kernel reads: as packed in its code, the command's, or the kit's."""
    code = (folder / metadata["code_file"]).read_text("utf-8", "replace")
    name = str(template.parse_settings(code).get("competition_file"))
    if (packed := template.read_packed(code, f"{OWN_FILES}/{name}")) is not None:
        return competitions.from_text(packed.decode("utf-8"), name)
    return competition if competition.slug == ref.lower() else competitions.get(ref)


# -- the stage -------------------------------------------------------------------------------------


def _lay_out(stage: Path, code: Path, inputs: Inputs, data: Path,
             hidden: Path | None) -> HiddenTest:
    """Make Kaggle's folders in `stage`, the input read-only; returns the hidden test in it."""
    kaggle = stage / "kaggle"
    for name in ("input", "working", "src"):
        (kaggle / name).mkdir(parents=True)
    test = write_with_hidden_test(Path(data), kaggle / "input" / inputs.data_mount_point,
                                  inputs.competition, hidden)
    needed = sum(path.stat().st_size for folder in inputs.folders.values()
                 for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(stage).free
    if needed > free:
        raise KitError(f"the kernel's inputs take {needed / 1e6:,.0f} MB, and {stage.parent} has "
                       f"only {free / 1e6:,.0f} MB free", f"free some space there, or {OTHER_DISK}")
    # Copies: what a kernel does to its inputs must not reach the originals.
    for source, folder in inputs.folders.items():
        try:
            storage.copy_tree(folder, kaggle / "input" / inputs.mount_points[source])
        except (PermissionError, FileNotFoundError) as error:  # not found: a link to nowhere
            raise KitError(f"cannot copy {error.filename or folder}: {error.strerror}",
                           f"make it readable, or take it out of {folder}") from error
    shutil.copyfile(code, kaggle / "src" / code.name)
    for path in (kaggle / "input").rglob("*"):
        with contextlib.suppress(OSError):  # some mounts have no modes
            path.chmod(0o555 if path.is_dir() else 0o444)
    return test


def _layout_error(error: OSError, stage: Path) -> KitError:
    """What stopped `_lay_out`: no room, a stage that cannot be written, or an unreadable file."""
    place = Path(os.fsdecode(error.filename)) if error.filename else stage
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return KitError(f"no room for the rehearsal in {stage.parent}: {why}",
                        f"free some space there, or {OTHER_DISK}")
    if place.is_relative_to(stage):
        return KitError(f"cannot write {place}: {why}", OTHER_DISK)
    return KitError(f"cannot read {place}: {why}", f"make it readable: chmod u+r {place}"
                    if isinstance(error, PermissionError) else "check that it is there")


# -- its run ---------------------------------------------------------------------------------------


def _watch(kernel: subprocess.Popen, log: Path, time_limit: float, memory_limit: int,
           verdict: Verdict, say: Callable[[str], None]) -> str:
    """Wait until the kernel ends, or end it at a limit; which limit, in words, or empty.

    Fills in the verdict's time and memory.
    """
    began, stopped = time.monotonic(), ""
    with log.open("rb") as output:
        try:
            while kernel.poll() is None and not stopped:
                _relay(output, say)
                verdict.peak_memory = max(verdict.peak_memory, system.tree_memory(kernel.pid))
                if verdict.peak_memory > memory_limit:
                    stopped = (f"it took {verdict.peak_memory / 2**30:.1f} GiB of memory; the "
                               f"limit is {memory_limit / 2**30:.1f}")
                elif time.monotonic() - began > time_limit:
                    stopped = f"it ran over its time: stopped after {time_limit:.0f} s"
                else:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        kernel.wait(POLL_SECONDS)
        finally:
            system.kill_tree(kernel.pid)
            kernel.wait()
        _relay(output, say, ended=True)
    verdict.seconds = round(time.monotonic() - began, 2)
    return stopped


def _relay(output: BinaryIO, say: Callable[[str], None], ended: bool = False) -> None:
    """Pass the new lines to `say`; an unfinished line only once the kernel has `ended`."""
    while line := output.readline():
        if not (ended or line.endswith(b"\n")):
            output.seek(-len(line), os.SEEK_CUR)
            return
        say(line.decode("utf-8", "replace").rstrip("\r\n"))


def _explain_failure(stage: Path, stopped: str, exit_code: int, verdict: Verdict) -> None:
    """Add the reasons why a kernel failed, by its output and what the sandbox refused."""
    lines = (stage / sandbox.LOG).read_text("utf-8", "replace").splitlines()
    # The last line that looks like an exception, else the last line
    errors = [line for line in lines
              if re.match(r"\w[\w.]*(Error|Exception|Interrupt|Exit|Warning)\b", line)]
    last_error = (errors or lines or ["it said nothing"])[-1].strip()
    verdict.log_tail = lines[-TAIL:]
    verdict.reasons.append(stopped or f"it ended with exit code {exit_code}: {last_error}")
    verdict.reasons.extend(_blocked(stage / sandbox.BLOCKED, "\n".join(lines)))

    # A module that is missing on this machine, and would be there on Kaggle
    found = re.fullmatch(r"ModuleNotFoundError: No module named '(\w+)[\w.]*'", last_error)
    module = found[1] if found else ""
    if module in image.KAGGLES_OWN:
        verdict.reasons.append(f"{module} is there on Kaggle alone: whether this kernel would be a "
                               "submission only Kaggle can tell")
    elif module in image.PACKAGES and importlib.util.find_spec(module) is None:
        verdict.reasons.append(f"{module} is in Kaggle's image and not on this machine: install it "
                               f"here to rehearse this kernel ({sys.executable} -m pip install "
                               f"{image.PACKAGES[module]})")
    if (stage / "kaggle" / "working" / SUBMISSION).is_file():
        verdict.reasons.append(f"the {SUBMISSION} that it left does not count: Kaggle rejects a "
                               "kernel that fails")


def _blocked(log: Path, output: str) -> list[str]:
    """What the sandbox refused; imports only if the output names them, as libraries try many."""
    if not log.is_file():
        return []
    words = {"import": "it imports {}, which Kaggle's image is not known to have",
             "network": "it needs the network: {}"}
    events: dict[tuple[str, str], None] = {}
    for line in log.read_text("utf-8", "replace").splitlines():
        # A kernel that was killed may have left half a line.
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            kind, what = json.loads(line)
            events[kind, what] = None
    return [words[kind].format(what) for kind, what in events
            if kind == "network" or (kind == "import" and repr(what) in output
                                     and what not in image.INSTALLERS)]


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
    report = read_report(path)
    verdict.report = report or None
    if report.get("used") == "fallback":
        verdict.reasons.append("it trained nothing: its submission is only the fallback (see its "
                               "kernel.log)")
    elif report.get("complete") is False:
        verdict.notes.append("not all that was planned is in its ensemble (complete: false): see "
                             "missing_folds and missing_rounds in its report.json")
    # Another kernel's report may look like anything.
    with contextlib.suppress(KeyError, TypeError, OverflowError):
        kernel = report["kernel"]
        had, wanted = kernel["budget_seconds"] / 60, kernel["settings"]["minutes"]
        if had < wanted:
            verdict.notes.append(f"it had {had:.1f} minutes here, to fit the time limit; on Kaggle "
                                 f"it has {wanted:g}")
