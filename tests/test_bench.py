"""The benchmark's list is sound, its tables say what was measured and what not, and with tiny sizes it runs."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kit.core.errors import KitError
from kit.data import source
from kit.data.competition import KANNADA

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def scripts(monkeypatch):
    """bench, bench_page and bench_rows, as the scripts see each other."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return [importlib.import_module(name) for name in ("bench", "bench_page", "bench_rows")]


@pytest.fixture
def bench(scripts):
    return scripts[0]


@pytest.fixture
def page(scripts):
    return scripts[1]


def test_every_row_can_be_measured(scripts):
    bench, _, rows = scripts
    assert len({row.id for row in bench.ROWS}) == len(bench.ROWS)
    assert list(dict.fromkeys(row.group for row in bench.ROWS)) == list(bench.GROUPS)
    for row in bench.ROWS:
        known = inspect.signature(rows.MEASURES[row.measure]).parameters
        assert set(row.options) <= set(known), row.id
        assert "threads" in known or row.copies == 1, row.id


def test_only_some(bench):
    assert [row.id for row in bench.chosen("read/kit,peak")] == ["peak/float32", "peak/bfloat16", "read/kit"]
    assert {row.group for row in bench.chosen("r*")} == {"read", "race", "rows"}
    with pytest.raises(KitError, match="no row of the benchmark is called 'raed'") as caught:
        bench.chosen("raed")
    assert "race" in caught.value.fix


def test_the_longest_rows_are_measured_only_by_name(bench):
    assert "whole/strong" not in [row.id for row in bench.chosen(None)]
    assert "rows/600000" not in [row.id for row in bench.chosen("rows")]
    assert [row.id for row in bench.chosen("whole/strong")] == ["whole/strong"]


def entry(*values, **more):
    return {"rounds": [{"value": value, "peak_mib": 100 + value, "round": i, **more} for i, value in enumerate(values)]}


def results(**rows):
    machine = {"cpu": "a CPU", "cpu_cores": 2, "gpus": [], "python": "3.11", "versions": {"keras": "3"}, "quick": False,
               "sample": False}
    return {"machine": machine, "measured": "2026-11-21",
            "rows": {name.replace("_", "/"): row for name, row in rows.items()}}


def lines(bench, page, found):
    rows = [bench.Row("train/slow", "slow", "", "images/s"), bench.Row("train/fast", "fast", "", "images/s")]
    text = page.tables(rows, {"train": "Training"}, found)
    return [line for line in text.splitlines() if line.startswith(("| slow", "| fast"))]


def test_a_row_without_a_number_says_so(bench, page):
    absent = {"rounds": [], "not measured": "not measured: torch is not installed"}
    assert lines(bench, page, results(train_fast=absent)) == [
        "| slow | not measured yet | | | | | |", "| fast | not measured: torch is not installed | | | | | |"]
    assert "Nothing has been measured yet" in page.tables([], {}, {"machine": {}, "rows": {}})


def test_medians_spreads_and_ratios_within_rounds(bench, page):
    fast = entry(2000, 300, 2400, flops=5e8, precision="bfloat16")
    found = results(train_slow=entry(1000, 100, 1200), train_fast=fast, peak_bfloat16=entry(2.0, 4.0))
    assert lines(bench, page, found) == ["| slow | 1,000 images/s | 100 – 1,200 |  |  | 1,300 | 3 |",
                                         "| fast | 2,000 images/s | 300 – 2,400 | 2.00 | 25% | 2,500 | 3 |"]


def test_fewer_seconds_are_faster(bench, page):
    rows = [bench.Row("cv/a", "a", "", "s"), bench.Row("cv/b", "b", "", "s")]
    text = page.tables(rows, {"cv": "CV"}, results(cv_a=entry(30.0), cv_b=entry(12.0, accuracy=0.97561)))
    assert "| b: accuracy 0.9756 | 12 s | 12 – 12 | 2.50 |  | 112 | 1 |" in text


def test_the_page_keeps_what_was_written_by_hand(page, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"before\n{page.BEGIN}old\n{page.END}after\n")
    page.put(path, "new \\1\n")
    assert path.read_text() == f"before\n{page.BEGIN}new \\1\n{page.END}after\n"
    path.write_text("no markers")
    with pytest.raises(KitError, match="no place for the tables"):
        page.put(path, "new")
    assert path.read_text() == "no markers"


def test_numbers_of_two_machines_are_not_mixed(bench, tmp_path):
    (tmp_path / "out.json").write_text(json.dumps(results()))
    assert bench.earlier(tmp_path / "out.json", results()["machine"])["rows"] == {}
    with pytest.raises(KitError, match="measured on another machine"):
        bench.earlier(tmp_path / "out.json", {**results()["machine"], "cpu": "another"})


def test_the_page_in_the_docs_shows_the_numbers_beside_it(bench, page):
    found = json.loads(bench.JSON.read_text()) if bench.JSON.is_file() else {"machine": {}, "rows": {}}
    made = page.BEGIN + page.tables(bench.ROWS, bench.GROUPS, found) + page.END
    assert made in bench.PAGE.read_text("utf-8"), "make it again: python scripts/bench.py --tables"


def test_a_measurement_that_fails_is_a_row_that_says_why(bench, tmp_path):
    row = bench.Row("read/kit", "", "read", "s", {"how": "kit"})
    found = {"unit": "s", "rounds": []}
    bench.measure(row, "now, 1", tmp_path, False, found)
    assert "not measured: it failed (FileNotFoundError" in found["not measured"] and found["rounds"] == []


@pytest.mark.slow
def test_a_quick_run_on_the_sample(tmp_path):
    source.download(KANNADA, "sample", tmp_path / "data")
    rows = {"peak/bfloat16", "read/cached", "train/tutorial", "train/cnn_aug-per-core",
            "overhead/strong", "overhead/bookkeeping", "race/tutorial-6", "race/cnn-4", "predict/cnn-3", "cv/processes",
            "workers/2"}
    done = subprocess.run([sys.executable, ROOT / "scripts" / "bench.py", "--quick", "--rounds", "1", "--data-dir",
                           tmp_path / "data", "--out", tmp_path / "out.json", "--page", tmp_path / "page.md", "--only",
                           ",".join(rows)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found["rows"]) == rows and found["machine"]["quick"] and found["machine"]["sample"]
    for name, row in found["rows"].items():
        assert "not measured" not in row and (row["rounds"][0]["value"] > 0 or row["unit"] == "%"), (name, row)
        assert row["rounds"][0]["peak_mib"] > 50
    page = (tmp_path / "page.md").read_text("utf-8")
    assert "Tiny sizes" in page and "drawn sample" in page and "not measured yet" in page
    assert done.stdout.strip() in page
    assert "| cnn_aug, bfloat16, a process per core |" in page
