"""Push a kernel, follow that version to its end, hand in what it wrote, and wait for the score.

In goes a built kernel folder; out come a version on Kaggle, its report, a submission and a row in the ledger. The one
idea: each step asks `push.json`, and where that does not know, Kaggle, whether it was done already. So every command
here can be interrupted anywhere and run again, and nothing is pushed or handed in twice.
"""

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import client as kaggle_client
from kit import storage
from kit.answers import one_line
from kit.client import Client, Rejected, Say, Unanswered, connect, redact, silent
from kit.data.competition import Competition
from kit.delivery import dataset, handin, ledger, session
from kit.delivery import folder as kernel_folder
from kit.delivery.folder import KernelFolder, State
from kit.delivery.session import Version
from kit.errors import KitError

KERNEL_TIMEOUT = 14 * 3600.0  # seconds: nine hours on a CPU, and the queue before them
SCORE_TIMEOUT = 4 * 3600.0  # seconds: Kaggle runs the kernel once more, on the hidden test file
SUBMISSION, REPORT = "submission.csv", "report.json"


@dataclass(frozen=True)
class PushResult:
    """What came of a push or a hand-in so far; an empty field is a step that was not asked for."""

    what: str  # owner/slug, or the file that was uploaded
    version: int = 0
    url: str = ""
    status: str = ""
    report: str = ""  # where the kernel's report.json was put
    submission: str = ""  # Kaggle's reference
    public_score: float | None = None
    private_score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        kernel = f"{self.what} v{self.version}" if self.version else self.what
        lines = [" ".join(part for part in (f"{kernel}:", self.status.lower() or "pushed", self.url) if part)]
        if self.report:
            lines.append(f"report: {self.report}")
        if self.submission:
            scores = [f"{name} {score:.5f}" for name, score in (("public", self.public_score),
                                                                ("private", self.private_score)) if score is not None]
            lines.append(f"submission {self.submission}: {', '.join(scores) or 'no score yet (kit ledger sync)'}")
        return lines


def push(path: Path, competition: Competition, wait: bool = False, submit: bool = False, message: str = "",
         progress: Say = silent, ledger_path: Path = ledger.LEDGER, kernel_timeout: float = KERNEL_TIMEOUT,
         score_timeout: float = SCORE_TIMEOUT) -> PushResult:
    """Push the kernel folder; with `wait` follow that version to its end and fetch its report; with `submit` hand in.

    `wait` and `submit` together also wait for the score. In predict mode the weights are uploaded first. KitError for
    every failure; running it again goes on where it stopped. Time-outs in seconds.
    """
    kernel = kernel_folder.read(path)
    _check_source(kernel, competition)
    with kernel.lock():
        client, state = connect(progress, competition.rules_url), State.load(kernel)
        owner = kernel.ref.split("/")[0]
        if owner.lower() != client.user.lower():
            client.say(f"warning: this kernel is {owner}'s, but {client.user or 'another account'} is logged in")
        if kernel.weights:
            dataset.upload(client, kernel.weights, state.weights, lambda: state.save(kernel))
        _push_once(client, kernel, state)
        if wait or submit:
            _follow(client, kernel, state, kernel_timeout)
        if submit:
            return _hand_in(client, kernel, state, competition, message, ledger_path, wait, score_timeout)
        return _result(kernel, state)


def submit(path: Path, competition: Competition, message: str = "", wait: bool = True, progress: Say = silent,
           ledger_path: Path = ledger.LEDGER, kernel_timeout: float = KERNEL_TIMEOUT,
           score_timeout: float = SCORE_TIMEOUT) -> PushResult:
    """Hand in the version that was pushed from this folder, as soon as it has ended well. KitError as `push`."""
    kernel = kernel_folder.read(path)
    with kernel.lock():
        state = _pushed(kernel)
        if state.digest != kernel.digest:
            raise KitError(f"{path} has changed since version {state.version} was pushed",
                           "push it first: kit kernel push --wait --submit")
        client = connect(progress, competition.rules_url)
        _follow(client, kernel, state, kernel_timeout)
        return _hand_in(client, kernel, state, competition, message, ledger_path, wait, score_timeout)


def status(path: Path, competition: Competition, progress: Say = silent) -> dict[str, Any]:
    """Where the version that was pushed from this folder is: its status, its log's end, its submission."""
    kernel = kernel_folder.read(path)
    state = _pushed(kernel)
    client, version = connect(progress, competition.rules_url), Version(state.kernel, state.version)
    now, why = session.status(client, version)
    found = handin.find(client, competition.slug, _tag(version))
    return {"kernel": version.kernel, "version": version.number, "url": state.url, "status": now or "UNKNOWN",
            "failure": why, "log": session.log(client, version)[-session.TAIL:] if now in session.ENDS else [],
            "changed_since": state.digest != kernel.digest,
            "submission": dataclasses.asdict(found) if found else None}


# -- push -----------------------------------------------------------------------------------------------------------


def _check_source(kernel: KernelFolder, competition: Competition) -> None:
    sources = [source.lower() for source in kernel.metadata["competition_sources"]]
    if competition.slug not in sources:
        raise KitError(f"{kernel.path} was not built for {competition.slug}, but for {', '.join(sources) or 'none'}",
                       "name its competition with --competition, or build it again")


def _pushed(kernel: KernelFolder) -> State:
    state = State.load(kernel)
    if not state.version:
        raise KitError(f"nothing was pushed from {kernel.path} yet", "push it: kit kernel push")
    return state


def _push_once(client: Client, kernel: KernelFolder, state: State) -> None:
    """Push, unless these bytes were pushed already."""
    if state.digest == kernel.digest and state.version and not state.pushing:
        client.say(f"{Version(state.kernel, state.version)} was pushed already")
        return
    if state.pushing == kernel.digest and _adopt(client, kernel, state):
        return
    state.pushing = kernel.digest
    state.save(kernel)
    for attempt in range(1, kaggle_client.ATTEMPTS + 1):
        try:
            answer = client.call(f"push {kernel.ref}", lambda: client.api.kernels_push(str(kernel.path)), repeat=False)
            return _accept(client, kernel, state, answer)
        except Unanswered as error:
            time.sleep(handin.LOOK_PAUSE)
            if _adopt(client, kernel, state):
                return
            if attempt == kaggle_client.ATTEMPTS:
                raise
            client.say(f"{error.message}; it did not arrive, trying again")
        except KitError:
            state.pushing = ""
            state.save(kernel)
            raise


def _accept(client: Client, kernel: KernelFolder, state: State, answer: Any) -> None:
    """Note the new version. KitError for what the client would only print: an error in a 200, ignored sources."""
    for line in client.printed.splitlines():
        client.say(f"the client says: {line}")
    if answer.error:
        raise KitError(f"Kaggle did not take {kernel.ref}: {one_line(answer.error)}",
                       "mend what Kaggle names, build the kernel again, and push it again")
    ignored = [f"{kind} {source}" for kind in ("dataset", "competition", "kernel", "model")
               for source in getattr(answer, f"invalid_{kind}_sources") or []]
    if ignored:
        raise KitError(f"Kaggle took {kernel.ref}, but not its data: {', '.join(map(one_line, ignored))}",
                       f"accept the competition's rules ({client.rules_url}), check the names, and push again")
    if answer.version_number:
        name = _kernel_name(answer.ref) or kernel.ref
        _pushed_as(client, kernel, state, name, int(answer.version_number), answer.url or "")
    elif not _adopt(client, kernel, state):
        raise KitError(f"Kaggle's answer to the push of {kernel.ref} names no version", "run the same command again")


def _kernel_name(ref: str) -> str:
    """owner/slug of "/code/owner/slug": a title that does not slugify to the id makes another kernel."""
    parts = [part for part in (ref or "").split("/") if part]
    return "/".join(parts[-2:]) if len(parts) >= 2 else ""


def _adopt(client: Client, kernel: KernelFolder, state: State) -> bool:
    """Whether a push whose answer was lost did arrive: Kaggle's newest version is a new one, and has our source."""
    number, source = session.current(client, kernel.ref)
    if number <= state.version or _plain(source) != _plain(kernel.code):
        return False
    _pushed_as(client, kernel, state, kernel.ref, number, f"https://www.kaggle.com/code/{kernel.ref}")
    return True


def _plain(source: str) -> Any:
    """What a version is compared by: a notebook's cells, since the client and Kaggle write its JSON anew."""
    try:
        return ["".join(cell["source"]).strip() for cell in json.loads(source)["cells"]]
    except (ValueError, KeyError, TypeError):
        return source.replace("\r\n", "\n").strip()


def _pushed_as(client: Client, kernel: KernelFolder, state: State, name: str, number: int, url: str) -> None:
    new = State(digest=kernel.digest, kernel=name, version=number, url=redact(url), weights=state.weights)
    for field in dataclasses.fields(State):
        setattr(state, field.name, getattr(new, field.name))
    state.save(kernel)
    client.say(f"pushed {Version(name, number)}: {state.url}")


# -- wait -----------------------------------------------------------------------------------------------------------


def _follow(client: Client, kernel: KernelFolder, state: State, timeout: float) -> None:
    """Wait for the version's end, then fetch its report, once. KitError where it ended badly or left no submission."""
    version, report = Version(state.kernel, state.version), _report_path(kernel, state)
    if state.ended == "COMPLETE":
        return
    session.follow(client, version, timeout)
    left, report_bytes = _left(client, version)
    if left and SUBMISSION not in left:
        raise KitError(f"{version} ended well, but left no {SUBMISSION}, only {', '.join(sorted(left))}",
                       "check the kernel with kit kernel rehearse, build it again, and push it again")
    if report_bytes is not None:
        storage.write_bytes(report, report_bytes)
    else:
        client.say(f"{version} left no {REPORT}: the ledger will lack its numbers")
    state.ended = "COMPLETE"
    state.save(kernel)


def _left(client: Client, version: Version) -> tuple[set[str], bytes | None]:
    """The names of what this version left, and its report; what Kaggle does not show need not stop a hand-in."""
    names: set[str] = set()
    try:
        files = session.outputs(client, version)
        names = set(files)
        return names, session.fetch(client, REPORT, files[REPORT]) if REPORT in files else None
    except Rejected as error:
        client.say(error.message)
        return names, None


def _report_path(kernel: KernelFolder, state: State) -> Path:
    return kernel.path / f"v{state.version}" / REPORT


def _result(kernel: KernelFolder, state: State, entry: handin.HandIn | None = None) -> PushResult:
    report = _report_path(kernel, state)
    return PushResult(state.kernel, state.version, state.url, state.ended, str(report) if report.is_file() else "",
                      state.submission, entry.public_score if entry else None, entry.private_score if entry else None)


# -- hand in --------------------------------------------------------------------------------------------------------


def _tag(version: Version) -> str:
    return f"[{version}]"


def _hand_in(client: Client, kernel: KernelFolder, state: State, competition: Competition, message: str,
             ledger_path: Path, wait: bool, timeout: float) -> PushResult:
    version = Version(state.kernel, state.version)
    if not state.submission:
        unsure, state.submitting = state.submitting, True
        state.submitted_as = f"{message} {_tag(version)}".strip()
        state.save(kernel)
        entry = handin.once(client, competition.slug, _tag(version), lambda: client.api.competition_submit_code(
            SUBMISSION, state.submitted_as, competition.slug, version.kernel, version.number, quiet=True), unsure)
        state.submission, state.submitting = entry.ref, False
        state.save(kernel)
        client.say(f"handed in {version} as submission {entry.ref}")
    report = kernel_folder.read_report(_report_path(kernel, state))
    ledger.add(ledger.row_of(str(version), report, state.submission), ledger_path)
    return _result(kernel, state, _score(client, competition, state.submission, ledger_path, timeout) if wait else None)


def _score(client: Client, competition: Competition, ref: str, ledger_path: Path, timeout: float) -> handin.HandIn:
    entry = handin.wait_for_score(client, competition.slug, ref, timeout)
    ledger.set_scores({ref: (entry.public_score, entry.private_score)}, ledger_path)
    return entry


def check_takes_files(competition: Competition) -> None:
    """KitError, with the way to go, for a competition that takes notebooks only."""
    if competition.code_only:
        raise KitError(f"{competition.title} takes notebooks, not files: Kaggle runs them on a hidden test set",
                       "kit kernel build --user NAME, kit kernel rehearse, then kit kernel push --wait --submit")


def upload(path: Path, competition: Competition, message: str = "", wait: bool = False, progress: Say = silent,
           ledger_path: Path = ledger.LEDGER, score_timeout: float = SCORE_TIMEOUT) -> PushResult:
    """Hand in a submission file, once; its report.json is looked for beside it. KitError for a code competition."""
    check_takes_files(competition)
    path = Path(path)
    digest = hashlib.sha256(storage.read_bytes(path)).hexdigest()
    tag = f"[sha256 {digest[:12]}]"
    client = connect(progress, competition.rules_url)

    def send() -> Any:
        answer = client.api.competition_submit(str(path), f"{message} {tag}".strip(), competition.slug, quiet=True)
        if answer.message == client.api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
            raise Unanswered(f"the file did not arrive at Kaggle: {answer.message}", "run the same command again")
        return answer

    entry = handin.once(client, competition.slug, tag, send, unsure=False)
    client.say(f"handed in {path} as submission {entry.ref}")
    run = path.resolve().parent.name
    ledger.add(ledger.row_of(run, kernel_folder.read_report(path.with_name(REPORT)), entry.ref), ledger_path)
    if wait:
        entry = _score(client, competition, entry.ref, ledger_path, score_timeout)
    return PushResult(str(path), status="handed in", submission=entry.ref, public_score=entry.public_score,
                      private_score=entry.private_score)
