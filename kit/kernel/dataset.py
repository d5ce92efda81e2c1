"""Upload the weights of a predict kernel as a private dataset, and wait until it can be mounted.

The same bytes are uploaded only once. If the answer to an upload was lost, the dataset's number of
versions shows whether it arrived.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.core import os_errors
from kit.core.durations import rounded_duration
from kit.core.errors import KitError
from kit.kaggle import refusals, submissions
from kit.kaggle.answers import redacted_line
from kit.kaggle.client import Client, Rejected, Unanswered
from kit.kaggle.session import polls
from kit.kernel import folder as kernel_folder
from kit.kernel.weights import METADATA

UNKNOWN = "unknown"
TIMEOUT = 3600.0  # seconds for Kaggle to unpack the files
# Requests until a dataset that is ready counts as new, though its number of versions is not
SETTLE_POLLS = 5


def upload(client: Client, folder: Path, state: dict[str, Any], save: Callable[[], None]) -> None:
    """Upload `folder` as a new dataset, or a new version of it, and wait until it is ready.

    state: digest, before and done of the last upload; `save` stores it whenever it changes.
    KitError if Kaggle refuses or a file does not arrive.
    """
    with os_errors.disk_errors(folder / METADATA, "read"):
        text = (folder / METADATA).read_bytes()
    try:
        owner, slug = json.loads(text.decode("utf-8"))["id"].split("/")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise KitError(f"{folder / METADATA} is damaged: {error}",
                       "make it again: kit kernel build --mode predict --run RUN") from error
    ref, digest = f"{owner}/{slug}", kernel_folder.hash_folder(folder)
    if state.get("digest") == digest and state.get("done"):
        return
    before = count_versions(client, ref)
    if not (state.get("digest") == digest and before > state.get("before", before)):
        state.update(digest=digest, before=before, done=False)
        save()
        try:
            _send(client, folder, ref, before)
        except Unanswered:
            raise
        except KitError:
            state.clear()  # so that the next run uploads again
            save()
            raise
    _wait(client, ref, state["before"])
    state["done"] = True
    save()


def count_versions(client: Client, ref: str) -> int:
    """The number of versions of the dataset; 0 if it does not exist, or is somebody else's private
    one (403).
    """
    from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

    request = ApiGetDatasetRequest()
    request.owner_slug, request.dataset_slug = ref.split("/")
    try:
        answer = client.call_sdk(f"look at the dataset {ref}",
                                 lambda k: k.datasets.dataset_api_client.get_dataset(request),
                                 owner=request.owner_slug)
        return answer.current_version_number or 1
    except Rejected as error:
        if error.status in (403, 404):
            return int(_status(client, ref) != UNKNOWN)  # a new one may not be shown yet
        raise


def _status(client: Client, ref: str) -> str:
    """The dataset's status: ready, failed, …; UNKNOWN if Kaggle does not show such a dataset."""
    try:
        return str(client.call(f"ask for the status of {ref}",
                               lambda: client.api.dataset_status(ref), owner=ref.split("/")[0]))
    except Rejected as error:
        if error.status not in (403, 404):
            raise
        return UNKNOWN


def _send(client: Client, folder: Path, ref: str, before: int) -> None:
    """Send the files. KitError if Kaggle refuses, or one of them does not arrive."""
    files = [path for path in folder.iterdir() if path.is_file() and path.name != METADATA]
    size = sum(path.stat().st_size for path in files)
    client.say(f"uploading {len(files)} files ({size / 1e6:,.1f} MB) as the private dataset {ref}")

    def send() -> Any:
        try:
            if before:
                return client.api.dataset_create_version(str(folder), "weights by kit", quiet=False)
            return client.api.dataset_create_new(str(folder), public=False, quiet=False)
        except ValueError as error:
            # Kaggle 2.2.5 and later; 2.2.4 prints it and makes the dataset without the file
            if name := re.match(r"Upload unsuccessful: (.+)", str(error)):
                raise _lost([name[1]], ref) from None
            raise

    try:
        answer = client.call(f"upload the dataset {ref}", send, repeat=False,
                             owner=ref.split("/")[0])
    except Unanswered as error:
        if not error.may_have_arrived:
            raise
        client.say(f"{error.message}; looking whether it arrived")
        if not any(count_versions(client, ref) > before for _ in polls(submissions.SEARCH_SECONDS)):
            raise
        return
    lost = [path.name for path in files
            if f"Upload successful: {path.name} (" not in client.printed]
    if answer.error or (answer.status or "ok").lower() != "ok":
        why = redacted_line(answer.error or answer.status) or "it does not say why"
        explained = refusals.classify_message(why, client.request_context(ref.split("/")[0]))
        _, meaning, fix = explained or (
            "", "", "correct what Kaggle names, then run the same command again")
        raise KitError(f"Kaggle did not take the dataset {ref}{meaning and ', '}{meaning}: {why}",
                       fix)
    if lost:
        raise _lost(lost, ref)


def _lost(names: list[str], ref: str) -> KitError:
    return KitError(f"{', '.join(names)} did not arrive in the dataset {ref}",
                    "check that the network lets uploads through to storage.googleapis.com, then "
                    "run the same command again: it uploads a complete version")


def _wait(client: Client, ref: str, before: int) -> None:
    """Wait until a version after number `before` is ready; an earlier one may be so already."""
    ready = 0
    for _ in polls(TIMEOUT):
        status = _status(client, ref)
        if status in ("failed", "deleted"):
            raise KitError(f"Kaggle could not make the dataset {ref}: {status}",
                           f"see https://www.kaggle.com/datasets/{ref} for why, delete it there, "
                           "then push again"
                           if status == "failed"
                           else "it was deleted on Kaggle's page: run the same command again")
        if status == "ready":
            ready += 1
            if count_versions(client, ref) > before or ready > SETTLE_POLLS:
                client.say(f"the dataset {ref} is ready")
                return
    raise KitError(f"the dataset {ref} is not ready after {rounded_duration(TIMEOUT)}",
                   "run the same command again to go on waiting")
