"""Push a kernel to Kaggle once, and find it again where the answer was lost.

What is known of the push so far is the `PushState` in `push.json`, written before it is sent and
after it was answered, so that it can be interrupted at any point.
"""

import json
from typing import Any

from kit.core.errors import KitError
from kit.kaggle import refusals, session, submissions
from kit.kaggle.answers import redacted_line
from kit.kaggle.client import Client, Rejected, Unanswered, redact
from kit.kaggle.refusals import BUSY, QUOTA
from kit.kaggle.session import KernelVersion
from kit.kernel.builder import METADATA, SESSION_LIMIT
from kit.kernel.folder import KernelFolder, PushState

SLOT_PAUSE = 300.0  # seconds between two tries, at most, while all permitted sessions are in use


def push_once(client: Client, kernel: KernelFolder, state: PushState, wait: float, resend: bool,
              session_limit: float | None) -> None:
    """Push, unless these bytes were pushed already; before it, say which hours are left.

    While all permitted sessions are in use, it tries again for `wait` seconds. KitError if an
    earlier push may have arrived but Kaggle does not show it, unless `resend`.
    """
    if state.digest == kernel.digest and state.version and not state.pushing:
        client.say(f"{KernelVersion(state.kernel, state.version)} was pushed already")
        return

    def lost(why: str) -> Unanswered:
        return Unanswered(f"{why}; whether {kernel.ref} arrived is not known: Kaggle does not show "
                          "a new version of it",
                          f"look at https://www.kaggle.com/code/{kernel.ref} (Versions); if it is "
                          "there, run the same command again; if it is not, run it with --resend")

    if state.pushing == kernel.digest:
        if _find_lost_push(client, kernel, state, 0.0 if resend else submissions.SEARCH_SECONDS):
            return
        if not resend:
            raise lost("an earlier push was left without an answer")

    def mark(is_sent: bool) -> None:
        state.pushing = kernel.digest if is_sent else ""
        state.save(kernel)

    def send() -> Any:
        limit = None if session_limit is None else str(int(session_limit))
        return client.api.kernels_push(str(kernel.path), limit)

    hours = session.quota(client) if kernel.accelerators else {}
    for line in session.quota_lines(hours, *kernel.accelerators):
        client.say(line)
    longest = 60 * SESSION_LIMIT["tpu" if "TPU" in kernel.accelerators else "t4x2"]
    if session_limit is not None and session_limit > longest:
        client.say(f"warning: --session-limit {session_limit / 3600:g}h changes nothing: Kaggle "
                   f"ends every session of this kind after {longest // 3600} h")
    for name in kernel.accelerators:
        if name in hours and hours[name]["left"] * 60 < kernel.minutes:
            client.say(f"warning: this kernel plans with {kernel.minutes:g} minutes on a {name}, "
                       f"which is more than the {hours[name]['left']:.1f} h that are left")
    state.before = session.latest_version(client, kernel.ref)[0]
    for _ in session.polls(wait, SLOT_PAUSE):
        try:
            answer = client.call(f"push {kernel.ref}", submissions.mark_while_sending(send, mark),
                                 repeat=False, owner=kernel.owner)
            return _store_answer(client, kernel, state, answer)
        except Unanswered as error:
            if not error.may_have_arrived:
                mark(False)
                raise KitError(error.message, error.fix) from None
            client.say(f"{error.message}; looking whether it arrived")
            if _find_lost_push(client, kernel, state, submissions.SEARCH_SECONDS):
                return
            raise lost(error.message) from None
        except KitError as error:
            mark(False)
            if not (isinstance(error, Rejected) and error.kind == BUSY and wait):
                raise
            busy = error
            client.say(f"{error.message}; waiting for one to end")
    raise busy


def _store_answer(client: Client, kernel: KernelFolder, state: PushState, answer: Any) -> None:
    """Store the version that Kaggle's answer to a push names.

    KitError for an error in a 200 and for ignored sources, which the client only prints.
    """
    for line in client.printed.splitlines():
        client.say(f"the client says: {line}")
    if answer.error:
        explained = refusals.classify_message(answer.error, client.request_context(kernel.owner))
        kind, meaning, fix = explained or (
            "", "", "correct what Kaggle names, build the kernel again, and push it again")
        if kind == QUOTA and (lines := session.quota_lines(session.quota(client))):
            fix = f"{'; '.join(lines)}: {fix}"
        raise Rejected(f"Kaggle did not take {kernel.ref}{meaning and ', '}{meaning}: "
                       f"{redacted_line(answer.error)}", fix, 200, kind)
    ignored = [(kind, source) for kind in ("dataset", "competition", "kernel", "model")
               for source in getattr(answer, f"invalid_{kind}_sources") or []]
    if ignored:
        kinds, fixes = {kind for kind, _ in ignored}, []
        if "competition" in kinds:
            fixes.append(f"accept the competition's rules: {client.rules_url}")
        if kinds - {"competition"}:
            fixes.append(f"check in {METADATA} the names of what it reads, and that {client.user} "
                         "may see them")
        names = ", ".join(redacted_line(f"{kind} {source}") for kind, source in ignored)
        raise KitError(f"Kaggle took {kernel.ref}, but not its data: {names}",
                       f"{'; '.join(fixes)}; then push again")
    if answer.version_number:
        # "/code/owner/slug"; it may differ from the id, as Kaggle makes the slug from the title
        name = [part for part in (answer.ref or "").split("/") if part][-2:]
        _store_version(client, kernel, state, "/".join(name) if len(name) == 2 else kernel.ref,
                       int(answer.version_number), answer.url or "")
    elif not _find_lost_push(client, kernel, state, submissions.SEARCH_SECONDS):
        raise Unanswered(f"Kaggle's answer to the push of {kernel.ref} names no version",
                         "run the same command again")


def _find_lost_push(client: Client, kernel: KernelFolder, state: PushState,
                    seconds: float) -> bool:
    """Whether a push whose answer was lost has arrived; if so, its version is stored.

    It has if Kaggle's newest version came after the push began and has the same source. Looks once,
    and then repeatedly for `seconds`.
    """
    for _ in session.polls(seconds):
        number, source = session.latest_version(client, kernel.ref)
        if number > state.before and _comparable(source) == _comparable(kernel.code):
            _store_version(client, kernel, state, kernel.ref, number,
                           f"https://www.kaggle.com/code/{kernel.ref}")
            return True
    return False


def _comparable(source: str) -> Any:
    """The source for comparing: a notebook's cells, as the client and Kaggle rewrite its JSON."""
    try:
        return ["".join(cell["source"]).strip() for cell in json.loads(source)["cells"]]
    except (ValueError, KeyError, TypeError):
        return source.replace("\r\n", "\n").strip()


def _store_version(client: Client, kernel: KernelFolder, state: PushState, name: str, number: int,
                   url: str) -> None:
    """Store a new version; what was done with the one before it is forgotten."""
    vars(state).update(vars(PushState(digest=kernel.digest, kernel=name, version=number,
                                      url=redact(url), weights=state.weights)))
    state.save(kernel)
    client.say(f"pushed {KernelVersion(name, number)}: {state.url}")
