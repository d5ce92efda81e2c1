"""The ledger: rows that are added once, by several processes, and what they say about the estimate."""

import multiprocessing
import os
from xml.etree import ElementTree

import pytest

from kit import ledger
from kit.core.errors import KitError
from kit.data.competition import KANNADA

HEADER = ("run,created,data,split,cv_accuracy,estimate,estimate_low,estimate_high,public_score,private_score,"
          "kaggle_ref\n")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "submissions" / "ledger.csv"


def row(run, ref='', **cells):
    return {**dict.fromkeys(ledger.COLUMNS, ""), "run": run, "kaggle_ref": ref, **cells}


def test_the_columns_are_the_contract(path):
    ledger.upsert_row(row("first, with a comma", "1", estimate="0.985"), path)
    assert path.read_text() == HEADER + '"first, with a comma",,,,,0.985,,,,,1\n'
    assert ledger.read_rows(path) == [row("first, with a comma", "1", estimate="0.985")]


def test_a_row_from_a_report():
    report = {"data": {"source": "kaggle"}, "cv": {"split": "writer", "oof_accuracy": 0.98765432, "mean": 0.5},
              "leaderboard_estimate": {"value": 0.985, "low": None, "high": 0.99}}
    made = ledger.make_row("first", report, "7")
    assert (made["cv_accuracy"], made["estimate"], made["estimate_low"]) == ("0.987654", "0.985", "")
    assert tuple(made) == ledger.COLUMNS
    assert ledger.make_row("first", {})["data"] == ""


@pytest.mark.parametrize("report", [
    {"data": "kaggle", "cv": [0.99], "leaderboard_estimate": 0.98}, {"data": {"source": "a\nb"}},
    {"cv": {"oof_accuracy": "high", "split": 3}, "leaderboard_estimate": {"value": [1], "low": 1e300, "high": True}},
    {"cv": {"mean": float("nan")}, "leaderboard_estimate": {"value": 10**400}}])
def test_a_report_of_another_kind_gives_a_row_that_can_be_read(path, report):
    ledger.upsert_row(ledger.make_row("first", report, "7"), path)
    (made,) = ledger.read_rows(path)
    assert {column for column, text in made.items() if text} == {"run", "created", "kaggle_ref"}


def test_adding_twice_changes_nothing_and_a_reference_fills_in(path):
    ledger.upsert_row(row("first", created="monday"), path)
    ledger.upsert_row(row("second", "8"), path)
    ledger.upsert_row(row("first", "7", created="tuesday", estimate="0.9"), path)
    ledger.upsert_row(row("first", "7", created="friday"), path)
    assert ledger.read_rows(path) == [row("first", "7", created="monday", estimate="0.9"), row("second", "8")]
    ledger.upsert_row(row("first", "9"), path)  # handed in once more: another row
    # Made again, not handed in yet: another one, the old ones stay
    ledger.upsert_row(row("first", estimate="0.5"), path)
    assert [r["kaggle_ref"] for r in ledger.read_rows(path)] == ["7", "8", "9", ""]


def test_a_run_that_is_resumed_after_its_hand_in_has_no_second_row(path):
    made = row("first", data="kaggle", split="writer", cv_accuracy="0.99", estimate="0.985")
    ledger.upsert_row({**made, "created": "monday"}, path)
    ledger.upsert_row({**made, "created": "monday", "kaggle_ref": "7"}, path)
    ledger.set_scores({"7": (0.98, 0.97)}, path)
    ledger.upsert_row({**made, "created": "tuesday"}, path)  # kit submit --resume
    ledger.upsert_row({**made, "created": "tuesday", "kaggle_ref": "7"}, path)  # … --upload: handed in already
    (only,) = ledger.read_rows(path)
    assert (only["created"], only["kaggle_ref"], only["public_score"]) == ("monday", "7", "0.98")


def test_a_run_made_again_before_its_hand_in_has_the_new_date_and_no_old_number(path):
    made = row("first", data="path", split="writer", cv_accuracy="0.99", estimate="0.985", created="monday")
    ledger.upsert_row(made, path)
    path.write_text("".join(f"{line},{note}\n" for line, note in
                            zip(path.read_text().splitlines(), ("note", "mine"), strict=True)))
    ledger.upsert_row({**made, "created": "tuesday"}, path)  # kit submit --resume: the same work
    assert [r["created"] for r in ledger.read_rows(path)] == ["monday"]
    again = {**made, "created": "friday", "cv_accuracy": "0.5", "estimate": ""}  # too bad for an estimate
    ledger.upsert_row(again, path)
    assert ledger.read_rows(path) == [{**again, "note": "mine"}]


def test_a_score_typed_in_by_hand_stays_with_the_run_that_has_it(path):
    made = row("first", data="path", cv_accuracy="0.99", created="monday")
    ledger.upsert_row({**made, "public_score": "0.98"}, path)
    ledger.upsert_row({**made, "cv_accuracy": "0.5", "created": "friday"}, path)
    assert [(r["created"], r["cv_accuracy"], r["public_score"]) for r in ledger.read_rows(path)] == [
        ("monday", "0.99", "0.98"), ("friday", "0.5", "")]


def add_many(path, who):
    for number in range(10):
        ledger.upsert_row(row(f"run {who}-{number}", f"{who}{number}"), path)


def test_several_processes_lose_no_row(path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_many, args=(path, who)) for who in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(r["run"] for r in ledger.read_rows(path)) \
        == sorted(f"run {w}-{n}" for w in range(2) for n in range(10))
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_ledger_edited_by_hand_is_read_and_its_other_columns_stay(path):
    ledger.upsert_row(row("first", "1"), path)
    path.write_text(HEADER.replace("\n", ",note\n") + "first,,,,,,,,,,1,mine\n")
    ledger.upsert_row(row("second", "2"), path)
    assert [r["note"] for r in ledger.read_rows(path)] == ["mine", ""]


@pytest.mark.parametrize(("text", "why"), [
    ("run,created\n", "has no column"), (HEADER + "first,x\n", "line 2 does not have 11 cells"),
    (HEADER + "a,,,,,,,,,,1\nb,,,,high,,,,,,2\n", "line 3: cv_accuracy is 'high', which is no score"),
    (HEADER + "a,,,,,,,,,,1,too much\n", "line 2"),
    (HEADER + "a\x1b[2J,,,,,,,,,,1\n", "line 2 has control"), (HEADER + "a\0,,,,,,,,,,1\n", "line 2 has control"),
    (HEADER + '"a\nb",,,,,,,,,,1\n', "line 2 has control"), (HEADER + "a,,,,nan,,,,,,\n", "no score"),
    (HEADER + "a,,,,,1e308,,,,,\n", "estimate is '1e308'"), (HEADER + f"a,,,,{'9' * 5000},,,,,,\n", "9…', which"),
    ("", "no column")])
def test_a_damaged_ledger_is_named_by_its_line(path, text, why):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(KitError, match=why):
        ledger.read_rows(path)


@pytest.mark.parametrize(("data", "why", "fix"), [
    ((HEADER + "a,,,,,,,,,,1\n<<<<<<< HEAD\nb,,,,,,,,,,2\n=======\nc,,,,,,,,,,3\n>>>>>>> x\n").encode(),
     "line 3 is a conflict mark of git's", "keep the rows of both sides"),
    (HEADER.replace(",", ";").encode(), "separated by ';'", "commas"),
    (HEADER.replace(",", "\t").encode(), r"separated by '\\t'", "commas"),
    (HEADER.encode("utf-16"), "UTF-16", "CSV UTF-8"),
    ((HEADER + 'a,,,,,"0,985",,,,,\n').encode(), "which is no score", "with a point"),
    (b"a,,,,,,,,,,1\n", "no column", "begin it with the line run,created")])
def test_what_git_and_spreadsheets_do_to_a_ledger_has_its_own_fix(path, data, why, fix):
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(KitError, match=why) as caught:
        ledger.read_rows(path)
    assert fix in caught.value.fix


def test_what_is_no_file_is_no_empty_ledger(path):
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(KitError, match="not a regular file"):
        ledger.read_rows(path)


def test_a_file_that_cannot_be_a_ledger_is_not_read_to_its_end(path, monkeypatch):
    monkeypatch.setattr(ledger, "MAX_BYTES", 1 << 20)
    path.parent.mkdir()
    path.write_text(HEADER + "a,,,,,,,,,,\n" * 100_000)
    with pytest.raises(KitError, match="more than 1 MiB"):
        ledger.read_rows(path)


def test_sync_fetches_the_scores_of_what_was_handed_in(kaggle, path):
    kaggle.scores = [{"status": "COMPLETE", "publicScore": "0.98", "privateScore": "0.97"}]
    for number in range(5):
        kaggle._submit("kannada-mnist", f"try {number}", "submission.csv", "")
    kaggle.submissions[3]["looks"] = [{"status": "ERROR", "errorDescription": "no rows"}]
    for run, ref in (("a", "41000000"), ("b", "41000003"), ("c", ""), ("d", "5")):
        ledger.upsert_row(row(run, ref), path)
    said = []
    assert ledger.sync(KANNADA, path, said.append) == 1
    assert [(r["run"], r["public_score"], r["private_score"]) for r in ledger.read_rows(path)] == [
        ("a", "0.98", "0.97"), ("b", "", ""), ("c", "", ""), ("d", "", "")]
    assert any("41000003 has no score: no rows" in text for text in said)
    assert any("not among the submissions of ada to kannada-mnist: 5; those of another competition" in text
               for text in said)
    assert ledger.sync(KANNADA, path) == 0


def test_sync_of_nothing_asks_nobody(kaggle, path):
    assert ledger.sync(KANNADA, path) == 0
    ledger.upsert_row(row("a"), path)
    assert ledger.sync(KANNADA, path) == 0
    assert not kaggle.requests


def test_the_summary_counts_gaps_and_intervals(path):
    for number, (estimate, public, private) in enumerate(((0.985, 0.99, 0.98), (0.985, 0.984, 0.9), (0.5, "", ""))):
        ledger.upsert_row(row(f"run {number}", str(number + 1), estimate=str(estimate), estimate_low="0.98",
                       estimate_high="0.99", public_score=str(public), private_score=str(private)), path)
    ledger.upsert_row(row("no estimate", "9", public_score="0.9"), path)
    result = ledger.summary(path)
    assert (result.public.n, result.public.inside) == (2, 2)
    assert result.public.mean_gap == pytest.approx((0.985 - 0.99 + 0.985 - 0.984) / 2)
    assert (result.private.n, result.private.inside) == (2, 1)
    lines = result.lines()
    assert lines[0].split() == list(ledger.COLUMNS)
    assert "no estimate: no estimate was made; its report says why" not in lines  # it has no CV score either
    assert lines[-2].endswith("estimate − score is -0.0020 on average over 2; 2 of 2 scores lie inside the interval")
    assert result.to_dict()["private"]["mean_gap"] == pytest.approx(0.045)


def test_a_run_without_an_estimate_is_said_to_have_none(path):
    ledger.upsert_row(row("untrained", "1", cv_accuracy="0.16"), path)
    assert "untrained: no estimate was made; its report says why" in ledger.summary(path).lines()


def test_an_empty_ledger_has_a_summary_and_a_plot(path):
    assert "empty" in ledger.summary(path).lines()[0]
    assert ledger.summary(path).public.mean_gap is None
    ElementTree.fromstring(ledger.plot(path))


def test_a_name_is_no_formula(path):
    row = {**ledger.make_row("a", {}), "run": "$a^$", "estimate": "0.99"}
    ledger.upsert_row(row, path)
    assert "$a^$" in ledger.plot(path)


def test_the_plot_is_an_svg_that_names_the_runs_and_depends_on_them_alone(path):
    ledger.upsert_row(row("first", "1", estimate="0.985", estimate_low="0.98", estimate_high="0.99",
                       public_score="1"), path)
    ledger.upsert_row(row("second", "2", estimate="0.986"), path)
    svg = ledger.plot(path)
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "first" in svg and "second" in svg and "public score" in svg
    assert svg == ledger.plot(path)


def test_each_hand_in_is_drawn_with_its_interval_and_its_scores(path, monkeypatch):
    ledger.upsert_row(row("old", "0", estimate="0.5"), path)
    scores = {"public_score": "0.981", "private_score": "0.983"}
    ledger.upsert_row(row("<a & b>", "1", estimate="0.985", estimate_low="0.98", estimate_high="0.99",
                   **scores), path)
    ledger.upsert_row(row("second", "2", estimate="0.986"), path)
    monkeypatch.setattr(ledger, "MOST_DRAWN", 2)
    svg = "{http://www.w3.org/2000/svg}"
    first, second = ElementTree.fromstring(ledger.plot(path)).iter(f"{svg}g")
    assert first.find(f"{svg}title").text == (
        "<a & b>; estimate 0.985; estimate low 0.98; estimate high 0.99; public score 0.981; "
        "private score 0.983")
    (whisker,), dots = first.findall(f"{svg}line"), first.findall(f"{svg}circle")
    assert [dot.get("class") for dot in dots] == ["dot", "ring public", "ring private"]
    estimate, public, private = (float(dot.get("cx")) for dot in dots)
    places = [float(whisker.get("x1")), public, private, estimate, float(whisker.get("x2"))]
    assert places == sorted(places) and len(set(places)) == 5
    assert second.find(f"{svg}text").text == "second"
    assert second.find(f"{svg}line") is None and len(second.findall(f"{svg}circle")) == 1


def test_a_submission_folder_gets_its_row_and_a_samples_none(tmp_path):
    for name, is_sample in (("real", False), ("drawn", True), ("real", False)):
        (tmp_path / name).mkdir(exist_ok=True)
        report = {"run": name, "data": {"source": "path", "is_sample": is_sample}, "cv": {"oof_accuracy": 0.99},
                  "leaderboard_estimate": {"value": 0.98, "low": 0.97, "high": 0.99}}
        ledger.record_submission(tmp_path / name, report)
    (row,) = ledger.read_rows(tmp_path / "ledger.csv")
    assert (row["run"], row["cv_accuracy"], row["estimate"]) == ("real", "0.99", "0.98")
