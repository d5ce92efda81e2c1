"""Invariants of a split, as scikit-learn tests its own; a golden split; and what cannot be split."""

import re
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.core.errors import KitError
from kit.core.storage import write_text
from kit.data.competition import DIGIT_RECOGNIZER, KANNADA
from kit.data.folds import find_writers, load_folds, make_folds, save_folds
from tests.data.tiny import TINY

CYCLE = (np.arange(200) % 10).astype(np.uint8)  # ten writers of 20 rows in the tiny competition
GOLDEN_WRITERS = [3, 4, 0, 2, 2, 4, 0, 1, 1, 3]
GOLDEN_ROWS = [2, 4, 1, 1, 4, 1, 4, 2, 2, 3, 1, 1, 0, 4, 1, 0, 2, 4, 1, 0]
SHUFFLED = np.random.default_rng(0).permutation(CYCLE)


def check_invariants(folds, labels, n_folds):
    """Each row once, in one fold, with its own label."""
    assert folds.n_folds == n_folds and set(folds.fold) == set(range(n_folds))
    assert folds.rows.dtype == np.int64 and folds.labels.dtype == np.uint8 and folds.fold.dtype == np.int8
    assert (np.diff(folds.rows) > 0).all()
    np.testing.assert_array_equal(folds.labels, labels[folds.rows])
    if folds.keeps_writers_apart:
        for writer in np.unique(folds.writers):
            assert len(set(folds.fold[folds.writers == writer])) == 1


@pytest.mark.parametrize("split", ["auto", "stratified", "writer"])
@pytest.mark.parametrize("n_folds", [2, 3, 5, 10])
def test_invariants(split, n_folds):
    folds = make_folds(CYCLE, TINY, n_folds, split, seed=0)
    check_invariants(folds, CYCLE, n_folds)
    assert folds.split == ("stratified" if split == "stratified" else "writer")
    assert folds.keeps_writers_apart == (split != "stratified")
    sizes = np.bincount(folds.fold)
    assert np.ptp(sizes) <= (20 if folds.keeps_writers_apart else 1)
    for k in range(n_folds):
        shares = np.bincount(folds.labels[folds.fold == k], minlength=10)
        assert np.ptp(shares) <= (0 if folds.keeps_writers_apart else 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=40, max_size=120), st.integers(2, 4), st.integers(0, 5))
def test_invariants_of_any_labels(labels, n_folds, seed):
    labels = np.array(labels + [0, 1, 2, 3] * n_folds, np.uint8)
    folds = make_folds(labels, TINY, n_folds, "auto", seed)
    check_invariants(folds, labels, n_folds)
    for label in range(4):
        assert np.ptp(np.bincount(folds.fold[folds.labels == label], minlength=n_folds)) <= 1


def test_the_same_seed_gives_the_same_split_and_another_another():
    for split in ("writer", "stratified"):
        a, b, c = (make_folds(CYCLE, TINY, 5, split, seed).fold for seed in (3, 3, 4))
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


def test_golden_split():
    """What must not drift: a run's folds are compared with those of other runs."""
    assert make_folds(CYCLE, TINY, 5, "writer", seed=0).fold[::20].tolist() == GOLDEN_WRITERS
    assert make_folds(CYCLE, TINY, 5, "stratified", seed=0).fold[:20].tolist() == GOLDEN_ROWS


def test_kannada_keeps_all_47_writers_apart():
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    folds = make_folds(labels, KANNADA, 5, "auto", seed=0)
    check_invariants(folds, labels, 5)
    assert np.bincount(folds.writers).tolist() == [1280] * 46 + [1120]
    assert np.ptp(np.bincount(folds.fold)) <= 1280
    for k in range(5):
        assert np.ptp(np.bincount(folds.labels[folds.fold == k])) == 0


@pytest.mark.parametrize(("split", "golden"), [("writer", 251566417), ("stratified", 1939650716)])
def test_golden_split_of_the_real_file(split, golden):
    """The same at home and on Kaggle, whatever the versions of NumPy and scikit-learn."""
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    assert zlib.crc32(make_folds(labels, KANNADA, 5, split, seed=0).fold.tobytes()) == golden


# -- the split `harder` --------------------------------------------------------------------------------------------


def test_every_fold_of_harder_is_asked_about_harder_writers_than_it_was_trained_on(tmp_path):
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    folds = make_folds(labels, KANNADA, 3, "harder", seed=0)
    rank = np.argsort(KANNADA.writers_by_difficulty)[folds.writers]
    assert folds.n_folds == 3 and folds.split == "harder" and folds.keeps_writers_apart
    for k in range(3):
        held_out, trained_on = folds.fold == k, folds.trained_on(k)
        assert len(np.unique(folds.writers[held_out])) == 8
        assert np.ptp(np.bincount(labels[held_out])) == 0
        assert rank[held_out].max() < rank[trained_on].min()
        assert held_out.sum() + trained_on.sum() + (rank < 8 * k).sum() == len(labels)
    assert set(KANNADA.writers_by_difficulty[:8]) == set(folds.writers[folds.fold == 0])
    save_folds(tmp_path / "folds.csv", folds)
    read = load_folds(tmp_path / "folds.csv")
    assert read.split == "harder" and read.keeps_writers_apart and read.n_folds == 3
    np.testing.assert_array_equal(read.trained_on(1), folds.trained_on(1))


def test_harder_with_a_limit_keeps_every_writer_in_their_fold():
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    whole, part = (make_folds(labels, KANNADA, 3, "harder", 0, limit) for limit in (None, 94))
    np.testing.assert_array_equal(part.fold, whole.fold[part.rows])


@pytest.mark.parametrize(("n_folds", "limit", "writer_block", "problem"), [
    (4, None, None, "would leave too few easier ones"), (3, 5, None, "without some class"),
    (3, None, 1000, "not known how hard")])
def test_harder_folds_that_cannot_be_made(n_folds, limit, writer_block, problem):
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    with pytest.raises(KitError, match=problem):
        make_folds(labels, KANNADA, n_folds, "harder", 0, limit, writer_block)
    with pytest.raises(KitError, match="not known how hard"):
        make_folds(SHUFFLED, TINY, 3, "harder", seed=0)


# -- who wrote what -------------------------------------------------------------------------------------------------


def test_writers_are_known_where_labels_cycle_in_blocks():
    assert find_writers(CYCLE, TINY).tolist() == np.repeat(np.arange(10), 20).tolist()
    assert find_writers(CYCLE[:50], TINY).tolist() == [0] * 20 + [1] * 20 + [2] * 10
    assert find_writers(CYCLE, TINY, writer_block=100).tolist() == [0] * 100 + [1] * 100


@pytest.mark.parametrize("labels", [SHUFFLED, np.roll(CYCLE, 1), np.sort(CYCLE), np.tile(CYCLE, 2), CYCLE % 5])
def test_writers_are_not_made_up(labels):
    assert find_writers(labels, TINY) is None
    folds = make_folds(labels, TINY, 5, "auto", seed=0)
    assert folds.split == "stratified" and not folds.keeps_writers_apart and folds.writers is None
    with pytest.raises(KitError, match="does not show who wrote what"):
        make_folds(labels, TINY, 5, "writer", seed=0)


def test_one_label_out_of_turn_is_enough_not_to_trust_the_blocks():
    labels = CYCLE.copy()
    labels[-1] = 0
    assert find_writers(labels, TINY) is None


def test_a_competition_without_writers_has_none():
    assert find_writers(CYCLE, DIGIT_RECOGNIZER) is None
    assert make_folds(CYCLE, DIGIT_RECOGNIZER, 5, "auto", seed=0).split == "stratified"


def test_a_stratified_split_still_knows_the_writers():
    assert make_folds(CYCLE, TINY, 5, "stratified", seed=0).writers.max() == 9


def test_a_single_writer_is_split_by_label():
    folds = make_folds(CYCLE[:20], TINY, 2, "auto", seed=0)
    check_invariants(folds, CYCLE, 2)
    assert not folds.keeps_writers_apart


# -- a quick look ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [2, 3, 5, 10, 11, 19])
@pytest.mark.parametrize("labels", [CYCLE, SHUFFLED])
def test_limit_takes_as_many_rows_of_each_class_from_all_over_the_file(limit, labels):
    folds = make_folds(labels, TINY, 2, "auto", seed=0, limit=limit)
    check_invariants(folds, labels, 2)
    assert np.bincount(folds.labels).tolist() == [limit] * 10


@pytest.mark.parametrize("limit", [2, 5, 10, 15, 20])
def test_limit_spreads_over_the_writers(limit):
    folds = make_folds(CYCLE, TINY, 2, "auto", seed=0, limit=limit)
    np.testing.assert_array_equal(folds.writers, folds.rows // 20)
    counts = np.bincount(folds.writers, minlength=10)
    assert np.ptp(counts) <= 10  # one row more of each class
    assert np.count_nonzero(counts) == min(limit, 10)


def test_a_limit_above_all_rows_takes_all():
    folds = make_folds(CYCLE, TINY, 5, "auto", seed=0, limit=1000)
    np.testing.assert_array_equal(folds.rows, np.arange(200))


def test_limit_on_a_rare_class_takes_what_there_is():
    labels = np.array([0] * 90 + [1] * 5, np.uint8)
    assert np.bincount(make_folds(labels, TINY, 5, "auto", seed=0, limit=20).labels).tolist() == [20, 5]


# -- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "pattern", "fix"), [
    ({"n_folds": 1}, "1 fold cannot hold anything out", "--folds 5"),
    ({"n_folds": 0}, "0 folds", "--folds 5"),
    ({"n_folds": -3}, "-3 folds", "--folds 5"),
    ({"n_folds": 11}, "11 folds, but only 10 writers", "use --folds 10 or fewer, or use --split stratified"),
    ({"n_folds": 21}, "21 folds, but only 10 writers", "use --folds 10 or fewer"),
    ({"n_folds": 21, "split": "stratified"}, "21 folds, but class 0 has only 20 rows", "use --folds 20 or fewer"),
    ({"n_folds": 128, "labels": np.tile(CYCLE, 10)}, "128 folds are too many", "--folds 127"),
    ({"n_folds": 10**9}, "1000000000 folds, but only 10 writers", "--folds 10 or fewer"),
    ({"n_folds": 11, "split": "writer"}, "11 folds, but only 10 writers", "use --folds 10"),
    ({"limit": 0}, "a limit of 0 rows", "--limit 5"),
    ({"limit": -1}, "a limit of -1 rows", "--limit 5"),
    ({"limit": 1}, "5 folds, but only 1 writer to keep apart left by --limit", "use --limit 10 or more"),
    ({"limit": 1, "split": "stratified"}, "5 folds, but class 0 has only 1 row left by --limit", "use --limit 10"),
    ({"limit": 4}, "5 folds, but only 4 writers", "use --folds 4 or fewer, or use --limit 10 or more"),
    ({"limit": 15, "n_folds": 21, "split": "stratified"}, "only 15 rows left by --limit", "use --folds 15 or fewer"),
    ({"labels": np.array([0] * 50 + [1], np.uint8)}, "5 folds, but class 1 has only 1 row", "two rows of each class"),
    ({"labels": CYCLE[:20], "split": "writer", "n_folds": 2}, "2 folds, but only 1 writer ", "use --split stratified"),
    ({"labels": np.array([0] * 50 + [1] * 3, np.uint8)}, "5 folds, but class 1 has only 3 rows", "use --folds 3"),
    ({"split": "random"}, "no split 'random'", "auto, stratified, writer"),
])
def test_impossible_splits(options, pattern, fix):
    options = {"labels": CYCLE, "n_folds": 5, "split": "auto", "seed": 0} | options
    with pytest.raises(KitError, match=pattern) as caught:
        make_folds(competition=TINY, **options)
    assert fix in caught.value.fix
    names = {"folds": "n_folds", "limit": "limit", "split": "split"}
    for name, value in re.findall(r"--(folds|limit|split) (\w+)", caught.value.fix):  # each that is advised is possible
        make_folds(competition=TINY, **options | {names[name]: int(value) if value.isdigit() else value})


# -- folds.csv ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["writer", "stratified"])
@pytest.mark.parametrize("limit", [None, 7])
def test_folds_csv_round_trip(tmp_path, split, limit):
    folds = make_folds(CYCLE, TINY, 3, split, seed=1, limit=limit)
    save_folds(tmp_path / "folds.csv", folds)
    assert (tmp_path / "folds.csv").read_text().startswith("row,label,writer,fold\n0,0,0,")
    again = load_folds(tmp_path / "folds.csv")
    for name in ("rows", "labels", "writers", "fold"):
        a, b = getattr(folds, name), getattr(again, name)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert (again.split, again.keeps_writers_apart) == (folds.split, folds.keeps_writers_apart)


def test_unknown_writers_round_trip(tmp_path):
    save_folds(tmp_path / "folds.csv", make_folds(SHUFFLED, TINY, 3, "auto", seed=1))
    assert (tmp_path / "folds.csv").read_text().splitlines()[1].split(",")[2] == "-1"
    assert load_folds(tmp_path / "folds.csv").writers is None


HEADER = "row,label,writer,fold\n"


@pytest.mark.parametrize(("text", "pattern"), [
    ("", "CSV"), (HEADER, "not a table of whole numbers"), ("row,label,fold\n0,0,0\n1,0,1\n", "whole numbers"),
    (HEADER + "0,0,0,0\n1,x,0,1\n", "whole numbers"), (HEADER + "0,0,0,0\n1,,0,1\n", "whole numbers"),
    (HEADER + "1,0,0,0\n0,0,0,1\n", "ascend"), (HEADER + "0,0,0,0\n0,0,0,1\n", "ascend"),
    (HEADER + "-1,0,0,0\n0,0,0,1\n", "ascend"), (HEADER + "0,0,0,0\n1,0,0,2\n", "numbered"),
    (HEADER + "0,0,0,0\n1,0,0,0\n", "numbered"), (HEADER + "0,0,0,-1\n1,0,0,0\n", "numbered"),
])
def test_a_damaged_folds_csv_is_refused(tmp_path, text, pattern):
    write_text(tmp_path / "folds.csv", text)
    with pytest.raises(KitError, match=pattern):
        load_folds(tmp_path / "folds.csv")
