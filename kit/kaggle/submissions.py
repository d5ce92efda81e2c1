"""Submit to a competition exactly once, find a submission again, and wait for its score.

The description of each submission has a tag, so that Kaggle's list shows whether it arrived,
whatever happened on this machine. If an answer was lost and the list does not show the submission,
it is not sent again: the list may be late, and a second submission would use up one of the day's
few.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from kit.core.durations import rounded_duration
from kit.core.errors import KitError
from kit.kaggle import answers, refusals
from kit.kaggle.answers import redacted_line
from kit.kaggle.client import Client, Rejected, Unanswered
from kit.kaggle.refusals import LIMIT
from kit.kaggle.session import polls

T = TypeVar("T")

PAGES = 20  # of the list of submissions, at most
SEARCH_SECONDS = 150.0  # how long to look in that list for a submission that may have arrived


@dataclass(frozen=True)
class Submission:
    ref: str
    status: str = "PENDING"
    description: str = ""
    error: str = ""
    public_score: float | None = None
    private_score: float | None = None

    @property
    def is_scored(self) -> bool:
        return self.status != "ERROR" and (self.public_score is not None
                                           or self.private_score is not None)


def list_submissions(client: Client, slug: str) -> Iterator[Submission]:
    """This account's submissions to the competition `slug`, newest first."""
    from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

    request = ApiListSubmissionsRequest()
    request.competition_name, request.page_size = slug, 100
    for _ in range(PAGES):
        answer = client.call_sdk(
            f"list the submissions to {slug}",
            lambda k: k.competitions.competition_api_client.list_submissions(request))
        for entry in answer.submissions or []:
            yield Submission(str(entry.ref), entry.status.name, entry.description or "",
                             redacted_line(entry.error_description), _score(entry.public_score),
                             _score(entry.private_score))
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def submit_once(client: Client, slug: str, tag: str, send: Callable[[], Any],
                may_have_arrived: bool, resend_fix: str) -> Submission:
    """Submit by calling `send`, unless there is already a submission with `tag` in its description.

    may_have_arrived: an earlier attempt may have, so only look for it and send nothing.
    resend_fix: how to send it again after an `Unanswered`, which means that it is unknown whether
    it arrived; the error's fix ends with it. KitError if Kaggle refuses.
    """
    found = find(client, slug, tag, SEARCH_SECONDS if may_have_arrived else 0)
    if found:
        client.say(f"handed in already: {found.ref} {tag}")
        return found

    def lost(why: str) -> Unanswered:
        return Unanswered(f"{why}; whether {tag} arrived is not known: Kaggle's list of "
                          "submissions does not show it",
                          f"look for {tag} at "
                          f"{client.request_context().competition_url}/submissions; if it is "
                          f"there, run the same command again; if it is not, {resend_fix}")

    if may_have_arrived:
        raise lost("an earlier hand-in was left without an answer")
    known = frozenset(entry.ref for entry in list_submissions(client, slug))
    allowance = limits(client, slug)
    for line in limit_lines(allowance):
        client.say(line)
    try:
        answer = client.call(f"hand in to {slug}", send, repeat=False)
    except Rejected as error:
        # Tried although none was left: the count may be of another moment
        if allowance and not allowance["left"] and not error.kind and error.status in (400, 403):
            _, meaning, fix = refusals.classify_message("submission allowance",
                                                        client.request_context()) or ("", "", "")
            raise Rejected(f"cannot hand in to {slug}: {meaning}", fix, 400, LIMIT) from None
        raise
    except Unanswered as error:
        if not error.may_have_arrived:
            raise KitError(error.message, error.fix) from None
        client.say(f"{error.message}; looking whether it arrived")
        if found := find(client, slug, tag, SEARCH_SECONDS, known):
            return found
        raise lost(error.message) from None
    if answer.ref:
        return Submission(str(answer.ref))
    if found := find(client, slug, tag,
                     SEARCH_SECONDS if "success" in (answer.message or "").lower() else 0, known):
        return found
    if "success" in (answer.message or "").lower():
        raise lost("Kaggle's answer has no reference")
    _, meaning, fix = refusals.classify_message(
        answer.message or "", client.request_context()) or (
        "", "", "correct what Kaggle names, then run the same command again")
    raise KitError(f"Kaggle did not take the submission{meaning and ', '}{meaning}: "
                   f"{redacted_line(answer.message) or 'it does not say why'}", fix)


def mark_while_sending(send: Callable[[], T], mark: Callable[[bool], None]) -> Callable[[], T]:
    """Wrap `send`: call `mark(True)` before it, and `mark(False)` if Kaggle refuses the request
    (4xx).
    """

    def sending() -> T:
        mark(True)
        try:
            return send()
        except Exception as error:
            if 400 <= (answers.http_status(error) or 0) < 500:
                mark(False)
            raise

    return sending


def limits(client: Client, slug: str) -> dict[str, Any]:
    """This team's submissions: {"today": made, "left": still allowed now, "by_total": bool}.

    by_total: the competition's limit for all days is what counts. {} if it is not known: an older
    client or server, or an account without a team, for which Kaggle says 0 everywhere.
    """
    ask = getattr(client.api, "competition_get_submission_limits", None)
    if ask is None:
        return {}
    try:
        answer = client.call(f"ask how many submissions to {slug} are left", lambda: ask(slug),
                             attempts=1)
        found = {"today": int(answer.num_today), "left": int(answer.num_allowed_now),
                 "by_total": bool(answer.limited_by_total)}
        return found if found["today"] or found["left"] or answer.num_total else {}
    except (KitError, AttributeError, TypeError, ValueError):
        return {}


def limit_lines(limits: dict[str, Any]) -> list[str]:
    """The limits as text: a line, or none if they are not known."""
    return [f"submissions today: {limits['today']} made, {limits['left']} left"
            + " (the competition's limit for all days)" * limits["by_total"]] if limits else []


def submission_line(ref: str, public: float | None, private: float | None, otherwise: str) -> str:
    """A submission as text, with the scores that it has, or `otherwise`."""
    named = ("public", public), ("private", private)
    scores = ", ".join(f"{name} {score:.5f}" for name, score in named if score is not None)
    return f"submission {ref}: {scores or otherwise}"


def find(client: Client, slug: str, tag: str, seconds: float = 0.0,
         known: frozenset[str] | None = None) -> Submission | None:
    """The submission with `tag` in its description, or one without a description that is not in
    `known` (refs).

    Looks once, and then repeatedly for `seconds`. None if there is none.
    """
    for _ in polls(seconds):
        for entry in list_submissions(client, slug):
            is_new = known is not None and entry.ref not in known and not entry.description
            if tag in entry.description or is_new:
                return entry
    return None


def wait_for_score(client: Client, slug: str, ref: str, timeout: float, sync: str) -> Submission:
    """Wait for the submission's score.

    KitError if scoring failed, or is not done after `timeout` seconds. sync: the command that
    fetches the score later, for the fix.
    """
    client.say(f"waiting for the score of submission {ref}")
    for _ in polls(timeout):
        entry = next((entry for entry in list_submissions(client, slug) if entry.ref == ref), None)
        if entry and entry.status == "ERROR":
            page = f"{client.request_context().competition_url}/submissions"
            raise KitError(f"Kaggle could not score submission {ref}: "
                           f"{entry.error or 'it does not say why'}",
                           f"{_unscored(entry.error)}; more is on {page}")
        if entry and entry.is_scored:
            return entry
    raise KitError(f"submission {ref} has no score after {rounded_duration(timeout)}; it stays "
                   "handed in", f"fetch the score later: {sync}")


def _unscored(why: str) -> str:
    """The fix for a submission that could not be scored, by Kaggle's error message."""
    why = why.lower()
    if "timeout" in why or "time limit" in why or ("exceeded" in why and "time" in why):
        return ("the hidden test file took longer: give the kernel less to do (kit kernel build "
                "--time-budget 90m), build and push it again")
    if "exception" in why or "threw" in why:
        return ("the kernel failed on the hidden test file, which has other rows and another "
                "length: kit kernel rehearse runs it on such a one")
    if "not found" in why:
        return ("the kernel must write submission.csv into its working folder: kit kernel rehearse "
                "shows whether it does")
    if "memory" in why or "allowed compute" in why:
        return ("the kernel took too much memory on the hidden test file: predict with fewer or "
                "smaller models")
    return ("check the file with kit validate: columns, ids and labels must be those of the sample "
            "submission")


def _score(text: str | None) -> float | None:
    try:
        score = float(text or "nan")
    except ValueError:
        return None
    return score if math.isfinite(score) else None
