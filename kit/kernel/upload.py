"""Submit a file, exactly once, to a competition that takes files.

`sending.json` beside the file means that an earlier answer was lost: then the submission is looked
for, not sent again.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from kit import ledger
from kit.core import storage
from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.kaggle import submissions
from kit.kaggle.answers import redacted_line
from kit.kaggle.client import Say, Unanswered, connect, silent
from kit.kernel import folder as kernel_folder
from kit.kernel.push import REPORT, SCORE_TIMEOUT, PushResult

SENDING = "sending.json"


def check_takes_files(competition: Competition) -> None:
    """KitError, with the commands to use instead, if the competition takes notebooks only."""
    if competition.code_only:
        raise KitError(f"{competition.title} takes notebooks, not files: Kaggle runs them on a "
                       "hidden test set",
                       "kit kernel build --user NAME, kit kernel rehearse, then kit kernel push "
                       "--wait --submit")


def submit_file(path: Path, competition: Competition, message: str = "", wait: bool = False,
                progress: Say = silent, ledger_path: Path | None = None,
                score_timeout: float = SCORE_TIMEOUT) -> PushResult:
    """Submit the file `path`, once, and enter it into the ledger with the numbers of the
    report.json beside it.

    ledger_path: by default the ledger beside the submission's folder. KitError if the competition
    takes no files.
    """
    check_takes_files(competition)
    path = Path(path)
    ledger_path = ledger_path or ledger.ledger_beside(path.parent)
    tag = f"[sha256 {hashlib.sha256(storage.read_bytes(path)).hexdigest()[:12]}]"
    client, sending = connect(progress, competition.rules_url), path.with_name(SENDING)

    def mark(is_sent: bool) -> None:
        if is_sent:
            storage.write_text(sending, json.dumps({"tag": tag}) + "\n", record=False)
        else:
            sending.unlink(missing_ok=True)

    def send() -> Any:
        failed = client.api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE
        try:
            answer = client.api.competition_submit(str(path), f"{message} {tag}".strip(),
                                                   competition.slug, quiet=True)
            why = answer.message if answer.message == failed else ""
        except ValueError as error:  # a newer client may raise it, as it does for datasets
            why = str(error)
            if "upload" not in why.lower():
                raise
        if why:  # the upload failed, so no submission was made
            raise Unanswered(f"the file did not arrive at Kaggle: {redacted_line(why)}",
                             "check the network, and that it lets uploads through to "
                             "storage.googleapis.com, then run the same command again",
                             may_have_arrived=False)
        return answer

    try:
        may_have_arrived = (sending.is_file()
                            and json.loads(sending.read_text("utf-8")).get("tag") == tag)
    except (OSError, ValueError, AttributeError):
        may_have_arrived = True  # the file exists, so something was being sent
    try:
        entry = submissions.submit_once(client, competition.slug, tag,
                                        submissions.mark_while_sending(send, mark),
                                        may_have_arrived, f"delete {sending} and run it again")
    except Unanswered:
        raise
    except KitError:
        mark(False)
        raise
    mark(False)
    client.say(f"handed in {path} as submission {entry.ref}")
    run = path.resolve().parent.name
    ledger.upsert_row(ledger.make_row(run, kernel_folder.read_report(path.with_name(REPORT)),
                                   entry.ref), ledger_path)
    if wait:
        entry = ledger.wait_for_score(client, competition, entry.ref, ledger_path, score_timeout)
    return PushResult(str(path), status="handed in", submission=entry.ref,
                      public_score=entry.public_score, private_score=entry.private_score,
                      sync=ledger.sync_command(competition, ledger_path))
