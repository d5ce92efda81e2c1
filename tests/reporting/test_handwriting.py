"""Groups of similar shape in the test file, and what share of each is by one person."""

import dataclasses
import re

import numpy as np
import pytest

from kit.data.competition import KANNADA
from kit.reporting import report as reporting
from kit.reporting.handwriting import handwriting
from kit.reporting.page import value_at

KNOWN, UNSEEN, ROWS, TEST_ROWS = 24, 8, 160, 2_000


def with_hands(results, own_style):
    """The results, of writers who have a way of their own to write each digit; or one for all, if not `own_style`."""
    rng = np.random.default_rng(3)
    styles = rng.integers(0, 200, (KNOWN + UNSEEN, 10, 7, 7)).repeat(4, 2).repeat(4, 3).reshape(KNOWN + UNSEEN, 10, 784)
    if not own_style:
        styles[:] = styles[0]

    def pictures(writers, labels):
        return (styles[writers, labels] + rng.integers(0, 50, (len(labels), 784))).astype(np.uint8)

    labels, writers = np.tile(np.arange(10), TEST_ROWS // 10), rng.permutation(np.arange(TEST_ROWS) % UNSEEN)
    train, test, folds = results.data.train(), results.data.test(), results.folds
    tables = results.data.tables | {
        "train": dataclasses.replace(train, pixels=pictures(folds.writers, folds.labels)),
        "test": dataclasses.replace(test, pixels=pictures(KNOWN + writers, labels), ids=100 + np.arange(TEST_ROWS))}
    probs = (.9 * np.eye(10)[labels] + .01).astype("float32")
    return dataclasses.replace(results, data=dataclasses.replace(results.data, tables=tables), test=probs,
                               competition=dataclasses.replace(KANNADA, writers_by_difficulty=tuple(range(KNOWN))),
                               members=[dataclasses.replace(member, test=[probs] * len(member.test))
                                        for member in results.members]), writers, labels


@pytest.fixture(scope="module")
def known(make_results):
    return make_results(n_writers=KNOWN, rows=ROWS, skill=30)


@pytest.fixture(scope="module")
def apart(known):
    """Each has a hand of his own: the results, and who wrote each test row."""
    return with_hands(known, own_style=True)


def test_groups_of_hands_that_differ_are_the_people(apart):
    results, writers, labels = apart
    found = handwriting(results)
    assert found["writers"] == 8 and found["held_out_share"] > 0.9 > 0.4 > found["share_by_chance"]
    assert found["scatter"] < 0.2
    for k, groups in enumerate(found["groups"]):
        # k-means may split one person's rows, into groups that may be too small to show
        assert 6 <= len(groups) <= 8 and np.sum(labels == k) >= sum(group["rows"] for group in groups) > 150
        shares = [group["one_writer"] for group in groups]
        assert shares == sorted(shares, reverse=True) and shares[0] > 0.9
        assert len({int(writers[group["examples"][0]["index"]]) for group in groups}) >= 6
        for row in (row for group in groups for row in group["examples"]):
            assert labels[row["index"]] == k and row["id"] == 100 + row["index"]


def test_groups_of_people_who_write_alike_are_no_ones(known):
    found = handwriting(with_hands(known, own_style=False)[0])
    assert found["held_out_share"] == pytest.approx(found["share_by_chance"], abs=0.05)
    assert max(group["one_writer"] for groups in found["groups"] for group in groups) < 0.5


def test_the_same_results_give_the_same_groups(apart):
    assert handwriting(apart[0]) == handwriting(apart[0])


def test_a_group_of_a_few_rows_is_not_shown(apart):
    """Five rows of nobody's style would be a group of their own, and one person's by chance."""
    results, _, labels = apart
    odd, test = np.flatnonzero(labels == 3)[:5], results.data.test()
    pixels = np.array(test.pixels)
    pixels[odd] = 255
    data = dataclasses.replace(results.data, tables=results.data.tables | {
        "test": dataclasses.replace(test, pixels=pixels)})
    shown = handwriting(dataclasses.replace(results, data=data))["groups"][3]
    assert all(group["rows"] >= 10 for group in shown)
    assert sum(group["rows"] for group in shown) <= np.sum(labels == 3) - 5


@pytest.mark.parametrize("pictures", [0, 1, 7])
def test_a_class_of_few_pictures_has_no_groups(apart, pictures, recwarn):
    """Unread, or all alike: k-means would find fewer groups, and warn the user."""
    results, _, labels = apart
    probs, test = results.test.copy(), results.data.test()
    rows, pixels = np.flatnonzero(labels == 3), np.array(test.pixels)
    if pictures:
        pixels[rows] = pixels[rows[np.arange(len(rows)) % pictures]]
    else:
        probs[rows] = probs[labels == 4][0]
    data = dataclasses.replace(results.data, tables=results.data.tables | {
        "test": dataclasses.replace(test, pixels=pixels)})
    found = handwriting(dataclasses.replace(results, data=data, test=probs))
    assert found["groups"][3] == [] and found["groups"][4]
    assert not recwarn.list


def test_it_steps_aside_where_it_cannot_see_writers(apart, known):
    results = apart[0]
    few = np.arange(len(results.folds.rows)) % 10 < 3  # as of a --limit: too few of each writer
    ranked = known.competition.writers_by_difficulty
    for change in (
            {"data": known.data},  # a test file of 300 rows
            {"data": known.data, "test": results.test[:1_999]},
            {"test": None},
            {"data": dataclasses.replace(results.data, is_sample=True)},
            {"competition": dataclasses.replace(results.competition, slug="others-mnist")},
            {"competition": dataclasses.replace(results.competition, writers_by_difficulty=ranked)},  # 47 writers
            {"folds": dataclasses.replace(results.folds, keeps_writers_apart=False)},
            {"folds": dataclasses.replace(results.folds, writers=None)},
            {"oof": np.where(few[:, None], results.oof, np.nan)}):
        assert handwriting(dataclasses.replace(results, **change)) is None, change


def test_the_page_shows_the_groups_with_their_numbers(apart, build):
    results = apart[0]
    report = build(results)
    groups = report["test"]["handwriting"]["groups"]
    groups[3].clear()
    page = reporting.render_report(report, results)
    shown = page[page.index("How each class is written"):page.index("Where the models disagree")]
    assert shown.count("<img") == 3 * sum(map(len, groups))
    assert shown.count("no groups: too few rows") == 1
    assert "8</data> people wrote the test file" in shown
    for value, key in re.findall(r'<data value="([^"]*)" data-key="([^"]*)">', shown):
        assert value == str(value_at(report, key)), key


def test_the_page_says_nothing_of_groups_where_none_are_seen(known, build):
    assert "How each class" not in reporting.render_report(build(known), known)
