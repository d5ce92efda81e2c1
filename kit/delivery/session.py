"""One version of a kernel on Kaggle: its status, its log, what it left.

In goes owner/slug and a version number; out comes how that version ended. The one idea: every question names the
version. The client's own commands do not (kaggle-cli issue 1200): they ask for the newest session, which right after a
push can still be the one of the version before, COMPLETE and all.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from kit import client as kaggle_client
from kit import transfer
from kit.answers import one_line
from kit.client import Client, Rejected, Unanswered, redact, span
from kit.errors import KitError

T = TypeVar("T")

POLL_FIRST, POLL_LONGEST = 2.0, 30.0  # seconds between two looks; each wait is half as long again as the one before
UNKNOWN_POLLS = 6  # looks at a version that Kaggle does not know yet: its session is made some time after the push
SETTLE_POLLS = 2  # looks that must agree where a version has ended without ever being seen running,
BLIND_POLLS = 6  # and where Kaggle tells of the newest session, whichever version is asked for: about 40 s
TAIL, IN_ERROR = 20, 8  # lines of the log that are shown where it failed, and that the error itself repeats
ENDS = {"COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED"}


@dataclass(frozen=True)
class Version:
    kernel: str  # owner/slug
    number: int

    def __str__(self) -> str:
        return f"{self.kernel} v{self.number}"

    @property
    def labels(self) -> tuple[str, str]:
        """`v3` is what the API takes today; a plain `3`, which the name of the field suggests, is tried after it."""
        return f"v{self.number}", str(self.number)

    def fill(self, request: T, label: str) -> T:
        request.user_name, request.kernel_slug = self.kernel.split("/")  # type: ignore[attr-defined]
        request.version_label = label  # type: ignore[attr-defined]
        return request


def polls(timeout: float) -> Iterator[None]:
    """Yield at once, then again and again with longer and longer waits, until `timeout` seconds are over."""
    end, wait = time.monotonic() + timeout, POLL_FIRST
    yield
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(wait, left))
        yield
        wait = min(wait * 1.5, POLL_LONGEST)


def status(client: Client, version: Version) -> tuple[str, str]:
    """(status, failure message) of this version: QUEUED, RUNNING, COMPLETE, ERROR, …; "" where it is not known yet."""
    found, failed = ("", ""), False
    for label in version.labels:
        try:
            answer = _status(client, version, label, repeat=False)
        except Unanswered:  # a label that it does not understand may be what Kaggle stumbles over
            failed = True
            continue
        except Rejected as error:
            if error.status not in (400, 404):
                raise
            continue
        if answer.status.name not in ENDS:  # of two different answers the one that is still running is right
            return answer.status.name, ""
        found = found if found[0] else (answer.status.name, one_line(answer.failure_message))
    if failed and not found[0]:
        answer = _status(client, version, version.labels[0])
        found = answer.status.name, one_line(answer.failure_message)
    return found


def _status(client: Client, version: Version, label: str, repeat: bool = True) -> Any:
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

    request = version.fill(ApiGetKernelSessionStatusRequest(), label)
    return client.sdk(f"ask for the status of {version}",
                      lambda k: k.kernels.kernels_api_client.get_kernel_session_status(request), repeat)


def follow(client: Client, version: Version, timeout: float) -> None:
    """Wait until this version has ended, showing its log; KitError unless it ended well."""
    ended, why = _end(client, version, timeout)
    if ended == "COMPLETE":
        return
    tail = log(client, version)[-TAIL:]
    for line in tail:
        client.say(f"  {line}")
    word = "was cancelled" if ended.startswith("CANCEL") else "ended in an error"
    raise KitError(f"{version} {word}{f': {why}' if why else ''}; its log ends with: "
                   + (" | ".join(tail[-IN_ERROR:]) or "(nothing)"),
                   "mend the cause, check it with kit kernel rehearse, then kit kernel build and push again; "
                   "to run the same bytes once more, delete push.json first")


def _end(client: Client, version: Version, timeout: float) -> tuple[str, str]:
    last, shown, unknown, agreed, ran = None, 0, 0, 0, False
    for _ in polls(timeout):
        now, why = status(client, version)
        if now != last:
            client.say(f"{version}: {now.lower().replace('_', ' ') or 'not started yet'}")
            last, agreed = now, 0
        if now in ENDS:
            agreed += 1
            if ran or agreed > BLIND_POLLS or (agreed > SETTLE_POLLS and _heeds_labels(client, version)):
                return now, why
        elif now:
            ran = True
            shown = _show_log(client, version, shown)
        elif (unknown := unknown + 1) > UNKNOWN_POLLS:
            raise KitError(f"Kaggle does not know {version}", "look at the kernel's page, then push again")
    raise KitError(f"{version} has not ended after {span(timeout)}",
                   "run the same command again to go on waiting; kit kernel status shows where it is")


def _heeds_labels(client: Client, version: Version) -> bool:
    """Whether Kaggle looks at the version that is asked for: then it cannot know one that there is not."""
    try:
        _status(client, version, f"v{version.number + 1000}", repeat=False)
    except KitError:
        return True
    return False


def _show_log(client: Client, version: Version, shown: int) -> int:
    """Say the lines that are new; a running session may have no log yet, which is no error."""
    try:
        lines = log(client, version, repeat=False)
    except KitError:
        return shown
    for line in lines[shown:][-TAIL:]:
        client.say(f"  {line}")
    return max(shown, len(lines))


def log(client: Client, version: Version, repeat: bool = True) -> list[str]:
    """The lines of the log: Kaggle keeps it as a JSON list of pieces with `data`."""
    kept = _page(client, version, None, repeat).log or ""
    try:
        pieces = json.loads(kept)
        text = "".join(str(piece.get("data", "")) for piece in pieces)
    except (ValueError, AttributeError, TypeError):
        text = kept
    return ["".join(c for c in line if c.isprintable()) for line in redact(text).splitlines() if line.strip()]


# -- what it left ---------------------------------------------------------------------------------------------------


def outputs(client: Client, version: Version) -> dict[str, str]:
    """Name → address of each file that this version left. The addresses are signed: never show them."""
    found: dict[str, str] = {}
    token: str | None = None
    while True:
        page = _page(client, version, token)
        found |= {file.file_name: file.url for file in page.files or [] if file.file_name and file.url}
        token = page.next_page_token
        if not token:
            return found


def fetch(client: Client, name: str, url: str) -> bytes:
    """The bytes of an output file."""
    timeouts = kaggle_client.CONNECT_TIMEOUT, kaggle_client.READ_TIMEOUT

    def send() -> bytes:
        with transfer.get(url, {}, timeouts) as response:
            return bytes(response.content)

    return client.call(f"fetch {name} of the kernel", send)


def _page(client: Client, version: Version, token: str | None, repeat: bool = True) -> Any:
    """One page of the outputs, with the log."""
    from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

    def send(label: str) -> Any:
        request = version.fill(ApiListKernelSessionOutputRequest(), label)
        request.page_size, request.page_token = 100, token
        return client.sdk(f"read the output of {version}",
                          lambda k: k.kernels.kernels_api_client.list_kernel_session_output(request), repeat)

    label, other = version.labels
    try:
        return send(label)
    except (Rejected, Unanswered) as error:
        if isinstance(error, Rejected) and error.status not in (400, 404):
            raise
        problem = error
    try:
        return send(other)
    except Rejected:
        raise problem from None


def current(client: Client, kernel: str) -> tuple[int, str]:
    """(newest version, its source) of a kernel; (0, "") where Kaggle has none of that name."""
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

    request = ApiGetKernelRequest()
    request.user_name, request.kernel_slug = kernel.split("/")
    try:
        answer = client.sdk(f"look at {kernel}", lambda k: k.kernels.kernels_api_client.get_kernel(request))
    except Rejected as error:
        if error.status in (403, 404):
            return 0, ""
        raise
    return (answer.metadata and answer.metadata.current_version_number) or 0, (answer.blob and answer.blob.source) or ""
