"""Report and comparison at the competition's own size: 60,160 rows of 47 writers, in their order."""

import numpy as np
import pytest

from kit.reporting import compare as comparing

WRITERS, ROWS = 47, 1280


@pytest.fixture(scope="module")
def full(make_results):
    return make_results(name="full", n_writers=WRITERS, rows=ROWS, skill=7.0)


def test_every_row_counts_once_in_every_number(full, build):
    report, n = build(full), WRITERS * ROWS
    right = full.oof.argmax(1) == full.folds.labels
    assert report["data"]["rows_used"] == report["cv"]["rows"] == n
    assert np.array(report["confusion"]).sum(1).tolist() == [n // 10] * 10
    assert [entry["rows"] for entry in report["per_writer"]] == [ROWS] * WRITERS
    assert [entry["mistakes"] for entry in report["per_writer"]] == (
        ROWS - right.reshape(WRITERS, ROWS).sum(1)).tolist()
    assert sum(entry["rows"] for entry in report["calibration"]["bins"]) == n
    by_fold = [right[full.folds.fold == k].mean() for k in range(5)]
    assert report["cv"]["fold_accuracy"] == pytest.approx(by_fold)
    # writers are not alike, so the interval over them is wider than that of as many rows alone
    low, high = report["cv"]["ci95"]
    assert high - low > 2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / n)


def test_a_difference_of_a_thousandth_is_seen_and_one_writer_s_luck_is_not(
        full, tmp_path, submission):
    """The probs of b are those of a, but for some rows that a reads right."""
    right = np.flatnonzero(full.oof.argmax(1) == full.folds.labels)
    worse = {"everywhere": right[::1000], "one writer": right[full.folds.writers[right] == 46][:60]}
    a, found = submission(tmp_path / "a", full), {}
    for name, rows in worse.items():
        probs = full.oof.copy()
        probs[rows] = np.roll(probs[rows], 1, axis=1)
        b = submission(tmp_path / name, full, probs=probs)
        found[name] = comparing.compare(a, b)["paired"]
        assert found[name]["rows"]["difference"] == pytest.approx(len(rows) / len(full.oof), abs=2e-4)
        assert found[name]["rows"]["p"] < 0.001
    assert found["everywhere"]["writers"]["p"] < 0.001 < 0.3 < found["one writer"]["writers"]["p"]
