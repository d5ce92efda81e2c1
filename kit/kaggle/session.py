"""Follow one version of a kernel on Kaggle: status, log, output files; and the GPU quota.

Every request names the version. The client's own commands before 2.2.5 do not (kaggle-cli issue
1200): they ask for the newest session, which right after a push can still be that of the previous
version, with the status COMPLETE.
"""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from kit.core.durations import rounded_duration
from kit.core.errors import KitError
from kit.kaggle import client as kaggle_client
from kit.kaggle import refusals
from kit.kaggle.answers import redacted_line
from kit.kaggle.client import Client, Rejected, Unanswered, redact

T = TypeVar("T")

# Seconds between two requests; each wait is 1.5 times the one before
POLL_FIRST, POLL_LONGEST = 2.0, 30.0
# Requests until a version counts as unknown: its session starts some time after the push
UNKNOWN_POLLS = 6
SETTLE_POLLS = 2  # equal answers needed if a version has ended and was never seen running,
BLIND_POLLS = 6  # and if Kaggle ignores the version and answers for the newest session: about 40 s
TAIL, IN_ERROR = 20, 8  # last lines of a failed version's log: shown, and repeated in the error
FINAL_STATUSES = {"COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED"}


@dataclass(frozen=True)
class KernelVersion:
    kernel: str  # owner/slug
    number: int

    def __str__(self) -> str:
        return f"{self.kernel} v{self.number}"

    @property
    def owner(self) -> str:
        return self.kernel.split("/")[0]

    @property
    def labels(self) -> tuple[str, str]:
        """The version as the API wants it: `v3` today; a plain `3`, as the field's name suggests,
        is tried next.
        """
        return f"v{self.number}", str(self.number)

    def fill(self, request: T, label: str) -> T:
        asked: Any = request
        asked.user_name, asked.kernel_slug = self.kernel.split("/")
        asked.version_label = label
        return request


def polls(timeout: float, longest: float | None = None) -> Iterator[None]:
    """Yield at once, then again after growing waits, until `timeout` seconds are over."""
    end, wait = time.monotonic() + timeout, POLL_FIRST
    yield
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(wait, left))
        yield
        wait = min(wait * 1.5, POLL_LONGEST if longest is None else longest)


def status(client: Client, version: KernelVersion) -> tuple[str, str]:
    """(status, failure message) of this version: QUEUED, RUNNING, COMPLETE, ERROR, …; "" if not
    known yet.
    """
    found, failed = ("", ""), False
    for label in version.labels:
        try:
            answer = _status(client, version, label, repeat=False)
        except Unanswered:  # it may fail because it does not understand the label
            failed = True
            continue
        except Rejected as error:
            if error.status not in (400, 404):
                raise
            continue
        if answer.status.name not in FINAL_STATUSES:
            # If the labels give different answers, the unfinished one is right
            return answer.status.name, ""
        found = found if found[0] else (answer.status.name, redacted_line(answer.failure_message))
    if failed and not found[0]:
        answer = _status(client, version, version.labels[0])
        found = answer.status.name, redacted_line(answer.failure_message)
    return found


def _status(client: Client, version: KernelVersion, label: str, repeat: bool = True) -> Any:
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

    request = version.fill(ApiGetKernelSessionStatusRequest(), label)
    return client.call_sdk(
        f"ask for the status of {version}",
        lambda k: k.kernels.kernels_api_client.get_kernel_session_status(request), repeat,
        version.owner)


def wait_for_completion(client: Client, version: KernelVersion, timeout: float) -> None:
    """Wait until this version has ended, showing its log. KitError unless it is COMPLETE."""
    ended, why = _end(client, version, timeout)
    if ended == "COMPLETE":
        return
    tail = log(client, version)[-TAIL:]
    for line in tail:
        client.say(f"  {line}")
    word = "was cancelled" if ended.startswith("CANCEL") else "ended in an error"
    raise KitError(f"{version} {word}{f': {why}' if why else ''}; its log ends with: "
                   + (" | ".join(tail[-IN_ERROR:]) or "(nothing)"),
                   f"{_fix_failed(ended, why, ' '.join(tail))}; to run the same bytes once more, "
                   "delete push.json first")


def _fix_failed(ended: str, why: str, log: str) -> str:
    """The fix for a version that failed, by Kaggle's message and the end of its log."""
    why, log = why.lower(), log.lower()
    if ended.startswith("CANCEL"):
        return ("it was stopped on Kaggle's page, or the accelerator's hours of this week were "
                "used up")
    if "timeout" in why or "time limit" in why or ("exceeded" in why and "time" in why):
        return ("give it less to do (kit kernel build --time-budget 90m, or fewer --epochs), then "
                "push again")
    if "memory" in why or re.search("out of memory|resourceexhausted|exit code 137", log):
        return ("it ran out of memory: build it with a smaller model or fewer --seeds, then push "
                "again")
    if "no space left" in log or "disk" in why:
        return ("it filled its disk (20 GB in /kaggle/working): write less, then build and push "
                "again")
    if "name resolution" in log or "failed to establish a new connection" in log:
        return ("it needs the network, which kernels of this competition have not: kit kernel "
                "rehearse shows where")
    return ("correct the cause, check it with kit kernel rehearse, then kit kernel build and push "
            "again")


def _end(client: Client, version: KernelVersion, timeout: float) -> tuple[str, str]:
    """Wait until this version has ended: its status and failure message."""
    last, shown, unknown, agreed, ran = None, 0, 0, 0, False
    for _ in polls(timeout):
        now, why = status(client, version)
        if now != last:
            client.say(f"{version}: {now.lower().replace('_', ' ') or 'not started yet'}")
            last, agreed = now, 0
        if now in FINAL_STATUSES:
            agreed += 1
            if ran or agreed > BLIND_POLLS or (agreed > SETTLE_POLLS
                                               and _heeds_labels(client, version)):
                return now, why
        elif now:
            ran = True
            with contextlib.suppress(KitError):  # a running session may have no log yet
                lines = log(client, version, repeat=False)
                for line in lines[shown:][-TAIL:]:
                    client.say(f"  {line}")
                shown = max(shown, len(lines))
        elif (unknown := unknown + 1) > UNKNOWN_POLLS:
            raise KitError(f"Kaggle does not know {version}",
                           f"look whether https://www.kaggle.com/code/{version.kernel} has that "
                           "version; if it was deleted there, delete push.json and push again")
    raise KitError(f"{version} has not ended after {rounded_duration(timeout)}",
                   "run the same command again to go on waiting; kit kernel status shows where "
                   "it is")


def _heeds_labels(client: Client, version: KernelVersion) -> bool:
    """Whether Kaggle answers for the requested version: if so, an impossible one is an error."""
    try:
        _status(client, version, f"v{version.number + 1000}", repeat=False)
    except KitError:
        return True
    return False


def log(client: Client, version: KernelVersion, repeat: bool = True) -> list[str]:
    """The lines of the log, which Kaggle stores as a JSON list of objects with `data`."""
    kept = _page(client, version, None, repeat).log or ""
    try:
        pieces = json.loads(kept)
        text = "".join(str(piece.get("data", "")) for piece in pieces)
    except (ValueError, AttributeError, TypeError):
        text = kept
    return _lines(text)


def _lines(text: str) -> list[str]:
    """The lines of `text` without credentials, control characters and empty lines."""
    return ["".join(c for c in line if c.isprintable()) for line in redact(text).splitlines()
            if line.strip()]


def follow_log(client: Client, version: KernelVersion, show: Callable[[str], None],
               timeout: float) -> str:
    """Show the lines of the log as they come until this version has ended, and return its status.

    Kaggle streams the log of one version to clients from 2.2.5 on, and starts it from its beginning
    after each lost connection. For an older client, which is named, and where the stream breaks,
    the log is requested again and again. KitError after `timeout` seconds.
    """
    shown, streams = 0, hasattr(client.api, "kernels_logs_stream")
    # 2.2.4 streams the newest session, which right after a push can be that of the version before
    streams = streams and hasattr(client.api, "parse_kernel_string")
    if not streams:
        client.say(f"{refusals.client_versions()} cannot stream the log of one version (kaggle "
                   "2.2.5 can), so it is asked for again and again; "
                   "pip install --upgrade kaggle for the stream")
    for _ in polls(timeout):
        now, _ = status(client, version)
        before = shown
        with contextlib.suppress(Exception):  # no stream, or it broke: the log is requested below
            events = (client.api.kernels_logs_stream(f"{version.kernel}/{version.number}")
                      if streams else ())
            lines = (line for event in events for line in _lines(str(event.get("data") or "")))
            for count, line in enumerate(lines, 1):
                if count > shown:
                    show(line)
                    shown = count
        if now in FINAL_STATUSES or shown == before:
            try:
                kept = log(client, version, repeat=now in FINAL_STATUSES)[shown:]
            except KitError:
                if now in FINAL_STATUSES:
                    raise
                kept = []  # a running session may have no log yet
            for line in kept:
                show(line)
                shown += 1
        if now in FINAL_STATUSES:
            return now
    raise KitError(f"{version} has not ended after {rounded_duration(timeout)}",
                   "run the same command again to go on following; kit kernel status shows where "
                   "it is")


# -- the account's hours ---------------------------------------------------------------------------


def quota(client: Client) -> dict[str, dict[str, Any]]:
    """This week's hours: {"GPU": {"used", "left", "total", "until"}, "TPU": …}; {} if they are not
    known.
    """
    ask = getattr(client.api, "quota_view", None)
    if ask is None:
        return {}
    try:
        answer = client.call("ask for the accelerator quota", ask, attempts=1)
        until = answer.quota_refresh_time
        found = {name: (hours.time_used.total_seconds() / 3600,
                        hours.total_time_allowed.total_seconds() / 3600)
                 for name, hours in (("GPU", answer.gpu_quota), ("TPU", answer.tpu_quota))
                 if hours is not None}
    except (KitError, AttributeError, TypeError, ValueError):
        # An older client, or an account without a quota
        return {}
    return {name: {"used": round(used, 2), "left": round(max(0.0, total - used), 2),
                   "total": round(total, 2),
                   "until": until.strftime("%Y-%m-%d %H:%M UTC") if until else ""}
            for name, (used, total) in found.items() if total}


def quota_lines(quota: dict[str, dict[str, Any]], *names: str) -> list[str]:
    """The quota as text, one line for each of `names`, or for all."""
    return [f"{name}: {hours['left']:.1f} of {hours['total']:.0f} h of this week are left"
            + (f" (until {hours['until']})" if hours["until"] else "")
            for name, hours in quota.items() if not names or name in names]


# -- output files ----------------------------------------------------------------------------------


def output_urls(client: Client, version: KernelVersion) -> dict[str, str]:
    """The output files of this version: name → address.

    Addresses are signed, so they must not be shown.
    """
    found: dict[str, str] = {}
    token: str | None = None
    while True:
        page = _page(client, version, token)
        found |= {file.file_name: file.url for file in page.files or [] if file.file_name
                  and file.url}
        token = page.next_page_token
        if not token:
            return found


def fetch_output(client: Client, name: str, url: str) -> bytes:
    """The bytes of an output file."""
    import requests

    def send() -> bytes:
        answer = requests.get(url, timeout=(kaggle_client.CONNECT_TIMEOUT,
                                            kaggle_client.READ_TIMEOUT))
        answer.raise_for_status()
        return answer.content

    return client.call(f"fetch {name} of the kernel", send)


def _page(client: Client, version: KernelVersion, token: str | None, repeat: bool = True) -> Any:
    """One page of the list of output files; it also has the log."""
    from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

    def send(label: str) -> Any:
        request = version.fill(ApiListKernelSessionOutputRequest(), label)
        request.page_size, request.page_token = 100, token
        return client.call_sdk(
            f"read the output of {version}",
            lambda k: k.kernels.kernels_api_client.list_kernel_session_output(request), repeat,
            version.owner)

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


def latest_version(client: Client, kernel: str) -> tuple[int, str]:
    """(number, source) of the newest version of a kernel; (0, "") if there is no such kernel."""
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

    request = ApiGetKernelRequest()
    request.user_name, request.kernel_slug = kernel.split("/")
    try:
        answer = client.call_sdk(f"look at {kernel}",
                                 lambda k: k.kernels.kernels_api_client.get_kernel(request),
                                 owner=request.user_name)
    except Rejected as error:
        if error.status in (403, 404):
            return 0, ""
        raise
    number = (answer.metadata and answer.metadata.current_version_number) or 0
    return number, (answer.blob and answer.blob.source) or ""
