"""Push a kernel, wait until that version has ended, submit its output, and wait for the score.

Each step first looks in `push.json`, and asks Kaggle where that is not enough, whether it was done
already. So every command here can be interrupted at any point and run again, and nothing is pushed
or submitted twice. If Kaggle does not know either, the command stops and says how to find out.
"""

import dataclasses
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import ledger
from kit.core import storage
from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.kaggle import session, submissions
from kit.kaggle.client import Client, Rejected, Say, Unanswered, connect, silent
from kit.kaggle.session import KernelVersion
from kit.kernel import dataset
from kit.kernel import folder as kernel_folder
from kit.kernel.builder import METADATA
from kit.kernel.folder import KernelFolder, PushState
from kit.kernel.send import push_once

KERNEL_TIMEOUT = 14 * 3600.0  # seconds: nine hours on a CPU, and time in the queue
SCORE_TIMEOUT = 4 * 3600.0  # seconds: Kaggle runs the kernel once more, on the hidden test file
SUBMISSION, REPORT = "submission.csv", "report.json"


@dataclass(frozen=True)
class PushResult:
    """The result of a push or a submission so far.

    Fields of steps that were not asked for are empty.
    """

    what: str  # owner/slug, or the file that was uploaded
    version: int = 0
    url: str = ""
    status: str = ""
    report: str = ""  # where the kernel's report.json was put
    submission: str = ""  # Kaggle's reference of the submission
    public_score: float | None = None
    private_score: float | None = None
    sync: str = "kit ledger sync"  # the command that fetches scores that come later

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """The result as lines for a terminal."""
        kernel = f"{self.what} v{self.version}" if self.version else self.what
        parts = f"{kernel}:", self.status.lower() or "pushed", self.url
        lines = [" ".join(filter(None, parts))]
        if self.report:
            lines.append(f"report: {self.report}")
        if self.submission:
            lines.append(submissions.submission_line(
                self.submission, self.public_score, self.private_score,
                f"no score yet ({self.sync})"))
        return lines


def push(path: Path, competition: Competition, wait: bool = False, submit: bool = False,
         message: str = "", progress: Say = silent, ledger_path: Path = ledger.LEDGER,
         kernel_timeout: float = KERNEL_TIMEOUT, score_timeout: float = SCORE_TIMEOUT,
         resend: bool = False, session_limit: float | None = None) -> PushResult:
    """Push the kernel folder `path`, and if asked, wait for its end and submit its output.

    wait: wait until the version has ended, and fetch its report. submit: submit its output. `wait`
    and `submit` together also wait for the score. The weights of a predict kernel are uploaded
    first. resend: the user knows that the last request, whose answer was lost, did not arrive, so
    it may be sent again. session_limit: when Kaggle is to end the session. All times are in
    seconds. After a KitError, running it again goes on where it stopped.
    """
    kernel = kernel_folder.read_kernel(path)
    sources = [source.lower() for source in kernel.metadata["competition_sources"]]
    if competition.slug not in sources:
        raise KitError(f"{kernel.path} was not built for {competition.slug}, but for "
                       f"{', '.join(sources) or 'none'}",
                       (f"name {sources[0]} with --competition, one of your own by its file"
                        if sources else f"name one in competition_sources of {METADATA}")
                       + "; or build it again")
    if session_limit is not None and session_limit <= kernel.minutes * 60:
        minutes = session_limit / 60
        # A bare number is in seconds, which few mean
        said = f"{minutes:g}m" if minutes >= 1 else f"{session_limit:g}s"
        shorter = f"build it again with --time-budget {minutes * 0.9:.0f}m, or " * (minutes >= 10)
        raise KitError(f"--session-limit {said} ends this kernel before it is done: it plans with "
                       f"{kernel.minutes:g} minutes, and a session that Kaggle ends is no "
                       "submission",
                       f"{shorter}allow it more time, with the unit, such as "
                       f"{math.ceil(kernel.minutes / 60 + 0.1)}h")
    with kernel.lock():
        client, state = connect(progress, competition.rules_url), PushState.load(kernel)
        if kernel.owner.lower() != client.user.lower():
            client.say(f"warning: this kernel is {kernel.owner}'s, but "
                       f"{client.user or 'another account'} is logged in")
        if kernel.weights:
            dataset.upload(client, kernel.weights, state.weights, lambda: state.save(kernel))
        push_once(client, kernel, state, kernel_timeout if wait else 0.0, resend, session_limit)
        if wait or submit:
            _follow(client, kernel, state, kernel_timeout)
        if submit:
            _check_trained(client, kernel, state)
            return _submit(client, kernel, state, competition, message, ledger_path, wait,
                           score_timeout, resend)
        return _result(kernel, state)


def submit(path: Path, competition: Competition, message: str = "", wait: bool = True,
           progress: Say = silent, ledger_path: Path = ledger.LEDGER,
           kernel_timeout: float = KERNEL_TIMEOUT, score_timeout: float = SCORE_TIMEOUT,
           resend: bool = False) -> PushResult:
    """Wait until the version pushed from this folder has ended well, and submit it. See `push`."""
    kernel = kernel_folder.read_kernel(path)
    with kernel.lock():
        state = _pushed_state(kernel)
        if state.digest != kernel.digest:
            again = shlex.quote(str(path))
            raise KitError(f"{path} has changed since version {state.version} was pushed",
                           f"push it first: kit kernel push {again} --wait --submit")
        client = connect(progress, competition.rules_url)
        _follow(client, kernel, state, kernel_timeout)
        return _submit(client, kernel, state, competition, message, ledger_path, wait,
                       score_timeout, resend)


def logs(path: Path, competition: Competition, follow: bool = False, show: Say = silent,
         progress: Say = silent, timeout: float = KERNEL_TIMEOUT) -> dict[str, Any]:
    """The log of the version pushed from this folder; `follow`: until that version has ended.

    show: called with each line as it comes. timeout: in seconds. Returns `kernel`, `version`,
    `status` and `log`.
    """
    state = _pushed_state(kernel_folder.read_kernel(path))
    client = connect(progress, competition.rules_url)
    version, lines = KernelVersion(state.kernel, state.version), []

    def shown(line: str) -> None:
        lines.append(line)
        show(line)

    if follow:
        now = session.follow_log(client, version, shown, timeout)
    else:
        now = session.status(client, version)[0]
        for line in session.log(client, version):
            shown(line)
    return {"kernel": version.kernel, "version": version.number, "status": now or "UNKNOWN",
            "log": lines}


def status(path: Path, competition: Competition, progress: Say = silent) -> dict[str, Any]:
    """The status of the version pushed from this folder, the end of its log, and its submission.

    Also what is left: `quota`, this week's hours, and `limits`, today's submissions, both as in
    `kit.kaggle` ({} if unknown).
    """
    kernel = kernel_folder.read_kernel(path)
    state = _pushed_state(kernel)
    client = connect(progress, competition.rules_url)
    version = KernelVersion(state.kernel, state.version)
    now, why = session.status(client, version)
    has_ended = now in session.FINAL_STATUSES
    found = submissions.find(client, competition.slug, _tag(version))
    return {"kernel": version.kernel, "version": version.number, "url": state.url,
            "status": now or "UNKNOWN", "failure": why,
            "log": session.log(client, version)[-session.TAIL:] if has_ended else [],
            "changed_since": state.digest != kernel.digest, "quota": session.quota(client),
            "limits": submissions.limits(client, competition.slug),
            "submission": dataclasses.asdict(found) if found else None}


def _pushed_state(kernel: KernelFolder) -> PushState:
    """The push state. KitError if nothing was pushed from this folder yet."""
    state = PushState.load(kernel)
    if not state.version:
        raise KitError(f"nothing was pushed from {kernel.path} yet",
                       f"push it: kit kernel push {shlex.quote(str(kernel.path))}")
    return state


# -- wait ------------------------------------------------------------------------------------------


def _follow(client: Client, kernel: KernelFolder, state: PushState, timeout: float) -> None:
    """Wait until the version has ended and fetch its report.

    KitError if it failed or wrote no submission.
    """
    if state.ended == "COMPLETE":
        return
    version, files, report = KernelVersion(state.kernel, state.version), {}, None
    session.wait_for_completion(client, version, timeout)
    try:
        files = session.output_urls(client, version)
        if REPORT in files:
            report = session.fetch_output(client, REPORT, files[REPORT])
    except Rejected as error:  # submitting may still work
        client.say(error.message)
    if files and SUBMISSION not in files:
        raise KitError(f"{version} ended well, but left no {SUBMISSION}, only "
                       f"{', '.join(sorted(files))}",
                       "check the kernel with kit kernel rehearse, build it again, and push it "
                       "again")
    if report is not None:
        storage.write_bytes(_report_path(kernel, state), report)
    else:
        client.say(f"{version} left no {REPORT}: the ledger will lack its numbers")
    state.ended = "COMPLETE"
    state.save(kernel)


def _check_trained(client: Client, kernel: KernelFolder, state: PushState) -> None:
    """KitError if the version's submission is the one of last resort; a word if parts are missing.

    It is a file that Kaggle takes, and one of the few submissions of the day.
    """
    report = kernel_folder.read_report(_report_path(kernel, state))
    version = KernelVersion(state.kernel, state.version)
    if report.get("used") == "fallback" and not state.submitting and not state.submission:
        folder = shlex.quote(str(kernel.path))
        raise KitError(f"{version} trained nothing: its {SUBMISSION} says of each digit which "
                       "class's mean is nearest, so it was not handed in",
                       f"see why: kit kernel logs {folder}; to hand it in all the same: kit kernel "
                       f"submit {folder}")
    if report.get("complete") is False:
        client.say(f"warning: {version} is not complete, its time ended before some folds or "
                   "rounds; it is handed in all the same")


def _report_path(kernel: KernelFolder, state: PushState) -> Path:
    return kernel.path / f"v{state.version}" / REPORT


def _result(kernel: KernelFolder, state: PushState,
            scored: submissions.Submission | None = None) -> PushResult:
    report = _report_path(kernel, state)
    return PushResult(state.kernel, state.version, state.url, state.ended,
                      str(report) if report.is_file() else "", state.submission,
                      scored.public_score if scored else None,
                      scored.private_score if scored else None)


# -- submit ----------------------------------------------------------------------------------------


def _tag(version: KernelVersion) -> str:
    """What the description of a submission ends with, so that it is found again."""
    return f"[{version}]"


def _submit(client: Client, kernel: KernelFolder, state: PushState, competition: Competition,
            message: str, ledger_path: Path, wait: bool, timeout: float,
            resend: bool) -> PushResult:
    """Submit the version's output, once, and enter it into the ledger; `wait` for its score."""
    version = KernelVersion(state.kernel, state.version)
    if not state.submission:
        state.submitted_as = f"{message} {_tag(version)}".strip()

        def mark(is_sent: bool) -> None:
            state.submitting = is_sent
            state.save(kernel)

        def send() -> Any:
            return client.api.competition_submit_code(
                SUBMISSION, state.submitted_as, competition.slug, version.kernel, version.number,
                quiet=True)

        try:
            entry = submissions.submit_once(
                client, competition.slug, _tag(version),
                submissions.mark_while_sending(send, mark), state.submitting and not resend,
                "run it with --resend")
        except Unanswered:
            raise
        except KitError:
            mark(False)
            raise
        state.submission, state.submitting = entry.ref, False
        state.save(kernel)
        client.say(f"handed in {version} as submission {entry.ref}")
    report = kernel_folder.read_report(_report_path(kernel, state))
    ledger.upsert_row(ledger.make_row(str(version), report, state.submission), ledger_path)
    scored = ledger.wait_for_score(client, competition, state.submission, ledger_path,
                                   timeout) if wait else None
    return dataclasses.replace(_result(kernel, state, scored),
                               sync=ledger.sync_command(competition, ledger_path))
