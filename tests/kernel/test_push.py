"""Push, wait, submit, score with the real client against a Kaggle on this machine; every fault, and every restart."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from kit import ledger, pipeline
from kit.commands import actions_kaggle, cli_kaggle
from kit.commands.request import Request
from kit.core import storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.core.run_folder import RunFolder
from kit.data.competition import DIGIT_RECOGNIZER, KANNADA
from kit.kaggle import client, refusals, submissions
from kit.kernel import dataset, push, send, upload
from kit.kernel.folder import STATE
from tests.kaggle.stand_in import KEY, SIGNATURE, TOKEN, Fault, KaggleStandIn

REF = "ada/kannada-kit"


def run(folder, said=None, **options):
    """The whole way, as `kit kernel push --wait --submit` goes it."""
    options = {"wait": True, "submit": True, "message": "first try", **options}
    return push.push(folder, KANNADA, progress=(said if said is not None else []).append, **options)


def rows():
    return ledger.read_rows(Path("submissions/ledger.csv"))


# -- the whole way ----------------------------------------------------------------------------------------------------


def test_push_wait_submit_score(kaggle, built):
    said = []
    result = run(built, said)
    assert (result.what, result.version, result.status) == (REF, 1, "COMPLETE")
    assert (result.public_score, result.private_score) == (0.9884, 0.9876)
    assert storage.read_json(Path(result.report))["leaderboard_estimate"]["value"] == 0.985
    (submission,) = kaggle.submissions
    assert submission["what"] == f"{REF}/1" and submission["fileName"] == "submission.csv"
    assert submission["description"] == f"first try [{REF} v1]"
    assert str(submission["ref"]) == result.submission
    (row,) = rows()
    assert row["created"].startswith("20") and row["created"].endswith("Z")
    assert {**row, "created": ""} == {
        "run": f"{REF} v1", "created": "", "data": "kaggle", "split": "writer", "cv_accuracy": "0.9912",
        "estimate": "0.985", "estimate_low": "0.981", "estimate_high": "0.989", "public_score": "0.9884",
        "private_score": "0.9876", "kaggle_ref": result.submission}
    assert any("fold 0 done" in text for text in said)
    assert "public 0.98840" in result.lines()[-1]


def test_what_is_pushed_is_what_was_built(kaggle, built):
    push.push(built, KANNADA)
    body = kaggle.kernels[REF][0].body
    assert body["text"] == (built / "kernel.py").read_text()
    assert body["enableInternet"] is False and body["isPrivate"] is True
    assert body["competitionDataSources"] == ["kannada-mnist"]
    assert kaggle.count("GetKernelSessionStatus") == 0 and not kaggle.submissions


def test_the_session_ends_when_it_was_asked_to(kaggle, built):
    push.push(built, KANNADA, session_limit=5400)
    assert kaggle.kernels[REF][0].body["sessionTimeoutSeconds"] == 5400
    (built / "kernel.py").write_text("print('two')\n")
    push.push(built, KANNADA)
    assert not kaggle.kernels[REF][1].body.get("sessionTimeoutSeconds")


def test_a_session_too_short_for_the_kernel_is_refused_before_it_costs_a_version(kaggle, built):
    (built / "kernel.py").write_text('SETTINGS = {"mode": "train", "minutes": 110}\n')
    with pytest.raises(KitError, match="--session-limit 60m ends this kernel before it is done: it plans with 110 min"):
        push.push(built, KANNADA, session_limit=3600)
    with pytest.raises(KitError, match="--session-limit 20s ends this kernel") as caught:
        push.push(built, KANNADA, session_limit=20)  # a bare 20 on the command line
    assert caught.value.fix == "allow it more time, with the unit, such as 2h"
    assert kaggle.count("SaveKernel") == 0
    push.push(built, KANNADA, session_limit=7200)


@pytest.mark.parametrize(("change", "hours"), [({}, 12), ({"machine_shape": "TpuV5E8"}, 9)])
def test_a_session_limit_beyond_kaggles_own_is_warned_of(kaggle, built, change, hours):
    path, said = built / "kernel-metadata.json", []
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    push.push(built, KANNADA, session_limit=20 * 3600, progress=said.append)
    assert [text for text in said if "changes nothing" in text] == [
        f"warning: --session-limit 20h changes nothing: Kaggle ends every session of this kind after {hours} h"]


def test_the_status_says_what_was_handed_in_and_that_the_folder_has_changed(kaggle, built):
    ref = run(built).submission
    said = str(actions_kaggle.status(built))
    assert f"submission {ref}: public 0.98840, private 0.98760" in said and "changed" not in said
    (built / "kernel.py").write_text("print('two')\n")
    assert f"{built} has changed since this version was pushed" in str(actions_kaggle.status(built))


def test_a_folder_that_is_none_is_told_from_one_that_is_no_kernels(built):
    with pytest.raises(KitError, match="there is no kernel folder") as caught:
        push.push(built / "nowhere", KANNADA)
    assert caught.value.fix.endswith(f"kit kernel build --out {built / 'nowhere'}")
    with pytest.raises(KitError, match="is a file, not a kernel folder") as caught:
        push.push(built / "kernel.py", KANNADA)
    assert caught.value.fix == f"name its folder: {built}"


def test_again_does_nothing_twice(kaggle, built):
    first, second = run(built), run(built)
    assert first == second
    assert (kaggle.count("SaveKernel"), kaggle.count("CreateCodeSubmission")) == (1, 1)
    assert len(rows()) == 1


def test_changed_code_is_a_new_version_with_its_own_submission(kaggle, built):
    run(built)
    (built / "kernel.py").write_text("print('two')\n")
    assert run(built).version == 2
    assert [entry["what"] for entry in kaggle.submissions] == [f"{REF}/1", f"{REF}/2"]
    assert [row["run"] for row in rows()] == [f"{REF} v1", f"{REF} v2"]


def test_the_steps_can_be_run_alone(kaggle, built):
    with pytest.raises(KitError, match="nothing was pushed"):
        push.submit(built, KANNADA)
    push.push(built, KANNADA)
    push.push(built, KANNADA, wait=True)
    assert push.status(built, KANNADA)["submission"] is None
    result = push.submit(built, KANNADA, message="alone")
    assert result.public_score == 0.9884
    shown = push.status(built, KANNADA)
    assert shown["status"] == "COMPLETE" and shown["submission"]["ref"] == result.submission
    assert shown["log"] == ["fold 0 done"] and not shown["changed_since"]
    assert kaggle.count("CreateCodeSubmission") == 1
    (built / "kernel.py").write_text("print('two')\n")
    with pytest.raises(KitError, match="has changed since version 1"):
        push.submit(built, KANNADA)


# -- a version that is not ours ---------------------------------------------------------------------------------------


def test_a_stale_complete_is_not_taken_for_ours(kaggle, built):
    run(built)
    (built / "kernel.py").write_text("raise SystemExit(1)\n")
    kaggle.next_statuses, kaggle.next_failure = ["QUEUED", "RUNNING", "ERROR"], "Notebook Threw Exception"
    with pytest.raises(KitError, match=r"v2 ended in an error: Notebook Threw Exception"):
        run(built)
    assert len(kaggle.submissions) == 1


@pytest.mark.parametrize("stale", [1, 2])
def test_a_stale_answer_even_for_the_right_version_is_seen_through(kaggle, built, stale):
    kaggle.next_statuses = ["COMPLETE"] * stale + ["RUNNING", "ERROR"]
    with pytest.raises(KitError, match="ended in an error"):
        run(built)
    assert not kaggle.submissions


def test_a_server_that_ignores_the_version_is_looked_at_for_longer(kaggle, built, monkeypatch):
    ask = kaggle.do_GetKernelSessionStatus
    monkeypatch.setattr(kaggle, "do_GetKernelSessionStatus", lambda body: ask({**body, "versionLabel": ""}))
    run(built)
    kaggle.stale_polls = 12
    kaggle.next_statuses = ["RUNNING", "ERROR"]
    (built / "kernel.py").write_text("raise SystemExit(1)\n")
    with pytest.raises(KitError, match="v2 ended in an error"):
        run(built)
    assert len(kaggle.submissions) == 1


def test_a_session_that_is_made_a_while_after_the_push_is_waited_for(kaggle, built, monkeypatch):
    answer = kaggle.do_GetKernelSessionStatus
    looks = []

    def late(body):
        looks.append(1)
        return answer(body) if len(looks) > 4 else (404, {"code": 404, "message": "Not found"})

    monkeypatch.setattr(kaggle, "do_GetKernelSessionStatus", late)
    assert run(built).status == "COMPLETE"
    monkeypatch.setattr(kaggle, "do_GetKernelSessionStatus", lambda body: (404, {"code": 404, "message": "Not found"}))
    (built / "kernel.py").write_text("print('two')\n")
    with pytest.raises(KitError, match="does not know ada/kannada-kit v2"):
        run(built)


def test_a_title_that_lands_elsewhere_is_followed_there(kaggle, built):
    metadata = json.loads((built / "kernel-metadata.json").read_text())
    (built / "kernel-metadata.json").write_text(json.dumps({**metadata, "title": "Something else"}))
    said = []
    assert run(built, said).what == "ada/something-else"
    assert kaggle.submissions[0]["what"] == "ada/something-else/1"
    assert any("title does not resolve to the specified id" in text for text in said)


# -- a server that speaks otherwise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [{"hang_up": True}, {"status": 500}, {"status": 404}])
@pytest.mark.parametrize("understood", ["v", ""])
def test_a_label_that_kaggle_stumbles_over_is_asked_for_otherwise(
        kaggle, built, monkeypatch, understood, trouble):
    """A server that dies of `int("v1")`, or of `"1"[1:]`, or that knows one of the two alone."""
    take = KaggleStandIn._version
    find_fault = KaggleStandIn.take_fault

    def stumble(self, method):
        name, body = self.requests[-1]
        label = body.get("versionLabel", "") if name == method else ""
        return Fault(**trouble) if label and label.startswith("v") != bool(understood) else find_fault(self, method)

    def plain(self, body):
        label = body.get("versionLabel", "")
        return take(self, {**body, "versionLabel": f"v{label.removeprefix('v')}"} if label else body)

    monkeypatch.setattr(KaggleStandIn, "take_fault", stumble)
    monkeypatch.setattr(KaggleStandIn, "_version", plain)
    assert run(built).public_score == 0.9884
    assert len(kaggle.submissions) == 1


def test_status_and_push_answers_with_little_in_them(kaggle, built, monkeypatch):
    save, ask = kaggle.do_SaveKernel, kaggle.do_GetKernelSessionStatus
    monkeypatch.setattr(kaggle, "do_SaveKernel", lambda body: (200, {
        "versionNumber": str(save(body)[1]["versionNumber"]), "url": None}))
    monkeypatch.setattr(kaggle, "do_GetKernelSessionStatus", lambda body: (
        200, {"status": ask(body)[1].get("status", "complete").lower(), "failureMessage": None}))
    result = run(built)
    assert (result.what, result.version, result.status, result.public_score) == (REF, 1, "COMPLETE", 0.9884)


@pytest.mark.parametrize("status", [403, 404])
def test_outputs_that_kaggle_does_not_show_do_not_stop_the_hand_in(
        kaggle, built, monkeypatch, status):
    monkeypatch.setattr(kaggle, "do_ListKernelSessionOutput", lambda body: (status, {"message": "no such output"}))
    said = []
    assert run(built, said).public_score == 0.9884
    assert any("no such output" in text for text in said) and any("left no report.json" in text for text in said)


@pytest.mark.parametrize("lost", [False, True])
def test_a_list_without_descriptions_and_an_answer_without_a_reference(
        kaggle, built, monkeypatch, lost):
    kaggle._submit("kannada-mnist", "", "submission.csv", "somebody's earlier one")
    submit, shown = kaggle.do_CreateCodeSubmission, kaggle.do_ListSubmissions

    def bare(body):
        submit(body)
        return (500, {"code": 500}) if lost else (200, {"message": "Successfully submitted to Kannada MNIST"})

    def anonymous(body):
        page = shown(body)[1]
        return 200, {**page, "submissions": [{**entry, "description": ""} for entry in page["submissions"]]}

    monkeypatch.setattr(kaggle, "do_CreateCodeSubmission", bare)
    monkeypatch.setattr(kaggle, "do_ListSubmissions", anonymous)
    result = run(built)
    assert (result.submission, result.public_score) == ("41000001", 0.9884)
    assert run(built).submission == "41000001" and len(kaggle.submissions) == 2


@pytest.mark.parametrize("facts", [{"publicScore": "0.9884"}, {"status": "complete", "publicScore": 0.9884},
                                   {"status": "SUBMISSION_STATUS_COMPLETE", "publicScore": "0.98840",
                                    "privateScore": ""},
                                   {"status": "COMPLETE", "publicScore": "0.9884", "privateScore": "NaN"}])
def test_scores_in_each_of_their_forms(kaggle, built, facts):
    kaggle.scores = [{"publicScore": ""}, facts]
    result = run(built)
    assert (result.public_score, result.private_score) == (0.9884, None)
    assert [(row["public_score"], row["private_score"]) for row in rows()] == [("0.9884", "")]


@pytest.mark.parametrize("answer", [{"message": "not yours"}, {"error": {"code": 403, "message": "not yours"}},
                                    {"error": "not yours"}])
def test_kaggles_words_are_found_in_each_form(kaggle, built, monkeypatch, answer):
    monkeypatch.setattr(kaggle, "do_SaveKernel", lambda body: (403, answer))
    with pytest.raises(KitError, match=r"answers 403, not allowed \(Kaggle says: not yours\)"):
        run(built)


# -- a kernel that fails ----------------------------------------------------------------------------------------------


def test_a_failed_kernel_ends_in_its_logs_tail_and_is_not_handed_in(kaggle, built):
    kaggle.next_statuses, kaggle.next_failure = ["RUNNING", "ERROR"], "Notebook Timeout"
    kaggle.next_log = json.dumps([{"data": f"line {i}\n"} for i in range(50)] + [{"data": f"boom {TOKEN}\n"}])
    said = []
    with pytest.raises(KitError) as caught:
        run(built, said)
    assert "Notebook Timeout" in caught.value.message and "line 49 | boom [hidden]" in caught.value.message
    assert "\n" not in caught.value.message and "--time-budget 90m" in caught.value.fix
    assert "  line 49" in said and "  line 31" in said and TOKEN not in "".join(said)
    assert not kaggle.submissions and not rows()
    with pytest.raises(KitError, match="Notebook Timeout"):
        run(built)
    assert kaggle.count("SaveKernel") == 1


def test_a_cancelled_kernel_says_so(kaggle, built):
    kaggle.next_statuses = ["RUNNING", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED"]
    with pytest.raises(KitError, match="was cancelled"):
        run(built)


def test_a_kernel_without_submission_csv_is_not_handed_in(kaggle, built):
    kaggle.next_outputs = {"report.json": b"{}", "model.keras": b"x"}
    with pytest.raises(KitError, match=r"left no submission\.csv, only model\.keras, report\.json"):
        run(built)
    assert not kaggle.submissions


@pytest.mark.parametrize("report", [None, b"no json", b"[]", b'{"cv": [0.99], "data": "kaggle"}'])
def test_a_kernel_without_a_report_is_handed_in_all_the_same(kaggle, built, report):
    kaggle.next_outputs = {"submission.csv": b"x"} | ({} if report is None else {"report.json": report})
    run(built)
    (row,) = rows()
    assert row["estimate"] == "" and row["public_score"] == "0.9884"


def test_a_kernel_that_never_ends_tells_how_to_go_on(kaggle, built):
    kaggle.next_statuses = ["RUNNING"]
    with pytest.raises(KitError, match="has not ended after") as caught:
        run(built, kernel_timeout=0.05)
    assert "run the same command again" in caught.value.fix


# -- answers that are errors ------------------------------------------------------------------------------------------


def test_an_error_in_a_200_push_answer_is_an_error(kaggle, built):
    kaggle.push_answer = {"error": "Something that nobody has seen yet.\n", "versionNumber": 1}
    with pytest.raises(KitError, match="Something that nobody has seen yet") as caught:
        run(built)
    assert "push it again" in caught.value.fix and "\n" not in caught.value.message
    kaggle.push_answer = {}
    assert run(built).version == 1


def test_sources_that_kaggle_ignores_are_an_error(kaggle, built):
    kaggle.push_answer = {"ref": f"/{REF}", "versionNumber": 1, "invalidCompetitionSources": ["kannada-mnist"]}
    with pytest.raises(KitError, match="not its data: competition kannada-mnist") as caught:
        run(built)
    assert KANNADA.rules_url in caught.value.fix and "names of what it reads" not in caught.value.fix
    kaggle.push_answer = {"ref": f"/{REF}", "versionNumber": 1, "invalidDatasetSources": ["eve/weights"]}
    with pytest.raises(KitError, match="not its data: dataset eve/weights") as caught:
        run(built)
    assert "names of what it reads" in caught.value.fix and KANNADA.rules_url not in caught.value.fix


@pytest.mark.parametrize(("status", "word"), [(401, "expired"), (403, "not allowed"), (404, "not found"),
                                              (400, "400")])
@pytest.mark.parametrize("method", ["SaveKernel", "CreateCodeSubmission"])
def test_refusals_are_errors_and_leave_the_way_open(kaggle, built, status, word, method):
    kaggle.fault(method, status=status)
    with pytest.raises(KitError, match=word):
        run(built)
    assert run(built).public_score == 0.9884
    assert (len(kaggle.kernels[REF]), len(kaggle.submissions)) == (1, 1)


@pytest.mark.parametrize("method", ["SaveKernel", "GetKernelSessionStatus", "ListKernelSessionOutput",
                                    "CreateCodeSubmission", "ListSubmissions", "StartBlobUpload",
                                    "CreateDataset"])
def test_429_is_waited_out_everywhere(kaggle, predicting, method):
    kaggle.fault(method, status=429, headers={"Retry-After": "0.05"}, times=2)
    said = []
    assert run(predicting, said).public_score == 0.9884
    assert any("429" in text for text in said) or method == "ListKernelSessionOutput"
    assert (len(kaggle.kernels[REF]), len(kaggle.submissions)) == (1, 1)
    assert len(kaggle.datasets["ada/kannada-kit-weights"]["versions"]) == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("facts", [{"status": 500}, {"hang_up": True}])
@pytest.mark.parametrize("method", ["SaveKernel", "CreateCodeSubmission"])
def test_a_lost_answer_makes_no_second_push_and_no_second_submission(
        kaggle, built, method, facts, after):
    kaggle.fault(method, **facts, after=after)
    if not after:  # nobody knows that: it is not sent again until the user has looked
        for _ in range(2):
            with pytest.raises(KitError, match="arrived is not known") as caught:
                run(built)
            assert "https://www.kaggle.com/co" in caught.value.fix and "--resend" in caught.value.fix
        assert kaggle.count(method) == 1
        assert run(built, resend=True).public_score == 0.9884
    assert run(built).public_score == 0.9884
    assert (len(kaggle.kernels[REF]), len(kaggle.submissions)) == (1, 1)
    assert kaggle.count(method) == (1 if after else 2)


@pytest.mark.parametrize("method", ["SaveKernel", "CreateCodeSubmission"])
def test_what_kaggle_lists_late_is_found_by_the_next_call_and_not_sent_twice(kaggle, built, method):
    kaggle.hide_new = True
    kaggle.fault(method, hang_up=True, after=True)
    with pytest.raises(KitError, match="arrived is not known"):
        run(built)
    with pytest.raises(KitError, match="was left without an answer"):
        run(built)
    kaggle.hide_new = False
    assert run(built).public_score == 0.9884
    assert (len(kaggle.kernels[REF]), len(kaggle.submissions)) == (1, 1)


def renamed(built, ref):
    """The kernel folder after a build for another slug: `kernel/` is the default of all."""
    metadata = json.loads((built / "kernel-metadata.json").read_text())
    (built / "kernel-metadata.json").write_text(json.dumps({**metadata, "id": ref, "title": ref.partition("/")[2]}))


def test_a_lost_first_push_of_another_kernel_from_the_folder_is_found(kaggle, built):
    """Its version 1 was once not taken for new, since the folder had pushed more versions of another kernel."""
    for n in range(2):
        with (built / "kernel.py").open("a") as code:
            code.write(f"# {n}\n")
        push.push(built, KANNADA)
    renamed(built, "ada/other-kit")
    kaggle.fault("SaveKernel", hang_up=True, after=True)
    assert push.push(built, KANNADA).version == 1
    assert len(kaggle.kernels["ada/other-kit"]) == 1


def test_an_older_version_of_the_same_code_is_not_taken_for_a_lost_push(kaggle, built, monkeypatch):
    """To run the same bytes once more, the user deletes push.json; the push then never arrives."""
    push.push(built, KANNADA)
    (built / STATE).unlink()
    (built / storage.CHECKSUMS).unlink()
    monkeypatch.setattr(submissions, "SEARCH_SECONDS", 0.0)
    kaggle.fault("SaveKernel", hang_up=True)
    with pytest.raises(KitError, match="arrived is not known"):
        push.push(built, KANNADA)
    assert storage.read_json(built / STATE)["before"] == 1


def test_a_kernel_that_trained_nothing_is_not_handed_in_unless_it_is_asked_for(kaggle, built):
    kaggle.next_outputs = {"submission.csv": b"x", "report.json": b'{"used": "fallback", "complete": false}'}
    with pytest.raises(KitError, match="trained nothing") as caught:
        run(built)
    assert not kaggle.submissions and f"kit kernel submit {built}" in caught.value.fix
    assert push.submit(built, KANNADA).submission and len(kaggle.submissions) == 1


def test_a_kernel_that_is_not_complete_is_handed_in_with_a_word(kaggle, built):
    said = []
    kaggle.next_outputs = {"submission.csv": b"x", "report.json": b'{"used": "ensemble", "complete": false}'}
    assert run(built, said).submission
    assert any("is not complete" in text for text in said)


def test_resend_looks_first(kaggle, built):
    kaggle.hide_new = True
    kaggle.fault("CreateCodeSubmission", status=502, after=True)
    with pytest.raises(KitError, match="arrived is not known"):
        run(built)
    kaggle.hide_new = False
    assert run(built, resend=True).public_score == 0.9884
    assert len(kaggle.submissions) == 1


@pytest.mark.parametrize("method", ["SaveKernel", "CreateCodeSubmission"])
@pytest.mark.parametrize("times", [1, 1000])
def test_what_cannot_have_been_sent_is_sent_again(kaggle, built, method, monkeypatch, times):
    """The network is down, for a moment or for good: no connection, so nothing was carried out."""
    import urllib3

    failed, send = [], urllib3.connection.HTTPConnection.request

    def refuse(self, verb, url, *arguments, **options):
        if url.endswith(method) and len(failed) < times:
            failed.append(url)
            raise urllib3.exceptions.NewConnectionError(self, "Failed to establish: [Errno 111]")
        return send(self, verb, url, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(urllib3.connection.HTTPConnection, "request", refuse)
        if times > 1:
            with pytest.raises(KitError, match="the proxy cannot be reached"):
                run(built)
        else:
            run(built)
    assert run(built).public_score == 0.9884  # no looking, no --resend
    assert failed and kaggle.count(method) == 1


def test_interrupted_while_waiting_out_a_429_is_no_lost_answer(kaggle, built, monkeypatch):
    for method in ("SaveKernel", "CreateCodeSubmission"):
        kaggle.fault(method, status=429, headers={"Retry-After": "0.01"})
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(client.time, "sleep", interrupted)
            run(built)
        monkeypatch.setattr(kaggle, "next_statuses", ["COMPLETE"])
        push.push(built, KANNADA)
    assert run(built).public_score == 0.9884
    assert (len(kaggle.kernels[REF]), len(kaggle.submissions)) == (1, 1)


@pytest.mark.parametrize(("words", "meaning", "fix"), [
    ("Maximum weekly GPU quota of 30.00 hours reached.", "hours of this week are used up", "--accelerator none"),
    ("Maximum batch GPU session count of 2 reached.", "as many sessions", "Nothing has to be built anew"),
    ('The requested title "Kannada Kit" is already in use by a kernel.', "in use already", "--slug OTHER-NAME"),
    ("You must verify your phone number to use GPUs", "not verified", "https://www.kaggle.com/settings"),
    ("Permission 'kernels.update' was denied", "not allowed", "https://www.kaggle.com/work/code"),
    ("Your client is outdated, please upgrade kaggle", "too old (kaggle 2", "pip install --upgrade kaggle")])
@pytest.mark.parametrize("status", [200, 400])
def test_each_refusal_of_a_push_has_its_own_fix(
        kaggle, built, words, meaning, fix, status, monkeypatch):
    """Kaggle says some in an answer of 200, some in one of 400."""
    monkeypatch.setattr(kaggle, "do_SaveKernel", lambda body: (200, {"error": words}) if status == 200
                        else (400, {"code": 400, "message": words}))
    with pytest.raises(KitError) as caught:
        push.push(built, KANNADA, submit=True)
    assert meaning in caught.value.message and words in caught.value.message and fix in caught.value.fix
    assert kaggle.count("SaveKernel") == 1
    monkeypatch.undo()


def test_a_push_waits_for_a_free_session(kaggle, built, monkeypatch):
    monkeypatch.setattr(send, "SLOT_PAUSE", 0.02)
    kaggle.fault("SaveKernel", status=400, message="Maximum batch GPU session count of 2 reached.", times=3)
    said = []
    assert run(built, said).public_score == 0.9884
    assert sum("waiting for one to end" in text for text in said) == 3 and len(kaggle.kernels[REF]) == 1


QUOTA = {"quotaRefreshTime": "2026-11-28T00:00:00Z", "gpuQuota": {"timeUsed": "44280s", "totalTimeAllowed": "108000s"},
         "tpuQuota": {"timeUsed": "0s", "totalTimeAllowed": "72000s"}}


def test_the_hours_that_are_left_are_said_before_a_push(kaggle, built):
    kaggle.quota = QUOTA
    said = []
    push.push(built, KANNADA, progress=said.append)
    assert "GPU: 17.7 of 30 h of this week are left (until 2026-11-28 00:00 UTC)" in said
    assert not [text for text in said if text.startswith("TPU")]  # the kernel uses none
    assert push.status(built, KANNADA)["quota"]["TPU"] == {"used": 0.0, "left": 20.0, "total": 20.0,
                                                           "until": "2026-11-28 00:00 UTC"}


@pytest.mark.parametrize(("change", "names"), [
    ({"enable_gpu": "true"}, ["GPU"]), ({"enable_gpu": "false", "machine_shape": "TpuV5E8"}, ["TPU"]),
    ({"enable_gpu": False}, [])])
def test_the_hours_of_what_it_runs_on_are_said(kaggle, built, change, names):
    """However the metadata, by hand or by the kit, ask for it."""
    kaggle.quota = QUOTA
    path = built / "kernel-metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    said = []
    push.push(built, KANNADA, progress=said.append)
    assert [text.split(":")[0] for text in said if "of this week are left" in text] == names


def test_a_plan_that_is_longer_than_the_hours_left_is_warned_of(kaggle, built):
    kaggle.quota = {**QUOTA, "gpuQuota": {"timeUsed": "104400s", "totalTimeAllowed": "108000s"}}
    (built / "kernel.py").write_text('SETTINGS = {"mode": "train", "minutes": 110}\n')
    said = []
    push.push(built, KANNADA, progress=said.append)
    assert ("warning: this kernel plans with 110 minutes on a GPU, which is more than the 1.0 h that "
            "are left") in said


@pytest.mark.parametrize(("option", "sent"), [
    ("original", {"dockerImagePinningType": "original"}),
    (IMAGE := "gcr.io/kaggle-images/python@sha256:" + "f4b6dd72" * 8, {"dockerImage": IMAGE}),
    (None, {})])
def test_the_pinned_image_and_the_session_limit_reach_kaggle(kaggle, option, sent):
    """By the commands, as a user types them."""
    pin = ["--docker-image", option] if option else []
    for words in (["build", "--user", "ada", *pin], ["push", "--session-limit", "2h", "--quiet"]):
        done = CliRunner().invoke(cli_kaggle.kernel, words)
        assert done.exit_code == 0, done.output
    (version,) = kaggle.kernels["ada/kannada-mnist-kit"]
    assert version.body["sessionTimeoutSeconds"] == 7200
    assert {name: value for name, value in version.body.items()
            if name.startswith("dockerImage") and value} == sent


def test_used_up_hours_say_when_they_come_back(kaggle, built):
    kaggle.quota = {**QUOTA, "gpuQuota": {"timeUsed": "108000s", "totalTimeAllowed": "108000s"}}
    kaggle.push_answer = {"error": "Maximum weekly GPU quota of 30.00 hours reached."}
    with pytest.raises(KitError) as caught:
        push.push(built, KANNADA)
    assert caught.value.fix.startswith("GPU: 0.0 of 30 h of this week are left (until 2026-11-28 00:00 UTC)")


@pytest.mark.parametrize("missing", ["method", "endpoint"])
def test_a_client_or_a_server_without_quota_and_limits_does_without(
        kaggle, built, monkeypatch, missing):
    kaggle.limits = None
    if missing == "method":
        from kaggle.api.kaggle_api_extended import KaggleApi

        monkeypatch.delattr(KaggleApi, "quota_view")
        monkeypatch.delattr(KaggleApi, "competition_get_submission_limits")
    said = []
    assert run(built, said).public_score == 0.9884
    assert not [text for text in said if "left" in text]
    state = push.status(built, KANNADA)
    assert (state["quota"], state["limits"]) == ({}, {})


def test_what_is_left_today_is_said_before_one_is_spent(kaggle, built):
    said = []
    run(built, said)
    assert "submissions today: 1 made, 4 left" in said
    assert push.status(built, KANNADA)["limits"] == {"today": 1, "left": 4, "by_total": False}
    names = [name for name, _ in kaggle.requests]
    assert names.index("GetSubmissionLimits") < names.index("CreateCodeSubmission")


@pytest.mark.parametrize(("status", "words", "meaning", "fix"), [
    (400, "Submission not allowed: Your team has used its daily Submission allowance (1) today", "of today are used up",
     "midnight UTC"),
    (403, "Your team has used its submission allowance (5 of 5). This resets at midnight UTC (9.4 hours from now).",
     "of today are used up", "in "),
    (400, "Submission not allowed: This competition only accepts Submissions from Notebooks.", "takes notebooks",
     "kit kernel build"),
    (400, "Submission not allowed: Submissions have been disabled for this competition.", "no submissions any more",
     "Kannada-MNIST for whether"),
    (403, "You cannot submit until you accept the competition rules", "rules are not accepted", KANNADA.rules_url),
    (403, "Permission 'competitions.participate' was denied", "has not joined", KANNADA.rules_url),
    (200, "Submission not allowed: daily limit of 5 reached", "daily limit of 5 reached", ""),
    (400, "Bad Request", "without a reason", KANNADA.rules_url),
    (400, " ", "without a reason", "midnight UTC")])
def test_each_refusal_of_a_submission_has_its_own_fix(kaggle, built, status, words, meaning, fix):
    kaggle.fault("CreateCodeSubmission", status=status, message=words)
    with pytest.raises(KitError) as caught:
        run(built)
    assert meaning in caught.value.message and fix in caught.value.fix
    assert kaggle.count("CreateCodeSubmission") == 1 and not rows()
    assert run(built).public_score == 0.9884  # a refusal is an answer: nothing stands in the way of the next try


@pytest.mark.parametrize("status", [400, 403])
def test_a_refusal_without_words_is_explained_by_what_is_left_today(kaggle, built, status):
    kaggle.limits = {"numToday": 5, "numTotal": 9, "numAllowedNow": 0}
    kaggle.fault("CreateCodeSubmission", status=status, message="Bad Request")
    with pytest.raises(KitError, match="the submissions of today are used up") as caught:
        run(built)
    assert "midnight UTC, in " in caught.value.fix


def test_a_success_without_a_reference_that_is_not_listed_is_not_sent_again(
        kaggle, built, monkeypatch):
    submit = kaggle.do_CreateCodeSubmission

    def bare(body):
        submit(body)
        return 200, {"message": "Successfully submitted to Kannada MNIST"}

    monkeypatch.setattr(kaggle, "do_CreateCodeSubmission", bare)
    kaggle.hide_new = True
    for _ in range(2):
        with pytest.raises(KitError, match="arrived is not known"):
            run(built)
    kaggle.hide_new = False
    assert run(built).submission == "41000000" and len(kaggle.submissions) == 1


# -- the log ----------------------------------------------------------------------------------------------------------


def followed(folder, said=None):
    shown = []
    progress = ([] if said is None else said).append
    return shown, push.logs(folder, KANNADA, follow=True, show=shown.append, progress=progress)


def test_a_client_that_streams_only_the_newest_session_is_not_asked_to(kaggle, built, monkeypatch):
    """Kaggle 2.2.4: right after a push the newest session can be that of the version before."""
    from kaggle.api.kaggle_api_extended import KaggleApi

    push.push(built, KANNADA)
    kaggle.streams = [["of another version\n", "END_OF_LOG"]]
    streaming = KaggleApi.kernels_logs_stream
    monkeypatch.setattr(KaggleApi, "kernels_logs_stream", lambda *arguments: streaming(*arguments))
    monkeypatch.delattr(KaggleApi, "parse_kernel_string")
    shown, _ = followed(built, said := [])
    assert shown == ["fold 0 done"] and "pip install --upgrade kaggle" in said[0]


def test_a_log_is_followed_as_it_is_streamed(kaggle, built):
    """A lost connection begins again from the first line; no line is shown twice, and no credential at all."""
    kaggle.next_statuses = ["RUNNING", "RUNNING", "COMPLETE"]
    push.push(built, KANNADA)
    log = ["epoch 1\n", f"epoch 2 {TOKEN}\n", "epoch 3\n"]
    kaggle.next_log = kaggle.kernels[REF][0].log = json.dumps([{"data": line} for line in log])
    kaggle.streams = [log[:2], [*log, "END_OF_LOG"]]
    shown, result = followed(built)
    assert shown == result["log"] == ["epoch 1", "epoch 2 [hidden]", "epoch 3"]
    assert (result["status"], result["version"]) == ("COMPLETE", 1)
    assert kaggle.stream_paths


@pytest.mark.parametrize("has_stream", [True, False])
def test_a_log_is_followed_where_nothing_is_streamed(kaggle, built, has_stream, monkeypatch):
    from kaggle.api.kaggle_api_extended import KaggleApi

    if not has_stream:
        monkeypatch.delattr(KaggleApi, "kernels_logs_stream")
    push.push(built, KANNADA)
    said = []
    shown, result = followed(built, said)
    assert shown == ["fold 0 done"] and result["status"] == "COMPLETE"
    assert push.logs(built, KANNADA)["log"] == ["fold 0 done"]
    assert has_stream or f"{refusals.client_versions()} cannot stream the log of one version" in said[0]


# -- scores -----------------------------------------------------------------------------------------------------------


def test_a_score_that_never_comes_tells_how_to_go_on(kaggle, built):
    kaggle.scores = [{}]
    with pytest.raises(KitError, match="has no score after") as caught:
        run(built, score_timeout=0.1)
    assert caught.value.fix == "fetch the score later: kit ledger sync"
    (row,) = rows()
    assert row["kaggle_ref"] and row["public_score"] == ""
    with pytest.raises(KitError, match="has no score after"):
        run(built, score_timeout=0.1)
    assert len(kaggle.submissions) == 1
    kaggle.submissions[0]["looks"] = [{"status": "COMPLETE", "publicScore": "0.99", "privateScore": "0.98"}]
    assert ledger.sync(KANNADA) == 1
    assert [(row["public_score"], row["private_score"]) for row in rows()] == [("0.99", "0.98")]


@pytest.mark.parametrize(("why", "fix"), [
    ("Submission Scoring Error", "kit validate"), ("Notebook Threw Exception", "kit kernel rehearse"),
    ("Notebook Timeout", "--time-budget"), ("Submission CSV Not Found", "must write submission.csv"),
    ("Notebook Exceeded Allowed Compute", "fewer or smaller models")])
def test_a_submission_that_kaggle_cannot_score_says_why(kaggle, built, why, fix):
    kaggle.scores = [{}, {"status": "ERROR", "errorDescription": why}]
    with pytest.raises(KitError, match=f"could not score submission 41000000: {why}") as caught:
        run(built)
    assert fix in caught.value.fix and f"{KANNADA.url}/submissions" in caught.value.fix
    assert len(rows()) == 1


# -- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["_store_answer", "_follow", "_submit", "wait_for_score"])
def test_killed_between_two_steps_goes_on(kaggle, built, monkeypatch, where):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr({"wait_for_score": ledger, "_store_answer": send}.get(where, push), where, interrupted)
        run(built)
    assert run(built).public_score == 0.9884
    assert (kaggle.count("SaveKernel"), kaggle.count("CreateCodeSubmission")) == (1, 1)
    assert len(rows()) == 1


def test_killed_between_the_submission_and_its_note_goes_on(kaggle, built, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(submissions, "Submission", interrupted)
        run(built)
    assert len(kaggle.submissions) == 1 and storage.read_json(built / STATE)["submitting"] is True
    assert run(built, message="another message").submission == "41000000"
    assert len(kaggle.submissions) == 1


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_a_lost_push_json_makes_no_second_submission(kaggle, built):
    run(built)
    for other in range(7):  # others come after it, so that it is on a later page of the list
        kaggle._submit("kannada-mnist", f"other {other}", "submission.csv", "")
    state = storage.read_json(built / STATE)
    storage.write_json(built / STATE, {**state, "submission": "", "ended": ""})
    assert run(built).submission == "41000000"
    assert kaggle.count("CreateCodeSubmission") == 1


def test_an_interrupted_notebook_push_is_recognised(kaggle, built, monkeypatch):
    cells = [{"cell_type": "code", "source": ["a = 1\n", "b = 2\n"], "outputs": [{"x": 1}], "metadata": {}}]
    notebook = {"cells": cells, "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
    metadata = json.loads((built / "kernel-metadata.json").read_text())
    (built / "kernel.ipynb").write_text(json.dumps(notebook, indent=1))
    (built / "kernel-metadata.json").write_text(
        json.dumps({**metadata, "kernel_type": "notebook", "code_file": "kernel.ipynb"}))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(send, "_store_answer", interrupted)
        push.push(built, KANNADA)
    push.push(built, KANNADA)
    assert kaggle.count("SaveKernel") == 1


def test_two_processes_do_not_push_one_folder(kaggle, built):
    import filelock

    with filelock.FileLock(built / ".push.lock"), pytest.raises(KitError, match="being pushed by another process"):
        push.push(built, KANNADA)


# -- folders that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "message"), [
    ({"id": "INSERT_USERNAME_HERE/kannada-kit"}, "without a Kaggle account"), ({"id": "kannada-kit"}, "damaged"),
    ({"code_file": "gone.py"}, r"gone\.py is missing"),
    ({"competition_sources": ["digit-recognizer"]}, "not built for kannada-mnist, but for digit-recognizer"),
    ({"competition_sources": []}, "not built for kannada-mnist, but for none"), ({"id": None}, "damaged"),
    ({"competition_sources": None}, "not built for kannada-mnist, but for none"),
    ({"competition_sources": [5]}, r"competition_sources cannot be \[5\]"), ({"id": [1]}, "damaged"),
    ({"dataset_sources": ["../../x"]}, "dataset_sources cannot be"), ({"code_file": 5}, "code_file cannot be 5"),
    ({"docker_image_pinning_type": "newest"}, "docker_image_pinning_type cannot be .newest"),
    ({"kernel_type": "rmarkdown"}, "kernel_type cannot be"), ({"language": "cobol"}, "valid language")])
def test_folders_that_cannot_be_pushed(kaggle, built, change, message):
    metadata = json.loads((built / "kernel-metadata.json").read_text())
    (built / "kernel-metadata.json").write_text(json.dumps({**metadata, **change}))
    with pytest.raises(KitError, match=message):
        push.push(built, KANNADA)
    assert not kaggle.kernels


def test_code_that_is_not_utf_8_is_named_by_its_line(kaggle, built):
    (built / "kernel.py").write_bytes(b"print('one')\n# caf\xe9\n")
    with pytest.raises(KitError, match=r"kernel\.py, line 2: byte 19 of the file is not UTF-8"):
        push.push(built, KANNADA)
    assert not kaggle.kernels


@pytest.mark.parametrize("change", [{"version": "3"}, {"digest": None}, {"other": 1}])
def test_a_push_json_of_another_kind_is_damaged(kaggle, built, change):
    push.push(built, KANNADA)
    (built / storage.CHECKSUMS).unlink()
    (built / STATE).write_text(json.dumps({**json.loads((built / STATE).read_text()), **change}))
    with pytest.raises(KitError, match=r"push\.json is damaged") as caught:
        push.push(built, KANNADA)
    assert "look at https://www.kaggle.com/code/ada/kannada-kit" in caught.value.fix  # or it is handed in twice
    assert "--resume" not in caught.value.fix and kaggle.count("SaveKernel") == 1


def test_weights_whose_metadata_names_no_dataset_are_not_uploaded(kaggle, predicting):
    (predicting / "weights" / "dataset-metadata.json").write_text('{"id": "kannada-kit-weights"}')
    with pytest.raises(KitError, match=r"dataset-metadata\.json is damaged"):
        push.push(predicting, KANNADA)
    assert not kaggle.datasets and not kaggle.kernels


def test_without_a_credential_nobody_is_sent_to_the_sample(kaggle, built, monkeypatch):
    """Drawn digits help who wanted data; a kernel they do not push."""
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    with pytest.raises(KitError, match="no Kaggle credential") as caught:
        push.push(built, KANNADA)
    assert "access token" in caught.value.fix and "sample" not in caught.value.fix


def test_a_folder_without_metadata_is_told(kaggle, tmp_path):
    with pytest.raises(KitError, match="not a kernel folder") as caught:
        push.push(tmp_path, KANNADA)
    assert "kit kernel build" in caught.value.fix


# -- weights ----------------------------------------------------------------------------------------------------------


def test_the_weights_are_uploaded_once_before_the_push(kaggle, predicting):
    run(predicting)
    run(predicting)
    names = [name for name, _ in kaggle.requests]
    assert names.index("CreateDataset") < names.index("SaveKernel") and names.count("CreateDataset") == 1
    assert kaggle.datasets["ada/kannada-kit-weights"]["versions"] == [
        {"cnn-0-fold_0.keras": b"weights of fold 0", "manifest.json": b"{}"}]
    body = next(body for name, body in kaggle.requests if name == "CreateDataset")
    assert body["isPrivate"] is True


def test_changed_weights_are_a_new_version(kaggle, predicting):
    push.push(predicting, KANNADA)
    (predicting / "weights" / "cnn-0-fold_0.keras").write_bytes(b"better weights")
    push.push(predicting, KANNADA)
    versions = kaggle.datasets["ada/kannada-kit-weights"]["versions"]
    assert [version["cnn-0-fold_0.keras"] for version in versions] == [b"weights of fold 0", b"better weights"]
    assert len(kaggle.kernels[REF]) == 2


def test_a_lost_answer_makes_no_second_dataset(kaggle, predicting):
    kaggle.fault("CreateDataset", hang_up=True, after=True)
    push.push(predicting, KANNADA)
    assert len(kaggle.datasets["ada/kannada-kit-weights"]["versions"]) == 1


def test_killed_after_the_upload_goes_on(kaggle, predicting, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dataset, "_wait", interrupted)
        push.push(predicting, KANNADA)
    assert not kaggle.kernels
    push.push(predicting, KANNADA)
    assert len(kaggle.datasets["ada/kannada-kit-weights"]["versions"]) == 1


@pytest.mark.parametrize("prints", [True, False], ids=["kaggle 2.2.4 prints it", "kaggle 2.2.5 raises it"])
def test_a_file_that_does_not_arrive_stops_the_push(kaggle, predicting, monkeypatch, prints):
    from kaggle.api.kaggle_api_extended import KaggleApi

    upload = KaggleApi._upload_file

    def as_that_client(*arguments):
        name = arguments[1]
        try:
            sent = upload(*arguments)
        except ValueError:
            sent = None
        if sent is None and not prints:
            raise ValueError(f"Upload unsuccessful: {name}")
        return sent or print(f"Upload unsuccessful: {name}")  # type: ignore[func-returns-value]

    monkeypatch.setattr(KaggleApi, "_upload_file", as_that_client)
    kaggle.fault("PUT", status=400)
    with pytest.raises(KitError, match="did not arrive in the dataset"):
        push.push(predicting, KANNADA)
    assert not kaggle.kernels
    push.push(predicting, KANNADA)
    assert len(kaggle.datasets["ada/kannada-kit-weights"]["versions"][-1]) == 2


def test_an_upload_to_which_nobody_answers_is_given_up(kaggle, predicting, monkeypatch):
    """The client uploads through an adapter of its own, without a time-out."""
    from kaggle.api import kaggle_api_extended as extended

    monkeypatch.setattr(client, "READ_TIMEOUT", 0.2)
    monkeypatch.setattr(extended, "Retry", lambda **_: 0)
    monkeypatch.setattr(kaggle.http.RequestHandlerClass, "do_PUT", lambda handler: threading.Event().wait(3))
    began = time.monotonic()
    with pytest.raises(KitError, match="did not arrive in the dataset"):
        push.push(predicting, KANNADA)
    assert time.monotonic() - began < 10 and not kaggle.kernels


@pytest.mark.parametrize(("method", "answer", "words"), [
    ("CreateDataset", {"status": "error", "error": "title in use"}, "title in use"),
    ("GetDatasetStatus", {"status": "FAILED"}, "could not make the dataset")])
def test_an_error_in_a_200_answer_about_the_dataset_is_an_error(
        kaggle, predicting, monkeypatch, method, answer, words):
    ask = getattr(kaggle, f"do_{method}")
    monkeypatch.setattr(kaggle, f"do_{method}", lambda body: (
        (200, answer) if kaggle.datasets or method == "CreateDataset" else ask(body)))
    with pytest.raises(KitError, match=words):
        push.push(predicting, KANNADA)
    assert not kaggle.kernels


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def submission(kaggle):
    kaggle.slug = "digit-recognizer"
    folder = Path("submissions/first")
    storage.write_text(folder / "submission.csv", "ImageId,Label\n1,2\n")
    storage.write_json(folder / "report.json", {"cv": {"oof_accuracy": 0.99}, "data": {"source": "kaggle"}})
    return folder / "submission.csv"


def test_a_file_is_handed_in_once(kaggle, submission):
    first = upload.submit_file(submission, DIGIT_RECOGNIZER, "mine", wait=True)
    second = upload.submit_file(submission, DIGIT_RECOGNIZER, "mine")
    assert first.submission == second.submission and first.public_score == 0.9884
    assert kaggle.blobs[kaggle.submissions[0]["what"]] == submission.read_bytes()
    assert len(kaggle.submissions) == 1
    (row,) = rows()
    assert (row["run"], row["cv_accuracy"], row["kaggle_ref"]) == ("first", "0.99", first.submission)


@pytest.mark.parametrize("after", [False, True])
def test_a_lost_answer_makes_no_second_hand_in_of_a_file(kaggle, submission, after):
    kaggle.fault("CreateSubmission", hang_up=True, after=after)
    kaggle.hide_new = True
    for _ in range(2):
        with pytest.raises(KitError, match="arrived is not known") as caught:
            upload.submit_file(submission, DIGIT_RECOGNIZER)
    sending = submission.with_name(upload.SENDING)
    assert f"delete {sending}" in caught.value.fix and kaggle.count("CreateSubmission") == 1
    kaggle.hide_new = False
    if not after:
        sending.unlink()
    upload.submit_file(submission, DIGIT_RECOGNIZER)
    assert len(kaggle.submissions) == 1 and not sending.exists()
    storage.read_json(submission.with_name("report.json"))  # the folder's checksums are as they were


def test_the_row_and_kaggle_s_reference_go_into_one_ledger(kaggle, monkeypatch):
    """`kit submit --submissions out --upload`, after its training."""
    kaggle.slug = "digit-recognizer"
    folder = Path("out/first")
    storage.write_text(folder / "submission.csv", "ImageId,Label\n1,2\n")
    finished = SimpleNamespace(report={"run": "first", "cv": {"oof_accuracy": 0.99},
                                       "data": {"source": "kaggle", "is_sample": False}})
    monkeypatch.setattr(pipeline, "cv", lambda *_, **__: finished)
    monkeypatch.setattr(pipeline, "submit", lambda *_: folder)
    data = SimpleNamespace(competition=DIGIT_RECOGNIZER)
    asked = Request(RunConfig(), data, RunFolder(Path("runs/first")), resume=False, force=False)
    *_, lines = asked.submit(Path("out"), True, "mine", Progress())
    (row,) = ledger.read_rows(Path("out/ledger.csv"))
    assert (row["run"], row["cv_accuracy"], row["kaggle_ref"]) == ("first", "0.99", "41000000")
    assert not Path("submissions").exists()
    assert "kit ledger sync --competition digit-recognizer --ledger out/ledger.csv" in lines[-1]


def test_a_file_that_does_not_arrive_is_not_handed_in(kaggle, submission):
    kaggle.fault("PUT", status=400, times=1000)
    with pytest.raises(KitError, match="did not arrive"):
        upload.submit_file(submission, DIGIT_RECOGNIZER)
    assert not kaggle.submissions


def test_a_code_competition_takes_no_file(kaggle, submission):
    with pytest.raises(KitError, match="takes notebooks, not files") as caught:
        upload.submit_file(submission, KANNADA)
    assert "kit kernel push" in caught.value.fix and not kaggle.requests


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_no_credential_in_anything_said_printed_or_written(kaggle, predicting, tmp_path, capsys):
    leak = f"for Bearer {TOKEN} or {KEY} see https://x.example/y?{SIGNATURE}"
    kaggle.next_log = json.dumps([{"data": leak + "\n"}])
    said = []
    errors = []
    for method in ("SaveKernel", "GetKernelSessionStatus", "CreateCodeSubmission", "ListSubmissions",
                   "StartBlobUpload"):
        kaggle.fault(method, status=400 if method != "GetKernelSessionStatus" else 418, message=leak)
    for _ in range(8):
        try:
            run(predicting, said)
        except KitError as error:
            errors.append(str(error))
    assert len(errors) == 5 and kaggle.submissions
    texts = [*said, *errors, *capsys.readouterr()]
    texts += [path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (TOKEN, KEY, SIGNATURE.split("=")[1]):
        assert not [text for text in texts if secret in text]
