"""Submissions on Kaggle: hand in once, find again, wait for the score.

In goes a tag that names what is handed in; out comes Kaggle's reference and, later, the scores. The one idea: the tag
is part of the submission's description, so that Kaggle's own list tells whether it was handed in already, whatever
happened here in the meantime.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kit import client as kaggle_client
from kit.answers import one_line
from kit.client import Client, Unanswered, span
from kit.delivery.session import polls
from kit.errors import KitError

PAGES = 20  # of the list of submissions
LOOKS, LOOK_PAUSE = 3, 2.0  # at that list, and seconds between them, where a submission may have got lost


@dataclass(frozen=True)
class HandIn:
    ref: str
    status: str = "PENDING"
    description: str = ""
    error: str = ""
    public_score: float | None = None
    private_score: float | None = None

    @property
    def scored(self) -> bool:
        return self.status != "ERROR" and (self.public_score is not None or self.private_score is not None)


def listing(client: Client, slug: str) -> Iterator[HandIn]:
    """This account's submissions to a competition, the newest first."""
    from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

    request = ApiListSubmissionsRequest()
    request.competition_name, request.page_size = slug, 100
    for _ in range(PAGES):
        answer = client.sdk(f"list the submissions to {slug}",
                            lambda k: k.competitions.competition_api_client.list_submissions(request))
        for entry in answer.submissions or []:
            yield HandIn(str(entry.ref), entry.status.name, entry.description or "",
                         one_line(entry.error_description), _score(entry.public_score), _score(entry.private_score))
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def once(client: Client, slug: str, tag: str, send: Callable[[], Any], unsure: bool) -> HandIn:
    """Hand in with `send`, unless a submission with `tag` in its description is there already.

    `unsure`: an earlier try may be under way, look longer. KitError where Kaggle does not take it.
    """
    found = find(client, slug, tag, LOOKS if unsure else 1)
    if found:
        client.say(f"handed in already: {found.ref} {tag}")
        return found
    known = frozenset(entry.ref for entry in listing(client, slug))
    for attempt in range(1, kaggle_client.ATTEMPTS + 1):
        try:
            answer = client.call(f"hand in to {slug}", send, repeat=False)
        except Unanswered as error:
            found = find(client, slug, tag, LOOKS, known)
            if found:
                return found
            if attempt == kaggle_client.ATTEMPTS:
                raise
            client.say(f"{error.message}; it did not arrive, trying again")
            continue
        if answer.ref:
            return HandIn(str(answer.ref))
        found = find(client, slug, tag, LOOKS, known)
        if found:
            return found
        raise KitError(f"Kaggle did not take the submission: {one_line(answer.message) or 'it does not say why'}",
                       "mend what Kaggle names; a daily limit is over at midnight UTC")
    raise AssertionError("unreachable")


def find(client: Client, slug: str, tag: str, looks: int = 1,
         known: frozenset[str] | None = None) -> HandIn | None:
    """The submission whose description holds `tag`; where none is shown, one that is not among the `known`."""
    for look in range(looks):
        if look:
            time.sleep(LOOK_PAUSE)
        for entry in listing(client, slug):
            is_new = known is not None and entry.ref not in known and not entry.description
            if tag in entry.description or is_new:
                return entry
    return None


def wait_for_score(client: Client, slug: str, ref: str, timeout: float) -> HandIn:
    """The submission with its scores. KitError where Kaggle could not score it, or has not after `timeout` seconds."""
    client.say(f"waiting for the score of submission {ref}")
    for _ in polls(timeout):
        entry = next((entry for entry in listing(client, slug) if entry.ref == ref), None)
        if entry and entry.status == "ERROR":
            raise KitError(f"Kaggle could not score submission {ref}: {entry.error or 'it does not say why'}",
                           "see the submission's page on Kaggle; kit kernel rehearse finds most causes before a push")
        if entry and entry.scored:
            return entry
    raise KitError(f"submission {ref} has no score after {span(timeout)}; it stays handed in",
                   "fetch the score later: kit ledger sync")


def _score(text: str | None) -> float | None:
    try:
        score = float(text or "nan")
    except ValueError:
        return None
    return score if math.isfinite(score) else None
